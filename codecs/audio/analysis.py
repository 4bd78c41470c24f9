"""What an encoder of the codec `audio` decides: how frames are divided, stereo angles, levels, symbols.

None of it is part of the format: any latent that obeys the layout decodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...kernels.compiled import wanted
from ...kernels.mdct import Folded, folded, lapped
from . import coding
from .layout import DEPTH, Layout, Rows, undivided

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
    trees: npt.ArrayLike | None = None,
) -> Ints:
    """Samples (C, frames * frame size) float32 -> latent (rows, frames).

    What was quantised, in the order of `Rows`, is appended to ``values`` where that is given. Frames are divided by
    ``trees``, or as it saves most bits.
    """
    rows = Rows(lay, divide(x, lay, quality, rule) if trees is None else trees)
    y = lapped(x, rows.sizes).numpy()
    out = np.zeros((rows.frames, lay.latent_channels), np.int32)
    out[:, 0] = rows.trees
    if lay.angles:
        out[:, 1 : lay.first_level] = angles = stereo_angles(y, rows, lay)
        turn(y, angles, rows, lay)
    if values is not None:
        values.append(in_rows(y, rows, lay))
    levels = band_levels(band_powers(y, rows, lay))
    units = coding.step_units(levels, quality, rule, coding.row_offsets(lay, rows, rule))
    live = coding.classes(levels, units) != coding.NOT_CODED
    rows.put_levels(levels, out)
    quantise(y, rows, lay, coding.steps(units), live, out)
    return out.T


def in_rows(y: Floats, rows: Rows, lay: Layout) -> Floats:
    """Coefficients (C, frames * frame size) in the order of `Rows`: (n,)."""
    return y.reshape(lay.channels, -1, lay.frame).transpose(1, 0, 2).reshape(-1)[rows.coefficient]


def band_powers(y: Floats, rows: Rows, lay: Layout) -> npt.NDArray[np.float64]:
    """Mean squares (levels,) of the bands of coefficients (C, frames * frame size)."""
    if wanted():
        from ...kernels import band_loops as body

        out = np.empty(rows.count.size)
        body.powers(y, lay.frame, lay.first_symbol, rows.at, rows.level_rows, rows.count, out)
        return out
    return np.add.reduceat(np.square(in_rows(y, rows, lay), dtype=np.float64), rows.first) / rows.count


def band_levels(power: npt.NDArray[np.float64]) -> Ints:
    """Levels of mean squares."""
    exponent = np.rint(np.log2(power + 1e-30)) + coding.FULL
    return np.clip(exponent, 0, coding.MAX_LEVEL).astype(np.int32)


def quantise(
    y: Floats, rows: Rows, lay: Layout, step: Floats, live: npt.NDArray[np.bool_], columns: Ints
) -> None:  # fmt: skip
    """Symbols into columns: rounded, small ones rather down, which saves more bits than it costs in error.

    Args:
        y: coefficients (C, frames * frame size).
        step, live: (levels,) width of a cell, and whether symbols are coded at all.
        columns: (frames, rows of a latent), zero where symbols lie.
    """
    one, more = np.float32(1 - _DEAD_ONE), np.float32(1 - _DEAD)
    if wanted():
        from ...kernels import band_loops as body

        places = lay.frame, lay.first_symbol, rows.at, rows.level_rows, rows.count
        body.quantise(y, *places, step, live, one, more, columns)
        return
    values = in_rows(y, rows, lay)
    size = np.abs(values) / step[rows.level]
    size = np.minimum(np.floor(size + np.where(size < 1, one, more)), 32767)
    rows.put_symbols(np.where(live[rows.level], np.copysign(size, values), 0).astype(np.int32), columns)


def divide(x: Tensor, lay: Layout, quality: int, rule: coding.Rule) -> Ints:
    """The tree of each frame whose blocks take the fewest bits, estimated from transforms with blocks of one size."""
    frames = x.shape[1] // lay.frame
    whole = _in_blocks(x, lay.frame)
    y = (whole.coefficients() if isinstance(whole, Folded) else whole).numpy()
    power = (
        band_powers(y.reshape(lay.channels, -1), undivided(lay, frames), lay)
        .reshape(frames, lay.channels, -1)
        .swapaxes(0, 1)
    )
    units = coding.step_units(band_levels(power), quality, rule, coding.offsets(lay, rule)[0])
    weight = np.ascontiguousarray(_SPARSE / np.square(coding.steps(units), dtype=np.float64))
    best, tree, below = np.empty((frames, 0)), np.zeros((frames, 1 << DEPTH), np.int32), 1
    for depth in range(DEPTH, -1, -1):
        blocks = _in_blocks(x, lay.size(depth)) if depth else whole
        cost = block_bits(blocks, depth, lay, weight) + _BAND_BITS * lay.channels * (lay.edges[depth].size - 1)
        if depth == DEPTH:
            best = cost
            continue
        halves = best[:, 0::2] + best[:, 1::2]
        parts = 1 + tree[:, 0::2] * below + tree[:, 1::2]  # numbers of trees as they are listed, depth first
        tree, below = np.where(cost <= halves, 0, parts), 1 + below * below
        best = np.minimum(cost, halves)
    return tree[:, 0]


def _in_blocks(x: Tensor, size: int) -> Folded | Tensor:
    return folded(x, size) if wanted() else lapped(x, [size] * (x.shape[1] // size))


def block_bits(
    y: Folded | Tensor, depth: int, lay: Layout, weight: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:  # fmt: skip
    """About how many bits coefficients (C, T) in blocks of one size take: (frames, blocks).

    Args:
        weight: (C, frames, stereo bands) what squares are multiplied by.
    """
    shape, band = (weight.shape[1], 1 << depth), lay.stereo_of[depth]
    if isinstance(y, Folded):
        from ...kernels import mdct_loops as body

        out = np.zeros(shape)
        parts = (a.view(np.float32).reshape(*a.shape, 2) for a in (y.spectrum, y.twiddle))
        body.block_bits(*parts, weight, band, out)
        return out
    squares = np.square(y.numpy().reshape(lay.channels, *shape, -1), dtype=np.float64)
    return np.log2(1 + squares * weight[:, :, None, band]).sum((0, 3)) / 2


def stereo_angles(y: Floats, rows: Rows, lay: Layout) -> npt.NDArray[np.int64]:
    """Principal directions of the stereo bands of coefficients (2, frames * frame size): (frames, bands) angles."""
    left, right, both = _products(y, rows, lay)
    direction = np.arctan2(2 * both, left - right) / 2
    clear = np.hypot(left - right, 2 * both) > _DIRECTED * (left + right)
    angle = np.rint(direction * (coding.ANGLES / np.pi)).astype(np.int64) % coding.ANGLES
    return np.where(clear, angle, 0)


def _products(y: Floats, rows: Rows, lay: Layout) -> npt.NDArray[np.float64]:
    shape = rows.frames, lay.angles
    if wanted():
        from ...kernels import band_loops as body

        out = np.zeros((3, *shape))
        body.products(y, lay.frame, rows.depths, lay.stereo_table, out)
        return out
    at = (rows.stereo + np.arange(shape[0])[:, None] * shape[1]).reshape(-1)
    parts = [y[0] * y[0].astype(np.float64), y[1] * y[1].astype(np.float64), y[0] * y[1].astype(np.float64)]
    return np.stack([np.bincount(at, p, shape[0] * shape[1]) for p in parts]).reshape(3, *shape)


_COS = np.cos(np.arange(coding.ANGLES) * (np.pi / coding.ANGLES)).astype(np.float32)
_SIN = np.sin(np.arange(coding.ANGLES) * (np.pi / coding.ANGLES)).astype(np.float32)


def turn(y: Floats, angles: npt.NDArray[np.int64], rows: Rows, lay: Layout, back: bool = False) -> None:
    """Rotate two channels of coefficients (2, frames * frame size) in place, or back; angles (frames, bands)."""
    sines = -_SIN if back else _SIN
    if wanted():
        from ...kernels import band_loops as body

        body.turn(y, lay.frame, rows.depths, lay.stereo_table, angles, _COS, sines)
        return
    angle = np.take_along_axis(angles, rows.stereo, 1).reshape(-1)
    c, s = _COS[angle], sines[angle]
    y[:] = c * y[0] + s * y[1], c * y[1] - s * y[0]
