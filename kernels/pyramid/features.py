"""Features of coarser grids for the context net: a linear map of the grids below, at the next coarser resolution."""

from __future__ import annotations

from .jit import compiled
from .maths import f4


@compiled
def features_rows(grids, starts, widths, level, w, b, out, y0, y1):  # type: ignore[no-untyped-def]
    """Rows y0..y1 of the features of grid ``level``.

    grids: all grids end to end, float32; grid j begins at starts[j] and is widths[j] wide. w: (F, levels - 1 - level),
    b: (F,). out: (F, h, w) at the resolution of grid level + 1.
    """
    n = out.shape[2]
    for y in range(y0, y1):
        for c in range(out.shape[0]):
            for x in range(n):
                out[c, y, x] = b[c]
        for j in range(w.shape[1]):
            begin = starts[level + 1 + j] + (y >> j) * widths[level + 1 + j]
            for c in range(out.shape[0]):
                a = w[c, j]
                if j == 0:
                    for x in range(n):
                        out[c, y, x] += a * grids[begin + x]
                else:
                    for x in range(n):
                        out[c, y, x] += a * grids[begin + (x >> j)]


@compiled
def features_backward(grids, starts, widths, level, j, w, g, grad, dw, line):  # type: ignore[no-untyped-def]
    """The share of grid ``level + 1 + j``: its gradient is added to ``grad`` (all grids end to end), that of column j
    of ``w`` to ``dw`` (F,). g: gradient of the features. line: scratch as wide as they are."""
    n, channels = g.shape[2], g.shape[0]
    width, side = widths[level + 1 + j], 1 << j
    for y in range(g.shape[1]):
        begin = starts[level + 1 + j] + (y >> j) * width
        for c in range(channels):
            s = f4(0)
            if j == 0:
                for x in range(n):
                    s += g[c, y, x] * grids[begin + x]
            else:
                for x in range(n):
                    s += g[c, y, x] * grids[begin + (x >> j)]
            dw[c] += s
        for x in range(n):
            line[x] = w[0, j] * g[0, y, x]
        for c in range(1, channels):
            a = w[c, j]
            for x in range(n):
                line[x] += a * g[c, y, x]
        if j == 0:
            for x in range(n):
                grad[begin + x] += line[x]
        else:
            for q in range(width):
                s = f4(0)
                for x in range(q * side, min((q + 1) * side, n)):
                    s += line[x]
                grad[begin + q] += s
