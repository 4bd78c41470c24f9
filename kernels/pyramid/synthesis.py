"""Synthesis: a pixel's column of planes -> a hidden layer -> channels, plus a linear way past; then 3x3 residuals.

Pictures lie in planes with one pixel of border (C, h + 2, w + 2), gradients with two (C, h + 4, w + 4), the outer ones
zero. Gradients of weights are added up a strip at a time.
"""

from __future__ import annotations

import numpy as np

from .jit import compiled, piece
from .maths import f4
from .products import (
    BLOCK,
    accumulate,
    clear,
    collect,
    masked_product,
    product,
    rectified_product,
    transposed_product,
)
from .tile import LANES


@piece
def _load(planes, first, n, x, hidden, wide):  # type: ignore[no-untyped-def]
    levels = planes.shape[0]
    for c in range(levels):
        for p in range(n):
            v = planes[c, first + p]
            x[c, p] = v
            hidden[wide + c, p] = v


@compiled
def pointwise_rows(planes, w1, b1, w2, b2, out, w, y0, y1):  # type: ignore[no-untyped-def]
    """Rows y0..y1: planes (L, h * w) -> out (C, h + 2, w + 2), inside.

    w1: (W, 8), L columns used; w2: (4, W + 8): of the hidden layer and, behind, of the planes; C rows used.
    """
    wide, channels = w1.shape[0], out.shape[0]
    x, o = np.zeros((8, BLOCK), np.float32), np.zeros((4, BLOCK), np.float32)
    hidden = np.zeros((wide + 8, BLOCK), np.float32)
    for y in range(y0, y1):
        for x0 in range(0, w, BLOCK):
            n = min(BLOCK, w - x0)
            _load(planes, y * w + x0, n, x, hidden, wide)
            rectified_product(w1, b1, x, hidden, wide, 8, n)
            product(w2, b2, hidden, o, 4, wide + 8, n)
            for c in range(channels):
                for p in range(n):
                    out[c, y + 1, x0 + 1 + p] = o[c, p]


@compiled
def pointwise_backward(planes, w1, b1, w2, g, grad, dw1, db1, dw2, db2, w, y0, y1):  # type: ignore[no-untyped-def]
    """Gradients of `pointwise_rows`: g (C, h + 4, w + 4) -> grad (L, h * w), set; weights' are added to."""
    wide, channels, levels = w1.shape[0], g.shape[0], planes.shape[0]
    x = np.zeros((8, BLOCK), np.float32)
    hidden = np.zeros((wide + 8, BLOCK), np.float32)
    go = np.zeros((4, BLOCK), np.float32)
    gh, gx = np.zeros((wide + 8, BLOCK), np.float32), np.zeros((8, BLOCK), np.float32)
    sums1, bias1 = np.zeros((wide, 8 * LANES), np.float32), np.zeros((wide, LANES), np.float32)
    sums2, bias2 = np.zeros((4, (wide + 8) * LANES), np.float32), np.zeros((4, LANES), np.float32)
    for y in range(y0, y1):
        for x0 in range(0, w, BLOCK):
            n = min(BLOCK, w - x0)
            _load(planes, y * w + x0, n, x, hidden, wide)
            rectified_product(w1, b1, x, hidden, wide, 8, n)
            for c in range(channels):
                for p in range(n):
                    go[c, p] = g[c, y + 2, x0 + 2 + p]
            clear(go, channels, n)
            accumulate(go, hidden, sums2, bias2, 4, wide + 8, n)
            masked_product(w2, go, hidden, gh, channels, 0, wide, n)
            transposed_product(w2, go, gh, channels, wide, wide + 8, n)
            accumulate(gh, x, sums1, bias1, wide, 8, n)
            transposed_product(w1, gh, gx, wide, 0, 8, n)
            for c in range(levels):
                for p in range(n):
                    grad[c, y * w + x0 + p] = gx[c, p] + gh[wide + c, p]
    collect(sums1, bias1, dw1, db1)
    collect(sums2, bias2, dw2, db2)


@compiled
def repeat_edges(p):  # type: ignore[no-untyped-def]
    """Fill the border of a picture with its nearest pixels."""
    h, w = p.shape[1] - 2, p.shape[2] - 2
    for c in range(p.shape[0]):
        for y in range(1, h + 1):
            p[c, y, 0], p[c, y, w + 1] = p[c, y, 1], p[c, y, w]
        for x in range(w + 2):
            p[c, 0, x], p[c, h + 1, x] = p[c, 1, x], p[c, h, x]


@compiled
def fold_edges(g):  # type: ignore[no-untyped-def]
    """The gradient of `repeat_edges`: the inner ring of the border is added to the edge and cleared."""
    h, w = g.shape[1] - 4, g.shape[2] - 4
    for c in range(g.shape[0]):
        for x in range(1, w + 3):
            g[c, 2, x] += g[c, 1, x]
            g[c, h + 1, x] += g[c, h + 2, x]
            g[c, 1, x] = g[c, h + 2, x] = f4(0)
        for y in range(2, h + 2):
            g[c, y, 2] += g[c, y, 1]
            g[c, y, w + 1] += g[c, y, w + 2]
            g[c, y, 1] = g[c, y, w + 2] = f4(0)


