"""Least squares over the lags of one or two channels, solved anew for every few samples.

Products of lags are summed by blocks: those of one lag follow from those of the one before by what enters and leaves,
so that a sample costs little more than its two ends. Old blocks are forgotten by and by.

These are the codec's only floats. They are float64, and only added, subtracted, multiplied and divided, each of which
IEEE 754 rounds in one way; loops are compiled without fast mathematics, so that no compiler may reorder or fuse them.
So weights are the same on every machine, and they are rounded to integers before anything is predicted with them.
"""

from __future__ import annotations

import numpy as np

from ...entropy.adaptive import loop, part

TAP = 20  # bits of fraction of a weight
ONE = float(1 << TAP)
MOST = 1024.0  # largest weight
ROOM = 16  # rows of a system are padded to a multiple of this


def scratch(width: int) -> np.ndarray:
    """Room for `gather` and `solve` with up to `width` unknowns."""
    return np.zeros((width + ROOM) * (width + ROOM + 10))


@part
def _add_products(out, x, n, g):  # type: ignore[no-untyped-def]
    for i in range(n):
        out[i] += g * float(x[i])


@part
def _slide(out, before, x, n, g, y, h):  # type: ignore[no-untyped-def]
    for i in range(n):
        out[i] = before[i] + g * float(x[i]) - h * float(y[i])


@loop
def gather(x, places, many, lags, fresh, column):  # type: ignore[no-untyped-def]
    """Products of the lags of channels over a block of samples, summed: the lower half of (channel, lag) by the same.

    places: where the block begins in each channel, `lags` samples earlier. Lags lie from `lags` down to 0, so that
    rows are as samples lie. column: scratch.
    """
    channels, w = places.shape[0], lags + 1
    width = channels * w
    for a in range(channels):
        for b in range(a + 1):
            at, start = int(places[a]), int(places[b])
            origin = a * w * width + b * w
            last = fresh[origin + lags * width : origin + lags * width + w]
            for j in range(w):
                last[j] = 0.0
                column[j] = 0.0
            for t in range(many):
                _add_products(last, x[start + t : start + t + w], w, float(x[at + lags + t]))
            if a != b:
                for t in range(many):
                    _add_products(column, x[at + t : at + t + w], w, float(x[start + lags + t]))
                for i in range(lags):
                    fresh[origin + i * width + lags] = column[i]
            for i in range(lags - 1, -1, -1):
                n = i + 1 if a == b else lags
                row = origin + i * width
                _slide(
                    fresh[row : row + n], fresh[row + width + 1 : row + width + 1 + n], x[start : start + n], n,
                    float(x[at + i]), x[start + many : start + many + n], float(x[at + i + many]),
                )  # fmt: skip
    return 0


@part
def _fold(old, fresh, n, keep, share):  # type: ignore[no-untyped-def]
    for i in range(n):
        old[i] = old[i] * keep + fresh[i] * share


@loop
def fold(old, fresh, width, keep, share):  # type: ignore[no-untyped-def]
    """Forget some of the old products, add a share of the fresh ones."""
    for i in range(width):
        k = i * width
        _fold(old[k : k + i + 1], fresh[k : k + i + 1], i + 1, keep, share)
    return 0


@part
def _less(out, x, n, g):  # type: ignore[no-untyped-def]
    for i in range(n):
        out[i] -= g * x[i]


@part
def _less_four(out, n, g, x, h, y, k, z, m, w):  # type: ignore[no-untyped-def]
    for i in range(n):
        out[i] = (((out[i] - g * x[i]) - h * y[i]) - k * z[i]) - m * w[i]


@part
def _scaled(out, x, n, g):  # type: ignore[no-untyped-def]
    for i in range(n):
        out[i] = g * x[i]


@loop
def solve(gram, width, rows, target, space, wgt, ridge):  # type: ignore[no-untyped-def]
    """Weights of least squares from products of lags to wgt, TAP bits of fraction.

    rows: of the inputs, ascending; space: `scratch`. The system is factored as L D L', four columns at a time.
    """
    n = rows.shape[0]
    m = (n + ROOM - 1) // ROOM * ROOM
    a, b, inverse = space[: m * m], space[m * m : m * m + m], space[m * m + m : m * m + 2 * m]
    columns, parts = space[m * m + 2 * m : m * m + 6 * m], space[m * m + 6 * m : m * m + 10 * m]
    trace = 0.0
    for i in range(n):
        row = gram[int(rows[i]) * width : int(rows[i]) * width + width]
        for j in range(i + 1):
            a[i * m + j] = row[rows[j]]
        for j in range(i + 1, m):
            a[i * m + j] = 0.0
        trace += a[i * m + i]
        p = int(rows[i])
        b[i] = gram[max(p, target) * width + min(p, target)]
    least = trace * ridge + 1e-6
    for i in range(n, m):
        for j in range(m):
            a[i * m + j] = 0.0
        b[i] = 0.0
    for i in range(m):
        a[i * m + i] += least
    size = (n + 3) // 4 * 4
    for k in range(0, size, 4):
        for p in range(4):
            column, share = columns[p * m : p * m + m], parts[p * m : p * m + m]
            for i in range(k + p):
                column[i] = 0.0
            for i in range(k + p, m):
                column[i] = a[i * m + k + p]
            for q in range(p):
                _less(column[k + p :], parts[q * m + k + p : q * m + m], m - k - p, columns[q * m + k + p])
            d = column[k + p]
            inv = 1.0 / d if d > 0.5 * least else 0.0
            inverse[k + p] = inv
            _scaled(share, column, m, inv)
            for i in range(k + p, m):
                a[i * m + k + p] = column[i]
            _less(b[k + p + 1 :], share[k + p + 1 :], m - k - p - 1, b[k + p])
        begin = (k + 4) // ROOM * ROOM
        for p in range(4):
            for i in range(k + 4):
                columns[p * m + i] = 0.0
        for i in range(k + 4, size):
            count = (i + ROOM) // ROOM * ROOM - begin
            _less_four(
                a[i * m + begin : i * m + begin + count], count,
                parts[i], columns[begin:], parts[m + i], columns[m + begin :],
                parts[2 * m + i], columns[2 * m + begin :], parts[3 * m + i], columns[3 * m + begin :],
            )  # fmt: skip
    for i in range(n - 1, -1, -1):
        g = b[i] * inverse[i]
        _less(b[:i], a[i * m : i * m + i], i, g)
        wgt[i] = int(np.floor(min(max(g, -MOST), MOST) * ONE + 0.5))
    return 0
