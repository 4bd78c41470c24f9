"""Maps with spatial axes (P, H, W): each sample's table is chosen by what is known around it.

Planes are coded row by row, all planes at once: first the even columns, from the row above, then the odd ones, from the
row above and both neighbours. The sum of the neighbours' magnitudes falls into a class; a plane's mean magnitude
stands for neighbours that do not exist and shifts the classes. The tables travel with the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.coder import Decoder, Encoder
from ...entropy.models import TableModel, Uniform
from .tables import code_bank

_LOW = -127  # of the tables; what lies outside -127..126 is escaped
# sums of weighted magnitudes (the weights add up to 8) at which classes begin
_EDGES = np.array([1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 480, 720])
_CLASSES = _EDGES.size + 1
_PLANES = 4  # classes of planes by their mean magnitude
_PLANE_EDGES = np.array([2, 6, 16])  # in eighths
_SHARE = 1 << 24  # magnitudes count no more than this, so that no sum overflows


def _contexts(q: npt.NDArray[np.int64], mean: npt.NDArray[np.int64], row: int, odd: int) -> npt.NDArray[np.int64]:
    """Classes (P, columns) of one row's even or odd columns; `q` holds magnitudes known so far."""
    w = q.shape[2]
    none = mean[:, None]
    above = q[:, row - 1] if row else np.broadcast_to(none, (q.shape[0], w))
    # above left and above right; the edge repeats itself
    around = np.concatenate([above[:, :1], above, above[:, -1:]], 1)
    columns = np.arange(odd, w, 2)
    total = 2 * above[:, columns] + around[:, columns] + around[:, columns + 2]
    if odd:
        left = q[:, row, columns - 1]
        right = q[:, row, np.minimum(columns + 1, w - 1)] if columns[-1] + 1 < w else None
        if right is None:  # the last column has no neighbour on its right
            right = np.concatenate([q[:, row, columns[:-1] + 1], left[:, -1:]], 1)
        total = (total + 3 * (left + right)) * 8 // 10
    else:
        total = 2 * total
    return np.searchsorted(_EDGES, total, side="right")


def _program(coder: Any, q: npt.NDArray[np.int32] | None, shape: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    p, h, w = shape
    mean = None
    if q is not None:
        mean = np.minimum(8 * np.abs(q.astype(np.int64)).sum((1, 2)) // (h * w), 2047).astype(np.int32)
    mean = np.asarray(coder.code(mean, Uniform(0, 2047, (p,)))).astype(np.int64)
    plane = np.searchsorted(_PLANE_EDGES, mean, side="right")
    base = (plane * _CLASSES)[:, None]
    tables = 2 * _PLANES * _CLASSES
    near = (mean + 4) // 8
    index: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
    counts = None
    if q is not None:
        size = np.minimum(np.abs(q.astype(np.int64)), _SHARE)
        width = -2 * _LOW
        histogram = np.zeros(tables * (width + 1), np.int64)
        for row in range(h):
            for odd in range(min(2, w)):
                at = base + odd * _PLANES * _CLASSES + _contexts(size, near, row, odd)
                index[row, odd] = at
                values = q[:, row, odd::2].astype(np.int64) - _LOW
                values = np.where((values < 0) | (values >= width), width, values)
                histogram += np.bincount((at * (width + 1) + values).reshape(-1), minlength=histogram.size)
        counts = list(histogram.reshape(tables, -1)[:, :width])
    bank = code_bank(coder, counts, _LOW, tables)
    out = np.zeros(shape, np.int32)
    size = np.zeros(shape, np.int64)
    for row in range(h):
        for odd in range(min(2, w)):
            at = index[row, odd] if q is not None else base + odd * _PLANES * _CLASSES + _contexts(size, near, row, odd)
            part = None if q is None else np.ascontiguousarray(q[:, row, odd::2])
            part = np.asarray(coder.code(part, TableModel(bank, at.astype(np.uint8))))
            out[:, row, odd::2] = part
            size[:, row, odd::2] = np.minimum(np.abs(part.astype(np.int64)), _SHARE)
    return out


def encode(q: npt.NDArray[np.int32]) -> bytes:
    """Code planes (P, H, W) of integers."""
    encoder = Encoder()
    _program(encoder, q, q.shape)  # type: ignore[arg-type]
    return encoder.finish()


def decode(chunk: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    """Inverse of `encode`.

    Raises:
        FormatError: the chunk is corrupt.
    """
    decoder = Decoder(chunk)
    out = _program(decoder, None, shape)
    decoder.finish()
    return out
