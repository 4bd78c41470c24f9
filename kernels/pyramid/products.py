"""Products of small matrices with blocks of pixels (rows, BLOCK): forward, backward and the weights' gradients.

Rows come in fours, so that sixteen products share four loads; callers pad their matrices with zeros.
"""

from __future__ import annotations

from .jit import piece
from .maths import f4

BLOCK = 256  # pixels: what a block works on lies in a core's second-level cache


@piece
def product(w, b, x, y, rows, columns, n):  # type: ignore[no-untyped-def]
    """y[:rows, :n] = b + w x."""
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


@piece
def transposed_product(w, g, y, rows, columns, n):  # type: ignore[no-untyped-def]
    """y[:columns, :n] = w[:rows, :columns]^T g."""
    for i in range(0, columns, 4):
        for o in range(0, rows, 4):
            a00, a01, a02, a03 = w[o, i], w[o, i + 1], w[o, i + 2], w[o, i + 3]
            a10, a11, a12, a13 = w[o + 1, i], w[o + 1, i + 1], w[o + 1, i + 2], w[o + 1, i + 3]
            a20, a21, a22, a23 = w[o + 2, i], w[o + 2, i + 1], w[o + 2, i + 2], w[o + 2, i + 3]
            a30, a31, a32, a33 = w[o + 3, i], w[o + 3, i + 1], w[o + 3, i + 2], w[o + 3, i + 3]
            if o == 0:
                for p in range(n):
                    g0, g1, g2, g3 = g[o, p], g[o + 1, p], g[o + 2, p], g[o + 3, p]
                    y[i, p] = a00 * g0 + a10 * g1 + a20 * g2 + a30 * g3
                    y[i + 1, p] = a01 * g0 + a11 * g1 + a21 * g2 + a31 * g3
                    y[i + 2, p] = a02 * g0 + a12 * g1 + a22 * g2 + a32 * g3
                    y[i + 3, p] = a03 * g0 + a13 * g1 + a23 * g2 + a33 * g3
            else:
                for p in range(n):
                    g0, g1, g2, g3 = g[o, p], g[o + 1, p], g[o + 2, p], g[o + 3, p]
                    y[i, p] += a00 * g0 + a10 * g1 + a20 * g2 + a30 * g3
                    y[i + 1, p] += a01 * g0 + a11 * g1 + a21 * g2 + a31 * g3
                    y[i + 2, p] += a02 * g0 + a12 * g1 + a22 * g2 + a32 * g3
                    y[i + 3, p] += a03 * g0 + a13 * g1 + a23 * g2 + a33 * g3


@piece
def accumulate(g, x, dw, db, rows, columns, n):  # type: ignore[no-untyped-def]
    """dw += g x^T, db += the sum of g over the block."""
    for o in range(0, rows, 4):
        s0, s1, s2, s3 = f4(0), f4(0), f4(0), f4(0)
        for p in range(n):
            s0 += g[o, p]
            s1 += g[o + 1, p]
            s2 += g[o + 2, p]
            s3 += g[o + 3, p]
        db[o] += s0
        db[o + 1] += s1
        db[o + 2] += s2
        db[o + 3] += s3
        for i in range(0, columns, 2):
            c00, c01, c10, c11 = f4(0), f4(0), f4(0), f4(0)
            c20, c21, c30, c31 = f4(0), f4(0), f4(0), f4(0)
            for p in range(n):
                g0, g1, g2, g3 = g[o, p], g[o + 1, p], g[o + 2, p], g[o + 3, p]
                x0, x1 = x[i, p], x[i + 1, p]
                c00 += g0 * x0
                c01 += g0 * x1
                c10 += g1 * x0
                c11 += g1 * x1
                c20 += g2 * x0
                c21 += g2 * x1
                c30 += g3 * x0
                c31 += g3 * x1
            dw[o, i] += c00
            dw[o, i + 1] += c01
            dw[o + 1, i] += c10
            dw[o + 1, i + 1] += c11
            dw[o + 2, i] += c20
            dw[o + 2, i + 1] += c21
            dw[o + 3, i] += c30
            dw[o + 3, i + 1] += c31


@piece
def rectify(x, rows, n):  # type: ignore[no-untyped-def]
    """x = max(x, 0)."""
    for o in range(rows):
        for p in range(n):
            x[o, p] = max(x[o, p], f4(0))


@piece
def mask(g, x, rows, n):  # type: ignore[no-untyped-def]
    """g = 0 where x is not above 0: the gradient of `rectify`, x being its result."""
    for o in range(rows):
        for p in range(n):
            g[o, p] = g[o, p] if x[o, p] > f4(0) else f4(0)
