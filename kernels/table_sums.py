"""Sums of table entries that codes name: what a search over product codes spends its time on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiled import compiled, usable

Floats = npt.NDArray[np.float32]


def plain(tables: Floats, codes: npt.NDArray[np.uint8]) -> Floats:
    """Tables (q, m, N) and codes (n, m) -> sums (q, n) float32, part after part; codes lie below N."""
    out = np.zeros((len(tables), len(codes)), np.float32)
    for part in range(codes.shape[1]):
        out += tables[:, part][:, codes[:, part]]
    return out


def _loop(tables, codes, out):  # type: ignore[no-untyped-def]
    q, m = tables.shape[0], codes.shape[1]
    for r in range(codes.shape[0]):
        for i in range(q):
            total = np.float32(0.0)
            for j in range(m):
                total += tables[i, j, codes[r, j]]
            out[i, r] = total


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return compiled(_loop)


def table_sums(tables: Floats, codes: npt.NDArray[np.uint8]) -> Floats:
    """As `plain`, the same bits; compiled where it can be.

    Args:
        tables: (q, m, N) float32, N >= 256 or codes below N.
        codes: (n, m) uint8.
    """
    if not usable() or not tables.size or not codes.size:
        return plain(tables, codes)
    out = np.empty((len(tables), len(codes)), np.float32)
    _compiled()(tables, codes, out)
    return out
