"""Upsampling and synthesis in int32: the same picture on every machine, to the last bit.

Units: values of grids and planes 1 << PLANE_BITS; hidden layer and its weights 1 << WEIGHT_BITS; samples of the
picture, weights of upsampling and of the 3x3 layers 1 << FINE_BITS. Sums are rounded to the nearest, halves up, and
clamped; callers have checked that no sum leaves int32 (`codecs.overfit.integers`). The plain bodies are
the definition.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..compiled import usable
from ..pairs import WIDTH
from .jit import compiled_exact

if usable():  # the plain bodies take their place
    from ..tile import hidden_tile, sums_tile

Ints = npt.NDArray[np.int32]

PLANE_BITS, WEIGHT_BITS, FINE_BITS = 7, 10, 12
PLANE_LIMIT = HIDDEN_LIMIT = SAMPLE_LIMIT = (1 << 15) - 1  # values between layers fit 16 bits
BLOCK = 128

# the two shifts of the pointwise layers: planes times weights to the hidden layer's unit, and out to samples
HIDDEN_SHIFT = PLANE_BITS
OUT_SHIFT = 2 * WEIGHT_BITS - FINE_BITS
_PLANE_TO_OUT = WEIGHT_BITS - PLANE_BITS  # planes are finer by so much where they meet hidden values


@compiled_exact
def _upsampled_row(x, c, taps, y, w, t, out):
    """Row y, w long, of plane c of x (C, h, w'), into out; t: scratch of w' + 4."""
    rows, columns = x.shape[1], x.shape[2]
    a0, a1, a2, a3 = taps[0], taps[1], taps[2], taps[3]
    half, low, top = np.int32(1 << (FINE_BITS - 1)), np.int32(-PLANE_LIMIT), np.int32(PLANE_LIMIT)
    shift = np.int32(FINE_BITS)
    i = y >> 1
    if y & 1:
        r0, r2, r3 = max(i - 1, 0), min(i + 1, rows - 1), min(i + 2, rows - 1)
    else:
        r0, r2, r3 = min(i + 1, rows - 1), max(i - 1, 0), max(i - 2, 0)
    for q in range(columns):
        v = (a0 * x[c, r0, q] + a1 * x[c, i, q] + a2 * x[c, r2, q] + a3 * x[c, r3, q] + half) >> shift
        t[q + 2] = min(max(v, low), top)
    t[0] = t[1] = t[2]
    t[columns + 2] = t[columns + 3] = t[columns + 1]
    m = w >> 1
    for q in range(m):
        v = (a0 * t[q + 3] + a1 * t[q + 2] + a2 * t[q + 1] + a3 * t[q] + half) >> shift
        out[2 * q] = min(max(v, low), top)
        v = (a0 * t[q + 1] + a1 * t[q + 2] + a2 * t[q + 3] + a3 * t[q + 4] + half) >> shift
        out[2 * q + 1] = min(max(v, low), top)
    if w & 1:
        v = (a0 * t[m + 3] + a1 * t[m + 2] + a2 * t[m + 1] + a3 * t[m] + half) >> shift
        out[w - 1] = min(max(v, low), top)


@compiled_exact
def upsample_rows(grid, below, taps, out, y0, y1):
    """Rows y0..y1 of planes (1 + C, h, w): a grid of integers (h, w), then planes below (C, ceil(h/2), ceil(w/2))."""
    w = grid.shape[1]
    t = np.empty(below.shape[2] + 4, np.int32)
    for y in range(y0, y1):
        for x in range(w):
            out[0, y, x] = grid[y, x] << np.int32(PLANE_BITS)
        for c in range(below.shape[0]):
            _upsampled_row(below, c, taps, y, w, t, out[c + 1, y])


@compiled_exact
def add_level(below, grid, weights, out):
    """Weighted sums of grids, out (h, w, F) int32: those of coarser grids (``below``), repeated, and one grid more."""
    for y in range(grid.shape[0]):
        for x in range(grid.shape[1]):
            value = grid[y, x]
            for f in range(weights.shape[0]):
                out[y, x, f] = below[y >> 1, x >> 1, f] + weights[f] * value


@compiled_exact
def round_features(sums, shift, limit, out):
    """out (h, w, F) int16 = clamp(round(sums >> shift))."""
    half, by = np.int32(1 << (shift - 1)), np.int32(shift)
    low, top = np.int32(-limit), np.int32(limit)
    for y in range(sums.shape[0]):
        for x in range(sums.shape[1]):
            for f in range(sums.shape[2]):
                out[y, x, f] = min(max((sums[y, x, f] + half) >> by, low), top)


@compiled_exact
def pointwise_rows(grid, below, taps, w1, b1, shift, planes, hidden, b2, out, y0, y1):
    """Rows y0..y1: the finest grid and the planes below it -> samples in out (channels, h + 2, w + 2), inside.

    Weights are pairs (see `tile`): of the hidden layer (W, 4); out of planes (4, 4) and of hidden values (4, W / 2).
    Biases have the half that rounds.
    """
    w, channels, wide = grid.shape[1], out.shape[0], w1.shape[0]
    t = np.empty(below.shape[2] + 4, np.int32)
    line = np.zeros((8, w), np.int32)
    x, h = np.zeros((4, BLOCK), np.int32), np.zeros((wide >> 1, BLOCK), np.int32)
    y, z = np.empty((4, BLOCK), np.int32), np.empty((4, BLOCK), np.int32)
    by, up = np.int32(OUT_SHIFT), np.int32(_PLANE_TO_OUT)
    low, top = np.int32(-SAMPLE_LIMIT), np.int32(SAMPLE_LIMIT)
    for row in range(y0, y1):
        for i in range(w):
            line[0, i] = grid[row, i] << np.int32(PLANE_BITS)
        for c in range(6):
            _upsampled_row(below, c, taps, row, w, t, line[c + 1])
        for x0 in range(0, w, BLOCK):
            n = min(BLOCK, w - x0)
            for c in range(4):
                for p in range(n):
                    x[c, p] = (line[2 * c, x0 + p] & np.int32(0xFFFF)) | (line[2 * c + 1, x0 + p] << np.int32(16))
            for p in range(0, n, WIDTH):
                for o in range(0, wide, 4):
                    hidden_tile(w1, x, b1, shift, HIDDEN_LIMIT, h, o, p, 4)  # type: ignore[call-arg]
                sums_tile(planes, x, y, p, 4)  # type: ignore[call-arg]
                sums_tile(hidden, h, z, p, wide >> 1)  # type: ignore[call-arg]
            for c in range(channels):
                for p in range(n):
                    y[c, p] = (y[c, p] << up) + z[c, p] + b2[c]
                for p in range(n):  # apart from the sums, which would be taken in 64 bits to be shifted
                    out[c, row + 1, x0 + 1 + p] = min(max(y[c, p] >> by, low), top)


@compiled_exact
def repeat_edges(p):
    """Fill the border of a picture (C, h + 2, w + 2) with its nearest samples."""
    h, w = p.shape[1] - 2, p.shape[2] - 2
    for c in range(p.shape[0]):
        for y in range(1, h + 1):
            p[c, y, 0], p[c, y, w + 1] = p[c, y, 1], p[c, y, w]
        for x in range(w + 2):
            p[c, 0, x], p[c, h + 1, x] = p[c, 1, x], p[c, h, x]


@compiled_exact
def residual_rows(p, k, b, out, low, y0, y1):
    """Rows y0..y1 of out = clamp(p + conv3x3(p), low), inside both (channels, h + 2, w + 2)."""
    channels, w = p.shape[0], p.shape[2] - 2
    half, shift, top = np.int32(1 << (FINE_BITS - 1)), np.int32(FINE_BITS), np.int32(SAMPLE_LIMIT)
    least = np.int32(low)
    a = np.empty(w, np.int32)
    for y in range(y0, y1):
        for o in range(channels):
            for x in range(w):
                a[x] = b[o] + half + (p[o, y + 1, x + 1] << shift)
            for i in range(channels):
                k00, k01, k02 = k[o, i, 0, 0], k[o, i, 0, 1], k[o, i, 0, 2]
                k10, k11, k12 = k[o, i, 1, 0], k[o, i, 1, 1], k[o, i, 1, 2]
                k20, k21, k22 = k[o, i, 2, 0], k[o, i, 2, 1], k[o, i, 2, 2]
                for x in range(w):
                    a[x] += (
                        k00 * p[i, y, x] + k01 * p[i, y, x + 1] + k02 * p[i, y, x + 2]
                        + k10 * p[i, y + 1, x] + k11 * p[i, y + 1, x + 1] + k12 * p[i, y + 1, x + 2]
                        + k20 * p[i, y + 2, x] + k21 * p[i, y + 2, x + 1] + k22 * p[i, y + 2, x + 2]
                    )  # fmt: skip
            for x in range(w):
                out[o, y + 1, x + 1] = min(max(a[x] >> shift, least), top)


# --- the definition, in numpy ------------------------------------------------------------------------------------


def _rounded(sums: npt.NDArray[np.int64], shift: int, low: int, top: int) -> npt.NDArray[np.int64]:
    return ((sums + (1 << shift - 1)) >> shift).clip(low, top)


def plain_upsample(grid: Ints, below: Ints, taps: Ints) -> npt.NDArray[np.int64]:
    """`upsample_rows` of all rows."""
    planes = below.astype(np.int64)
    for axis, length in ((1, grid.shape[0]), (2, grid.shape[1])):
        n = planes.shape[axis]
        near = planes.take(np.arange(-2, n + 2).clip(0, n - 1), axis)
        part = [near.take(np.arange(i, i + n), axis) for i in range(5)]
        odd = sum(int(t) * part[i] for t, i in zip(taps, (1, 2, 3, 4)))
        even = sum(int(t) * part[i] for t, i in zip(taps, (3, 2, 1, 0)))
        both = np.stack([even, odd], axis + 1)
        shape = list(planes.shape)
        shape[axis] = 2 * n
        planes = _rounded(both.reshape(shape), FINE_BITS, -PLANE_LIMIT, PLANE_LIMIT)
        planes = planes.take(np.arange(length), axis)
    return np.concatenate([grid.astype(np.int64)[None] << PLANE_BITS, planes])


def plain_add_level(below: Ints, grid: Ints, weights: Ints) -> Ints:
    """`add_level` in numpy."""
    h, w = grid.shape
    return below.repeat(2, 0).repeat(2, 1)[:h, :w] + grid[..., None] * weights


def plain_round_features(sums: Ints, shift: int, limit: int) -> npt.NDArray[np.int16]:
    """`round_features` in numpy."""
    return _rounded(sums.astype(np.int64), shift, -limit, limit).astype(np.int16)


def plain_pointwise(planes: npt.NDArray[np.int64], w1: Ints, b1: Ints, w2: Ints, b2: Ints) -> npt.NDArray[np.int64]:
    """Planes (7, h, w) -> samples (channels, h, w)."""
    x = planes.reshape(len(planes), -1)
    weights, wide = [w.astype(np.int64) for w in (w1, b1[:, None], w2, b2[:, None])], len(w1)
    hidden = _rounded(weights[0] @ x + weights[1], HIDDEN_SHIFT, 0, HIDDEN_LIMIT)
    out = weights[2][:, :wide] @ hidden + ((weights[2][:, wide : wide + 7] @ x) << _PLANE_TO_OUT) + weights[3]
    return _rounded(out, OUT_SHIFT, -SAMPLE_LIMIT, SAMPLE_LIMIT).reshape(-1, *planes.shape[1:])


def plain_residual(p: npt.NDArray[np.int64], k: Ints, b: Ints, low: int) -> npt.NDArray[np.int64]:
    """One 3x3 layer on samples (channels, h, w)."""
    h, w = p.shape[1:]
    padded = np.pad(p, ((0, 0), (1, 1), (1, 1)), "edge")
    out = (p << FINE_BITS) + b.astype(np.int64)[:, None, None]
    for y in range(3):
        for x in range(3):
            out = out + np.einsum("oi,ihw->ohw", k[:, :, y, x].astype(np.int64), padded[:, y : y + h, x : x + w])
    return _rounded(out, FINE_BITS, low, SAMPLE_LIMIT)
