"""What is known of a token before it is read: the table that it is coded with, chosen by tokens that are known.

Codebook by codebook, and within one in passes over ever finer lattices, so that most tokens have known neighbours on
all sides. Each known token nearby has a say: a row of scores, one a table, looked up by its number; the table of the
highest sum codes the token. Sums of bytes and a comparison: integers throughout, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...entropy.errors import FormatError, InputError
from ...entropy.models import TableModel
from ...entropy.tables import TableBank
from .blocks import CELLS, grids

Ints = npt.NDArray[np.int32]
_STRIDES = (2, 1)  # of the lattices, after the one of every fourth position
_STRAIGHT = ((0, -1), (0, 1), (-1, 0), (1, 0))
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
# which rows of scores a known token's number is looked up in
BEFORE, BEFORE2, AROUND_BEFORE, FAR, FAR_DIAGONAL, NEAR, NEAR_DIAGONAL = range(SLOTS := 7)
FEW = NEAR  # slots where the neighbours of all strides speak with the same rows
PASSES = 1 + 3 * len(_STRIDES)


class Pass(NamedTuple):
    """Positions that are coded together: ``plane[..., y::step, x::step]``; the numbers of the pass are its own.

    Attributes:
        stride: between a position and its neighbours; 0 without any.
        known: (dy, dx) in strides of the neighbours that earlier passes have fixed.
    """

    number: int
    y: int
    x: int
    step: int
    stride: int
    known: tuple[tuple[int, int], ...]


def _passes() -> tuple[Pass, ...]:
    out = [Pass(0, 0, 0, 2 * _STRIDES[0], 0, ())]
    for s in _STRIDES:
        out.append(Pass(len(out), s, s, 2 * s, s, _DIAGONAL))
        out.append(Pass(len(out), 0, s, 2 * s, s, _STRAIGHT))
        out.append(Pass(len(out), s, 0, 2 * s, s, _STRAIGHT + _DIAGONAL))
    return tuple(out)


ALL = _passes()


@lru_cache(maxsize=64)
def neighbours(h: int, w: int, number: int) -> tuple[npt.NDArray[np.intp], list[tuple[int, npt.NDArray[np.intp]]]]:
    """Flat numbers of a pass's positions on a grid h x w, and of each neighbour its slot and flat numbers; ``h * w``
    stands for one outside."""
    p = ALL[number]
    y, x = (a.reshape(-1) for a in np.mgrid[p.y : h : p.step, p.x : w : p.step])

    def at(dy: int, dx: int) -> npt.NDArray[np.intp]:
        yy, xx = y + dy, x + dx
        inside = (yy >= 0) & (yy < h) & (xx >= 0) & (xx < w)
        return np.where(inside, yy * w + xx, h * w).astype(np.intp)

    found = []
    for dy, dx in p.known:
        slot = (NEAR if p.stride == 1 else FAR) + (dy != 0 and dx != 0)
        found.append((slot, at(dy * p.stride, dx * p.stride)))
    return at(0, 0), found


def references(book: int, h: int, w: int, number: int, halved: int = 0) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
    """What a pass of a codebook looks at: slot, codebook, and flat positions of the known tokens (the number of
    positions: outside).

    Args:
        h, w: sides of this codebook's grid. halved: how many codebooks come first whose grid has half the sides.
    """
    out = [(slot, book, at) for slot, at in neighbours(h, w, number)[1]]
    for slot, source in ((BEFORE, book - 1), (BEFORE2, book - 2)):
        if source >= 0:
            step = 2 if source < halved <= book else 1
            out.append((slot, source, _above(h, w, number, step, (0, 0))))
            if slot == BEFORE:
                out += [(AROUND_BEFORE, source, _above(h, w, number, step, to)) for to in _STRAIGHT]
    return out


@lru_cache(maxsize=256)
def _above(h: int, w: int, number: int, step: int, to: tuple[int, int]) -> npt.NDArray[np.intp]:
    """Flat numbers, on a grid of sides over ``step``, of what lies ``to`` a side of a pass's positions."""
    flat, _ = neighbours(h, w, number)
    h, w, y, x = h // step, w // step, flat // w // step + to[0], flat % w // step + to[1]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    return np.where(inside, y * w + x, h * w).astype(np.intp)


def row_of(slot: int, slots: int) -> int:
    """Where the rows of a slot stand among so many."""
    return slot if slot < slots else slot - (SLOTS - FEW)


