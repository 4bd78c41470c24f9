"""What metrics compare: two arrays of one shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.dense import array_of
from ...entropy.errors import InputError


def pair(a: Any, b: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Original and decoded data as plain arrays of numbers.

    Raises:
        InputError: other values, or two shapes.
    """
    x, y = array_of(a, "biuf", "the original"), array_of(b, "biuf", "the decoded data")
    if x.shape != y.shape:
        raise InputError(f"the original has shape {x.shape}, the decoded data {y.shape}")
    return x, y


def pictures(a: Any, b: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The same of pictures (H, W, C) uint8; another dtype or shape is an InputError."""
    x, y = pair(a, b)
    if x.ndim != 3 or x.dtype != np.uint8 or y.dtype != np.uint8 or x.size == 0:
        raise InputError(f"pictures are (H, W, C) uint8, not {x.dtype}{x.shape} and {y.dtype}")
    return x, y


def sounds(a: Any, b: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The same of sounds (T, C) float; another dtype or shape is an InputError."""
    x, y = pair(a, b)
    if x.ndim != 2 or x.dtype.kind != "f" or y.dtype.kind != "f" or x.shape[1] == 0:
        raise InputError(f"sounds are (T, C) of floats, not {x.dtype}{x.shape} and {y.dtype}")
    return x, y
