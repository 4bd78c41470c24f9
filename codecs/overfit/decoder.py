"""From a chunk's bytes to its pixels, in integers: grids from the coarsest to the finest, upsampling, synthesis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ...entropy.contract import Coder
from ...entropy.engine import current_engine
from ...entropy.tables import TableBank
from ...entropy.wavefront import Wavefront
from ...kernels.pyramid import exact
from .integers import IntegerNets
from .nets import FEATURE_LEVELS, LEVELS, grid_shapes
from .workers import Workers, strips

Ints = npt.NDArray[np.int32]


def program(
    coder: Coder, grids: Sequence[Ints] | None, shape: tuple[int, int], nets: IntegerNets, bank: TableBank
) -> list[Ints]:
    """Code the grids of a chunk of h x w pixels, coarsest first; returns them, finest first."""
    shapes = grid_shapes(*shape)
    out: list[Ints] = [np.zeros((0, 0), np.int32)] * LEVELS
    for k in range(LEVELS - 1, -1, -1):
        features = nets.features(k, out) if k < FEATURE_LEVELS else None
        model = Wavefront(nets.context, bank, shapes[k], features)
        out[k] = coder.code(None if grids is None else grids[k], model)
    return out


def synthesise(grids: Sequence[Ints], nets: IntegerNets, workers: Workers) -> Ints:
    """Grids -> samples (channels, h, w) int32, 4096 is one."""
    if current_engine().name == "plain":
        return _plain(grids, nets)
    return finish(grids[0], planes_below(grids, nets, workers), nets, workers)


def planes_below(grids: Sequence[Ints], nets: IntegerNets, workers: Workers) -> Ints:
    """All grids but the finest at the size of the second (LEVELS - 1, h / 2, w / 2)."""
    planes = np.ascontiguousarray(grids[-1][None].astype(np.int32) << exact.PLANE_BITS)
    for k in range(LEVELS - 2, 0, -1):
        h, w = grids[k].shape
        finer = np.empty((len(planes) + 1, h, w), np.int32)
        args = (grids[k], planes, nets.taps(k), finer)
        workers.run([partial(exact.upsample_rows, *args, *rows) for rows in strips(h, even=False)])
        planes = finer
    return planes


def finish(finest: Ints, planes: Ints, nets: IntegerNets, workers: Workers) -> Ints:
    """The finest grid and the planes below it -> samples."""
    h, w = finest.shape
    layers = [np.empty((nets.channels, h + 2, w + 2), np.int32) for _ in range(2)]
    args = (finest, planes, nets.taps(0), *nets.pointwise_loops, layers[0])
    rows = strips(h, even=False)
    workers.run([partial(exact.pointwise_rows, *args, *r) for r in rows])
    for k, (kernel, bias) in enumerate(nets.residuals):
        exact.repeat_edges(layers[0])
        args = (layers[0], kernel, bias, layers[1], _least(k, nets))
        workers.run([partial(exact.residual_rows, *args, *r) for r in rows])
        layers.reverse()
    return layers[0][:, 1:-1, 1:-1]


def _least(k: int, nets: IntegerNets) -> int:
    """Smallest sample after residual layer k: all but the last are rectified."""
    return 0 if k < len(nets.residuals) - 1 else -exact.SAMPLE_LIMIT


def _plain(grids: Sequence[Ints], nets: IntegerNets) -> Ints:
    planes = grids[-1][None].astype(np.int64) << exact.PLANE_BITS
    for k in range(LEVELS - 2, -1, -1):
        planes = exact.plain_upsample(grids[k], planes.astype(np.int32), nets.taps(k))
    y = exact.plain_pointwise(planes, *nets.pointwise)
    for k, (kernel, bias) in enumerate(nets.residuals):
        y = exact.plain_residual(y, kernel, bias, _least(k, nets))
    return y.astype(np.int32)
