"""Products of small matrices with blocks of pixels (rows, BLOCK): forward, backward and the weights' gradients.

Rows come in fours and columns in twos; callers pad their matrices with zeros. Pixels are worked on by tiles: up to
WIDTH - 1 of them beyond n are computed as well, from whatever finite numbers the buffers hold.
"""

from __future__ import annotations

from .jit import piece
from .maths import f4
from .tile import LANES, WIDTH, masked_tile, outer_tile, product_tile, rectified_tile, row_sums_tile, transposed_tile

BLOCK = 128  # pixels: what a block works on lies in a core's first cache, or nearly


@piece
def product(w, b, x, y, rows, columns, n):  # type: ignore[no-untyped-def]
    """y[:rows, :n] = b + w x."""
    for p in range(0, n, WIDTH):
        for o in range(0, rows, 4):
            product_tile(w, b, x, y, o, p, columns)


@piece
def rectified_product(w, b, x, y, rows, columns, n):  # type: ignore[no-untyped-def]
    """y[:rows, :n] = max(b + w x, 0)."""
    for p in range(0, n, WIDTH):
        for o in range(0, rows, 4):
            rectified_tile(w, b, x, y, o, p, columns)


@piece
def transposed_product(w, g, y, rows, first, last, n):  # type: ignore[no-untyped-def]
    """y[first:last, :n] = (w[:rows]^T g)[first:last]."""
    for p in range(0, n, WIDTH):
        for i in range(first, last, 4):
            transposed_tile(w, g, g, y, i, p, rows)


@piece
def masked_product(w, g, x, y, rows, first, last, n):  # type: ignore[no-untyped-def]
    """As `transposed_product`, zero where x is not above 0: the way back through `rectified_product`, which gave x."""
    for p in range(0, n, WIDTH):
        for i in range(first, last, 4):
            masked_tile(w, g, x, y, i, p, rows)


@piece
def accumulate(g, x, sums, sums_g, rows, columns, n):  # type: ignore[no-untyped-def]
    """sums += g x^T, sums_g += the sum of g over the block, both in LANES partial sums; see `collect`.

    sums: (rows, columns * LANES), sums_g: (rows, LANES). g is zero from n to the next multiple of LANES.
    """
    whole = (n + LANES - 1) // LANES * LANES
    for o in range(0, rows, 4):
        for i in range(0, columns, 2):
            outer_tile(g, x, sums, o, i, whole)  # pyright: ignore[reportCallIssue]
        row_sums_tile(g, sums_g, o, whole)  # pyright: ignore[reportCallIssue]


@piece
def clear(g, rows, n):  # type: ignore[no-untyped-def]
    """g[:rows] = 0 from n to the next multiple of LANES, as `accumulate` wants it."""
    for o in range(rows):
        for p in range(n, (n + LANES - 1) // LANES * LANES):
            g[o, p] = f4(0)


@piece
def collect(sums, sums_g, dw, db):  # type: ignore[no-untyped-def]
    """dw and db += the partial sums of `accumulate`, added up."""
    for o in range(dw.shape[0]):
        for i in range(dw.shape[1]):
            total = f4(0)
            for lane in range(LANES):
                total += sums[o, i * LANES + lane]
            dw[o, i] += total
        total = f4(0)
        for lane in range(LANES):
            total += sums_g[o, lane]
        db[o] += total
