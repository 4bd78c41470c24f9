"""From floats to integers that every machine finds alike, for networks that cannot run in integers.

A foreign model's parameters come out of float64 arithmetic and differ between machines by some 1e-13. Rounding them
is safe unless a value lies that near to where rounding changes. So the encoder shifts all of them by the first of 256
small offsets that keeps every value away from there by a margin far above the noise, and codes the number of the
offset (almost always 0, at 0.006 bit).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from .contract import Coder
from .errors import FormatError, InputError
from .models import TableModel
from .tables import TableBank

OFFSETS = 256
Quantity = tuple[npt.NDArray[np.float64], float]


@cache
def _offset_model() -> TableModel:
    bank = TableBank([np.array([(1 << 16) - OFFSETS] + [1] * OFFSETS)], [0], precision=16)
    return TableModel(bank, np.zeros(1, np.uint8))


def snap(coder: Coder, decoding: bool, *quantities: Quantity) -> list[npt.NDArray[np.int64]]:
    """Round each value to the nearest integer (up to the coded offset, below half a unit), alike everywhere.

    Args:
        coder: codes the offset.
        decoding: whether the offset comes from the coder.
        quantities: (values, margin) pairs: float64 arrays, and how far from a change of rounding they have to stay;
            the margin must be well above what the values' arithmetic may differ by, and below 1e-3.

    Raises:
        InputError: a value is not finite, or no offset will do (millions of values at too wide a margin).
        FormatError: the coded offset is out of range.
    """
    if not all(np.isfinite(v).all() for v, _ in quantities):
        raise InputError("the model computes parameters that are NaN or infinite: its weights are damaged")
    offset = None if decoding else np.array([_first_safe(quantities)])
    offset = int(coder.code(offset, _offset_model())[0])
    if not 0 <= offset < OFFSETS:
        raise FormatError(f"offset {offset} of a rounding is outside 0..{OFFSETS - 1}: the stream is damaged")
    return [np.floor(_shifted(v, offset)).astype(np.int64) for v, _ in quantities]


def _shifted(values: npt.NDArray[np.float64], offset: int) -> npt.NDArray[np.float64]:
    return values + (0.5 + offset / (2 * OFFSETS))


def _first_safe(quantities: tuple[Quantity, ...]) -> int:
    for offset in range(OFFSETS):
        shifted = ((_shifted(v, offset), margin) for v, margin in quantities)
        if all((np.abs(s - np.rint(s)) > margin).all() for s, margin in shifted):
            return offset
    raise InputError("no offset keeps all parameters away from where rounding changes: code the signal in parts")
