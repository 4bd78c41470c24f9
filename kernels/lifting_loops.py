"""The loops of `lifting`, compiled."""

from __future__ import annotations

import numpy as np

from .compiled import compiled as _jit
from .lines import lift_line, lift_lines

STRIPE = 64  # columns that are split together, so that a stripe stays in a core's second cache


@_jit
def _lift(flat, at, pitch, count, width, first, factors):  # type: ignore[no-untyped-def]
    """One level of a line of ``count`` samples, a pitch apart from ``at`` on, each of ``width`` side by side.

    The four steps follow each other two samples apart, so that they go through memory once.
    """
    f0, f1, f2, f3 = factors
    for t in range(first, count + 3, 2):
        if t >= 4 and t + 1 < count:
            lift_lines(flat, at + t * pitch, pitch, width, f0, f1, f2, f3)  # type: ignore[call-arg]
            continue
        for k in range(4):
            i = t - k
            if 0 <= i < count:
                before = i - 1 if i else 1
                after = i + 1 if i + 1 < count else i - 1
                lift_line(flat, at + i * pitch, at + before * pitch, at + after * pitch, width, factors[k])  # type: ignore[call-arg]


@_jit
def _packet(flat, at, count, pitch, width, levels, factors, inverse):  # type: ignore[no-untyped-def]
    """All levels of lines of ``count`` samples, in place."""
    for k in range(levels):
        level = levels - 1 - k if inverse else k
        gap = 1 << level
        for band in range(gap):
            _lift(flat, at + band * pitch, gap * pitch, count >> level, width, 0 if inverse else 1, factors)


@_jit
def columns(x, rows, first, end, levels, factors, add):  # type: ignore[no-untyped-def]
    """Split columns first..end of x (C, H, W), plus ``add``, into rows (H >> levels, W, C << levels)."""
    channels, h = x.shape[:2]
    side = 1 << levels
    stripe = np.zeros(h * STRIPE, np.float32)
    for left in range(first, end, STRIPE):
        n = min(STRIPE, end - left)
        for c in range(channels):
            for y in range(h):
                p = np.uint64(y * STRIPE)
                for i in range(np.uint64(n)):
                    stripe[p + i] = x[c, y, np.uint64(left) + i] + add
            _packet(stripe, 0, h, STRIPE, STRIPE, levels, factors, False)
            for row in range(h >> levels):
                p = np.uint64((row << levels) * STRIPE)
                for i in range(np.uint64(n)):
                    for k in range(np.uint64(side)):
                        rows[row, np.uint64(left) + i, np.uint64(c * side) + k] = stripe[p + i + k * np.uint64(STRIPE)]


@_jit
def across(rows, first, end, levels, factors, inverse):  # type: ignore[no-untyped-def]
    """Split, or join, rows of blocks first..end along their columns, in place."""
    _, w, lanes = rows.shape
    flat = rows.reshape(-1)
    for y in range(first, end):
        _packet(flat, y * w * lanes, w, lanes, lanes, levels, factors, inverse)


@_jit
def columns_back(rows, out, first, end, levels, factors, add):  # type: ignore[no-untyped-def]
    """Inverse of `columns`: out (C, H, W)."""
    channels, h = out.shape[:2]
    side = 1 << levels
    stripe = np.zeros(h * STRIPE, np.float32)
    for left in range(first, end, STRIPE):
        n = min(STRIPE, end - left)
        for c in range(channels):
            for row in range(h >> levels):
                p = np.uint64((row << levels) * STRIPE)
                for i in range(np.uint64(n)):
                    for k in range(np.uint64(side)):
                        stripe[p + i + k * np.uint64(STRIPE)] = rows[row, np.uint64(left) + i, np.uint64(c * side) + k]
            _packet(stripe, 0, h, STRIPE, STRIPE, levels, factors, True)
            for y in range(h):
                p = np.uint64(y * STRIPE)
                for i in range(np.uint64(n)):
                    out[c, y, np.uint64(left) + i] = stripe[p + i] + add


@_jit
def ordered(rows, out, places, gains, first, end):  # type: ignore[no-untyped-def]
    """Blocks of rows first..end to bands (K, h, w), each times its gain."""
    for y in range(first, end):
        for k in range(out.shape[0]):
            p, gain = np.uint64(places[k]), gains[k]
            for x in range(np.uint64(out.shape[2])):
                out[k, y, x] = rows[y, x, p] * gain


@_jit
def disordered(bands, rows, places, gains, first, end):  # type: ignore[no-untyped-def]
    """The other way round, of bands (h, w, K)."""
    for y in range(first, end):
        for x in range(bands.shape[1]):
            for k in range(np.uint64(bands.shape[2])):
                rows[y, x, np.uint64(places[k])] = bands[y, x, k] / gains[k]
