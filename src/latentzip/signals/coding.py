"""The verbs of a kind of signal: what a room's module `coding` has, and what is said and asked with them.

coding = signals.of(header).coding
coding.decode(stream, Wanted(to="numpy"))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from ..entropy.container import DEFAULT_LIMITS, Container, Limits
from ..entropy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..codecs.contract import AnyCodec
    from ..codecs.precision import AnyPrecision

Output = Literal["signal", "latent", "tokens", "pil", "numpy", "tensor"]
OUTPUTS = ("signal", "latent", "tokens", "pil", "numpy", "tensor")
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
    precision: AnyPrecision = "auto"
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


def integers(x: Tensor, wanted: Wanted) -> np.ndarray:
    """A latent as it is, tokens as uint16, which holds the numbers of every codebook."""
    return x.numpy().astype("uint16") if wanted.to == "tokens" else x.numpy()


def refuse_tokens(wanted: Wanted, name: str) -> None:
    """Raises InputError where tokens are asked of a codec that has none."""
    if wanted.to == "tokens":
        raise InputError(f"{name} has no tokens: its integers are to='latent'; streams of vq and vq-audio have tokens")


def refuse_span(wanted: Wanted) -> None:
    """Raises InputError for a span of what is no sound."""
    if wanted.span is not None:
        raise InputError("span is for sound; pictures and tensors take region")