@compiled
def residual_rows(p, k, b, out, rectified, y0, y1):  # type: ignore[no-untyped-def]
    """Rows y0..y1 of out = p + conv3x3(p), inside both; k: (C, C, 3, 3), b: (C,)."""
    channels, w = p.shape[0], p.shape[2] - 2
    a = np.empty(w, np.float32)
    for y in range(y0, y1):
        for o in range(channels):
            for x in range(w):
                a[x] = b[o] + p[o, y + 1, x + 1]
            for i in range(channels):
                k00, k01, k02 = k[o, i, 0, 0], k[o, i, 0, 1], k[o, i, 0, 2]
                k10, k11, k12 = k[o, i, 1, 0], k[o, i, 1, 1], k[o, i, 1, 2]
                k20, k21, k22 = k[o, i, 2, 0], k[o, i, 2, 1], k[o, i, 2, 2]
                for x in range(w):
                    a[x] += (
                        k00 * p[i, y, x] + k01 * p[i, y, x + 1] + k02 * p[i, y, x + 2]
                        + k10 * p[i, y + 1, x] + k11 * p[i, y + 1, x + 1] + k12 * p[i, y + 1, x + 2]
                        + k20 * p[i, y + 2, x] + k21 * p[i, y + 2, x + 1] + k22 * p[i, y + 2, x + 2]
                    )  # fmt: skip
            if rectified:
                for x in range(w):
                    out[o, y + 1, x + 1] = max(a[x], f4(0))
            else:
                for x in range(w):
                    out[o, y + 1, x + 1] = a[x]


@compiled
def residual_backward(p, k, g, gp, dk, db, y0, y1):  # type: ignore[no-untyped-def]
    """Gradients of `residual_rows`, before `fold_edges`: rows y0..y1 of h + 2 of gp, set in all but its outer ring.

    dk, db are added to.
    """
    channels, h, w = p.shape[0], p.shape[1] - 2, p.shape[2] - 2
    a = np.empty(w + 2, np.float32)
    for y in range(y0, y1):
        for i in range(channels):
            for x in range(w + 2):
                a[x] = g[i, y + 1, x + 1]
            for o in range(channels):
                k00, k01, k02 = k[o, i, 0, 0], k[o, i, 0, 1], k[o, i, 0, 2]
                k10, k11, k12 = k[o, i, 1, 0], k[o, i, 1, 1], k[o, i, 1, 2]
                k20, k21, k22 = k[o, i, 2, 0], k[o, i, 2, 1], k[o, i, 2, 2]
                for x in range(w + 2):
                    a[x] += (
                        k00 * g[o, y + 2, x + 2] + k01 * g[o, y + 2, x + 1] + k02 * g[o, y + 2, x]
                        + k10 * g[o, y + 1, x + 2] + k11 * g[o, y + 1, x + 1] + k12 * g[o, y + 1, x]
                        + k20 * g[o, y, x + 2] + k21 * g[o, y, x + 1] + k22 * g[o, y, x]
                    )  # fmt: skip
            for x in range(w + 2):
                gp[i, y + 1, x + 1] = a[x]
        if not 1 <= y <= h:
            continue
        for o in range(channels):
            s = f4(0)
            for x in range(w):
                s += g[o, y + 1, x + 2]
            db[o] += s
            for i in range(channels):
                for ky in range(3):
                    c0, c1, c2 = f4(0), f4(0), f4(0)
                    for x in range(w):
                        v = g[o, y + 1, x + 2]
                        c0 += v * p[i, y - 1 + ky, x]
                        c1 += v * p[i, y - 1 + ky, x + 1]
                        c2 += v * p[i, y - 1 + ky, x + 2]
                    dk[o, i, ky, 0] += c0
                    dk[o, i, ky, 1] += c1
                    dk[o, i, ky, 2] += c2


@compiled
def rectified_rows(p, g, y0, y1):  # type: ignore[no-untyped-def]
    """g (C, h + 4, w + 4), inside, counts where the rectified p is above 0, or would rise.

    So a channel that a large step has pushed below zero everywhere comes back.
    """
    for c in range(p.shape[0]):
        for y in range(y0, y1):
            for x in range(p.shape[2] - 2):
                v = g[c, y + 2, x + 2]
                g[c, y + 2, x + 2] = v if p[c, y + 1, x + 1] > f4(0) or v < f4(0) else f4(0)


@compiled
def squared_error_rows(p, target, weight, weighted, g, scale, y0, y1):  # type: ignore[no-untyped-def]
    """Sum of weighted squared errors of rows y0..y1; g (C, h + 4, w + 4), inside: ``scale`` times its gradient.

    weight: (h, w), looked at where ``weighted``.
    """
    total, w = 0.0, p.shape[2] - 2
    k = f4(2) * scale
    for c in range(p.shape[0]):
        for y in range(y0, y1):
            s = f4(0)
            if weighted:
                for x in range(w):
                    d = p[c, y + 1, x + 1] - target[c, y, x]
                    s += weight[y, x] * d * d
                    g[c, y + 2, x + 2] = k * weight[y, x] * d
            else:
                for x in range(w):
                    d = p[c, y + 1, x + 1] - target[c, y, x]
                    s += d * d
                    g[c, y + 2, x + 2] = k * d
            total += s
    return total