class Prior:
    """Tables of tokens, and what chooses among them.

    Args:
        scores: (K, SLOTS or FEW, N + 1, C) int8 of K codebooks; row N of a slot speaks for a neighbour that does not
            exist.
        bias: (K, PASSES, C) int16.
        frequencies: (K, C, N + 1) of the tables, the escape last; each sums to ``2 ** precision``.
        precision: of the tables in bits.
        coarse: levels at half the resolution, see `blocks`.
    """

    def __init__(
        self, scores: npt.NDArray[np.int8], bias: npt.NDArray[np.int16], frequencies: npt.NDArray[Any],
        precision: int, coarse: int = 0,
    ) -> None:  # fmt: skip
        k, slots, n, c = scores.shape
        if slots not in (FEW, SLOTS) or bias.shape != (k, PASSES, c) or frequencies.shape != (k, c, n):
            raise InputError("scores, bias and frequencies of a prior do not fit each other")
        self.scores, self.bias, self.precision, self.coarse = scores, bias, precision, coarse
        self.entries, self.tables = n - 1, c
        self.frequencies = frequencies
        flat = frequencies.reshape(k * c, n).astype(np.int64)
        self.bank = TableBank(list(flat), [0] * (k * c), [0] * (k * c), precision)

    def choose(self, book: int, number: int, known: list[npt.NDArray[np.int64]], h: int, w: int) -> Ints:
        """Table of each token of a pass; ``known`` holds the tokens of each codebook (h * w + 1,), the last one N."""
        flat, _ = neighbours(h, w, number)
        scores = self.scores[book]
        total = np.repeat(self.bias[book, number][None].astype(np.int32), len(flat), 0)
        for slot, source, at in references(book, h, w, number, CELLS * self.coarse):
            total += scores[row_of(slot, len(scores))][known[source][at]]
        return (total.argmax(1) + book * self.tables).astype(np.int32)

    def program(self, coder: Any, tokens: npt.NDArray[Any] | None, levels: int, h: int, w: int) -> Ints:
        """Code tokens (levels, h, w) from 0 to N - 1; returns them.

        Raises:
            FormatError: a token that no codebook has: the stream is damaged.
        """
        out = np.zeros((levels, h, w), np.int32)
        given_all = None if tokens is None else grids(tokens, self.coarse)
        known: list[npt.NDArray[np.int64]] = []
        for book, grid in enumerate(grids(out, self.coarse)):
            sides = grid.shape
            known.append(np.full(grid.size + 1, self.entries, np.int64))
            plain = None if given_all is None else given_all[book].reshape(-1).astype(np.int32)
            for number in range(PASSES):
                flat, _ = neighbours(*sides, number)
                if not len(flat):
                    continue
                index = self.choose(book, number, known, *sides)
                given = None if plain is None else np.ascontiguousarray(plain[flat])
                found = np.asarray(coder.code(given, TableModel(self.bank, index)))
                if found.size and not 0 <= int(found.min()) <= int(found.max()) < self.entries:
                    raise FormatError(f"a chunk holds tokens beyond the {self.entries} of a codebook: it is corrupt")
                known[book][flat] = found
            grid[...] = known[book][:-1].reshape(sides)
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Integer arrays for a weights file."""
        return {
            "scores": self.scores,
            "bias": self.bias,
            "frequencies": self.frequencies.astype(np.int16 if self.precision < 15 else np.int32),
            "precision": np.array([self.precision], np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], books: int, entries: int, coarse: int = 0) -> Prior:
        """The inverse of `to_arrays`.

        Raises:
            InputError, FormatError: arrays that are missing, or no prior of so many codebooks and entries.
        """
        kinds = {
            "scores": (np.int8, 4),
            "bias": (np.int16, 3),
            "frequencies": (np.int16, 3),
            "precision": (np.int32, 1),
        }
        for name, (kind, axes) in kinds.items():
            array = arrays.get(name)
            if array is None or array.dtype != kind or array.ndim != axes:
                raise FormatError(f"weights file: {name} of the prior is missing or of another kind")
        k, _, n, _ = arrays["scores"].shape
        if (k, n) != (books, entries + 1) or arrays["precision"].shape != (1,):
            raise FormatError(f"weights file: a prior of {k} codebooks and {n - 1} entries, not {books} and {entries}")
        return cls(arrays["scores"], arrays["bias"], arrays["frequencies"], int(arrays["precision"][0]), coarse)
