"""What an encoder of the codec `audio` decides: how frames are divided, stereo angles, levels, symbols.

None of it is part of the format: any latent that obeys the layout decodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...kernels.mdct import compiled, lapped
from . import coding
from .layout import DEPTH, TREE_NUMBERS, Layout, Rows, spread

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

HALO = 2  # frames: a block's window depends on the next frame's division, and that on half a frame beyond
_SPARSE = 60.0  # weight of a power, in squared steps, in the estimate of a block's bits
_BAND_BITS = 0.75  # bits that a band's level takes, about
_DEAD_ONE, _DEAD = 0.6, 0.55  # fractions of a step from which a magnitude is rounded up: to one, beyond one
_DIRECTED = 0.3  # stereo bands are turned where their power has a direction at least as clear as this


def analyse(
    x: Tensor,
    lay: Layout,
    quality: int,
    rule: coding.Rule,
    values: list[Floats] | None = None,
    trees: list[int] | None = None,
) -> Ints:
    """Samples (C, frames * frame size) float32 -> latent (rows, frames).

    What was quantised, in the order of `Rows`, is appended to ``values`` where that is given. Frames are divided by
    ``trees``, or as it saves most bits.
    """
    trees = trees or divide(x, lay, quality, rule)
    rows = Rows(lay, trees)
    frames = len(trees)
    y = lapped(x, rows.sizes).reshape(lay.channels, frames, lay.frame).numpy()
    out = np.zeros((frames, lay.latent_channels), np.int32)
    out[:, 0] = trees
    a, b = 1 + lay.angles, 1 + lay.angles + lay.channels * lay.slots
    if lay.angles:
        out[:, 1:a] = stereo_angles(y, rows.stereo, lay.angles)
        y = turn(y, out[:, 1:a], rows.stereo)
    flat = y.transpose(1, 0, 2).reshape(-1)[rows.coefficient]
    if values is not None:
        values.append(flat)
    levels = band_levels(np.add.reduceat(np.square(flat, dtype=np.float64), rows.first) / rows.count)
    units = coding.step_units(levels, quality, rule, coding.row_offsets(lay, rows, rule))
    live = coding.classes(levels, units) != coding.NOT_CODED
    symbols = quantise(flat, rows.level, coding.steps(units), live)
    out[:, a:b] = spread(levels, rows.slot, (frames, b - a))
    out[:, b:] = spread(symbols, rows.coefficient, (frames, out.shape[1] - b))
    return np.ascontiguousarray(out.T)


def band_levels(power: npt.NDArray[np.float64]) -> Ints:
    """Levels of mean squares."""
    exponent = np.rint(np.log2(power + 1e-30)) + coding.FULL
    return np.clip(exponent, 0, coding.MAX_LEVEL).astype(np.int32)


def quantise(values: Floats, level: npt.NDArray[np.int64], step: Floats, live: npt.NDArray[np.bool_]) -> Ints:
    """Symbols: rounded, small ones rather down, which saves more bits than it costs in error.

    Args:
        values: (n,) coefficients; level: (n,) the band of each.
        step, live: (bands,) width of a cell, and whether symbols are coded at all.
    """
    one, more = np.float32(1 - _DEAD_ONE), np.float32(1 - _DEAD)
    if compiled():
        from ...kernels import mdct_loops as body

        out = np.empty(values.size, np.int32)
        body.quantise(values, level, step, live, one, more, out)
        return out
    size = np.abs(values) / step[level]
    size = np.minimum(np.floor(size + np.where(size < 1, one, more)), 32767)
    return np.where(live[level], np.copysign(size, values), 0).astype(np.int32)


def divide(x: Tensor, lay: Layout, quality: int, rule: coding.Rule) -> list[int]:
    """The tree of each frame whose blocks take the fewest bits, estimated from transforms with blocks of one size."""
    channels, frames = lay.channels, x.shape[1] // lay.frame
    costs: list[np.ndarray] = []
    weight = np.empty(0)
    for depth in range(DEPTH + 1):
        size = lay.size(depth)
        y = lapped(x, [size] * (x.shape[1] // size)).reshape(channels, frames, 1 << depth, size).numpy()
        if depth == 0:
            edges = lay.edges[0]
            power = np.square(y[:, :, 0], dtype=np.float64)
            mean = np.add.reduceat(power, edges[:-1], axis=2) / np.diff(edges)
            units = coding.step_units(band_levels(mean), quality, rule, coding.offsets(lay, rule)[0])
            weight = _SPARSE / np.square(coding.steps(units), dtype=np.float64)
        costs.append(_BAND_BITS * channels * (lay.edges[depth].size - 1) + block_bits(y, weight, lay.stereo_of[depth]))
    best = costs[DEPTH]
    division = [[(DEPTH,)] * (1 << DEPTH) for _ in range(frames)]
    for depth in range(DEPTH - 1, -1, -1):
        halves = best[:, 0::2] + best[:, 1::2]
        whole = costs[depth] <= halves
        best = np.where(whole, costs[depth], halves)
        division = [
            [(depth,) if keep else parts[2 * i] + parts[2 * i + 1] for i, keep in enumerate(keeps)]
            for keeps, parts in zip(whole.tolist(), division)
        ]
    return [TREE_NUMBERS[parts[0]] for parts in division]


def block_bits(y: Floats, weight: npt.NDArray[np.float64], band: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """About how many bits the coefficients (C, F, B, n) of blocks take: (F, B).

    Args:
        weight: (C, F, bands) what squares are multiplied by. band: (n,) of each coefficient.
    """
    if compiled():
        from ...kernels import mdct_loops as body

        out = np.zeros(y.shape[1:3])
        body.block_bits(y, weight, band, out)
        return out
    return np.log2(1 + np.square(y, dtype=np.float64) * weight[:, :, None, band]).sum((0, 3)) / 2


def stereo_angles(y: Floats, stereo: npt.NDArray[np.int64], bands: int) -> npt.NDArray[np.int64]:
    """Principal directions of the stereo bands of coefficients (2, frames, frame size): (frames, bands) angles."""
    left, right, both = _products(y, stereo, bands)
    direction = np.arctan2(2 * both, left - right) / 2
    clear = np.hypot(left - right, 2 * both) > _DIRECTED * (left + right)
    angle = np.rint(direction * (coding.ANGLES / np.pi)).astype(np.int64) % coding.ANGLES
    return np.where(clear, angle, 0)


def _products(y: Floats, stereo: npt.NDArray[np.int64], bands: int) -> npt.NDArray[np.float64]:
    frames = y.shape[1]
    if compiled():
        from ...kernels import mdct_loops as body

        out = np.zeros((3, frames, bands))
        body.products(y, stereo, out)
        return out
    at = (stereo + np.arange(frames)[:, None] * bands).reshape(-1)
    parts = [y[0] * y[0].astype(np.float64), y[1] * y[1].astype(np.float64), y[0] * y[1].astype(np.float64)]
    return np.stack([np.bincount(at, p.reshape(-1), frames * bands) for p in parts]).reshape(3, frames, bands)


_COS = np.cos(np.arange(coding.ANGLES) * (np.pi / coding.ANGLES)).astype(np.float32)
_SIN = np.sin(np.arange(coding.ANGLES) * (np.pi / coding.ANGLES)).astype(np.float32)


def turn(y: Floats, angles: Ints, stereo: npt.NDArray[np.int64], back: bool = False) -> Floats:
    """Rotate two channels of coefficients, or back.

    Args:
        y: (2, frames, frame size). angles: (frames, bands). stereo: (frames, frame size) the band of each coefficient.
    """
    sines = -_SIN if back else _SIN
    if compiled():
        from ...kernels import mdct_loops as body

        out = np.empty(y.shape, np.float32)
        body.turn(y, angles, stereo, _COS, sines, out)
        return out
    angle = np.take_along_axis(angles, stereo, 1)
    c, s = _COS[angle], sines[angle]
    return np.stack([c * y[0] + s * y[1], c * y[1] - s * y[0]])
