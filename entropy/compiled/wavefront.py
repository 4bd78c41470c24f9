"""The loops of `wavefront`: contexts of a grid and their net in int32, and the decoder that goes along with them."""

from __future__ import annotations

import numpy as np

from .rows import _close, _next, _open, compiled, inlined

ESCAPE_BAD = -4
BLOCK = 128  # positions whose products stay in a core's caches
INPUT_BITS = 7  # a value of one, as an input of the net, is 1 << INPUT_BITS
WEIGHT_BITS = 9  # a weight of one
OUTPUT_SHIFT = INPUT_BITS + WEIGHT_BITS - 3  # means and log-scales come in eighths
CLAMP = (1 << 14) - 1  # of a hidden value
LIMIT = 127  # of a symbol
SCALES = 64
FRACTIONS = 8
_HALF, _OUTPUT_HALF = np.int32(1 << (WEIGHT_BITS - 1)), np.int32(1 << (OUTPUT_SHIFT - 1))
_SCALE_OFFSET = 24  # number of the table whose log-scale a raw output of 0 means


@inlined
def _products(w, b, x, y, rows, columns, n):
    """y = b + w x for blocks of columns; rows and columns in fours."""
    for o in range(0, rows, 4):
        for i in range(0, columns, 4):
            a00, a01, a02, a03 = w[o, i], w[o, i + 1], w[o, i + 2], w[o, i + 3]
            a10, a11, a12, a13 = w[o + 1, i], w[o + 1, i + 1], w[o + 1, i + 2], w[o + 1, i + 3]
            a20, a21, a22, a23 = w[o + 2, i], w[o + 2, i + 1], w[o + 2, i + 2], w[o + 2, i + 3]
            a30, a31, a32, a33 = w[o + 3, i], w[o + 3, i + 1], w[o + 3, i + 2], w[o + 3, i + 3]
            if i == 0:
                b0, b1, b2, b3 = b[o], b[o + 1], b[o + 2], b[o + 3]
                for p in range(n):
                    x0, x1, x2, x3 = x[i, p], x[i + 1, p], x[i + 2, p], x[i + 3, p]
                    y[o, p] = b0 + a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                    y[o + 1, p] = b1 + a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                    y[o + 2, p] = b2 + a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                    y[o + 3, p] = b3 + a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
            else:
                for p in range(n):
                    x0, x1, x2, x3 = x[i, p], x[i + 1, p], x[i + 2, p], x[i + 3, p]
                    y[o, p] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                    y[o + 1, p] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                    y[o + 2, p] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                    y[o + 3, p] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3


@compiled
def _layer(w, b, x, y, n):
    """y = clamp((b + w x) >> WEIGHT_BITS, 0, CLAMP)."""
    c = w.shape[0]
    _products(w, b, x, y, c, c, n)
    top, zero = np.int32(CLAMP), np.int32(0)
    for o in range(c):
        for p in range(n):
            y[o, p] = min(max(y[o, p] >> np.int32(WEIGHT_BITS), zero), top)


@compiled
def _tables(w1, b1, w2, b2, w3, b3, x, hidden, both, out, index, offset, n):
    """The net on a block of inputs x (C, n) -> numbers of tables and whole parts of means.

    Biases have the half of a unit in them that rounds to the nearest: vector units shift sums of 32 bits only.
    """
    c = w1.shape[0]
    _layer(w1, b1, x, hidden, n)
    _layer(w2, b2, hidden, both, n)
    for i in range(c):
        for p in range(n):
            both[c + i, p] = x[i, p]
    _products(w3, b3, both, out, 4, 2 * c, n)
    shift = np.int32(OUTPUT_SHIFT)
    for p in range(n):
        mean = out[0, p] >> shift
        scale = min(max((out[1, p] >> shift) + np.int32(_SCALE_OFFSET), np.int32(0)), np.int32(SCALES - 1))
        whole = (mean + np.int32(4)) >> np.int32(3)
        offset[p] = whole
        index[p] = scale * np.int32(FRACTIONS) + (mean - (whole << np.int32(3)) + np.int32(4))


