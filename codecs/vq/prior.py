"""What is known of a token before it is read: the table that it is coded with, chosen by tokens that are known.

Level by level, and within a level in passes over ever finer lattices, so that most tokens have known neighbours on all
sides. Each known token nearby has a say: a row of scores, one a table, looked up by its number; the table of the
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

Ints = npt.NDArray[np.int32]
_STRIDES = (2, 1)  # of the lattices, after the one of every fourth position
_STRAIGHT = ((0, -1), (0, 1), (-1, 0), (1, 0))
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
# which rows of scores a known token's number is looked up in
BEFORE, BEFORE2, AROUND_BEFORE, FAR, FAR_DIAGONAL, NEAR, NEAR_DIAGONAL = range(SLOTS := 7)
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


def references(level: int, h: int, w: int, number: int) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
    """What a pass of a level looks at: slot, level, and flat positions of the known tokens (``h * w``: outside)."""
    flat, found = neighbours(h, w, number)
    out = [(slot, level, at) for slot, at in found]
    if level:
        out.append((BEFORE, level - 1, flat))
        out += [(AROUND_BEFORE, level - 1, at) for at in _around(h, w, number)]
    if level > 1:
        out.append((BEFORE2, level - 2, flat))
    return out


@lru_cache(maxsize=64)
def _around(h: int, w: int, number: int) -> list[npt.NDArray[np.intp]]:
    flat, _ = neighbours(h, w, number)
    y, x = flat // w, flat % w
    out = []
    for dy, dx in _STRAIGHT:
        yy, xx = y + dy, x + dx
        inside = (yy >= 0) & (yy < h) & (xx >= 0) & (xx < w)
        out.append(np.where(inside, yy * w + xx, h * w).astype(np.intp))
    return out


class Prior:
    """Tables of tokens, and what chooses among them.

    Args:
        scores: (K, SLOTS, N + 1, C) int8; row N of a slot speaks for a neighbour that does not exist.
        bias: (K, PASSES, C) int16.
        frequencies: (K, C, N + 1) of the tables, the escape last; each sums to ``2 ** precision``.
        precision: of the tables in bits.
    """

    def __init__(
        self, scores: npt.NDArray[np.int8], bias: npt.NDArray[np.int16], frequencies: npt.NDArray[Any], precision: int
    ) -> None:
        k, slots, n, c = scores.shape
        if slots != SLOTS or bias.shape != (k, PASSES, c) or frequencies.shape != (k, c, n):
            raise InputError("scores, bias and frequencies of a prior do not fit each other")
        self.scores, self.bias, self.precision = scores, bias, precision
        self.levels, self.entries, self.tables = k, n - 1, c
        self.frequencies = frequencies
        flat = frequencies.reshape(k * c, n).astype(np.int64)
        self.bank = TableBank(list(flat), [0] * (k * c), [0] * (k * c), precision)

    def choose(self, level: int, number: int, known: npt.NDArray[np.int64], h: int, w: int) -> Ints:
        """Table of each token of a pass; ``known`` (K, h * w + 1) holds tokens, its last column the number N."""
        flat, _ = neighbours(h, w, number)
        total = np.repeat(self.bias[level, number][None].astype(np.int32), len(flat), 0)
        for slot, source, at in references(level, h, w, number):
            total += self.scores[level, slot][known[source, at]]
        return (total.argmax(1) + level * self.tables).astype(np.int32)

    def program(self, coder: Any, tokens: npt.NDArray[Any] | None, levels: int, h: int, w: int) -> Ints:
        """Code tokens (levels, h, w) from 0 to N - 1; returns them.

        Raises:
            FormatError: a token that no codebook has: the stream is damaged.
        """
        known = np.full((levels, h * w + 1), self.entries, np.int64)
        plain = None if tokens is None else tokens.reshape(levels, h * w).astype(np.int32)
        for level in range(levels):
            for number in range(PASSES):
                flat, _ = neighbours(h, w, number)
                if not len(flat):
                    continue
                index = self.choose(level, number, known, h, w)
                given = None if plain is None else np.ascontiguousarray(plain[level, flat])
                found = np.asarray(coder.code(given, TableModel(self.bank, index)))
                if found.size and not 0 <= int(found.min()) <= int(found.max()) < self.entries:
                    raise FormatError(f"a chunk holds tokens beyond the {self.entries} of a codebook: it is corrupt")
                known[level, flat] = found
        return known[:, : h * w].reshape(levels, h, w).astype(np.int32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Integer arrays for a weights file."""
        return {
            "scores": self.scores,
            "bias": self.bias,
            "frequencies": self.frequencies.astype(np.int16 if self.precision < 15 else np.int32),
            "precision": np.array([self.precision], np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], levels: int, entries: int) -> Prior:
        """The inverse of `to_arrays`.

        Raises:
            InputError, FormatError: arrays that are missing, or no prior of so many levels and entries.
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
        if (k, n) != (levels, entries + 1) or arrays["precision"].shape != (1,):
            raise FormatError(f"weights file: a prior of {k} levels and {n - 1} entries, not {levels} and {entries}")
        return cls(arrays["scores"], arrays["bias"], arrays["frequencies"], int(arrays["precision"][0]))
