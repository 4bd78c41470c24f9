"""Symbols as coders read them: flat int32 arrays, made of arrays, tensors and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InputError

Symbols = Any  # an integer ndarray or torch tensor


def as_int32(symbols: Symbols, shape: tuple[int, ...]) -> np.ndarray:
    """Symbols of the given shape as a flat contiguous int32 array, in place where that is what they are.

    Raises:
        InputError: another shape, fractional or non-finite values, or values beyond int32.
    """
    x = symbols if isinstance(symbols, np.ndarray) else to_numpy(symbols)
    if x.shape != shape:
        raise InputError(f"symbols have shape {x.shape}, their model has {shape}")
    if x.dtype != np.int32:
        if x.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                if x.size and not bool((np.rint(x) == x).all() and np.isfinite(x).all()):
                    raise InputError("symbols must be integers: round them before coding")
        elif x.dtype.kind not in "iu":
            raise InputError(f"symbols must be integers, not {x.dtype}")
        if x.size and x.dtype.itemsize > 2 and not (float(x.min()) >= -(2**31) and float(x.max()) <= 2**31 - 1):
            raise InputError("a symbol is beyond int32")
        x = x.astype(np.int32)
    return flat(x)


def flat(a: np.ndarray) -> np.ndarray:
    """(n,) contiguous and writable, a view where possible: one array type, one compiled loop."""
    a = np.ascontiguousarray(a).reshape(-1)
    return a if a.flags.writeable else a.copy()


def to_numpy(x: Any) -> np.ndarray:
    """Arrays, tensors (from any device) and sequences as ndarray, without a copy where possible."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "detach"):
        return x.detach().cpu().numpy()
    return np.asarray(x)
