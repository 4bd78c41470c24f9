"""What a pack asks of a kind of signal: pictures, sound and tensors answer it in a module each.

file -> load -> pieces -> encode -> row          writing
streams -> arrays | signals                      reading: what is stacked, or what was coded
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...codecs.contract import CODING, EXACT, LATENT
from ...entropy import container
from ...entropy.container import Container
from ...entropy.errors import FormatError, InputError

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = ("keep", "mono", "stereo")
SHORT = ("pad", "drop")
MAX_SHAPES = 1000  # shapes that a manifest counts one by one
_ALWAYS = ("codec", "fingerprint", "quality", "coding", "size", "crop", "mirror", "shuffle")


@dataclass(frozen=True)
class Options:
    """What is done to every sample of a stream; decides the bytes.

    Attributes:
        more: what else the codec was asked for, by name.
        size, crop: of pictures.
        seconds, rate, channels, short: of sound: the length of an excerpt, the sampling rate in Hz, how many channels,
            and what becomes of the last excerpt of a file.
    """

    codec: str
    fingerprint: str
    quality: int | None
    coding: str
    size: int | None
    crop: str
    mirror: bool
    shuffle: int | None = None
    effort: int = 0
    more: tuple[tuple[str, Any], ...] = ()
    seconds: float | None = None
    rate: int | None = None
    channels: str = "keep"
    short: str = "pad"

    def facts(self) -> dict[str, Any]:
        """For the plan: what is not as it is left alone, so that plans of older releases keep their hash."""
        return {k: v for k, v in asdict(self).items() if k in _ALWAYS or v != getattr(Options, k)}

    def said(self) -> dict[str, Any]:
        """The options of the codec; None where nothing is asked."""
        coding = None if self.coding == CODING.default else self.coding
        return {"quality": self.quality, "coding": coding, "effort": self.effort or None, **dict(self.more)}


@dataclass(frozen=True)
class Piece:
    """A signal that becomes one sample.

    Attributes:
        suffix: what its key has beyond that of its source; empty where a source is one sample.
        signal: as `Modality.encode` takes it.
        facts: its columns, as far as the signal decides.
        refused: why it can be no sample; empty where it can.
    """

    suffix: str
    signal: Any
    facts: tuple[Any, ...]
    refused: str = ""


@dataclass(frozen=True)
class Table:
    """The arrays of a pack: their dtype, None where it differs, and their one shape, None where they differ."""

    dtype: str | None
    shape: tuple[int, ...] | None


class Modality(ABC):
    """See the module's text.

    Attributes:
        name: as in headers and manifests.
        noun, one: many of them and one, in words.
        suffixes: of files that a folder is searched for.
        columns: what a sample has beside key and label -> dtype.
        shape_columns: those of them that say the shape of an array.
        output: what arrays are for a loader: ``"latent"`` or ``"signal"``.
        feature: of Hugging Face columns; empty where there is none.
        formats: suffixes that `unpack` writes where one is asked for.
    """

    name: str
    noun: str
    one: str
    suffixes: frozenset[str]
    columns: ClassVar[Mapping[str, str]]
    shape_columns: tuple[str, ...]
    output: str
    feature: str
    formats: tuple[str, ...]

    # --- writing -------------------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, options: Options) -> None:
        """Raises InputError for options that make no sense of this kind."""

    @abstractmethod
    def specimen(self, codec: Any) -> Any:
        """A small signal, on which a codec shows that it takes its options; None where there is none."""

    @abstractmethod
    def load(self, data: bytes, name: str, options: Options, codec: Any) -> Any:
        """What an encoded file holds, as `pieces` takes it.

        Raises:
            InputError: not such a file, or a damaged one.
        """

    @abstractmethod
    def accept(self, x: Any) -> Any:
        """What a user hands in, as `pieces` takes it; raises InputError: not of this kind."""

    @abstractmethod
    def pieces(self, x: Any, options: Options, codec: Any) -> Iterator[Piece]:
        """The samples that one source gives."""

    @abstractmethod
    def encode(self, signal: Any, options: Options, codec: Any) -> bytes:
        """A piece's signal -> a `.ltz` stream."""

    @abstractmethod
    def shape_row(self, piece: Piece, blob: bytes, codec: Any) -> tuple[Any, ...]:
        """The values of `shape_columns` of a sample."""

    def mirrored(self, signal: Any) -> Any:
        """Left and right exchanged."""
        raise InputError(f"{self.noun} have no mirrored twins: mirror is for pictures")

    @abstractmethod
    def describe(self, columns: Mapping[str, np.ndarray], options: Options, codec: Any) -> dict[str, Any]:
        """``latent`` and ``signal`` of a manifest."""

    @abstractmethod
    def bytes_of(
        self, options: Options, num_bytes: Sequence[int], names: Sequence[str], rates: Mapping[str, Any]
    ) -> float:
        """Bytes that a source's streams will take in the mean, guessed from names and sizes alone.

        Args:
            rates: what the codec is known to need, as `list_codecs` says.
        """

    # --- reading -------------------------------------------------------------------------------------------------

    def table(self, facts: Mapping[str, Any]) -> Table | None:
        """What arrays a stream of a manifest has, its latents; None where it has only signals."""
        latent = facts["latent"]
        if latent is None:
            return None
        return Table(latent["dtype"], None if latent["fixed_shape"] is None else tuple(latent["fixed_shape"]))

    def shape_texts(self, columns: Sequence[np.ndarray]) -> list[str]:
        """The shapes that a manifest counts, a text for each sample; of `shape_columns`."""
        return ["x".join(map(str, row)) for row in zip(*(column.tolist() for column in columns))]

    def shape_text(self, fixed: Sequence[int]) -> str:
        """The same of a manifest's one shape."""
        return "x".join(map(str, fixed))

    @abstractmethod
    def check_codec(self, facts: Mapping[str, Any], codec: Any) -> None:
        """Raises FormatError where a manifest contradicts its codec."""

    @abstractmethod
    def arrays(
        self,
        blobs: Sequence[bytes],
        codec: Any,
        threads: int,
        table: Table,
        spans: Sequence[tuple[int, int]] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Decode a batch over threads: (B, ...) where the table has a shape, else a list.

        Args:
            spans: of sound: the frames (start, stop) of each; only their chunks are decoded.

        Raises:
            FormatError: a stream is damaged, of another codec, or of another shape.
        """

    @abstractmethod
    def signals(
        self, blobs: Sequence[bytes], codec: Any, threads: int, spans: Sequence[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        """Streams -> signals, on the codec's device."""

    def tokens(self, blobs: Sequence[bytes], codec: Any, threads: int) -> list[Tensor]:
        """Streams -> tokens uint16, of kinds without latents."""
        raise InputError(f"streams of {self.noun} have no tokens beside their latents")

    @abstractmethod
    def check_stream(self, blob: bytes, codec: Any, row: tuple[Any, ...] | None) -> str | None:
        """Decode one stream all the way; what is wrong with it in words, where ``row`` are its `shape_columns`."""


def keeps_signals(codec: Any) -> bool:
    """Whether packs of a codec hold signals and no latents: it is exact, or its latent is of no one shape."""
    return EXACT in codec.capabilities or LATENT not in codec.capabilities


def opened(blob: bytes, codec: Any, modality: str, fingerprint: bytes) -> Container:
    """The stream of a record; raises FormatError where another codec made it."""
    stream = container.read(blob)
    header = stream.header
    if header.codec != codec.name or header.fingerprint != fingerprint:
        raise FormatError(
            f"a stream of {header.codec} ({header.fingerprint.hex()}) in a data set of {codec.name} "
            f"({fingerprint.hex()}): the pack is damaged, check it with codec-cli verify"
        )
    if header.modality != modality:
        raise FormatError(f"a stream of {header.modality} {header.shape} that claims to be of {codec.name}: damaged")
    return stream


def check_shape(found: Sequence[int], expected: Sequence[int]) -> None:
    """Raises FormatError when an array has another shape than all are said to have."""
    if tuple(found) != tuple(expected):
        raise FormatError(f"a latent of shape {tuple(found)} in a data set of {tuple(expected)}: the manifest is wrong")


def common_shapes(texts: Sequence[str]) -> dict[str, int]:
    """How often each shape occurs, the commonest first, no more than a manifest counts."""
    from collections import Counter

    return dict(sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))[:MAX_SHAPES])


def spread(count: int, threads: int) -> list[range]:
    """0..count-1 in as many parts as there are threads, none of them empty."""
    edges = [count * i // max(threads, 1) for i in range(max(threads, 1) + 1)]
    return [range(a, b) for a, b in zip(edges, edges[1:]) if a < b]