@compiled
def grid_tables(values, h, w, features, own, dy, dx, w1, b1, w2, b2, w3, b3, index, offset):
    """Tables and offsets (h, w) of all values of a grid that is known.

    values: (h + 4, w + 8) int32 with a border of zeros above and on both sides. features: (F, ceil(h / 2), ceil(w / 2))
    int32, looked at where ``own``.
    """
    c, s = w1.shape[0], dy.shape[0]
    b1, b2, b3 = b1 + _HALF, b2 + _HALF, b3 + _OUTPUT_HALF
    x, hidden = np.zeros((c, BLOCK), np.int32), np.empty((c, BLOCK), np.int32)
    both, out = np.empty((2 * c, BLOCK), np.int32), np.empty((4, BLOCK), np.int32)
    for y in range(h):
        for x0 in range(0, w, BLOCK):
            n = min(BLOCK, w - x0)
            for i in range(s):
                begin = x0 + 4 + dx[i]
                seen = values[y + 4 + dy[i], begin : begin + n]
                for p in range(n):
                    x[i, p] = seen[p] << np.int32(INPUT_BITS)
            if own:
                for i in range(s, c):
                    for p in range(n):
                        x[i, p] = features[i - s, y >> 1, (x0 + p) >> 1]
            _tables(w1, b1, w2, b2, w3, b3, x, hidden, both, out, index[y, x0:], offset[y, x0:], n)


@compiled
def decode_grid(
    state, ptr, begin, words, side, raw, escapes, lut, entries, precision,
    symbols, lag, features, own, dy, dx, w1, b1, w2, b2, w3, b3,
):  # fmt: skip
    """Fill ``symbols`` (h, w) int32 along a skewed wavefront; returns 0 or an error code.

    Position (y, x) belongs to front x + lag y: what it is foretold from lies on earlier fronts. Symbols of a front are
    coded from the top.
    """
    h, w = symbols.shape
    c, s = w1.shape[0], dy.shape[0]
    b1, b2, b3 = b1 + _HALF, b2 + _HALF, b3 + _OUTPUT_HALF
    x, hidden = np.zeros((c, BLOCK), np.int32), np.empty((c, BLOCK), np.int32)
    both, out = np.empty((2 * c, BLOCK), np.int32), np.empty((4, BLOCK), np.int32)
    index, offset = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    before = 4 * lag + 4
    # values by front and row: a front's contexts are contiguous, and what is not coded yet is zero
    skewed = np.zeros((w + lag * (h - 1) + before + 5, h + 4), np.int32)
    cursor, count = _open(side, raw), 0
    for t in range(w + lag * (h - 1)):
        low = max(0, (t - w + lag) // lag) if t >= w else 0
        high = min(h - 1, t // lag)
        for first in range(low, high + 1, BLOCK):
            n = min(BLOCK, high + 1 - first)
            for i in range(s):
                row = first + 4 + dy[i]
                seen = skewed[t + before + dx[i] + lag * dy[i], row : row + n]
                for p in range(n):
                    x[i, p] = seen[p] << np.int32(INPUT_BITS)
            if own:
                for i in range(s, c):
                    plane = features[i - s]
                    for p in range(n):
                        y = first + p
                        x[i, p] = plane[y >> 1, (t - lag * y) >> 1]
            _tables(w1, b1, w2, b2, w3, b3, x, hidden, both, out, index, offset, n)
            for p in range(n):
                v, err = _next(
                    index[p], count, state, ptr, begin, words, side, raw, escapes, lut, entries, precision, cursor
                )
                if err:
                    return err
                v += np.int64(offset[p])
                if v < -LIMIT or v > LIMIT:
                    return ESCAPE_BAD
                count += 1
                skewed[t + before, first + 4 + p] = v
                symbols[first + p, t - lag * (first + p)] = v
    return _close(side, count, cursor)
