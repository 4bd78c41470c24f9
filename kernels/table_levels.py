"""Rows as sums of vectors that codes name, some rows with more levels of codes than others: tables of embeddings.

A level is a block of codes for each row that has it, in the order of the rows; all rows have the first. Which rows of a
level have the next one too says a bitmap, and where their blocks lie the number of ones before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiled import usable

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
_WORD = 64


def index(members: Sequence[npt.NDArray[np.bool_]], rows: int) -> tuple[Words, npt.NDArray[np.uint32]]:
    """Which blocks of each level but the last have a next one, as words of bitmaps, a level after the other; and of
    each word the ones before it, counted on from the rows: the block that its first one has."""
    words, ranks, start = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)], rows
    for member in members:
        bits = np.zeros((-(-len(member) // _WORD), _WORD), bool)
        bits.reshape(-1)[: len(member)] = member
        words.append(np.packbits(bits, axis=1, bitorder="little").view("<u8").reshape(-1).astype(np.uint64))
        ones = bits.sum(1, dtype=np.int64)
        ranks.append((start + np.cumsum(ones) - ones).astype(np.uint32))
        start += int(ones.sum())
    return np.concatenate(words), np.concatenate(ranks)


def plain(
    vectors: Floats, codes: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64], words: Words,
    rank: npt.NDArray[np.uint32], numbers: npt.NDArray[np.int64], first: Floats,
) -> Floats:  # fmt: skip
    """Vectors (L, G, N, D), codes (blocks, G) below N, sizes (L,) of the levels, words and rank of `index`, numbers
    (k,) of rows -> (k, D) float32: ``first`` (D,) and the vector of each code, level after level."""
    out = np.repeat(first[None], len(numbers), 0)
    at, who, word0, block0 = numbers, np.arange(len(numbers)), 0, 0
    for level in range(len(vectors)):
        for part in range(codes.shape[1]):
            out[who] += vectors[level, part][codes[block0 + at, part]]
        if level + 1 == len(vectors):
            break
        bits = np.unpackbits(words[word0 : word0 + -(-int(sizes[level]) // _WORD)].view(np.uint8), bitorder="little")
        word0, block0 = word0 + len(bits) // _WORD, block0 + int(sizes[level])
        go = bits[at].astype(bool)
        at, who = (np.cumsum(bits) - bits)[at[go]].astype(np.int64), who[go]
    return out


@lru_cache(maxsize=1)
def _compiled() -> Any:
    from .table_loops import add_levels  # needs the compiler

    return add_levels


def table_levels(
    vectors: Floats, codes: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64], words: Words,
    rank: npt.NDArray[np.uint32], numbers: npt.NDArray[np.int64], first: Floats,
) -> Floats:  # fmt: skip
    """As `plain`, the same bits; compiled where it can be."""
    if not usable() or not numbers.size:
        return plain(vectors, codes, sizes, words, rank, numbers, first)
    out = np.empty((len(numbers), len(first)), np.float32)
    flat = np.ascontiguousarray(vectors).reshape(-1, *vectors.shape[2:])
    plain_order = [np.ascontiguousarray(a) for a in (codes, sizes, words, rank, numbers, first)]
    _compiled()(flat, *plain_order, out)
    return out


def table_rows(vectors: Floats, codes: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], first: Floats) -> Floats:
    """As `table_levels` of a single level: vectors (G, N, D), codes (n, G)."""
    sizes, words, rank = np.array([len(codes)], np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint32)
    return table_levels(vectors[None], codes, sizes, words, rank, numbers, first)
