"""Predictive quantisation of rows: each row minus a scaled earlier one, in steps, with reconstruction inside the loop.

Row n is predicted as `alpha * reconstruction[ref[n]]`, or as zero where ref is -1. What is left becomes an integer
symbol in units of the step, and the reconstruction is the prediction plus the symbol, moved towards zero by `shift`:
a quantum for symbols of magnitude one, another for all above, as the centroids of their cells ask for.

The loops are compiled by numba where it is installed; the bodies here are the definition.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
_REACH = np.float32(2.0**30)  # symbols stay within int32, whatever the step


@cache
def _compiled(plain: bool) -> ModuleType | None:
    if plain:
        return None
    from . import _fast_rows

    return _fast_rows


def _body() -> ModuleType | None:
    plain = os.environ.get("LATENTZIP_NO_NUMBA", "0") not in ("", "0") or find_spec("numba") is None
    return _compiled(plain)


def quantise_rows(
    y: Floats, ref: Ints, alpha: Floats, step: float, dead: float, shift: Floats, index: npt.NDArray[np.uint8] | None
) -> tuple[Ints, Floats, Floats]:
    """Rows to symbols.

    Args:
        y: (N, K) rows, contiguous.
        ref: (N,) the earlier row that predicts a row, or -1.
        alpha: (K,) factors of the prediction.
        step: width of a quantisation cell.
        dead: how much wider half of the zero cell is, in steps; other cells move outwards by as much.
        shift: (T, 2) what to take off the magnitude of symbols +-1, and of larger ones, for each table.
        index: (K, N) the table of every symbol; None: no shift.

    Returns:
        Symbols (K, N), reconstruction (N, K), and what was quantised, in steps (N, K).
    """
    n, k = y.shape
    symbols, out, residual = np.empty((k, n), np.int32), np.empty((n, k), np.float32), np.empty((n, k), np.float32)
    body = _body()
    if body is not None:
        tables = np.zeros((1, 1), np.uint8) if index is None else index
        args = (y, ref, alpha, np.float32(step), np.float32(0.5 - dead), shift, tables, index is not None)
        body.quantise(*args, symbols, out, residual)
        return symbols, out, residual
    step32, half = np.float32(step), np.float32(0.5 - dead)
    for row in range(n):
        guess: Any = alpha * out[ref[row]] if ref[row] >= 0 else np.zeros(k, np.float32)
        residual[row] = (y[row] - guess) / step32
        size = np.minimum(np.floor(np.abs(residual[row]) + half), _REACH)
        symbols[:, row] = np.where(residual[row] < 0, -size, size).astype(np.int32)
        out[row] = guess + _centre(symbols[:, row], shift, None if index is None else index[:, row]) * step32
    return symbols, out, residual


def dequantise_rows(
    symbols: Ints, ref: Ints, alpha: Floats, step: float, shift: Floats, index: npt.NDArray[np.uint8] | None
) -> Floats:
    """Symbols (K, N) to the reconstruction (N, K) that `quantise_rows` ended with; arguments as there."""
    k, n = symbols.shape
    out = np.empty((n, k), np.float32)
    body = _body()
    if body is not None:
        tables = np.zeros((1, 1), np.uint8) if index is None else index
        body.dequantise(symbols, ref, alpha, np.float32(step), shift, tables, index is not None, out)
        return out
    for row in range(n):
        out[row] = _centre(symbols[:, row], shift, None if index is None else index[:, row]) * np.float32(step)
        if ref[row] >= 0:
            out[row] += alpha * out[ref[row]]
    return out


def spread_tables(
    level: npt.NDArray[np.uint8], family: npt.NDArray[np.uint8], matched: npt.NDArray[np.uint8], gain: npt.NDArray[Any]
) -> npt.NDArray[np.uint8]:
    """The table of every symbol: 64 * family + the level of its component and of its row's kind, plus the row's gain.

    Args:
        level: (2, K) table numbers 0..63 of rows without and with prediction.
        family: (K,) 0 or 1.
        matched: (N,) 0 or 1: which of the two levels.
        gain: (N,) int8.

    Returns:
        (K, N) uint8.
    """
    body = _body()
    if body is not None:
        out = np.empty((level.shape[1], matched.size), np.uint8)
        body.spread(level, family, matched, gain, out)
        return out
    sums = level[matched].T.astype(np.int64) + gain
    return (np.clip(sums, 0, 63) + 64 * family[:, None].astype(np.int64)).astype(np.uint8)


def magnitudes(symbols: Ints, rows: npt.NDArray[np.int64], reach: int) -> Floats:
    """How often each magnitude occurs: symbols (K, N), of the named rows (M,) -> (K, reach + 1); larger ones count
    with the last."""
    body, k = _body(), symbols.shape[0]
    if body is not None:
        out = np.zeros((k, reach + 1), np.float32)
        body.histograms(symbols, rows, reach, out)
        return out
    at = np.minimum(np.abs(symbols[:, rows]), reach) + np.arange(k)[:, None] * (reach + 1)
    return np.bincount(at.reshape(-1), minlength=k * (reach + 1)).reshape(k, -1).astype(np.float32)


def _centre(symbols: Ints, shift: Floats, index: npt.NDArray[np.uint8] | None) -> Floats:
    """Where in its cell each symbol is reconstructed, in steps."""
    size = np.abs(symbols).astype(np.float32)
    if index is not None:
        size -= np.where(size > 1, shift[index, 1], shift[index, 0]) * (size > 0)
    return np.where(symbols < 0, -size, size)
