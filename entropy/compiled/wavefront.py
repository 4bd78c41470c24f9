"""The loops of `wavefront`: contexts of a grid and their net in int32, and the decoder that goes along with them."""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import usable
from ...kernels.pairs import WIDTH
from .rows import compiled

if usable():  # the plain bodies of `wavefront` take their place
    from ...kernels.tile import hidden_tile, last_tile
    from .coder import decode_lut_raw

ESCAPE_BAD = -4
BLOCK = 128  # positions whose products stay in a core's caches; a multiple of a tile's width
INPUT_BITS = 7  # a value of one, as an input of the net, is 1 << INPUT_BITS
WEIGHT_BITS = 9  # a weight of one
OUTPUT_SHIFT = INPUT_BITS + WEIGHT_BITS - 3  # means and log-scales come in eighths
CLAMP = (1 << 14) - 1  # of a hidden value
LIMIT = 127  # of a symbol
SCALES = 64
FRACTIONS = 8
_SCALE_OFFSET = 24  # number of the table whose log-scale a raw output of 0 means


@compiled
def _tables(w1, b1, w2, b2, shift, w3x, w3h, b3, x, hidden, both, out, index, offset, n):
    """The net on a block of inputs x (C / 2, n) -> numbers of tables and whole parts of means.

    Inputs and weights are pairs, see `tile`. Biases have the half of a unit in them that rounds to the nearest.
    """
    c = w1.shape[0]
    half = c >> 1
    for p in range(0, n, WIDTH):
        for o in range(0, c, 4):
            hidden_tile(w1, x, b1, shift, CLAMP, hidden, o, p, half)  # type: ignore[call-arg]
        for o in range(0, c, 4):
            hidden_tile(w2, hidden, b2, shift, CLAMP, both, o, p, half)  # type: ignore[call-arg]
        last_tile(w3x, x, half, w3h, both, half, 0, out, p)  # type: ignore[call-arg]
    by = np.int32(OUTPUT_SHIFT)
    for p in range(n):
        mean = (out[0, p] + b3[0]) >> by
        scale = min(max(((out[1, p] + b3[1]) >> by) + np.int32(_SCALE_OFFSET), np.int32(0)), np.int32(SCALES - 1))
        whole = (mean + np.int32(4)) >> np.int32(3)
        offset[p] = whole
        index[p] = scale * np.int32(FRACTIONS) + (mean - (whole << np.int32(3)) + np.int32(4))


@compiled
def _inputs(one, other):
    """Two neighbours as a pair of the net's inputs."""
    return ((np.int32(one) << np.int32(INPUT_BITS)) & np.int32(0xFFFF)) | (np.int32(other) << np.int32(INPUT_BITS + 16))


@compiled
def grid_tables(values, h, w, features, own, dy, dx, w1, b1, w2, b2, shift, w3x, w3h, b3, index, offset):
    """Tables and offsets (h, w) of all values of a grid that is known.

    values: (h + 4, w + 8) int32 with a border of zeros above and on both sides. features: (ceil(h / 2), ceil(w / 2),
    F / 2) int32 of pairs, looked at where ``own``.
    """
    c, s = w1.shape[0] >> 1, dy.shape[0] >> 1
    x, out = np.zeros((c, BLOCK), np.int32), np.empty((2, BLOCK), np.int32)
    hidden, both = np.empty_like(x), np.empty_like(x)
    for y in range(h):
        for x0 in range(0, w, BLOCK):
            n = min(BLOCK, w - x0)
            for i in range(s):
                begin, end = x0 + 4 + dx[2 * i], x0 + 4 + dx[2 * i + 1]
                one = values[y + 4 + dy[2 * i], begin : begin + n]
                other = values[y + 4 + dy[2 * i + 1], end : end + n]
                for p in range(n):
                    x[i, p] = _inputs(one[p], other[p])
            if own:
                for p in range(n):
                    for i in range(s, c):
                        x[i, p] = features[y >> 1, (x0 + p) >> 1, i - s]
            _tables(
                w1, b1, w2, b2, shift, w3x, w3h, b3, x, hidden, both, out, index[y, x0:], offset[y, x0:], n
            )  # fmt: skip


@compiled
def _unskew(skewed, before, lag, symbols):
    """Values by front and row -> symbols (h, w), in squares that stay in a core's caches."""
    h, w = symbols.shape
    for y0 in range(0, h, 16):
        for x0 in range(0, w, 16):
            for y in range(y0, min(h, y0 + 16)):
                for x in range(x0, min(w, x0 + 16)):
                    symbols[y, x] = skewed[x + lag * y + before, y + 4]


@compiled
def decode_grid(
    state, ptr, begin, words, side, raw, escapes, lut, entries, precision,
    symbols, lag, features, own, dy, dx, w1, b1, w2, b2, shift, w3x, w3h, b3,
):  # fmt: skip
    """Fill ``symbols`` (h, w) int32 along a skewed wavefront; returns 0 or an error code.

    Position (y, x) belongs to front x + lag y: what it is foretold from lies on earlier fronts. Symbols of a front are
    coded from the top.
    """
    h, w = symbols.shape
    c, s = w1.shape[0] >> 1, dy.shape[0] >> 1
    x, out = np.zeros((c, BLOCK), np.int32), np.empty((2, BLOCK), np.int32)
    hidden, both = np.empty_like(x), np.empty_like(x)
    index, offset, values = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    before = 4 * lag + 4
    # values by front and row: a front's contexts are contiguous, and what is not coded yet is zero
    skewed = np.zeros((w + lag * (h - 1) + before + 5, h + 4), np.int8)
    for t in range(w + lag * (h - 1)):
        low = max(0, (t - w + lag) // lag) if t >= w else 0
        high = min(h - 1, t // lag)
        for first in range(low, high + 1, BLOCK):
            n = min(BLOCK, high + 1 - first)
            for i in range(s):
                y0, y1 = dy[2 * i], dy[2 * i + 1]
                one = skewed[t + before + dx[2 * i] + lag * y0, first + 4 + y0 : first + 4 + y0 + n]
                other = skewed[t + before + dx[2 * i + 1] + lag * y1, first + 4 + y1 : first + 4 + y1 + n]
                for p in range(n):
                    x[i, p] = _inputs(one[p], other[p])
            if own:
                for p in range(n):
                    y = first + p
                    for i in range(s, c):
                        x[i, p] = features[y >> 1, (t - lag * y) >> 1, i - s]
            _tables(w1, b1, w2, b2, shift, w3x, w3h, b3, x, hidden, both, out, index, offset, n)
            err = decode_lut_raw(
                state, ptr, begin, words, side, raw, escapes,
                index[:n], SCALES * FRACTIONS, lut, entries, precision, values[:n],
            )  # fmt: skip
            if err:
                return err
            here = skewed[t + before, first + 4 : first + 4 + n]
            for p in range(n):
                v = np.int64(values[p]) + np.int64(offset[p])
                if v < -LIMIT or v > LIMIT:
                    return ESCAPE_BAD
                here[p] = v
    _unskew(skewed, before, lag, symbols)
    return 0
