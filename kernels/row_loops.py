"""The compiled bodies of `row_quantiser`: cached on disk, GIL released."""

from __future__ import annotations

import numpy as np

from .compiled import compiled as _jit

_u = np.uint64
_TILE = 32  # rows between component-major symbols and row-major reconstructions: whole cache lines of both


@_jit
def _line(y, guess, step, half, near, far, moved, kept, symbols, out, residual):  # type: ignore[no-untyped-def]
    """A row: without branches, so that it is compiled to vectors."""
    reach, zero, one = np.float32(2.0**30), np.float32(0.0), np.float32(1.0)
    for c in range(y.size):
        g = guess[c]
        e = (y[c] - g) / step
        size = np.floor(abs(e) + half)
        size = size if size < reach else reach
        if kept:
            residual[c] = e
        s = np.int32(-size) if e < zero else np.int32(size)
        if moved:
            size -= far[c] if size > one else near[c]
        value = g + (-size if e < zero else size) * step
        symbols[c] = s
        out[c] = g if s == 0 else value


@_jit
def _values(symbols, step, near, far, moved, out):  # type: ignore[no-untyped-def]
    for c in range(symbols.size):
        s = symbols[c]
        value = np.float32(s)
        if moved:
            d = far[c] if abs(s) > 1 else near[c]
            value = value - (d if s > 0 else -d)
        out[c] = (np.float32(0.0) if s == 0 else value) * step


@_jit
def _shifts(tables, shift, near, far):  # type: ignore[no-untyped-def]
    for c in range(_u(tables.size)):
        near[c] = shift[_u(tables[c]), _u(0)]
        far[c] = shift[_u(tables[c]), _u(1)]


@_jit
def quantise(y, columns, ref, alpha, step, half, shift, index, moved, symbols, out, residual, kept):  # type: ignore[no-untyped-def]
    n, k = _u(y.shape[0]), _u(symbols.shape[0])
    tile = np.empty((_TILE, symbols.shape[0]), np.int32)
    tables = np.empty((_TILE, symbols.shape[0]), np.uint8)
    near = np.zeros(symbols.shape[0], np.float32)
    far = np.zeros(symbols.shape[0], np.float32)
    line = np.zeros(symbols.shape[0], np.float32)
    guess = np.zeros(symbols.shape[0], np.float32)
    for first in range(_u(0), n, _u(_TILE)):
        rows = min(_u(_TILE), n - first)
        if moved:
            for c in range(k):
                for r in range(rows):
                    tables[r, c] = index[c, first + r]
        for r in range(rows):
            row = first + r
            for c in range(k):  # on its own, so that what follows is not a gather
                line[c] = y[row, _u(columns[c])]
            if moved:
                _shifts(tables[r], shift, near, far)
            if ref[row] >= 0:
                source = _u(ref[row])
                for c in range(k):
                    guess[c] = alpha[c] * out[source, c]
            else:
                for c in range(k):
                    guess[c] = np.float32(0.0)
            left = residual[row if kept else _u(0)]
            _line(line, guess, step, half, near, far, moved, kept, tile[r], out[row], left)
        for c in range(k):
            for r in range(rows):
                symbols[c, first + r] = tile[r, c]


@_jit
def dequantise(symbols, ref, alpha, step, shift, index, moved, out):  # type: ignore[no-untyped-def]
    k, n = _u(symbols.shape[0]), _u(symbols.shape[1])
    tile = np.empty((_TILE, symbols.shape[0]), np.int32)
    tables = np.empty((_TILE, symbols.shape[0]), np.uint8)
    near = np.zeros(symbols.shape[0], np.float32)
    far = np.zeros(symbols.shape[0], np.float32)
    for first in range(_u(0), n, _u(_TILE)):
        rows = min(_u(_TILE), n - first)
        for c in range(k):
            for r in range(rows):
                tile[r, c] = symbols[c, first + r]
            if moved:
                for r in range(rows):
                    tables[r, c] = index[c, first + r]
        for r in range(rows):
            row = first + r
            if moved:
                _shifts(tables[r], shift, near, far)
            _values(tile[r], step, near, far, moved, out[row])
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
