"""Upsampling by two with one learned filter a level: four taps, mirrored for the other phase, rows then columns.

Sample 2i lies a quarter to the left of i, sample 2i + 1 a quarter to the right; edges are repeated.
"""

from __future__ import annotations

import numpy as np

from .jit import compiled
from .maths import f4


@compiled
def upsample_rows(x, channels, taps, out, h, w, y0, y1):  # type: ignore[no-untyped-def]
    """Rows y0..y1 of planes (channels, ceil(h / 2), ceil(w / 2)) -> out[1 + c, :] of planes (1 + channels, h * w)."""
    a0, a1, a2, a3 = taps[0], taps[1], taps[2], taps[3]
    rows, columns = x.shape[1], x.shape[2]
    t = np.empty(columns + 4, np.float32)
    half = w >> 1
    for c in range(channels):
        for y in range(y0, y1):
            i = y >> 1
            if y & 1:
                r0, r2, r3 = max(i - 1, 0), min(i + 1, rows - 1), min(i + 2, rows - 1)
            else:
                r0, r2, r3 = min(i + 1, rows - 1), max(i - 1, 0), max(i - 2, 0)
            for q in range(columns):
                t[q + 2] = a0 * x[c, r0, q] + a1 * x[c, i, q] + a2 * x[c, r2, q] + a3 * x[c, r3, q]
            t[0] = t[1] = t[2]
            t[columns + 2] = t[columns + 3] = t[columns + 1]
            o = y * w
            for q in range(half):
                out[c + 1, o + 2 * q] = a0 * t[q + 3] + a1 * t[q + 2] + a2 * t[q + 1] + a3 * t[q]
                out[c + 1, o + 2 * q + 1] = a0 * t[q + 1] + a1 * t[q + 2] + a2 * t[q + 3] + a3 * t[q + 4]
            if w & 1:
                out[c + 1, o + w - 1] = a0 * t[half + 3] + a1 * t[half + 2] + a2 * t[half + 1] + a3 * t[half]


@compiled
def upsample_backward(x, taps, g, gx, dtaps, h, w):  # type: ignore[no-untyped-def]
    """One plane x (hh, ww) and the gradient g (h * w,) of its upsampled self -> gx (hh, ww), set; dtaps (4,), set."""
    a0, a1, a2, a3 = taps[0], taps[1], taps[2], taps[3]
    rows, columns = x.shape
    t = np.empty(columns + 4, np.float32)
    even, odd = np.zeros(columns + 8, np.float32), np.zeros(columns + 8, np.float32)
    gt = np.empty(columns + 4, np.float32)
    gx[:] = f4(0)
    d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0
    half = w >> 1
    for y in range(h):
        i = y >> 1
        if y & 1:
            r0, r2, r3 = max(i - 1, 0), min(i + 1, rows - 1), min(i + 2, rows - 1)
        else:
            r0, r2, r3 = min(i + 1, rows - 1), max(i - 1, 0), max(i - 2, 0)
        for q in range(columns):
            t[q + 2] = a0 * x[r0, q] + a1 * x[i, q] + a2 * x[r2, q] + a3 * x[r3, q]
        t[0] = t[1] = t[2]
        t[columns + 2] = t[columns + 3] = t[columns + 1]
        o = y * w
        for q in range(half):
            even[q + 4] = g[o + 2 * q]
            odd[q + 4] = g[o + 2 * q + 1]
        if w & 1:
            even[half + 4] = g[o + w - 1]
            odd[half + 4] = f4(0)
        e0, e1, e2, e3 = f4(0), f4(0), f4(0), f4(0)
        for q in range(columns):
            ge, go = even[q + 4], odd[q + 4]
            e0 += ge * t[q + 3] + go * t[q + 1]
            e1 += ge * t[q + 2] + go * t[q + 2]
            e2 += ge * t[q + 1] + go * t[q + 3]
            e3 += ge * t[q] + go * t[q + 4]
        for q in range(columns + 4):
            gt[q] = (
                a0 * (even[q + 1] + odd[q + 3])
                + a1 * (even[q + 2] + odd[q + 2])
                + a2 * (even[q + 3] + odd[q + 1])
                + a3 * (even[q + 4] + odd[q])
            )
        gt[2] += gt[0] + gt[1]
        gt[columns + 1] += gt[columns + 2] + gt[columns + 3]
        for q in range(columns):
            v = gt[q + 2]
            e0 += v * x[r0, q]
            e1 += v * x[i, q]
            e2 += v * x[r2, q]
            e3 += v * x[r3, q]
        d0, d1, d2, d3 = d0 + e0, d1 + e1, d2 + e2, d3 + e3
        for q in range(columns):
            gx[r0, q] += a0 * gt[q + 2]
        for q in range(columns):
            gx[i, q] += a1 * gt[q + 2]
        for q in range(columns):
            gx[r2, q] += a2 * gt[q + 2]
        for q in range(columns):
            gx[r3, q] += a3 * gt[q + 2]
    dtaps[0], dtaps[1], dtaps[2], dtaps[3] = d0, d1, d2, d3
