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
def fold(x, n, cosines, sines, twiddle, out):  # type: ignore[no-untyped-def]
    """`rotate` and `pack` at once, of x (C, T) in blocks of n samples: out (C T / n, n / 2)."""
    half, blocks = n // 2, x.shape[1] // n
    for c in range(x.shape[0]):
        samples = x[c]
        for m in range(blocks):
            t, row = m * n, out[c * blocks + m]
            for k in range(half):
                # beside its own border, a sample and the one that mirrors it in the block lie equally far from theirs
                early = 2 * k < half
                j = 2 * k if early else n - 1 - 2 * k
                a, b = samples[t + j], samples[t + n - 1 - j]
                if m > 0:
                    a = cosines[j] * a + sines[j] * samples[t - 1 - j]
                if m < blocks - 1:
                    b = cosines[j] * b - sines[j] * samples[t + n + j]
                re, im = (a, b) if early else (b, a)
                cr, ci = twiddle[k].real, twiddle[k].imag
                row[k] = complex(re * cr - im * ci, re * ci + im * cr)


@_jit
def block_bits(t, twiddle, weight, band, out):  # type: ignore[no-untyped-def]
    """Add to out (F, B) half the sum of log2(1 + y^2 weight) over the coefficients y of each block.

    t: (C F B, n / 2, 2) real and imaginary parts of the blocks after the FFT, twiddle: (n / 2, 2), see `unpack`.
    weight: (C, F, bands), band: (n,) of each coefficient. Eight products run beside each other; their exponents are
    taken off before they overflow, so that a block takes one logarithm.
    """
    frames, blocks = out.shape
    half = t.shape[1]
    even, odd = np.empty(half), np.empty(half)
    product = np.ones(8)
    word = product.view(np.int64)
    mantissa, one = np.int64(0xFFFFFFFFFFFFF), np.int64(1023)
    for c in range(weight.shape[0]):
        for f in range(frames):
            for k in range(half):
                even[k], odd[k] = weight[c, f, band[2 * k]], weight[c, f, band[2 * half - 1 - 2 * k]]
            for b in range(blocks):
                row = t[(c * frames + f) * blocks + b]
                exponent = np.int64(0)
                product[:] = 1.0
                for g in range(0, half, 8):
                    for lane in range(min(8, half - g)):
                        k = g + lane
                        re = np.float64(row[k, 0] * twiddle[k, 0] - row[k, 1] * twiddle[k, 1])
                        im = np.float64(row[k, 0] * twiddle[k, 1] + row[k, 1] * twiddle[k, 0])
                        product[lane] *= (1.0 + re * re * even[k]) * (1.0 + im * im * odd[k])
                    if g & 56 == 56 or g + 8 >= half:
                        for lane in range(8):
                            exponent += (word[lane] >> 52) - one
                            word[lane] = (word[lane] & mantissa) | (one << 52)
                rest = 1.0
                for lane in range(8):
                    rest *= product[lane]
                out[f, b] += (exponent + math.log2(rest)) * 0.5
