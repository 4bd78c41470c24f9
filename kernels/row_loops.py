"""The compiled bodies of `row_quantiser`: cached on disk, GIL released."""

from __future__ import annotations

import numpy as np

from .compiled import compiled as _jit

_u = np.uint64
_TILE = 16  # rows between component-major symbols and row-major reconstructions: a cache line


@_jit
def quantise(y, columns, ref, alpha, step, half, shift, index, moved, symbols, out, residual, kept):  # type: ignore[no-untyped-def]
    n, k = _u(y.shape[0]), _u(symbols.shape[0])
    tile = np.empty((_TILE, symbols.shape[0]), np.int32)
    off = np.zeros((_TILE, symbols.shape[0], 2), np.float32)
    line = np.empty(symbols.shape[0], np.float32)
    reach, zero = np.float32(2.0**30), np.float32(0.0)
    for first in range(_u(0), n, _u(_TILE)):
        rows = min(_u(_TILE), n - first)
        if moved:
            for c in range(k):
                for r in range(rows):
                    t = _u(index[c, first + r])
                    off[r, c, _u(0)] = shift[t, _u(0)]
                    off[r, c, _u(1)] = shift[t, _u(1)]
        for r in range(rows):
            row = first + r
            known = ref[row] >= 0
            source = _u(ref[row]) if known else _u(0)
            for c in range(k):  # on its own, so that the next loop is not a gather
                line[c] = y[row, _u(columns[c])]
            for c in range(k):
                guess = alpha[c] * out[source, c] if known else zero
                e = (line[c] - guess) / step
                size = min(np.floor(abs(e) + half), reach)
                if kept:
                    residual[row, c] = e
                s = np.int32(-size) if e < zero else np.int32(size)
                tile[r, c] = s
                if s != 0:
                    size -= off[r, c, _u(1)] if size > np.float32(1.0) else off[r, c, _u(0)]
                    guess += (-size if s < 0 else size) * step
                out[row, c] = guess
        for c in range(k):
            for r in range(rows):
                symbols[c, first + r] = tile[r, c]


@_jit
def dequantise(symbols, ref, alpha, step, shift, index, moved, out):  # type: ignore[no-untyped-def]
    k, n = _u(symbols.shape[0]), _u(symbols.shape[1])
    for first in range(_u(0), n, _u(_TILE)):
        rows = min(_u(_TILE), n - first)
        for c in range(k):
            for r in range(rows):
                s = symbols[c, first + r]
                value = np.float32(s)
                if moved and s != 0:
                    t = _u(index[c, first + r])
                    d = shift[t, _u(1)] if s > 1 or s < -1 else shift[t, _u(0)]
                    value -= d if s > 0 else -d
                out[first + r, c] = value * step
        for r in range(rows):
            row = first + r
            if ref[row] >= 0:
                source = _u(ref[row])
                for c in range(k):
                    out[row, c] += alpha[c] * out[source, c]


@_jit
def spread(level, family, matched, gain, out):  # type: ignore[no-untyped-def]
    for c in range(_u(level.shape[1])):
        plain, other, top = np.int32(level[0, c]), np.int32(level[1, c]), np.int32(64) * np.int32(family[c])
        for r in range(_u(matched.size)):
            t = (other if matched[r] else plain) + np.int32(gain[r])
            out[c, r] = np.uint8(min(max(t, np.int32(0)), np.int32(63)) + top)


@_jit
def histograms(symbols, rows, reach, out):  # type: ignore[no-untyped-def]
    for c in range(_u(symbols.shape[0])):
        for i in range(_u(rows.size)):
            s = np.int64(symbols[c, _u(rows[i])])
            out[c, min(abs(s), reach)] += 1


@_jit
def table_bits(counts, costs, out):  # type: ignore[no-untyped-def]
    for c in range(_u(counts.shape[0])):
        for size in range(_u(counts.shape[1])):
            n = counts[c, size]
            if n > 0:  # few magnitudes occur
                for t in range(_u(costs.shape[1])):
                    out[c, t] += n * costs[size, t]


@_jit
def powers(x, weight, out):  # type: ignore[no-untyped-def]
    k = _u(x.shape[1])
    for row in range(_u(x.shape[0])):
        # eight sums: one alone would wait for itself
        sums = np.zeros(8, np.float32)
        whole = k - k % _u(8)
        for c in range(_u(0), whole, _u(8)):
            for j in range(_u(8)):
                v = x[row, c + j]
                sums[j] += v * v * weight[c + j]
        total = sums.sum()
        for c in range(whole, k):
            total += x[row, c] * x[row, c] * weight[c]
        out[row] = total


@_jit
def nearest(far, first, best, at):  # type: ignore[no-untyped-def]
    step = _u(64)
    for r in range(_u(far.shape[0])):
        stop = _u(first) + r  # a row refers to earlier ones only
        low, where = np.float32(np.inf), _u(0)
        for begin in range(_u(0), stop, step):
            end = min(begin + step, stop)
            least = np.float32(np.inf)
            for c in range(begin, end):
                least = min(least, far[r, c])
            if least < low:
                low, where = least, begin
        for c in range(where, min(where + step, stop)):
            if far[r, c] == low:
                where = c
                break
        best[r], at[r] = low, np.int32(where)


@_jit
def products(y, rows, ref, out):  # type: ignore[no-untyped-def]
    k = _u(y.shape[1])
    part = np.zeros((3, y.shape[1]), np.float32)
    for i in range(_u(rows.size)):
        row = _u(rows[i])
        source = _u(ref[row])
        for c in range(k):
            a, b = y[row, c], y[source, c]
            part[0, c] += a * b
            part[1, c] += b * b
            part[2, c] += a * a
        if i % _u(64) == _u(63):  # so that rounding does not grow with the rows
            for j in range(3):
                for c in range(k):
                    out[j, c] += part[j, c]
                    part[j, c] = np.float32(0.0)
    for j in range(3):
        for c in range(k):
            out[j, c] += part[j, c]
