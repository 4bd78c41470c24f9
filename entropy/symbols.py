"""Symbols as coders read them: flat int32 arrays, made of arrays, tensors and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from .dense import to_numpy
from .errors import InputError

Symbols = Any  # an integer ndarray or torch tensor


def as_int32(symbols: Symbols, shape: tuple[int, ...]) -> np.ndarray:
    """Symbols of the given shape as a flat contiguous int32 array, in place where that is what they are.

    Raises:
        InputError: another shape, fractional or non-finite values, or values beyond int32.
    """
    x = symbols if type(symbols) is np.ndarray else to_numpy(symbols, "symbols")
    if x.shape != shape:
        raise InputError(f"symbols have shape {x.shape}, their model has {shape}")
    return flat(x if x.dtype == np.int32 else _whole(x))


def whole(symbols: Symbols) -> np.ndarray:
    """Symbols of any shape as an int32 array; errors as `as_int32`."""
    x = to_numpy(symbols, "symbols")
    return x if x.dtype == np.int32 else _whole(x)


def _whole(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            if x.size and not bool((np.rint(x) == x).all() and np.isfinite(x).all()):
                raise InputError("symbols must be integers: round them before coding")
    elif x.dtype.kind not in "iu":
        raise InputError(f"symbols must be integers, not {x.dtype}")
    if x.size and x.dtype.itemsize > 2 and not (float(x.min()) >= -(2**31) and float(x.max()) <= 2**31 - 1):
        raise InputError("a symbol is beyond int32")
    return x.astype(np.int32)


def flat(a: np.ndarray) -> np.ndarray:
    """(n,) contiguous and writable, a view where possible: one array type, one compiled loop."""
    a = np.ascontiguousarray(a).reshape(-1)
    return a if a.flags.writeable else a.copy()
