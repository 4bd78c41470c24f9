"""Floats without loss: the exponents coded with tables of their own, signs and mantissas as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.coder import Decoder, Encoder
from ...entropy.errors import FormatError
from ...entropy.models import TableModel, Uniform
from .tables import code_bank

_GROUPS = 16  # channels of like size share a table
_WIDE = 1 << 9  # rows from which on a channel's group is worth its half byte


@dataclass(frozen=True)
class Layout:
    """How a dtype's bits are split: modelled are the exponent and the first `modelled` bits of the mantissa."""

    bits: int
    mantissa: int
    modelled: int


# 254 entries a table: with an exponent of 8 bits the mantissa has no place in it
LAYOUTS = {"float16": Layout(16, 10, 2), "bfloat16": Layout(16, 7, 0), "float32": Layout(32, 23, 0)}


def _split(bits: npt.NDArray[Any], layout: Layout) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    value = bits.astype(np.uint32)
    keep = layout.mantissa - layout.modelled
    top = (value & np.uint32((1 << layout.bits - 1) - 1)) >> np.uint32(keep)
    low = value & np.uint32((1 << keep) - 1) | (value >> np.uint32(layout.bits - 1)) << np.uint32(keep)
    return top.astype(np.int32), low.astype(np.int32)


def _program(
    coder: Any, top: npt.NDArray[np.int32] | None, low: npt.NDArray[np.int32] | None, shape: tuple[int, int], keep: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Code the modelled parts and the rest, `keep` bits of mantissa under a sign."""
    n, k = shape
    group, plan = np.zeros(k, np.int32), None
    grouped = n >= _WIDE and k > 1
    if top is not None and low is not None:
        used = int(np.bitwise_or.reduce(low, axis=None)) & (1 << keep) - 1
        trailing = keep if used == 0 else (used & -used).bit_length() - 1
        plan = np.array([trailing, bool((low >> keep).any()), bool(low[top == 0].any())], np.int32)
        if grouped:
            mean = top.mean(0)
            edges = np.quantile(mean, np.arange(1, _GROUPS) / _GROUPS)
            group = np.searchsorted(edges, mean).astype(np.int32)
    plan = np.asarray(coder.code(plan, Uniform(0, 31, (3,))))
    trailing, signed, small = (int(v) for v in plan)
    if trailing > keep:
        raise FormatError("a block names more zero bits than a float has: the chunk is corrupt or of another coding")
    if grouped:
        group = np.asarray(coder.code(group if top is not None else None, Uniform(0, _GROUPS - 1, (k,))))
    tables = _GROUPS if grouped else 1
    counts = None
    if top is not None:
        counts = [np.bincount(top[:, group == g].reshape(-1), minlength=256) for g in range(tables)]
    bank = code_bank(coder, counts, 0, tables)
    index = np.ascontiguousarray(np.broadcast_to(group.astype(np.uint8), (n, k)))
    tops = np.asarray(coder.code(top, TableModel(bank, index)))
    # zeros have no sign and no mantissa, unless there are negative or very small ones
    there = np.ones(shape, bool) if small else tops != 0
    rest = None if low is None else low[there] >> trailing
    width = keep - trailing + bool(signed)
    rest = np.asarray(coder.code(rest, Uniform(0, (1 << width) - 1, (int(there.sum()),))))
    out = np.zeros(shape, np.int32)
    out[there] = rest << trailing
    return tops, out


def encode(bits: npt.NDArray[Any], dtype: str) -> bytes:
    """Code the bit patterns (N, K) uint16 or uint32 of floats of a dtype."""
    layout = LAYOUTS[dtype]
    encoder = Encoder()
    top, low = _split(bits, layout)
    _program(encoder, top, low, bits.shape, layout.mantissa - layout.modelled)  # type: ignore[arg-type]
    return encoder.finish()


def decode(chunk: bytes, shape: tuple[int, int], dtype: str) -> npt.NDArray[Any]:
    """Inverse of `encode`: (N, K) uint16 or uint32.

    Raises:
        FormatError: the chunk is corrupt.
    """
    layout = LAYOUTS[dtype]
    decoder = Decoder(chunk)
    keep = layout.mantissa - layout.modelled
    top, low = _program(decoder, None, None, shape, keep)
    decoder.finish()
    if top.size and not 0 <= int(top.min()) <= int(top.max()) < 1 << layout.bits - 1 - keep:
        raise FormatError("an exponent is out of range: the chunk is corrupt or of another coding")
    value = top.astype(np.uint32) << np.uint32(keep) | low.astype(np.uint32) & np.uint32((1 << keep) - 1)
    value |= low.astype(np.uint32) >> np.uint32(keep) << np.uint32(layout.bits - 1)
    return value.astype(np.uint16 if layout.bits == 16 else np.uint32)
