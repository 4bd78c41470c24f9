"""What the face needs of a kind of signal: facts, read without torch, and verbs, in the module that `coding` loads.

A kind is a room of `latentzip.signals`. Its `__init__` holds the facts, its `coding` the verbs:

    kind = signals.of(header)             # decided once
    kind.suffix(header)                   # ".png": a fact
    kind.coding.decode(stream, wanted)    # a picture: a verb
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast

from ..entropy.container import DEFAULT_LIMITS, Container, Header, Limits
from ..entropy.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ..codecs.base import Precision
    from ..codecs.contract import AnyCodec

Output = Literal["signal", "latent", "pil", "numpy", "tensor"]
OUTPUTS = ("signal", "latent", "pil", "numpy", "tensor")
Region = tuple[int, int, int, int]
ValueRange = Literal["auto"] | tuple[float, float] | None
Progress = Callable[[float, float], None]  # how much is done, and all
METADATA = ("auto", "all", "none")


def check_range(value_range: Any) -> None:
    """Raises InputError unless this is None, "auto", or two finite numbers in order."""
    if value_range is None or (isinstance(value_range, str) and value_range == "auto"):
        return
    try:
        low, high = (float(v) for v in value_range)
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return
    except (TypeError, ValueError):
        pass
    raise InputError(f"value_range is {value_range!r}; 'auto', or two numbers (low, high) with low < high")


@dataclass(frozen=True)
class About:
    """What is said about a signal beside its codec's options: arguments of `latentzip.encode`.

    Attributes:
        name: of an open file, for messages.
    """

    metadata: str = "auto"
    value_range: ValueRange = None
    name: str | None = None

    def __post_init__(self) -> None:
        check_range(self.value_range)
        if self.metadata not in METADATA:
            raise InputError(f"metadata is {self.metadata!r}; one of {', '.join(METADATA)}")


@dataclass(frozen=True)
class Wanted:
    """What is asked of a stream: arguments of `latentzip.decode`."""

    to: Output = "signal"
    region: Sequence[int] | None = None
    span: tuple[float, float] | None = None
    channels: int | None = None
    device: str = "cpu"
    codec: AnyCodec | None = None
    precision: Precision = "fp32"
    limits: Limits = DEFAULT_LIMITS


class Ready:
    """A signal that is ready to be coded, as often as it takes."""

    psnr: Callable[[bytes], float] | None = None  # of a stream of the signal, in dB, where its kind has one

    def encode(self, options: dict[str, Any]) -> Any:
        """The bytes of a stream; a list of them for a batch that the codec takes in one pass."""
        raise NotImplementedError

    def write(self, out: BinaryIO, options: dict[str, Any], progress: Progress | None = None) -> None:
        """The same into an open file; ``progress`` is told of what is coded piece by piece."""
        out.write(self.encode(options))


class Coding(Protocol):
    """The verbs of a kind: the functions of a module."""

    def holds(self, x: Any) -> bool:
        """Whether an object, a path or an open file is of this kind for certain."""
        ...

    def parts(self, x: Any, codec: AnyCodec) -> Any:
        """The signals of a batch; None for one signal, or for a batch that the codec takes as it is."""
        ...

    def refuse(self, about: About, target: str, codec: AnyCodec) -> None:
        """Raises InputError for what makes no sense of this kind; ``target`` is an argument's name, or empty."""
        ...

    def ready(self, x: Any, codec: AnyCodec, about: About) -> Ready:
        """One object, path or open file as the codec takes it, and what a header has to remember of it.

        Raises:
            InputError: a signal that cannot be coded; the text says what to do.
            OSError: a file cannot be read.
        """
        ...

    def decode(self, stream: Container, wanted: Wanted) -> Any:
        """What `latentzip.decode` returns for a stream; errors as there."""
        ...

    def array(self, stream: Container, wanted: Wanted) -> np.ndarray:
        """What a ``.npy`` file of a stream, or of its latent, holds."""
        ...

    def write(
        self, stream: Container, out: BinaryIO, suffix: str, wanted: Wanted, progress: Progress | None = None
    ) -> None:
        """Decode into an open file of the format that a suffix asks for.

        Raises:
            InputError: no such format for this kind.
        """
        ...

    def verify(self, stream: Container) -> None:
        """Entropy-decode everything, and unpack what lies beside it; raises as `decode` does."""
        ...


class Kind:
    """The facts of a kind.

    Attributes:
        name: what headers and codecs call it.
        noun, one: many of them and one, in words.
        suffixes: what a folder is searched for; files named one by one are recognised by their content.
        codec: what `latentzip.encode` takes when none is named; empty where one has to be.
        rate, rate_label, speed_unit: of its measurements.
        module: of the verbs.
    """

    name: str
    noun: str
    one: str
    suffixes: frozenset[str]
    codec = ""
    rate: str
    rate_label: str
    speed_unit: str
    module: str

    @property
    def coding(self) -> Coding:
        """The verbs; this loads torch."""
        return cast("Coding", import_module(self.module, __package__))

    def suffix(self, header: Header) -> str:
        """Extension under which a stream is decoded: the plainest format that holds its signal in full."""
        raise NotImplementedError

    def shape(self, header: Header, region: Sequence[int] | None, span: Sequence[float] | None) -> list[int]:
        """The shape of what is decoded: of the whole, or of the part that is asked for."""
        raise NotImplementedError

    def positions(self, header: Header) -> int:
        """What bits are divided by: pixels, samples of a channel, values."""
        return math.prod(header.shape[1:])

    def seconds(self, header: Header) -> float:
        """The length of a signal that lasts; 0 of others."""
        return 0.0

    def extent(self, header: Header) -> dict[str, Any]:
        """What target rates are counted against: ``pixels``, ``seconds``, or nothing."""
        return {}

    def quality(self, params: bytes) -> int | None:
        """Quality in a codec's parameters; None where there is none, or in a layout of the codec's own."""
        # the three bytes of codecs.base: version, quality, chunk unit
        return params[1] if len(params) == 3 and params[0] in (1, 2) and 1 <= params[1] <= 100 else None

    def units(self, shape: Sequence[int], rate: int) -> float:
        """What an evaluation divides bits by, of an array of this kind: values."""
        return math.prod(shape)

    def amount(self, units: float, num_bytes: int) -> float:
        """What it counts a second, in `speed_unit`: megabytes."""
        return num_bytes / 1e6

    def words(self, shape: Sequence[int], rate: int) -> str:
        """The size of a decoded signal, for people."""
        return " x ".join(map(str, shape))


def refuse_span(wanted: Wanted) -> None:
    """Raises InputError for a span of what is no sound."""
    if wanted.span is not None:
        raise InputError("span is for sound; pictures and tensors take region")
