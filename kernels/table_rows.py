"""Rows as sums of vectors that codes name: what reading rows of a table of product codes spends its time on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiled import compiled, usable

Floats = npt.NDArray[np.float32]


def plain(vectors: Floats, codes: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], first: Floats) -> Floats:
    """Vectors (m, N, D), codes (n, m) below N and numbers (k,) of rows -> (k, D) float32: ``first`` (D,) and the vector
    of each code, part after part."""
    out = np.repeat(first[None], len(numbers), 0)
    for part in range(codes.shape[1]):
        out += vectors[part][codes[numbers, part]]
    return out


def _loop(vectors, codes, numbers, first, out):  # type: ignore[no-untyped-def]
    m, d = codes.shape[1], first.shape[0]
    for i in range(numbers.shape[0]):
        r = numbers[i]
        row = out[i]
        for k in range(d):
            row[k] = first[k]
        for j in range(m):
            add = vectors[j, codes[r, j]]
            for k in range(d):
                row[k] += add[k]


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return compiled(_loop)


def table_rows(vectors: Floats, codes: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], first: Floats) -> Floats:
    """As `plain`, the same bits; compiled where it can be."""
    if not usable() or not numbers.size or not codes.size:
        return plain(vectors, codes, numbers, first)
    out = np.empty((len(numbers), len(first)), np.float32)
    _compiled()(vectors, codes, numbers, first, out)
    return out
