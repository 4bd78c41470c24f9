"""Levels at half the resolution among those of a grid: which tokens of a plane belong to which codebook.

Tokens of a picture are planes (levels, h, w). Of a coarse level four codebooks stand for a block of 2 x 2 positions;
their tokens lie in the block's four cells, row by row, so that the level is a plane like the others.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

CELLS = 4  # of a block, and codebooks of a coarse level


def books_of(levels: int, coarse: int) -> int:
    """Codebooks of the first levels, where ``coarse`` levels are at half the resolution."""
    return levels + (CELLS - 1) * min(levels, coarse)


def grids(planes: Any, coarse: int) -> list[Any]:
    """Views of planes (..., levels, h, w), a codebook each: (..., h / 2, w / 2) of coarse levels, (..., h, w)."""
    out = []
    for level in range(planes.shape[-3]):
        plane = planes[..., level, :, :]
        cells = [plane[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
        out += cells if level < coarse else [plane]
    return out


def to_blocks(rows: Tensor, h: int, w: int) -> Tensor:
    """Rows (h * w, C) -> (h * w / 4, 4 * C), those of a block side by side."""
    return rows.reshape(h // 2, 2, w // 2, 2, -1).transpose(1, 2).reshape(h * w // CELLS, -1)


def from_blocks(blocks: Tensor, h: int, w: int) -> Tensor:
    """The inverse of `to_blocks`."""
    return blocks.reshape(h // 2, w // 2, 2, 2, -1).transpose(1, 2).reshape(h * w, -1)
