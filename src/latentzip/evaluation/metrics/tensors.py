"""Distortion between two float arrays of one shape."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .arrays import pair

Array = npt.NDArray[np.floating]


def mse(a: Array, b: Array) -> float:
    """Mean squared error."""
    return float(np.mean(np.square(np.subtract(*pair(a, b), dtype=np.float64))))


def sqnr(a: Array, b: Array) -> float:
    """Signal-to-quantisation-noise ratio: variance over mean squared error, in dB; inf when equal."""
    error = mse(a, b)
    if error == 0:
        return math.inf
    variance = float(np.var(pair(a, b)[0], dtype=np.float64))
    return 10 * math.log10(variance / error) if variance else -math.inf


def cosine(a: Array, b: Array) -> float:
    """Cosine similarity of the rows (last axis), averaged; rows of zeros count as equal to rows of zeros only."""
    x, y = (np.atleast_2d(v.astype(np.float64)) for v in pair(a, b))
    if x.size == 0:
        return math.nan
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    products = (x * y).sum(1)
    same = (np.abs(x).max(1) == 0) & (np.abs(y).max(1) == 0)
    return float(np.mean(np.where(same, 1.0, products / np.where(lengths > 0, lengths, 1))))
