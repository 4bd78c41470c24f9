"""Distortion between two sounds (T, C) float, full scale at 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import sounds

Sound = npt.NDArray[np.floating]

MELS = 80
WINDOW_S, HOP_S = 0.032, 0.008
_VISQOL_RATE = 48000
FLOOR_DB = -80.0  # below the loudest cell of the original, differences are not heard and not counted
_BLOCK = 512  # frames in memory at a time


def snr(a: Sound, b: Sound) -> float:
    """Signal-to-noise ratio in dB over all samples and channels; inf when equal."""
    a, b = sounds(a, b)
    signal, noise = (
        float(np.square(a, dtype=np.float64).sum()),
        float(np.square(np.subtract(a, b, dtype=np.float64)).sum()),
    )
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def si_sdr(a: Sound, b: Sound) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, arXiv 1811.02508), over all channels."""
    x, y = (s.astype(np.float64).ravel() for s in sounds(a, b))
    energy = float(x @ x)
    if energy == 0:
        return math.nan
    target = float(x @ y) / energy * x
    return snr(target[:, None], y[:, None])


def _hertz_to_mel(f: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(2595 * np.log10(1 + f / 700), np.float64)


@lru_cache(maxsize=8)
def mel_filters(rate: int, size: int, count: int = MELS) -> npt.NDArray[np.float32]:
    """(count, size // 2 + 1) triangles, evenly spaced in mel (O'Shaughnessy) from 0 to half the rate, peaks at 1."""
    top = float(_hertz_to_mel(np.array(rate / 2)))
    edges = 700 * (10 ** (np.linspace(0, top, count + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)


def _frames(mono: npt.NDArray[np.float32], size: int, hop: int) -> Iterator[npt.NDArray[np.float32]]:
    """Windowed frames (n, size), a block at a time; the sound is padded by half a window on both sides."""
    padded = np.pad(mono, (size // 2, size // 2 + hop))
    view = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    for start in range(0, len(view), _BLOCK):
        yield view[start : start + _BLOCK] * window


def mel_power(x: Sound, rate: int, count: int = MELS) -> npt.NDArray[np.float32]:
    """(C, frames, count) power in mel bands: Hann windows of 32 ms every 8 ms."""
    size = max(64, 2 * round(rate * WINDOW_S / 2))
    hop = max(1, round(rate * HOP_S))
    filters = mel_filters(rate, size, count).T
    channels = np.ascontiguousarray(x.T, np.float32)
    return np.stack([
        np.concatenate([np.square(np.abs(np.fft.rfft(f, axis=1))).astype(np.float32) @ filters
                        for f in _frames(mono, size, hop)])
        for mono in channels
    ])  # fmt: skip


def log_mel_distance(a: Sound, b: Sound, rate: int) -> float:
    """Mean absolute difference in dB of log-mel spectrograms (80 bands, 32 ms windows); cells more than 80 dB below
    the original's loudest count as lying there."""
    x, y = (mel_power(s, rate) for s in sounds(a, b))
    floor = float(x.max()) * 10 ** (FLOOR_DB / 10) or 1e-12
    return float(np.mean(np.abs(10 * np.log10(np.maximum(x, floor) / np.maximum(y, floor)))))


def _mono_at(x: Sound, rate: int, target: int) -> npt.NDArray[np.float64]:
    from scipy.signal import resample_poly

    mono = x.mean(1, dtype=np.float64)
    divisor = math.gcd(rate, target)
    return mono if rate == target else resample_poly(mono, target // divisor, rate // divisor)


def pesq(a: Sound, b: Sound, rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2) by the package ``pesq``, of the mono mix at 16 kHz: for speech."""
    from pesq import pesq as compute  # pyright: ignore[reportMissingImports]

    return float(compute(16000, _mono_at(a, rate, 16000), _mono_at(b, rate, 16000), "wb"))


def pesq_narrow(a: Sound, b: Sound, rate: int) -> float:
    """Narrow-band PESQ (ITU-T P.862) by the package ``pesq``, of the mono mix at 8 kHz: for speech."""
    from pesq import pesq as compute  # pyright: ignore[reportMissingImports]

    return float(compute(8000, _mono_at(a, rate, 8000), _mono_at(b, rate, 8000), "nb"))


def visqol(a: Sound, b: Sound, rate: int) -> float:
    """ViSQOL in its audio mode (Chinen et al. 2020, arXiv 2004.09584), 1 to 4.75, by the package ``visqol-python``, of
    the mono mix at 48 kHz."""
    x, y = (_mono_at(s, rate, _VISQOL_RATE) for s in (a, b))
    return float(_visqol_judge().measure_from_arrays(x, y, _VISQOL_RATE).moslqo)


@lru_cache(maxsize=1)
def _visqol_judge() -> Any:
    from visqol import VisqolApi  # pyright: ignore[reportMissingImports]

    judge = VisqolApi()
    judge.create(mode="audio")
    return judge


def stoi(a: Sound, b: Sound, rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011) by ``pystoi``, of the mono mix at 10 kHz: for speech."""
    from pystoi import stoi as compute  # pyright: ignore[reportMissingImports]

    return float(compute(_mono_at(a, rate, 10000), _mono_at(b, rate, 10000), 10000))
