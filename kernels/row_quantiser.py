"""Predictive quantisation of rows: each row minus a scaled earlier one, in steps, with reconstruction inside the loop.

Row n is predicted as `alpha * reconstruction[ref[n]]`, or as zero where ref is -1. What is left becomes an integer
symbol in units of the step, and the reconstruction is the prediction plus the symbol, moved towards zero by `shift`:
a quantum for symbols of magnitude one, another for all above, as the centroids of their cells ask for.

The loops are compiled by numba where it is installed; the bodies here are the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .compiled import wanted

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
_REACH = np.float32(2.0**30)  # symbols stay within int32, whatever the step


@cache
def _compiled(plain: bool) -> ModuleType | None:
    if plain:
        return None
    from . import row_loops

    return row_loops


def _body() -> ModuleType | None:
    return _compiled(not wanted())


def _parts(components: int, rows: int, workers: int) -> list[slice]:
    """Components are independent: shares of them for threads, one where more are not worth it."""
    count = max(1, min(workers, components // 32, components * rows >> 18))
    cuts = [components * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:])]


def _over(parts: list[slice], body: Callable[[slice], Any]) -> list[Any]:
    if len(parts) == 1:
        return [body(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(body, parts))


def _joined(parts: list[Floats]) -> Floats:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def quantise_rows(
    y: Floats,
    ref: Ints,
    alpha: Floats,
    step: float,
    dead: float,
    shift: Floats,
    index: npt.NDArray[np.uint8] | None,
    *,
    columns: npt.NDArray[np.int64] | None = None,
    residual: bool = True,
    workers: int = 1,
) -> tuple[Ints, Floats, Floats]:
    """Rows to symbols.

    Args:
        y: (N, D) rows, contiguous.
        ref: (N,) the earlier row that predicts a row, or -1.
        alpha: (K,) factors of the prediction.
        step: width of a quantisation cell.
        dead: how much wider half of the zero cell is, in steps; other cells move outwards by as much.
        shift: (T, 2) what to take off the magnitude of symbols +-1, and of larger ones, for each table.
        index: (K, N) the table of every symbol; None: no shift.
        columns: (K,) which of the rows' values are quantised; all by default.
        residual: whether the third result is wanted; without, it is empty.
        workers: threads that may be used.

    Returns:
        Symbols (K, N), reconstruction (N, K), and what was quantised, in steps (N, K).
    """
    n = y.shape[0]
    columns = np.arange(y.shape[1]) if columns is None else columns
    k = columns.size
    symbols = np.empty((k, n), np.int32)
    body = _body()
    if body is not None:
        none, moved = np.zeros((1, 1), np.uint8), index is not None

        def one(part: slice) -> tuple[Floats, Floats]:
            size = part.stop - part.start
            out = np.empty((n, size), np.float32)
            left = np.empty((n, size) if residual else (1, 1), np.float32)
            tables = none if index is None else index[part]
            cells = (np.float32(step), np.float32(0.5 - dead), shift)
            body.quantise(y, columns[part], ref, alpha[part], *cells, tables, moved, symbols[part], out, left, residual)
            return out, left

        done = _over(_parts(k, n, workers), one)
        return symbols, _joined([out for out, _ in done]), _joined([left for _, left in done])
    out, left = np.empty((n, k), np.float32), np.empty((n, k) if residual else (1, 1), np.float32)
    step32, half = np.float32(step), np.float32(0.5 - dead)
    for row in range(n):
        guess: Any = alpha * out[ref[row]] if ref[row] >= 0 else np.zeros(k, np.float32)
        e = (y[row, columns] - guess) / step32
        size = np.minimum(np.floor(np.abs(e) + half), _REACH)
        symbols[:, row] = np.where(e < 0, -size, size).astype(np.int32)
        out[row] = guess + _centre(symbols[:, row], shift, None if index is None else index[:, row]) * step32
        if residual:
            left[row] = e
    return symbols, out, left


def dequantise_rows(
    symbols: Ints,
    ref: Ints,
    alpha: Floats,
    step: float,
    shift: Floats,
    index: npt.NDArray[np.uint8] | None,
    *,
    workers: int = 1,
) -> Floats:
    """Symbols (K, N) to the reconstruction (N, K) that `quantise_rows` ended with; arguments as there."""
    k, n = symbols.shape
    body = _body()
    if body is not None:
        none, moved = np.zeros((1, 1), np.uint8), index is not None

        def one(part: slice) -> Floats:
            out = np.empty((n, part.stop - part.start), np.float32)
            tables = none if index is None else index[part]
            body.dequantise(symbols[part], ref, alpha[part], np.float32(step), shift, tables, moved, out)
            return out

        return _joined(_over(_parts(k, n, workers), one))
    out = np.empty((n, k), np.float32)
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


def table_bits(counts: Floats, costs: Floats) -> Floats:
    """What magnitudes that occur so often (K, R) take under tables whose costs are (R, T): (K, T)."""
    body = _body()
    if body is not None:
        out = np.zeros((counts.shape[0], costs.shape[1]), np.float32)
        body.table_bits(counts, costs, out)
        return out
    return counts @ costs


def powers(x: Floats, weight: Floats) -> Floats:
    """(N,) weighted sums of the squares of rows (N, K), contiguous."""
    body = _body()
    if body is not None:
        out = np.empty(x.shape[0], np.float32)
        body.powers(x, weight, out)
        return out
    return np.square(x) @ weight


def nearest(far: Floats, first: int) -> tuple[Floats, Ints]:
    """The least of each row's values before the diagonal, and where it is.

    Args:
        far: (R, first + R), contiguous; row r stands for the row first + r.

    Returns:
        (R,) values, infinite where there are none, and (R,) positions, the first of equal ones.
    """
    body = _body()
    if body is not None:
        best, at = np.empty(far.shape[0], np.float32), np.empty(far.shape[0], np.int32)
        body.nearest(far, first, best, at)
        return best, at
    causal = np.where(np.arange(far.shape[1]) < first + np.arange(far.shape[0])[:, None], far, np.float32(np.inf))
    return causal.min(1), causal.argmin(1).astype(np.int32)


def products(y: Floats, rows: npt.NDArray[np.int64], ref: Ints) -> npt.NDArray[np.float64]:
    """Sums over the named rows: y * source, source**2 and y**2, where source is the row's reference; (3, K)."""
    body = _body()
    if body is not None:
        out = np.zeros((3, y.shape[1]))
        body.products(y, rows, ref, out)
        return out
    target, source = y[rows].astype(np.float64), y[ref[rows]].astype(np.float64)
    return np.stack([(target * source).sum(0), (source**2).sum(0), (target**2).sum(0)])


def _centre(symbols: Ints, shift: Floats, index: npt.NDArray[np.uint8] | None) -> Floats:
    """Where in its cell each symbol is reconstructed, in steps."""
    size = np.abs(symbols).astype(np.float32)
    if index is not None:
        size -= np.where(size > 1, shift[index, 1], shift[index, 0]) * (size > 0)
    return np.where(symbols < 0, -size, size)
