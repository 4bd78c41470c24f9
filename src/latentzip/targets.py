"""Targets: the best stream of at most so many bytes, or the smallest of at least such a quality, by bisection.

Written once for every codec of variable rate: all that is asked of one is a function that encodes at a quality.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from . import signals
from .entropy import container
from .entropy.errors import InputError

Kind = Literal["size", "bpp", "psnr", "kbps"]
_GAINED = 12  # qualities by which a search can make up
_TRIMMING = 2  # effort that is spent on the last bytes at least, a quality above
_TRIALS = 3  # qualities that are tried with it
_SLOPE = -2.5  # of log thrift by log size, at first
UNDER = 0.02  # a size is met when at most this share of it is left unused
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_TEXT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:(?P<rate>bpp|db|kbps|kbit/s|kb/s)|(?P<unit>[kmg]i?)?b?)", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """What a stream is to reach: ``size`` in bytes, ``bpp``, ``kbps`` (1000 bits a second) or ``psnr`` in dB."""

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise InputError(f"target_{self.kind} is {value!r}; a number above 0 is needed")

    def __str__(self) -> str:
        unit = {"size": "bytes", "bpp": "bpp", "psnr": "dB", "kbps": "kbps"}[self.kind]
        return f"{self.value:,.0f} {unit}" if self.kind == "size" else f"{self.value:g} {unit}"

    def num_bytes(self, pixels: int | None = None, seconds: float | None = None) -> float:
        """The most bytes that a stream may have.

        Args:
            pixels: of a picture, for ``bpp``. seconds: of a sound, for ``kbps``.

        Raises:
            InputError: a rate that this signal has no unit for.
        """
        if self.kind == "bpp":
            if pixels is None:
                raise InputError("target_bpp is for pictures; sound takes target_kbps or target_size")
            return self.value * pixels / 8
        if self.kind == "kbps":
            if seconds is None:
                raise InputError("target_kbps is for sound; pictures take target_size, target_bpp or target_psnr")
            return self.value * seconds * 125
        return self.value


def parse(text: str) -> Target:
    """``60KB``, ``60000``, ``1.5MiB``; ``0.5bpp``; ``38dB``; ``64kbps``: see `Target`.

    Raises:
        InputError: anything else.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"target {text!r}; write a size (60KB), bits a pixel (0.5bpp), a PSNR (38dB) or a rate (64kbps)"
        )
    value, rate = float(match[1]), (match["rate"] or "").lower()
    if not rate:
        return Target("size", value * _UNITS[(match["unit"] or "").lower()])
    kinds: dict[str, Kind] = {"bpp": "bpp", "db": "psnr"}
    return Target(kinds.get(rate, "kbps"), value)


def chosen(
    size: float | None = None, bpp: float | None = None, psnr: float | None = None, kbps: float | None = None
) -> Target | None:
    """The one target that is given, None without any; InputError where there are two."""
    kinds: tuple[tuple[Kind, float | None], ...] = (("size", size), ("bpp", bpp), ("psnr", psnr), ("kbps", kbps))
    given = [Target(kind, value) for kind, value in kinds if value is not None]
    if len(given) > 1:
        names = " and ".join(f"target_{t.kind}" for t in given)
        raise InputError(f"{names} contradict each other: give one target")
    return given[0] if given else None


def taken(options: dict[str, Any]) -> tuple[Target | None, dict[str, Any]]:
    """The target among the options of `encode`, and the options without it.

    Raises:
        InputError: two targets, or a quality beside one.
    """
    names = {f"target_{kind}": kind for kind in ("size", "bpp", "psnr", "kbps")}
    rest = {name: value for name, value in options.items() if name not in names}
    target = chosen(**{kind: options.get(name) for name, kind in names.items()})
    if target is not None and rest.get("quality") is not None:
        raise InputError(f"quality and target_{target.kind} contradict each other: leave one of them out")
    return target, rest


class Found(NamedTuple):
    """A stream, the quality that it was made with, and what was measured of it (bytes, or dB)."""

    stream: bytes
    quality: int
    measured: float


def largest(
    encode: Callable[[int], bytes], limit: float, name: str, low: int = 1, high: int = 100, seconds: float | None = None
) -> Found:
    """The stream of the highest quality that has at most ``limit`` bytes.

    Args:
        encode: quality -> stream; sizes grow with quality, nearly.
        limit: bytes.
        name: of the codec, for messages.
        low, high: the range of qualities.
        seconds: of sound, where messages are to speak of rates.

    Raises:
        InputError: even ``low`` is larger, or even ``high`` leaves more than `UNDER` of the limit unused; the text
            names the range.
    """
    tried: dict[int, bytes] = {}

    def size(quality: int) -> int:
        if quality not in tried:
            tried[quality] = encode(quality)
        return len(tried[quality])

    best = _bisect(lambda quality: size(quality) <= limit, low, high)
    # nearly monotone: a neighbour above may fit as well
    while best is not None and best < high and size(best + 1) <= limit:
        best += 1
    if best is None or (best == high and size(high) < (1 - UNDER) * limit):
        unit = "bytes" if seconds is None else "kb/s"
        given, least, most = (_number(n, seconds) for n in (limit, size(low), size(high)))
        raise InputError(
            f"{given} {unit} lie outside of what {name} makes of this signal: "
            f"{least} {unit} at quality {low} to {most} at quality {high}"
        )
    return Found(tried[best], best, len(tried[best]))


def _number(size: float, seconds: float | None) -> str:
    """Bytes, or kb/s of so many seconds."""
    return f"{size:,.0f}" if seconds is None else f"{size / seconds / 125:.3g}"


