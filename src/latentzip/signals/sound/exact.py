"""Samples as they are, for codecs that lose nothing: integers stay integers, floats keep their bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import InputError

_SHIFTS = {"uint8": 24, "int16": 16, "int24": 8, "int32": 0}  # of what libsndfile gives as 32 bits


def coded(x: Tensor, dtype: str) -> np.ndarray:
    """Samples (C, T) of a header's dtype as a codec that is exact takes them: uint8, int16, int32 or float32.

    Raises:
        InputError: float64 that float32 does not hold.
    """
    if not x.is_floating_point():
        return np.ascontiguousarray(x.cpu().numpy())
    y = x.to(torch.float32).cpu()
    if dtype == "float64" and not bool(((y.double() == x.cpu()) | x.cpu().isnan()).all()):
        raise InputError("the samples are float64, which float32 does not hold in full: convert them, or use int32")
    return np.ascontiguousarray(y.numpy())


def blocks(sound: Any, dtype: str, size: int, name: str) -> Iterator[np.ndarray]:
    """Samples (C, n) of an open file from its start to its end, of the dtype that its header will say.

    Raises:
        InputError: float64 that float32 does not hold.
    """
    sound.seek(0)
    kind = {"int16": "int16", "float32": "float32", "float64": "float64"}.get(dtype, "int32")
    while len(block := sound.read(size, dtype=kind, always_2d=True)):
        if kind == "int32":
            block = block >> _SHIFTS[dtype]
        if dtype == "uint8":
            block = (block + 128).astype(np.uint8)
        try:
            yield coded(torch.from_numpy(np.ascontiguousarray(block.T)), dtype)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error


def left_justified(x: np.ndarray, dtype: str) -> np.ndarray:
    """Samples (n, C) as libsndfile writes them without rounding: int16, or integers at the upper end of int32."""
    if dtype in ("int16", "float32"):
        return x
    return (x.astype(np.int32) - (128 if dtype == "uint8" else 0)) << _SHIFTS[dtype]
