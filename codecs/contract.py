"""What the face of the package needs of any codec: who it is, which options it takes, two verbs, what it can do.

A family says its options once, in an `options` module that needs no torch. `latentzip.encode` passes them on,
`codec-cli encode` makes its arguments of them:

    EFFORT = Option("effort", "int", "how long to search: 0 is one pass", default=0, low=0, high=9)

`base.Codec` and `audio_base.AudioCodec` implement this contract for codecs on a grid of latents; a codec with ways of
its own implements it directly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..entropy.errors import InputError
from ..entropy.numbers import plain

if TYPE_CHECKING:
    from torch import Tensor

    from ..entropy.container import Header

# what a codec may be able to do beside coding whole signals; `AnyCodec.capabilities` holds some of these
LATENT = "latent"  # `restore(to="latent")`
TOKENS = "tokens"  # `restore(to="tokens")`: numbers of codewords
REGION = "region"  # `restore(region=...)`: of pictures four integers, of tensors two
SPAN = "span"  # `restore(span=...)`, in samples
CHANNELS = "channels"  # `restore(channels=...)`
STREAMING = "streaming"  # of sound: `open_encoder` and `open_decoder`, which hold a few chunks at a time
BATCH = "batch"  # `compress_batch` of several signals of one size, in one pass
GREY = "grey"  # `compress` of a picture takes one channel of a grey one as it is
PARTS = "parts"  # `compress` of a picture takes `samples.Samples`, which read part by part, too
INTEGERS = "integers"  # `restore(dtype=...)` of a picture: rounded to uint8 or uint16, channels last in memory
EXACT = "exact"  # takes and gives the integers of a signal: pictures (C, H, W) uint8 or uint16 as arrays
FAST = "fast"  # chunks that `entropy.blocks` codes

Kind = Literal["int", "float", "bool", "str", "choice", "object"]


@dataclass(frozen=True)
class Option:
    """One thing that can be said about how to encode.

    Attributes:
        name: the argument of `latentzip.encode`; on the command line ``--name``, with dashes.
        kind: "object" is anything that Python can hold, such as a function or a map of weights.
        help: one line.
        default: what counts when nothing is said.
        low, high: ends of a range, both included.
        above: instead of low, what a number has to be larger than.
        choices: of a "choice"; of a "str" those that the command line offers.
        metavar: what stands for the value in the help of the command line.
        flag: a short form on the command line, such as ``-q``.
        goal: of the options of one codec that are goals, one can be given.
        needs: attribute of the codec that has to be true for the option to apply, such as ``variable_rate``.
        load: of an object: ``"package.module:function"`` that makes it of the text on the command line, a path; an
            object without it has no form there.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    flag: str = ""
    goal: bool = False
    needs: str = ""
    load: str = ""

    @property
    def argument(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def range(self) -> str:
        """Its range in words; empty where there is none."""
        if self.above is not None:
            return f"above {self.above:g}" + (f", up to {self.high:g}" if self.high is not None else "")
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"from {self.low:g}"
        return f"up to {self.high:g}" if self.low is None else f"from {self.low:g} to {self.high:g}"

    def holds(self, value: Any) -> bool:
        """Whether a number lies in the range."""
        lowest = (self.low is None or value >= self.low) and (self.above is None or value > self.above)
        return lowest and (self.high is None or value <= self.high)

    def checked(self, value: Any, codec: str) -> Any:
        """The value as the codec takes it; InputError says what is wrong with it."""
        if self.kind != "object":
            value = plain(value)
        if self.kind in ("int", "float"):
            if isinstance(value, bool) or not isinstance(value, Real):
                wanted = f" {self.range}" if self.range else ""
                raise InputError(f"{self.name} is {value!r}; a number{wanted} is needed")
            if not self.holds(value) or (self.kind == "int" and value != int(value)):  # type: ignore[arg-type]
                number = "an integer" if self.kind == "int" else "a number"
                raise InputError(f"{self.name} is {value!r}; {codec} takes {number} {self.range}".rstrip())
            return int(value) if self.kind == "int" else value  # type: ignore[arg-type]
        if self.kind == "choice" and value not in self.choices:
            raise InputError(f"{self.name} is {value!r}; one of {', '.join(self.choices)}")
        if self.kind == "bool" and not isinstance(value, bool):
            raise InputError(f"{self.name} is {value!r}; True or False is needed")
        if self.kind == "str" and not isinstance(value, str):
            raise InputError(f"{self.name} is {value!r}; a text is needed")
        return value

    def of_text(self, text: str) -> Any:
        """The value that a text of the command line stands for, unchecked.

        Raises:
            ValueError: the text is no number where one is needed.
        """
        if self.kind in ("int", "float"):
            return int(text) if self.kind == "int" else float(text)
        if self.kind == "object":
            module, _, function = self.load.partition(":")
            return getattr(import_module(module), function)(text)
        return text

    def __str__(self) -> str:
        """The option in an error's list of what a codec takes."""
        if self.low is not None and self.high is not None:
            return f"a {self.name} {self.range}"
        return f"{self.name} ({', '.join(self.choices)})" if self.choices else self.name


QUALITY = Option(
    "quality", "int", "for codecs of variable rate; 100 is best", low=1, high=100, metavar="1..100", flag="-q",
    needs="variable_rate",
)  # fmt: skip
CODING = Option(
    "coding", "choice", "fast: some percent more bytes, entropy decoding many times faster (walloc codecs)",
    default="default", choices=("default", "fast"), needs="fast_coding",
)  # fmt: skip
# what a codec on a grid answers when it does not have one of these
_LACKS = {
    "quality": "{} has one fixed rate: leave quality out, or choose a variable-rate codec",
    "coding": "{} has no fast coding; leave coding out",
}


@dataclass(frozen=True)
class Compressed:
    """What a codec hands to the container: its own parameters and one payload a chunk, in chunk order.

    Attributes:
        shape, dtype: of what decoding gives, where that is not the signal's.
    """

    params: bytes
    chunks: list[bytes]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


NamedCodec = str | os.PathLike[str]  # a name of `list_codecs`, or a file of weights or of a profile


class AnyCodec(Protocol):
    """A codec as the face sees it; it asks for no class.

    Attributes:
        name, fingerprint: what streams name; 8 bytes that change with everything that decoding depends on.
        modality: ``"image"``, ``"audio"`` or ``"tensor"``, or several of them.
        options: what `compress` understands.
        capabilities: some of the words above.
    """

    name: str

    @property
    def modality(self) -> str | tuple[str, ...]: ...
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def options(self) -> Sequence[Option]: ...
    @property
    def capabilities(self) -> frozenset[str]: ...

    def compress(self, x: Tensor, *about: Any, **options: Any) -> Compressed:
        """Code one signal.

        Args:
            x: a picture (C, H, W) float32 in [0, 1], sound (C, T) float32 with full scale 1, or a tensor.
            about: of sound: its sampling rate in Hz.
            options: those of `options` that were given, checked.
        """
        ...

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Tensor:
        """What `compress` was given, or its latent; with `TOKENS` also ``to="tokens"``.

        Args:
            part: ``region``, ``span``, ``channels`` or ``dtype``, where one is asked for.

        Raises:
            FormatError: not what this codec writes.
            InputError: a part that it does not have.
        """
        ...


def quality_in(params: bytes) -> int | None:
    """Quality in the three bytes of `base`: version, quality, chunk unit; None where there is none, or other bytes."""
    return params[1] if len(params) == 3 and params[0] in (1, 2) and 1 <= params[1] <= 100 else None


def modalities(codec: AnyCodec) -> tuple[str, ...]:
    """The kinds of signal that a codec takes."""
    return (codec.modality,) if isinstance(codec.modality, str) else tuple(codec.modality)


def check_options(
    codec: AnyCodec, given: Mapping[str, Any], owners: Callable[[str], str] = lambda _: ""
) -> dict[str, Any]:
    """The options to hand to `compress`: those given, without None.

    Args:
        owners: an option's name -> which codecs have it, in words, for the error.

    Raises:
        InputError: an option that the codec does not have, and which ones it has; or a value out of range.
    """
    given = {name: value for name, value in given.items() if value is not None}
    declared = {option.name: option for option in codec.options}
    strange = [name for name in given if name not in declared]
    grid = "tensor" not in modalities(codec)
    for name in [n for n in strange if n in _LACKS and grid]:
        if name != "coding" or given[name] != CODING.default:
            check = {"quality": QUALITY, "coding": CODING}[name]
            check.checked(given[name], codec.name)
            raise InputError(_LACKS[name].format(codec.name))
        strange.remove(name)
        given.pop(name)
    if strange:
        if reason := getattr(codec, "reasons", {}).get(strange[0]):
            raise InputError(reason)
        raise InputError(
            refusal(strange, codec.name, codec.options, "" if strange[0] in _LACKS else owners(strange[0]))
        )
    return {name: declared[name].checked(value, codec.name) for name, value in given.items()}


def refusal(names: Sequence[str], codec: str, options: Iterable[Option], owners: str = "") -> str:
    """Why a codec does not take these options, and which ones it takes."""
    known = ", ".join(str(option) for option in options)
    which = ", ".join(names)
    if owners:
        return f"{which}: only {owners} this; {codec} takes {known or 'no options'}"
    return f"{codec} takes no {which}" + f"; it takes {known}" * bool(known)
