"""The context net over a strip of rows of one grid: rate of its values and all gradients, in one pass over blocks.

A value's distribution is a Laplace whose mean and log-scale come from causal neighbours and from features of coarser
grids: ``h = relu(x + W1 x + b1); h = relu(h + W2 h + b2); (mean, raw) = W3 [h, x] + b3``. The caller adds the identity
to W1 and W2. Plain definition: `codecs.overfit.reference`.
"""

from __future__ import annotations

import numpy as np

from .constants import LOG_SCALE_BEGIN, LOG_SCALE_HIGH, LOG_SCALE_LOW, REACH
from .jit import compiled, piece
from .maths import exp_negative, f4, log2
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

_LOW, _HIGH, _BEGIN = f4(LOG_SCALE_LOW), f4(LOG_SCALE_HIGH), f4(LOG_SCALE_BEGIN)
_FLOOR = f4(2.0**-16)  # of a probability: no value costs more than 16 bits
_LOG2_E = f4(1.4426950408889634)
_EXP_LOW = f4(np.exp(-LOG_SCALE_LOW))


@piece
def _laplace(v, out, g, n, scale):  # type: ignore[no-untyped-def]
    """Bits of a block of values, and in g their gradients by mean and raw log-scale, times ``scale``."""
    total = f4(0)
    for p in range(n):
        raw = out[1, p] + _BEGIN
        log_scale = min(max(raw, _LOW), _HIGH)
        inverse = exp_negative(_LOW - log_scale) * _EXP_LOW
        away = v[p] - out[0, p]
        d = abs(away)
        e1 = exp_negative(-abs(d - f4(0.5)) * inverse)
        e2 = exp_negative(-(d + f4(0.5)) * inverse)
        far = f4(0.5) * (e1 - e2)
        near = f4(1) - f4(0.5) * (e1 + e2)
        q = far if d > f4(0.5) else near
        k = -_LOG2_E * scale / q if q > _FLOOR else f4(0)
        total -= log2(max(q, _FLOOR))
        by_distance = f4(0.5) * inverse * (e1 - e2) * k
        by_inverse = f4(0.5) * ((f4(0.5) - d) * e1 + (d + f4(0.5)) * e2) * k
        g[0, p] = by_distance if away > f4(0) else -by_distance
        g[1, p] = -by_inverse * inverse if (raw > _LOW) and (raw < _HIGH) else f4(0)
    return total


@compiled
def context_strip(
    values, w, y0, y1, features, own, dy, dx, w1, b1, w2, b2, w3, b3, scale,
    grad, grad_features, dw1, db1, dw2, db2, dw3, db3, need,
):  # fmt: skip # type: ignore[no-untyped-def]
    """Bits of rows y0..y1 of a grid; with ``need`` also gradients.

    values: (REACH + h, REACH + w + REACH) float32, zero beyond the grid. features: (F, ceil(h / 2), ceil(w / 2)); F is
    0 for grids without. own: False where the inputs for features are zeros. w1, w2: (C, C); w3: (4, 2C), two
    rows used. grad: (REACH + y1 - y0, REACH + w + REACH), set to the gradient by the values that this strip sees;
    grad_features: as features, set; the others are added to. y0 is even.
    """
    c, s = w1.shape[0], dy.shape[0]
    x = np.zeros((2 * c, BLOCK), np.float32)  # what the last layer sees: second hidden layer, inputs
    inputs = np.zeros((c, BLOCK), np.float32)
    hidden = np.zeros((c, BLOCK), np.float32)
    out = np.zeros((4, BLOCK), np.float32)
    v = np.empty(BLOCK, np.float32)
    g = np.zeros((4, BLOCK), np.float32)
    gx = np.zeros((2 * c, BLOCK), np.float32)
    gh = np.zeros((c, BLOCK), np.float32)
    gi = np.zeros((c, BLOCK), np.float32)
    sums1, sums2, sums3 = (
        np.zeros((c, c * LANES), np.float32), np.zeros((c, c * LANES), np.float32),
        np.zeros((4, 2 * c * LANES), np.float32),
    )  # fmt: skip
    bias1, bias2, bias3 = (
        np.zeros((c, LANES), np.float32), np.zeros((c, LANES), np.float32), np.zeros((4, LANES), np.float32)
    )  # fmt: skip
    total = 0.0
    if need:
        grad[:] = f4(0)
    blocks = (w + BLOCK - 1) // BLOCK
    width = (w + blocks - 1) // blocks
    width += width & 1
    for y in range(y0, y1):
        for x0 in range(0, w, width):
            n = min(width, w - x0)
            half = n >> 1
            for i in range(s):
                yy, xx = y + REACH + dy[i], x0 + REACH + dx[i]
                for p in range(n):
                    inputs[i, p] = values[yy, xx + p]
            for i in range(s, c):
                if own:
                    for p in range(half):
                        t = features[i - s, y >> 1, (x0 >> 1) + p]
                        inputs[i, 2 * p] = t
                        inputs[i, 2 * p + 1] = t
                    if n & 1:
                        inputs[i, n - 1] = features[i - s, y >> 1, (x0 >> 1) + half]
                else:
                    for p in range(n):
                        inputs[i, p] = f4(0)
            for p in range(n):
                v[p] = values[y + REACH, x0 + REACH + p]
            rectified_product(w1, b1, inputs, hidden, c, c, n)
            rectified_product(w2, b2, hidden, x, c, c, n)
            for i in range(c):
                for p in range(n):
                    x[c + i, p] = inputs[i, p]
            product(w3, b3, x, out, 4, 2 * c, n)
            total += _laplace(v, out, g, n, scale)
            if not need:
                continue
            clear(g, 2, n)
            accumulate(g, x, sums3, bias3, 4, 2 * c, n)
            masked_product(w3, g, x, gx, 2, 0, c, n)
            transposed_product(w3, g, gx, 2, c, 2 * c, n)
            accumulate(gx, hidden, sums2, bias2, c, c, n)
            masked_product(w2, gx, hidden, gh, c, 0, c, n)
            accumulate(gh, inputs, sums1, bias1, c, c, n)
            transposed_product(w1, gh, gi, c, 0, c, n)
            for i in range(s):
                yy, xx = y - y0 + REACH + dy[i], x0 + REACH + dx[i]
                for p in range(n):
                    grad[yy, xx + p] += gi[i, p] + gx[c + i, p]
            for p in range(n):
                grad[y - y0 + REACH, x0 + REACH + p] -= g[0, p]
            if own:
                first = y & 1 == 0
                for i in range(s, c):
                    for p in range(half):
                        t = gi[i, 2 * p] + gx[c + i, 2 * p] + gi[i, 2 * p + 1] + gx[c + i, 2 * p + 1]
                        if first:
                            grad_features[i - s, y >> 1, (x0 >> 1) + p] = t
                        else:
                            grad_features[i - s, y >> 1, (x0 >> 1) + p] += t
                    if n & 1:
                        t = gi[i, n - 1] + gx[c + i, n - 1]
                        if first:
                            grad_features[i - s, y >> 1, (x0 >> 1) + half] = t
                        else:
                            grad_features[i - s, y >> 1, (x0 >> 1) + half] += t
    if need:
        collect(sums1, bias1, dw1, db1)
        collect(sums2, bias2, dw2, db2)
        collect(sums3, bias3, dw3, db3)
    return total
