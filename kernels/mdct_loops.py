"""The compiled bodies of `mdct` and of what goes with it: cached on disk, GIL released.

Multiplications and additions are not fused and not reordered: results do not depend on how many blocks there are.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled as _jit


@_jit
def rotate(x, border, half, window, cosines, sines, direction):  # type: ignore[no-untyped-def]
    """Fold (1) or unfold (-1) x (C, T) around borders (M,), over half (M,) samples to both sides, in place.

    window: (M,) where in cosines and sines the window of a border begins.
    """
    for c in range(x.shape[0]):
        row = x[c]
        for m in range(border.shape[0]):
            t, w = border[m], window[m]
            for i in range(half[m]):
                right, left = row[t + i], row[t - 1 - i]
                co, si = cosines[w + i], direction * sines[w + i]
                row[t + i] = co * right + si * left
                row[t - 1 - i] = co * left - si * right


@_jit
def pack(x, first, twiddle, out):  # type: ignore[no-untyped-def]
    """Blocks of x (C, T) that begin at first (M,), as the DCT-IV's half as many complex numbers: out (C M, n / 2)."""
    half = out.shape[1]
    for c in range(x.shape[0]):
        for m in range(first.shape[0]):
            block, row = x[c, first[m] : first[m] + 2 * half], out[c * first.shape[0] + m]
            for k in range(half):
                re, im = block[2 * k], block[2 * half - 1 - 2 * k]
                cr, ci = twiddle[k].real, twiddle[k].imag
                row[k] = complex(re * cr - im * ci, re * ci + im * cr)


@_jit
def unpack(t, first, twiddle, x):  # type: ignore[no-untyped-def]
    """The inverse of `pack`, after the FFT."""
    half = t.shape[1]
    for c in range(x.shape[0]):
        for m in range(first.shape[0]):
            block, row = x[c, first[m] : first[m] + 2 * half], t[c * first.shape[0] + m]
            for k in range(half):
                re, im = row[k].real, row[k].imag
                cr, ci = twiddle[k].real, twiddle[k].imag
                block[2 * k] = re * cr - im * ci
                block[2 * half - 1 - 2 * k] = -(re * ci + im * cr)


@_jit
def block_bits(y, weight, band, out):  # type: ignore[no-untyped-def]
    """Add to out (F, B) half the sum of log2(1 + y^2 weight) of every block of y (C, F, B, n); weight (C, F, bands),
    band (n,). A logarithm is taken of sixteen factors at a time."""
    for c in range(y.shape[0]):
        for f in range(y.shape[1]):
            row = weight[c, f]
            for b in range(y.shape[2]):
                block = y[c, f, b]
                total, product = 0.0, 1.0
                for k in range(block.shape[0]):
                    v = np.float64(block[k])
                    product *= 1.0 + v * v * row[band[k]]
                    if k & 15 == 15:
                        total += math.log2(product)
                        product = 1.0
                out[f, b] += (total + math.log2(product)) * 0.5


@_jit
def quantise(values, level, step, live, one, more, out):  # type: ignore[no-untyped-def]
    """Symbols out (n,) int32 of values (n,) with the steps of their bands; bands that are not live give zeros."""
    most = np.float32(32767.0)
    for i in range(values.shape[0]):
        b = level[i]
        if not live[b]:
            out[i] = 0
            continue
        size = abs(values[i]) / step[b]
        size = min(np.floor(size + (one if size < np.float32(1.0) else more)), most)
        out[i] = np.int32(-size) if values[i] < 0 else np.int32(size)


@_jit
def products(y, band, out):  # type: ignore[no-untyped-def]
    """Add up squares and products of two channels y (2, F, n) by band (F, n): out (3, F, bands)."""
    for f in range(y.shape[1]):
        for k in range(y.shape[2]):
            left, right, b = np.float64(y[0, f, k]), np.float64(y[1, f, k]), band[f, k]
            out[0, f, b] += left * left
            out[1, f, b] += right * right
            out[2, f, b] += left * right


@_jit
def turn(y, angle, band, cosines, sines, out):  # type: ignore[no-untyped-def]
    """Rotate two channels y (2, F, n) by the angle (F, bands) of each coefficient's band (F, n): out (2, F, n)."""
    for f in range(y.shape[1]):
        for k in range(y.shape[2]):
            a = angle[f, band[f, k]]
            c, s, left, right = cosines[a], sines[a], y[0, f, k], y[1, f, k]
            out[0, f, k] = c * left + s * right
            out[1, f, k] = c * right - s * left
