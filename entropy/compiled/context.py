"""Compiled bodies of `net.read` and `net.conclude`: the same integers, several times faster."""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit


@_jit
def read(known, pad, own_base, planes, cross_base, back, offsets, tables, which, out):  # type: ignore[no-untyped-def]
    """As `net.read`."""
    grid = np.empty(pad.size, np.uint8)
    for i in range(pad.size):
        grid[i] = known[pad[i]]
    for f in range(back.size):
        table = tables[which[f]]
        row = out[f]
        offset = offsets[f]
        if back[f] == 0:
            for i in range(own_base.size):
                row[i] = table[grid[own_base[i] + offset]]
        else:
            plane = planes[planes.shape[0] - back[f]]
            for i in range(cross_base.size):
                row[i] = table[plane[cross_base[i] + offset]]


@_jit
def conclude(front, b1, scale, w2, b, start, drop, top, mean_bits, fraction_bits, class_bits, index, offset):  # type: ignore[no-untyped-def]
    """As `net.conclude`."""
    units = b1.size
    n = front.shape[1]
    mean = front[units]
    spread = front[units + 1]
    high = np.float32(top)
    for u in range(units):
        row = front[u]
        s, c, wm, ws = scale[u], b1[u] * scale[u], w2[0, u], w2[1, u]
        for i in range(n):
            h = np.float32(np.int32(min(max(row[i] * s + c, np.float32(0)), high)))
            mean[i] += wm * h
            spread[i] += ws * h
    unit = mean_bits - fraction_bits
    low = (1 << fraction_bits) - 1
    last = start.size - 1
    for i in range(n):
        m = ((np.int32(mean[i]) + b[0] + (1 << (unit - 1))) >> unit) + (1 << (fraction_bits - 1))
        k = (np.int32(spread[i]) + b[1] + (1 << (class_bits - 1))) >> class_bits
        k = min(max(k, 0), last)
        index[i] = start[k] + ((m & low) >> drop[k])
        offset[i] = m >> fraction_bits
