"""Sounds that recordings rarely hold alone: tones pure and dying away, sweeps, clicks, bells, drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_RATE = 44100
_BELL = (0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.0, 3.76, 4.07)  # partials of a church bell over its strike note


def _time(size: int) -> np.ndarray:
    return np.arange(size) / _RATE


def _pitch(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(50), np.log(8000))))


def tone(rng: np.random.Generator, size: int) -> np.ndarray:
    """A pure tone, or some of its harmonics."""
    t, pitch = _time(size), _pitch(rng)
    count = int(rng.choice([1, 1, 3, 8]))
    parts = [
        np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in range(1, count + 1) if pitch * k < 20000
    ]
    return np.sum(parts, 0)


def decaying(rng: np.random.Generator, size: int) -> np.ndarray:
    """A tone that is struck and dies away."""
    out = np.zeros(size)
    at = int(rng.integers(size // 2))
    out[at:] = tone(rng, size - at) * np.exp(-_time(size - at) * np.exp(rng.uniform(0, 4)))
    return out


def sweep(rng: np.random.Generator, size: int) -> np.ndarray:
    """A tone that glides from one pitch to another."""
    pitches = np.geomspace(_pitch(rng), _pitch(rng), size)
    return np.sin(2 * np.pi * np.cumsum(pitches) / _RATE)


def clicks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Impulses, single or in a train, bare or ringing for a moment."""
    out = np.zeros(size)
    step = int(rng.integers(500, size))
    out[int(rng.integers(step)) :: step] = 1
    if rng.random() < 0.5:
        t = _time(400)
        out = np.convolve(out, np.sin(2 * np.pi * _pitch(rng) * t) * np.exp(-t * 800))[:size]
    return out


def bell(rng: np.random.Generator, size: int) -> np.ndarray:
    """Partials that are no harmonics, the higher ones gone sooner."""
    out, strike = np.zeros(size), _pitch(rng) / 2
    at = int(rng.integers(size // 2))
    t, fall = _time(size - at), np.exp(rng.uniform(0, 2.5))
    for ratio in _BELL:
        if strike * ratio < 20000:
            out[at:] += rng.uniform(0.2, 1) * np.sin(2 * np.pi * strike * ratio * t) * np.exp(-t * fall * ratio)
    return out


KINDS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (tone, decaying, sweep, clicks, bell)


def sound(rng: np.random.Generator, size: int) -> np.ndarray:
    """A sound (2, size) float32 of one of the kinds, its peak at 1."""
    mono = KINDS[int(rng.integers(len(KINDS)))](rng, size)
    mono = mono / max(float(np.abs(mono).max()), 1e-9)
    return np.repeat(mono[None].astype(np.float32), 2, 0)
