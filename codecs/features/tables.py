"""Histograms that travel with a block: a byte-sized logarithm for each frequency, integers on both sides."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.errors import FormatError
from ...entropy.models import Uniform
from ...entropy.tables import TableBank, normalise
from .rows import code_list

_TOP = 36  # a third of an octave a level: the largest stands for 2**12
MAX_ENTRIES = 254  # and the escape
_PRECISION = 12


@cache
def _weights() -> tuple[int, ...]:
    """16 * 2**(level / 3), rounded by integer arithmetic alone."""
    out = []
    for level in range(_TOP + 1):
        cube, root = (1 << level) << 15, 1  # (2 * 16 * 2**(level / 3)) ** 3
        while (root + 1) ** 3 <= cube:
            root += 1
        out.append((root + 1) // 2)
    return tuple(out)


def code_bank(coder: Any, counts: list[npt.NDArray[Any]] | None, low: int, tables: int) -> TableBank:
    """Code histograms and return the bank that both sides make of them.

    Args:
        counts: for each table how often low, low + 1, ... occurred; None to decode.
        low: the first value of all histograms.
        tables: how many.

    Raises:
        FormatError: decoded bytes are no histograms.
    """
    spans = None
    if counts is not None:
        spans = np.array([_span(c) for c in counts], np.int32).reshape(tables, 2)
    spans = np.asarray(coder.code(spans, Uniform(0, 511, (tables, 2))))
    if (spans[:, 1] > MAX_ENTRIES).any():
        raise FormatError("a table of a block of features is too long: the block is corrupt or of another version")
    starts = np.concatenate([[0], np.cumsum(spans[:, 1])])
    levels = None
    if counts is not None:
        levels = np.concatenate([_levels(c[a : a + n]) for c, (a, n) in zip(counts, spans)] or [np.zeros(0)])
        levels = np.diff(levels, prepend=0).astype(np.int32)
    levels = np.cumsum(code_list(coder, levels, (int(starts[-1]),)), dtype=np.int64)
    if levels.size and not 0 <= int(levels.min()) <= int(levels.max()) <= _TOP:
        raise FormatError("a table of a block of features is out of range: the block is corrupt or of another version")
    weights = np.array(_weights(), np.float64)[levels]
    banks = []
    for t in range(tables):
        part = weights[starts[t] : starts[t + 1]]
        banks.append(normalise(np.append(part if part.size else [1.0], 0.0), _PRECISION))
    return TableBank(banks, low + spans[:, 0], 0, _PRECISION)


def _span(counts: npt.NDArray[Any]) -> tuple[int, int]:
    """Where the entries worth a place begin, and how many there are."""
    worth = np.flatnonzero(counts > counts.sum() / (1 << _PRECISION + 2))
    if not worth.size:
        return 0, 0
    first, last = int(worth[0]), int(worth[-1]) + 1
    return first, min(last - first, MAX_ENTRIES)


def _levels(counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    share = counts / max(float(counts.sum()), 1.0) * (1 << _PRECISION)
    return np.clip(np.rint(3 * np.log2(np.maximum(share, 0.5))), 0, _TOP).astype(np.int64)
