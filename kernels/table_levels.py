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

from .compiled import compiled, usable

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


def _loop(vectors, codes, sizes, words, rank, numbers, first, out):  # type: ignore[no-untyped-def]
    levels, groups, d = vectors.shape[0], codes.shape[1], first.shape[0]
    one = np.uint64(1)
    for i in range(numbers.shape[0]):
        row = out[i]
        for k in range(d):
            row[k] = first[k]
        block, start, word0 = numbers[i], np.int64(0), np.int64(0)
        for level in range(levels):
            for j in range(groups):
                add = vectors[level, j, codes[block, j]]
                for k in range(d):
                    row[k] += add[k]
            if level + 1 == levels:
                break
            at = block - start
            word, bit = words[word0 + (at >> 6)], np.uint64(at & 63)
            if (word >> bit) & one == 0:
                break
            x = word & ((one << bit) - one)
            x -= (x >> one) & np.uint64(0x5555555555555555)
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            block = np.int64(rank[word0 + (at >> 6)]) + np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
            start += sizes[level]
            word0 += (sizes[level] + 63) >> 6


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return compiled(_loop)


def table_levels(
    vectors: Floats, codes: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64], words: Words,
    rank: npt.NDArray[np.uint32], numbers: npt.NDArray[np.int64], first: Floats,
) -> Floats:  # fmt: skip
    """As `plain`, the same bits; compiled where it can be."""
    if not usable() or not numbers.size:
        return plain(vectors, codes, sizes, words, rank, numbers, first)
    out = np.empty((len(numbers), len(first)), np.float32)
    _compiled()(vectors, codes, sizes, words, rank, numbers, first, out)
    return out
