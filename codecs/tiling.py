"""Even tiles over a grid, each with a clipped halo: what is written once for every codec and both directions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A rectangle of grid positions and the larger one (clipped at the grid) that computing it needs."""

    y0: int
    y1: int
    x0: int
    x1: int
    hy0: int
    hy1: int
    hx0: int
    hx1: int


def cuts(length: int, size: int, multiple: int = 1) -> list[int]:
    """Borders of ``ceil(length / size)`` parts whose lengths differ by at most one ``multiple``."""
    parts = max(1, -(-length // size))
    return [length // multiple * i // parts * multiple for i in range(parts + 1)]


def tile_grid(height: int, width: int, size: int, halo: int = 0, multiple: int = 1) -> list[Tile]:
    """Tiles of at most ``size`` x ``size`` positions in row order; all four numbers are multiples of ``multiple``."""
    ys, xs = cuts(height, size, multiple), cuts(width, size, multiple)
    return [
        Tile(y0, y1, x0, x1, max(0, y0 - halo), min(height, y1 + halo), max(0, x0 - halo), min(width, x1 + halo))
        for y0, y1 in zip(ys, ys[1:])
        for x0, x1 in zip(xs, xs[1:])
    ]
