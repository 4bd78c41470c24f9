"""The order in which a context model codes a latent, and what each step may look at.

A latent (C, h, w) is coded channel by channel, and each channel in a few passes over sub-lattices, so that no
symbol of a pass depends on another of it and the pass is one vector operation. Three depths:

    deep     the grid of stride 8 first, then strides 4, 2, 1: diagonal points, then both kinds of edge points
    middle   the grid of stride 2 first, then stride 1 in the same three passes
    checker  the even squares of a chess board, then the odd ones

A step looks at *own taps* (points of this channel that are known by then, counted on the grid of its stride)
and at *cross taps* (earlier channels, known everywhere). Beyond a border both see the mirror image about the
border sample: mirroring keeps the parity of a coordinate, so known points stand in for known points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

DEEP, MIDDLE, CHECKER = 0, 1, 2
BASE, DIAGONAL, ACROSS, DOWN, EVEN, ODD = range(6)
REACH = 3  # the farthest tap, in grid points; planes are padded by as many

_NEXT = [(0, -1), (0, 1), (-1, 0), (1, 0)]
_CORNER = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
_KNIGHT = [(a, b) for a in (-1, 1) for b in (-2, 2)] + [(a, b) for a in (-2, 2) for b in (-1, 1)]
_CAMEL = [(a, b) for a in (-1, 1) for b in (-3, 3)] + [(a, b) for a in (-3, 3) for b in (-1, 1)]
_THIRD = [(0, -3), (0, 3), (-3, 0), (3, 0)]

OWN_TAPS: dict[int, list[tuple[int, int]]] = {
    BASE: [],
    DIAGONAL: _CORNER + _CAMEL,
    ACROSS: _NEXT + _KNIGHT + _THIRD,
    DOWN: _NEXT + _CORNER + _KNIGHT + _THIRD,
    EVEN: [],
    ODD: _NEXT + _KNIGHT + _THIRD,
}
# those that touch a point: what a step sums up of its own channel
NEAR = {kind: [t for t in taps if max(map(abs, t)) == 1] for kind, taps in OWN_TAPS.items()}


@dataclass(frozen=True)
class Step:
    """One pass: the points of `kind` on the grid of `stride`."""

    stride: int
    kind: int

    def count(self, h: int, w: int) -> int:
        """How many points the step has in a channel of h x w samples."""
        rows, cols = -(-h // self.stride), -(-w // self.stride)
        if self.kind == BASE:
            return rows * cols
        even = (rows + 1) // 2, (cols + 1) // 2
        odd = rows // 2, cols // 2
        return {
            DIAGONAL: odd[0] * odd[1],
            ACROSS: even[0] * odd[1],
            DOWN: odd[0] * even[1],
            EVEN: even[0] * even[1] + odd[0] * odd[1],
            ODD: even[0] * odd[1] + odd[0] * even[1],
        }[self.kind]


_REFINE = (DIAGONAL, ACROSS, DOWN)
STEPS: dict[int, list[Step]] = {
    DEEP: [Step(8, BASE)] + [Step(s, k) for s in (4, 2, 1) for k in _REFINE],
    MIDDLE: [Step(2, BASE)] + [Step(1, k) for k in _REFINE],
    CHECKER: [Step(1, EVEN), Step(1, ODD)],
}


def mirror(n: int, reach: int = REACH) -> npt.NDArray[np.int64]:
    """Indices -reach..n-1+reach of a line of n samples, mirrored about its first and last sample."""
    i = np.arange(-reach, n + reach)
    if n == 1:
        return np.zeros_like(i)
    i = np.mod(i, 2 * (n - 1))
    return np.where(i >= n, 2 * (n - 1) - i, i)


@dataclass(frozen=True)
class Geometry:
    """Where the points of one step lie in a channel of given size.

    flat: (n,) index of each point in the channel (h * w).
    own: (n,) index of each point in the padded grid of the step's stride; `own_row` is that grid's row length.
    pad: padded grid -> index in the channel.
    cross: (n,) index of each point in a padded full plane, whose row length is `cross_row`.
    """

    flat: npt.NDArray[np.int64]
    own: npt.NDArray[np.int64]
    own_row: int
    pad: npt.NDArray[np.int64]
    cross: npt.NDArray[np.int64]
    cross_row: int

    def at(self, pick: npt.NDArray[np.int64]) -> Geometry:
        """The same with only some of the points."""
        return replace(self, flat=self.flat[pick], own=self.own[pick], cross=self.cross[pick])


def _points(rows: int, cols: int, kind: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:rows, :cols]
    odd_y, odd_x = y & 1, x & 1
    chosen = {
        BASE: odd_y >= 0,
        DIAGONAL: (odd_y & odd_x) == 1,
        ACROSS: (odd_y == 0) & (odd_x == 1),
        DOWN: (odd_y == 1) & (odd_x == 0),
        EVEN: odd_y == odd_x,
        ODD: odd_y != odd_x,
    }[kind]
    return y[chosen], x[chosen]


@lru_cache(maxsize=256)
def geometry(h: int, w: int, step: Step) -> Geometry:
    """The geometry of `step` in a channel of h x w samples; cached, since tiles repeat their sizes."""
    s = step.stride
    rows, cols = -(-h // s), -(-w // s)
    y, x = _points(rows, cols, step.kind)
    own_row, cross_row = cols + 2 * REACH, w + 2 * REACH
    pad = (mirror(rows)[:, None] * s * w + mirror(cols)[None, :] * s).reshape(-1)
    return Geometry(
        flat=y * s * w + x * s,
        own=(y + REACH) * own_row + x + REACH,
        own_row=own_row,
        pad=pad,
        cross=(y * s + REACH) * cross_row + x * s + REACH,
        cross_row=cross_row,
    )


@lru_cache(maxsize=64)
def plane_pad(h: int, w: int) -> npt.NDArray[np.int64]:
    """Index map from a full plane padded by REACH on each side to the channel it mirrors."""
    return (mirror(h)[:, None] * w + mirror(w)[None, :]).reshape(-1)
