"""Greedy rate-distortion passes over a chunk's finest grid, as it is coded and decoded.

Most bits lie in that grid, and no other grid's coding depends on it. A value is moved by one where error + lambda *
bits falls: the error of the decoder's own integers, the bits of the stream's own tables.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from ...entropy.tables import TableBank
from ...entropy.wavefront import LIMIT, Wavefront
from ...kernels.pyramid import exact
from . import decoder
from .integers import IntegerNets
from .nets import Floats
from .workers import Workers

Ints = npt.NDArray[np.int32]
Map = npt.NDArray[np.float32]

_ALONE = Workers(1)
_BLOCK = 8  # a value is felt 4 places away at most, by contexts and 3x3 layers: so one a block can be judged alone
_REACH = 2 * LIMIT + 2  # of a value relative to its table


class Costs:
    """Error + lambda * bits of a chunk's finest grid, by place.

    Args:
        grids: all grids, finest first; those below it stay as they are.
        target: (channels, h, w) float32 in [0, 1].
        weight: (h, w) importance of pixels, or None.
        price: lambda.
    """

    def __init__(
        self, grids: list[Ints], target: Floats, weight: Floats | None, nets: IntegerNets, bank: TableBank,
        price: float, workers: Workers,
    ) -> None:  # fmt: skip
        self._nets, self._workers, self._target, self._weight = nets, workers, target, weight
        self._planes = decoder.planes_below(grids, nets, workers)
        h, w = grids[0].shape
        self._model = Wavefront(nets.context, bank, (h, w), nets.features(0, grids))
        residuals = np.arange(-_REACH, _REACH + 1)
        self._bits = bank.costs(residuals[None], np.arange(bank.num_tables)[:, None]).astype(np.float32) * price

    def __call__(self, finest: Ints) -> Map:
        """(h, w), whose mean is error + lambda * bits a pixel of this grid."""
        out = np.empty((2, *finest.shape), np.float32)
        self._workers.run([partial(self._error, finest, out[0]), partial(self._rate, finest, out[1])])
        return out[0] + out[1]

    def _rate(self, finest: Ints, out: Map) -> None:
        index, offset = self._model.tables(finest)
        residual = (finest - offset).clip(-_REACH, _REACH) + _REACH
        out[...] = self._bits[index, residual]

    def _error(self, finest: Ints, out: Map) -> None:
        samples = decoder.finish(finest, self._planes, self._nets, _ALONE)
        y = (samples.astype(np.float32) * np.float32(2.0**-exact.FINE_BITS)).clip(0, 1)
        y -= self._target
        np.einsum("chw,chw->hw", y, y, out=out)
        out /= len(y)
        if self._weight is not None:
            out *= self._weight


def refine(finest: Ints, costs: Costs) -> float:
    """Move values, in place, one towards zero and then one away, where that costs less; returns the mean gain."""
    here = costs(finest)
    begin = float(here.mean())
    for way in (-1, 1):
        for phase in range(_BLOCK**2):
            here = _try(finest, here, costs, way, *divmod(phase, _BLOCK))
    return begin - float(here.mean())


def _try(finest: Ints, here: Map, costs: Costs, way: int, y0: int, x0: int) -> Map:
    """Move every 8th value; returns the map of costs afterwards."""
    moved = finest.copy()
    part = moved[y0::_BLOCK, x0::_BLOCK]
    if not part.any():
        return here
    part += way * np.sign(part)
    np.clip(part, -LIMIT, LIMIT, out=part)
    there = costs(moved)
    own = finest[y0::_BLOCK, x0::_BLOCK]
    rows, columns = _edges(y0, part.shape[0]), _edges(x0, part.shape[1])
    gain = np.add.reduceat(np.add.reduceat(here - there, rows, 0), columns, 1)
    better = gain > 0
    own[better] = part[better]
    for axis, edges in ((0, rows), (1, columns)):
        length = here.shape[axis]
        better = np.repeat(better, np.diff(np.append(edges, length)), axis)
        before = [(0, 0), (0, 0)]
        before[axis] = (int(edges[0]), 0)
        better = np.pad(better, before)  # what lies before the first block
    return np.where(better, there, here)


def _edges(at: int, count: int) -> npt.NDArray[np.int64]:
    """Where the blocks around at, at + 8 ... begin, half a block before each; the last takes the rest."""
    return np.maximum(at - _BLOCK // 2 + _BLOCK * np.arange(count), 0)
