"""The compiled bodies of `row_quantiser`: cached on disk, GIL released."""

from __future__ import annotations

import numpy as np
from numba import njit


def _jit(function):  # type: ignore[no-untyped-def]
    try:
        return njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written: compile each time
        return njit(nogil=True, error_model="numpy", boundscheck=False)(function)


_u = np.uint64
_TILE = 16  # rows between component-major symbols and row-major reconstructions: a cache line


@_jit
def quantise(y, ref, alpha, step, half, shift, index, moved, symbols, out, residual):  # type: ignore[no-untyped-def]
    n, k = _u(y.shape[0]), _u(y.shape[1])
    tile = np.empty((_TILE, y.shape[1]), np.int32)
    off = np.zeros((_TILE, y.shape[1], 2), np.float32)
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
            for c in range(k):
                guess = alpha[c] * out[source, c] if known else zero
                e = (y[row, c] - guess) / step
                size = min(np.floor(abs(e) + half), reach)
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
