"""Whether a candidate's weights are better than those shipped: real files of several sets, and the time they take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..evaluation.metrics.bdrate import bd_psnr
from .report import Log

TOLERANCE_DB = 0.05  # that a set may lose at equal bytes
TOLERANCE_TIME = 1.10
QUALITIES = (5, 25, 50, 75, 95)
Point = tuple[float, float]  # bits a pixel or kb/s, and PSNR or SNR in dB


@dataclass(frozen=True)
class SetResult:
    """One set: how many files, the curves of both, and what the candidate gains in dB at equal bytes."""

    name: str
    files: int
    shipped: list[Point]
    candidate: list[Point]
    gain_db: float

    @property
    def passed(self) -> bool:
        """NaN does not pass: what cannot be compared is not better."""
        return self.gain_db >= -TOLERANCE_DB


@dataclass(frozen=True)
class Verdict:
    """All sets, and the candidate's time over that of the shipped weights."""

    sets: list[SetResult]
    time_ratio: float
    unit: str = field(default="bpp")
    slower: float = TOLERANCE_TIME

    @property
    def passed(self) -> bool:
        """Whether the candidate may be released."""
        return all(s.passed for s in self.sets) and self.time_ratio <= self.slower

    def reasons(self) -> list[str]:
        """What speaks against it."""
        found = [f"{s.name}: {s.gain_db:+.3f} dB at equal bytes" for s in self.sets if not s.passed]
        if not self.time_ratio <= self.slower:
            found.append(f"encoding and decoding take {self.time_ratio:.2f} times as long")
        return found

    def table(self) -> str:
        """Markdown, a row a set and point."""
        rows = [f"| set | files | shipped, {self.unit} / dB | candidate, {self.unit} / dB | dB at equal bytes |"]
        rows.append("|---|---|---|---|---|")
        for s in self.sets:
            both = [" ".join(f"{rate:.4g}/{db:.2f}" for rate, db in curve) for curve in (s.shipped, s.candidate)]
            rows.append(f"| {s.name} | {s.files} | {both[0]} | {both[1]} | {s.gain_db:+.3f} |")
        rows.append(f"\nEncoding and decoding take {self.time_ratio:.2f} times as long as with the weights before.")
        return "\n".join(rows)


def measure_picture(codec: Any, x: Tensor, quality: float | None) -> Point:
    """Bits a pixel (container included) and PSNR in dB of a picture (3, H, W) in [0, 1], on a grid of 16 bits."""
    stream = codec.encode(x[None], quality)[0]
    y = codec.decode([stream])[0].clamp(0, 1)
    error = (y - x).square().mean().item()
    # a lossless picture is at the noise of 16 bits, not at infinity, which would drown all others
    return 8 * len(stream) / (x.shape[1] * x.shape[2]), -10 * math.log10(max(error, 1 / 12 / 65535**2))


def measure_sound(codec: Any, x: Tensor, quality: float | None, rate: int = 44100) -> Point:
    """kb/s (container included) and SNR in dB of a sound (C, T)."""
    stream = codec.encode(x[None], rate, quality)[0] if quality is not None else codec.encode(x[None], rate)[0]
    y = codec.decode([stream])[0]
    power, error = x.square().mean().item(), (y - x).square().mean().item()
    kbps = 8 * len(stream) / (x.shape[1] / rate) / 1000
    return kbps, 10 * math.log10(max(power, 1e-12) / max(error, 1e-12))


def curve(codec: Any, signals: Sequence[Tensor], qualities: Sequence[float | None], measure: Callable) -> list[Point]:
    """A point a quality: means over the signals."""
    points = []
    for quality in qualities:
        rate, db = np.mean([measure(codec, x, quality) for x in signals], axis=0)
        points.append((float(rate), float(db)))
    return points


def gain(shipped: list[Point], candidate: list[Point], peer: list[Point]) -> float:
    """What a candidate has more at equal bytes, in dB.

    A codec of one rate has one point, and the two differ in both: bytes become dB by the slope of ``peer``, the curve
    of a codec with a variable rate on the same signals.
    """
    if len(shipped) > 1:
        return bd_psnr(shipped, candidate)
    (rate0, db0), (rate1, db1) = shipped[0], candidate[0]
    logs, levels = np.log([p[0] for p in peer]), np.array([p[1] for p in peer])
    at = np.argsort(np.abs(logs - math.log(rate0)))[:2]
    slope = (levels[at[1]] - levels[at[0]]) / (logs[at[1]] - logs[at[0]])
    return float(db1 - db0 - slope * math.log(rate1 / rate0))


def compare(
    shipped: Any,
    candidate: Any,
    sets: Mapping[str, Sequence[Tensor]],
    peer: Any = None,
    qualities: Sequence[int] = QUALITIES,
    peer_qualities: Sequence[int] = (10, 25, 50, 75, 95),
    log: Log = print,
    slower: float = TOLERANCE_TIME,
) -> Verdict:
    """Measure both on every set.

    Args:
        shipped, candidate: codecs of pictures or of sound, of the same kind.
        sets: name -> pictures (3, H, W) in [0, 1], or sounds (C, T) at 44.1 kHz.
        peer: for codecs of a fixed rate: a codec with a variable one, for `gain`.
        qualities: of codecs with a variable rate.
        slower: times the shipped weights' time that the candidate may take.
    """
    sound = shipped.modality == "audio"
    measure = measure_sound if sound else measure_picture
    points: Sequence[float | None] = qualities if shipped.variable_rate else [None]
    results = []
    for name, signals in sets.items():
        before, after = (curve(codec, signals, points, measure) for codec in (shipped, candidate))
        slope = [] if shipped.variable_rate else curve(peer, signals, peer_qualities, measure)
        result = SetResult(name, len(signals), before, after, gain(before, after, slope))
        log(f"{name}: {result.gain_db:+.3f} dB at equal bytes, {len(signals)} files")
        results.append(result)
    timed = [x for signals in sets.values() for x in signals][:4]
    middle = points[len(points) // 2]
    runs = [partial(_all, codec, timed, middle, measure) for codec in (shipped, candidate)]
    ratio = time_ratio(runs[0], runs[1])
    log(f"time: {ratio:.2f} times that of the shipped weights")
    return Verdict(results, ratio, "kb/s" if sound else "bpp", slower)


def _all(codec: Any, signals: Sequence[Tensor], quality: float | None, measure: Callable) -> None:
    for x in signals:
        measure(codec, x, quality)


def time_ratio(first: Callable[[], None], second: Callable[[], None], repeats: int = 3) -> float:
    """Processor time of the second over that of the first; taken in turn, the best of each, after one that warms up."""
    best = [math.inf, math.inf]
    for turn in range(repeats + 1):
        for i, run in enumerate((first, second)):
            start = time.process_time()
            run()
            if turn:
                best[i] = min(best[i], time.process_time() - start)
    return best[1] / max(best[0], 1e-9)
