"""A packet along one axis as dense products of small tiles, with the edges inside: what the kernels of `packet` read.

A tile of 64 outputs of a banded operator rests on a window of inputs that is little wider. So each tile is one dense
matrix; all tiles away from the ends share one, and a boundary rule is nothing but other numbers in the first and last.
Windows are whole blocks. In a window of bands, and in a tile of bands, the position runs fastest: neighbouring lanes
then touch neighbouring addresses of one band.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..block_operator import BlockOperator

TILE = 64  # outputs a tile: with windows of 88 to 120 samples at J = 2 and 3, the smallest product a sample
_CHUNK = 32  # windows are rounded up to what one product takes


class AxisPlan(NamedTuple):
    """Tiles of one axis.

    matrices: (kinds, TILE, window) float32; kind, start: (tiles,) int32, the matrix of each tile and the block in
    which its window begins; wrap: whether positions count modulo the axis.
    """

    matrices: Tensor
    kind: Tensor
    start: Tensor
    window: int
    wrap: bool


@lru_cache(maxsize=256)
def axis_plan(op: BlockOperator, blocks: int, inverse: bool, wrap: bool, device: torch.device) -> AxisPlan:
    """The plan of an operator over so many blocks.

    Args:
        inverse: bands in, samples out; else samples in, bands out.
        wrap: the operator is circulant (periodic edges).
    """
    matrices, kinds, starts, window = _tiles(op, blocks, inverse, wrap)
    # inference tensors in this cache could not take part in a later training step
    with torch.inference_mode(False):
        tensors = [torch.from_numpy(a).to(device) for a in (matrices, kinds, starts)]
    return AxisPlan(*tensors, window, wrap)


def _tiles(op: BlockOperator, n: int, inverse: bool, wrap: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    s = op.step_in
    per_tile = TILE // s
    left = -(op.first // s)  # blocks that a window begins before its tile
    reach = (per_tile - 1) * s + op.first + op.taps.shape[1]
    window = -(-(left * s + max(reach, per_tile * s)) // _CHUNK) * _CHUNK
    dense = None if wrap or n >= max(op.min_blocks, window // s) else op.dense(n)
    if dense is not None:
        window = max(window, -(-n * s // _CHUNK) * _CHUNK)
    held = window // s
    matrices: list[np.ndarray] = []
    known: dict[object, int] = {}
    kinds, starts = [], []
    for b0 in range(0, n, per_tile):
        start = b0 - left
        if not wrap:
            start = max(0, min(start, n - held))
        count = min(per_tile, n - b0)
        plain = wrap or (dense is None and b0 >= op.ends and b0 + per_tile <= n - op.ends and start == b0 - left)
        key = "interior" if plain else b0
        if key not in known:
            known[key] = len(matrices)
            rows = np.zeros((per_tile * s, window))
            for i in range(per_tile if plain else count):
                at, part = _block(op, n, b0 + i, plain, dense)
                at -= start * s
                lo, hi = max(at, 0), min(at + part.shape[1], window)
                assert max(np.abs(part[:, : lo - at]).max(initial=0), np.abs(part[:, hi - at :]).max(initial=0)) < 1e-9
                rows[i * s : (i + 1) * s, lo:hi] = part[:, lo - at : hi - at]
            matrices.append(_by_band(rows.T, s, held).T if inverse else _by_band(rows, s, per_tile))
        kinds.append(known[key])
        starts.append(start)
    return (
        np.stack([np.ascontiguousarray(m, np.float32) for m in matrices]),
        np.array(kinds, np.int32),
        np.array(starts, np.int32),
        window,
    )


def _block(op: BlockOperator, n: int, b: int, plain: bool, dense: np.ndarray | None) -> tuple[int, np.ndarray]:
    """Where the inputs of a block begin, and its rows over them."""
    so, e = op.step_out, op.ends
    if dense is not None:
        return 0, dense[b * so : (b + 1) * so]
    if plain or e <= b < n - e:
        return b * op.step_in + op.first, op.taps
    if b < e:
        return 0, op.edge[b * so : (b + 1) * so, : op.reach]
    rows = op.edge[(2 * e - (n - b)) * so : (2 * e - (n - b) + 1) * so]
    return n * op.step_in - op.reach, rows[:, op.reach :]


def _by_band(rows: np.ndarray, s: int, blocks: int) -> np.ndarray:
    """Rows in order [block, band] -> [band, block]."""
    return rows.reshape(blocks, s, -1).transpose(1, 0, 2).reshape(blocks * s, -1)
