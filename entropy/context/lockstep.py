"""Chunks of several latents of one shape, decoded together; see `compiled.lockstep`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import current_engine

FEW = 6  # with fewer latents empty lanes cost more than waiting
MOST = 1 << 24  # bytes of a store that still pays: beyond, memory is the brake


def decode(model: Any, chunks: Sequence[bytes], out: npt.NDArray[Any], limit: int) -> npt.NDArray[np.bool_]:
    """Decode a chunk into each of out (n, C, h, w), int8 or int16 in C order, which has all channels of the model.

    Returns:
        (n,) whether that worked. The others may hold anything: a decoder that takes one alone knows what is wrong, or
        can do what lanes cannot.
    """
    from ..compiled import lockstep as loops

    n, c, h, w = out.shape
    flat = out.reshape(n, c, h * w)
    good = np.zeros(n, np.bool_)
    p = model.packed
    bank, lut = model.bank, model.packed.lut
    store = np.empty(loops.room(model.channels, h, w), np.int8)
    for first in range(0, n, loops.LANES):
        part = chunks[first : first + loops.LANES]
        if len(part) < FEW:
            break
        cuts = np.cumsum([0] + [len(c) for c in part])
        data = np.frombuffer(b"".join(part), np.uint8)
        end = first + len(part)
        loops.decode(
            *(data, cuts, lut, bank.entries, store, p.tables, p.nets, p.starts, p.steps),
            *(model.start, model.drop, limit, h, w, flat[first:end], good[first:end]),
        )
    return good


def suits(model: Any, shape: Sequence[int]) -> bool:
    """Whether latents of a shape can be, and are better, decoded in lockstep."""
    c, h, w = shape
    if (
        current_engine().name != "numba"
        or c != model.channels
        or model.version > 1
        or not model.bank.has_lut
        or model.bank.precision < 8
    ):
        return False
    from ..compiled import lockstep as loops

    return loops.room(c, h, w) <= MOST