def smallest(
    encode: Callable[[int], bytes],
    measure: Callable[[bytes], float],
    goal: float,
    name: str,
    low: int = 1,
    high: int = 100,
    spare: float = 1.0,
) -> Found:
    """The stream of the lowest quality whose ``measure`` (PSNR in dB) reaches ``goal``; arguments as in `largest`.

    Raises:
        InputError: even ``high`` stays below, or even ``low`` exceeds it by more than ``spare`` dB; the text
            names the range.
    """
    tried: dict[int, Found] = {}

    def reached(quality: int) -> float:
        if quality not in tried:
            stream = encode(quality)
            tried[quality] = Found(stream, quality, measure(stream))
        return tried[quality].measured

    below = _bisect(lambda quality: reached(quality) < goal, low, high)
    best = low if below is None else below + 1
    if best > high or (best == low and reached(low) > goal + spare):
        raise InputError(
            f"{goal:g} dB lie outside of what {name} makes of this signal: {reached(low):.2f} dB at quality {low} to "
            f"{reached(high):.2f} at quality {high}"
        )
    return tried[best]


def reached(
    target: Target | None,
    make: Callable[[dict[str, Any]], bytes],
    codec: Any,
    options: dict[str, Any],
    psnr: Callable[[bytes], float] | None = None,
) -> bytes:
    """`reach` where there is a target, one stream where there is none."""
    return make(options) if target is None else reach(target, make, codec, options, psnr)


def reach(
    target: Target,
    make: Callable[[dict[str, Any]], bytes],
    codec: Any,
    options: dict[str, Any],
    psnr: Callable[[bytes], float] | None = None,
) -> bytes:
    """The stream that meets a target.

    Args:
        make: options of the codec -> stream of the signal at hand.
        codec: says its options and name.
        options: what else is asked for; qualities are searched in one pass, an effort is spent on the result.
        psnr: of a stream, in dB; None for signals that have none.

    Raises:
        InputError: a codec of one fixed rate, a target that this kind of signal does not have, or one outside of the
            range, which the text names.
    """
    declared = {option.name: option for option in codec.options}
    if "quality" not in declared:
        raise InputError(
            f"{codec.name} has no quality to reach a target by: leave target_{target.kind} out, or choose a codec of "
            "variable rate (codec-cli list)"
        )
    low, high = (int(end) for end in (declared["quality"].low or 1, declared["quality"].high or 100))
    effort = options.get("effort", 0)
    search = ("effort", "objective", "weight", "thrift", "progress")
    quick = {name: value for name, value in options.items() if name not in search}

    @cache
    def once(quality: int) -> bytes:
        return make({**quick, "quality": quality})

    if target.kind == "psnr":
        if psnr is None:
            raise InputError("target_psnr is for pictures; sound takes target_kbps or target_size")
        found = smallest(once, psnr, target.value, codec.name, low, high)
        if not effort:
            return found.stream
        # a search gains quality, so that a lower one may do
        first = max(low, found.quality - _GAINED)
        return smallest(
            lambda q: make({**options, "quality": q}), psnr, target.value, codec.name, first, high, math.inf
        ).stream
    extent = _extent(once(low))
    limit = target.num_bytes(**extent)
    seconds = extent["seconds"] if target.kind == "kbps" else None
    found = largest(once, limit, codec.name, low, high, seconds)
    if not effort and (found.measured >= (1 - UNDER) * limit or "thrift" not in declared):
        return found.stream
    if "thrift" not in declared:
        stream = make({**options, "quality": found.quality})
        return stream if len(stream) <= limit else found.stream
    best = None if effort else found.stream
    for more in range(1 if found.measured < (1 - UNDER) * limit else 0, _TRIALS):
        # quality first, then effort: a longer search has a firmer grip on the bytes
        asked = {**options, "quality": min(high, found.quality + more), "effort": max(effort, _TRIMMING * more)}
        stream = trimmed(lambda thrift, asked=asked: make({**asked, "thrift": thrift}), limit)
        if stream is not None and (best is None or len(stream) > len(best)):
            best = stream
        if best is not None and len(best) >= (1 - UNDER) * limit:
            break
    return found.stream if best is None else best


def _extent(stream: bytes) -> dict[str, Any]:
    """Pixels of a picture or seconds of a sound, as `Target.num_bytes` takes them."""
    header = container.read(stream).header
    return signals.of(header).extent(header)


def _bisect(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The last number of low..high for which ``holds``, true up to somewhere and false beyond; None when at none."""
    if not holds(low):
        return None
    if holds(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def trimmed(encode: Callable[[float], bytes], limit: float, tries: int = 7) -> bytes | None:
    """The largest stream of at most ``limit`` bytes that a continuous knob makes, None where none fits.

    Args:
        encode: thrift (1 is what the quality says, more gives up quality for bytes) -> stream.
        limit: bytes.
        tries: streams made at most; the first within `UNDER` below the limit ends the search.
    """
    goal, at, reach = math.log((1 - UNDER / 2) * limit), 0.0, 1.0
    best: bytes | None = None
    over: tuple[float, float] | None = None  # logarithms of size and thrift of the nearest stream above the limit
    under: tuple[float, float] | None = None  # and of the nearest below
    for _ in range(tries):
        stream = encode(math.exp(at))
        size = len(stream)
        if size <= limit and (best is None or size > len(best)):
            best = stream
        if (1 - UNDER) * limit <= size <= limit:
            break
        here = math.log(size), at
        over, under = (over, here) if size <= limit else (here, under)
        if over is not None and under is not None:
            share = (over[0] - goal) / (over[0] - under[0])
            at = over[1] + min(0.8, max(0.2, share)) * (under[1] - over[1])
        else:
            # sizes may stand still for a while: further each time
            at += min(2.0, max(-2.0, reach * _SLOPE * (goal - here[0])))
            reach *= 2
    return best
