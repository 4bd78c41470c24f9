"""Rows of components, coded: a table for each component, a gain and perhaps a reference for each row.

A block (N, K) holds N rows (tokens, positions) of K components (what a transform made of their channels), in units of
one step. Its components have levels, numbers of frozen tables of ascending width; level zero means that a component
is zero throughout. A row may be predicted from an earlier one of its block, as motion compensation does in time
(repeated words make similar features), and may move all of its levels by a gain. All of this is integers and goes into
the block, so that it decodes alone; symbols follow component by component, so that a prefix of them decodes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import erf, exp, log, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...entropy import banks
from ...entropy.errors import FormatError
from ...entropy.models import TableModel, Uniform
from ...entropy.tables import TableBank
from ...kernels.row_quantiser import (
    dequantise_rows,
    magnitudes,
    nearest,
    powers,
    products,
    quantise_rows,
    spread_tables,
    table_bits,
)

DEAD = 0.08  # half of the zero cell is wider by this many steps; measured on keys, values and hidden states
ALPHA_UNIT = 32  # factors of a prediction are stored in this unit
_MATCHED, _GAINS, _FAMILIES, _CENTRES, _PRIOR = 1, 2, 4, 8, 16  # flags
_MAX_GAIN = 31
_REACH = 600  # magnitudes beyond cost an encoder's choice the same
_SEARCH = 96  # components that the search for references compares
_SEARCH_ROWS = 256  # rows that it takes at a time
_SEARCH_BACK = 4096  # rows before them that it looks at: cost grows with the rows, not with their square
_MIN_ROWS = 64  # below, references and gains cost more than they save

Floats = npt.NDArray[np.float32]


@dataclass
class Rows:
    """What `program` codes of a block of N rows and K components; all integers.

    flags: see above. level: (2, K) 0..64 of rows without and with a reference. family: (K,) 0 Gaussian, 1 Laplacian.
    ref: (N,) an earlier row or -1. alpha: (K,) 0..32. gain: (N,) int8. symbols: (M, N) int32 of the M components that
    `live` names.
    """

    flags: int
    level: npt.NDArray[np.int32]
    family: npt.NDArray[np.int32]
    ref: npt.NDArray[np.int32]
    alpha: npt.NDArray[np.int32]
    gain: npt.NDArray[np.int32]
    symbols: npt.NDArray[np.int32]

    def live(self) -> npt.NDArray[np.int64]:
        """Components that are not zero throughout."""
        return np.flatnonzero(self.level[0])

    def whole(self, components: int) -> npt.NDArray[np.int32]:
        """Symbols (components, N) of the first components, zeros where they are not live."""
        live = self.live()[: self.symbols.shape[0]]
        if live.size == components:
            return self.symbols
        out = np.zeros((components, self.ref.size), np.int32)
        out[live] = self.symbols
        return out

    def tables(self, live: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """(live, N) table numbers of the symbols."""
        level = np.maximum(self.level[:, live] - 1, 0).astype(np.uint8)
        matched = (self.ref >= 0).astype(np.uint8)
        return spread_tables(level, self.family[live].astype(np.uint8), matched, self.gain.astype(np.int8))


@cache
def bank() -> TableBank:
    """128 frozen tables: the Gaussian ones, then the Laplacian ones."""
    both = [banks.frozen_bank(family) for family in banks.FAMILIES]
    tables = [b.table(t) for b in both for t in range(banks.NUM_SCALES)]
    layout = np.concatenate([b.info for b in both])
    return TableBank(tables, layout[:, 0], layout[:, 1], both[0].precision)


@cache
def _costs() -> npt.NDArray[np.float32]:
    """(128, _REACH + 1): bits that each table takes for each magnitude."""
    sizes = np.arange(_REACH + 1)
    return np.stack([bank().costs(sizes, t) for t in range(bank().num_tables)]).astype(np.float32)


@cache
def _costs_by_size() -> npt.NDArray[np.float32]:
    """`_costs` with the tables last."""
    return np.ascontiguousarray(_costs().T)


@cache
def centres(dead: float) -> Floats:
    """(128, 2) how far the centroids of the cells of +-1, and of larger symbols, lie below the symbol, in steps."""
    out = np.zeros((2 * banks.NUM_SCALES, 2), np.float32)
    for t, deviation in enumerate(banks.scales()):
        for m in (1, 2):
            a, b = m - 0.5 + dead, m + 0.5 + dead
            u, v = a / deviation, b / deviation
            mass = (erf(v / sqrt(2)) - erf(u / sqrt(2))) / 2
            if mass > 1e-12:
                centre = deviation * (exp(-u * u / 2) - exp(-v * v / 2)) / sqrt(2 * pi) / mass
                out[t, m - 1] = m - centre
            else:
                out[t, m - 1] = m - a
            rate = sqrt(2) / deviation
            out[banks.NUM_SCALES + t, m - 1] = m - (a + 1 / rate - (1 / (exp(rate) - 1)))
    return out


# --- the program -------------------------------------------------------------------------------------------------


def _number(coder: Any, value: int | None, low: int, high: int) -> int:
    return int(coder.code(None if value is None else np.array([value], np.int32), Uniform(low, high, (1,)))[0])


def code_list(coder: Any, values: npt.NDArray[Any] | None, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Small signed integers under the Laplacian table that suits them."""
    table = None
    if values is not None:
        costs = _costs()[banks.NUM_SCALES :, np.minimum(np.abs(values), _REACH).reshape(-1)]
        table = int(costs.sum(1).argmin())
    table = _number(coder, table, 0, banks.NUM_SCALES - 1)
    index = np.full(shape, banks.NUM_SCALES + table, np.uint8)
    return np.asarray(coder.code(values, TableModel(bank(), index)))


def _running(coder: Any, values: npt.NDArray[np.int32] | None, count: int, low: int, high: int) -> Any:
    """Integers that change slowly, as differences; raises FormatError where one leaves low..high."""
    steps = None if values is None else np.diff(values, prepend=low).astype(np.int32)
    out = np.cumsum(code_list(coder, steps, (count,)), dtype=np.int64)
    return _within(out + low, low, high)


def _within(values: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[np.int32]:
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        raise FormatError("a block of features names what does not exist: it is corrupt or of another version")
    return values.astype(np.int32)


def program(
    coder: Any,
    rows: Rows | None,
    count: int,
    components: int,
    depth: int | None = None,
    prior: npt.NDArray[np.int32] | None = None,
) -> Rows:
    """Code one block with an encoder, a decoder or a rate meter.

    Args:
        rows: None to decode.
        count, components: N and K.
        depth: decode the symbols of this many components only, the first ones.
        prior: (K,) levels 0..64 that a profile expects; levels may be coded as differences to them.

    Raises:
        FormatError: decoded bytes are not of this program.
    """
    k, n = components, count
    flags = _number(coder, rows.flags if rows else None, 0, 31)
    level = np.zeros((2, k), np.int32)
    if flags & _PRIOR:
        if prior is None:
            raise FormatError("a block of features needs a profile's levels, and there is no profile: it is corrupt")
        change = code_list(coder, rows.level[0] - prior if rows else None, (k,))
        level[0] = _within(prior.astype(np.int64) + change, 0, 64)
    else:
        level[0] = _running(coder, rows.level[0] if rows else None, k, 0, 64)
    live = np.flatnonzero(level[0])
    family, alpha = np.zeros(k, np.int32), np.zeros(k, np.int32)
    ref, gain = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    if flags & _FAMILIES:
        family[live] = coder.code(rows.family[live] if rows else None, Uniform(0, 1, (live.size,)))
    if flags & _MATCHED:
        bits = n.bit_length()
        back = coder.code(rows.ref + 1 if rows else None, Uniform(0, (1 << bits) - 1, (n,)))
        ref = (np.asarray(back) - 1).astype(np.int32)
        if (ref >= np.arange(n)).any():
            raise FormatError("a row of features refers to a later one: the block is corrupt or of another version")
        alpha[live] = _running(coder, rows.alpha[live] if rows else None, live.size, 0, ALPHA_UNIT)
        change = code_list(coder, rows.level[1, live] - rows.level[0, live] if rows else None, (live.size,))
        level[1, live] = _within(level[0, live].astype(np.int64) + change, 1, 64)
    if flags & _GAINS:
        gain = _within(code_list(coder, rows.gain if rows else None, (n,)), -_MAX_GAIN, _MAX_GAIN)
    out = Rows(flags, level, family, ref, alpha, gain, np.zeros((0, n), np.int32))
    if depth is not None:
        live = live[live < depth]
    if live.size:
        symbols = coder.code(rows.symbols if rows else None, TableModel(bank(), out.tables(live)))
        out.symbols = np.asarray(symbols)
    return out


# --- what an encoder chooses -------------------------------------------------------------------------------------


def quantise(
    y: Floats,
    step: float,
    exact: bool = False,
    match: bool = True,
    prior: npt.NDArray[np.int32] | None = None,
    workers: int = 1,
    wanted: bool = True,
    references: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None = None,
) -> tuple[Rows, Floats]:
    """Choose everything about a block and quantise it.

    Args:
        y: (N, K) float32.
        step: width of a cell.
        exact: reconstruct in the middle of the cells, none of them wider: the error stays below half a step.
        match: look for references.
        prior: as in `program`.
        workers: threads that may be used.
        wanted: whether the reconstruction is.
        references: ``ref`` and ``alpha`` that were found for the same rows under another step.

    Returns:
        What `program` codes, and the reconstruction (N, K) that `reconstruct` will give, or anything.
    """
    n, k = y.shape
    y = np.ascontiguousarray(y, np.float32)
    dead = 0.0 if exact else DEAD
    ref, alpha = np.full(n, -1, np.int32), np.zeros(k, np.int32)
    if references is not None:
        ref, alpha = references
    elif match and n >= _MIN_ROWS:
        ref, alpha = _references(y, step)
    factors = (alpha / np.float32(ALPHA_UNIT)).astype(np.float32)
    symbols, recon, residual = quantise_rows(y, ref, factors, step, dead, centres(dead), None, workers=workers)
    level, family = np.zeros((2, k), np.int32), np.zeros(k, np.int32)
    matched = ref >= 0
    kinds = [np.flatnonzero(~matched), np.flatnonzero(matched)]
    level[0], family = _levels(symbols, kinds[0] if kinds[0].size else kinds[1], prior)
    level[1] = _levels(symbols, kinds[1], None, family)[0] if kinds[1].size else level[0]
    alive = symbols.any(1)
    if prior is None or n >= _MIN_ROWS:
        level[:, ~alive] = 0  # with fewer rows a dead component costs less than saying so
    gain = np.zeros(n, np.int32)
    if n >= _MIN_ROWS and k > 1:
        gain = _gains(residual, level, matched)
    rows = Rows(0, level, family, ref, alpha, gain, symbols)
    rows.flags = _MATCHED * bool(matched.any()) | _GAINS * bool(gain.any()) | _FAMILIES * bool(family.any())
    if prior is not None and np.abs(level[0] - prior).sum() < np.abs(np.diff(level[0], prepend=0)).sum():
        rows.flags |= _PRIOR
    if not exact:
        rows.flags |= _CENTRES
        live = rows.live()
        if live.size and (wanted or matched.any()):
            # once more, with what the tables say about where values lie in their cells
            rows.symbols, fine, _ = quantise_rows(
                y, ref, factors[live], step, dead, centres(dead), rows.tables(live), columns=live, residual=False,
                workers=workers,
            )  # fmt: skip
            return rows, _spread(fine, live, k) if wanted else fine
    rows.symbols = rows.symbols[rows.live()]
    return rows, recon


def reconstruct_live(rows: Rows, step: float, workers: int = 1) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Symbols to the components (N, M) float32 that were decoded and are not zero throughout, and which those are."""
    live = rows.live()[: rows.symbols.shape[0]]
    factors = (rows.alpha / np.float32(ALPHA_UNIT)).astype(np.float32)
    dead = DEAD if rows.flags & _CENTRES else 0.0
    index = rows.tables(live) if rows.flags & _CENTRES else None
    return dequantise_rows(rows.symbols, rows.ref, factors[live], step, centres(dead), index, workers=workers), live


def reconstruct(rows: Rows, step: float) -> Floats:
    """Symbols to rows (N, K) float32, zeros where they were not decoded."""
    return _spread(*reconstruct_live(rows, step), rows.level.shape[1])


def _spread(part: Floats, live: npt.NDArray[np.int64], components: int) -> Floats:
    """Live components (N, M) among all (N, components)."""
    if live.size == components:
        return part
    out = np.zeros((part.shape[0], components), np.float32)
    out[:, live] = part
    return out


def bits_of(symbols: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """(K,) bits that the rows of (K, N) symbols take under the table that suits each of them."""
    return _bits(symbols, None).min(0).astype(np.float64)


def _bits(symbols: npt.NDArray[np.int32], rows: npt.NDArray[np.int64] | None) -> Floats:
    """(128, K) bits that the symbols of the named rows take under each table."""
    rows = np.arange(symbols.shape[1]) if rows is None else rows
    return table_bits(magnitudes(symbols, rows, _REACH), _costs_by_size()).T


def _levels(
    symbols: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
    prior: npt.NDArray[np.int32] | None,
    family: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The level 1..64 and the family of each component: the best ones, or with few rows those that need no telling."""
    bits = _bits(symbols, rows).reshape(2, banks.NUM_SCALES, -1)
    gaussian, laplacian = bits.min(1)
    if family is None:
        family = (laplacian + 1 < gaussian).astype(np.int32)
        if rows.size < _MIN_ROWS or family.sum() < family.size / 64:
            family[:] = 0
    chosen = bits[family, :, np.arange(family.size)]  # (K, 64)
    alike = np.full(family.size, int(chosen.sum(0).argmin()))
    choices = [(3.0 * family.size, chosen.argmin(1)), (0.0, alike)]
    if prior is not None:
        choices.append((0.0, np.maximum(prior - 1, 0)))
    level = min(choices, key=lambda c: c[0] + float(chosen[np.arange(family.size), c[1]].sum()))[1]
    return (level + 1).astype(np.int32), family


def _gains(residual: Floats, level: npt.NDArray[np.int32], matched: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """(N,) by how many levels each row is wider than its components say."""
    scales = banks.scales()
    unit = log(scales[1] / scales[0])
    out = np.zeros(matched.size, np.int32)
    for kind in (0, 1):
        rows = matched == bool(kind)
        if not rows.any():
            continue
        deviation = scales[np.maximum(level[kind] - 1, 0)]
        weight = np.where((deviation > 0.4) & (level[kind] > 0), deviation**-2.0, 0.0).astype(np.float32)
        count = int((weight > 0).sum())
        if count < 4:
            continue
        power = (powers(residual, weight)[rows] + 1.0) / (count + 1.0)
        steps = np.log(np.maximum(power, 1e-9)) / (2 * unit)
        out[rows] = np.clip(np.rint(steps), -_MAX_GAIN, _MAX_GAIN).astype(np.int32)
    return out


def _references(y: Floats, step: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """For each row the earlier one nearest to it, -1 where none helps, and the factors of the prediction (K,)."""
    n, k = y.shape
    ref = np.full(n, -1, np.int32)
    none = ref.copy(), np.zeros(k, np.int32)
    power = np.einsum("nk,nk->k", y, y) / n
    strong = np.sort(np.argsort(-power, kind="stable")[:_SEARCH])
    strong = strong[power[strong] > step * step / 4]
    if strong.size == 0:
        return none
    # bits go by the logarithm of what is left, so components count alike, less so where they are near the step
    part = torch.from_numpy(y[:, strong] / np.sqrt(power[strong] + step * step).astype(np.float32))
    square = (part * part).sum(1)
    # |b|^2 - 2 a b as one product
    left = torch.cat((part * -2, torch.ones(n, 1)), 1)
    right = torch.cat((part, square[:, None]), 1)
    square_, space = square.numpy(), torch.empty(_SEARCH_ROWS * min(n, _SEARCH_BACK + _SEARCH_ROWS))
    for first in range(0, n, _SEARCH_ROWS):
        last, begin = min(n, first + _SEARCH_ROWS), max(0, first - _SEARCH_BACK)
        far = space[: (last - first) * (last - begin)].view(last - first, last - begin)
        torch.mm(left[first:last], right[begin:last].T, out=far)
        best, at = nearest(far.numpy(), first - begin)
        ref[first:last] = np.where(best < -0.2 * square_[first:last], at + begin, -1)
    rows = np.flatnonzero(ref >= 0)
    if rows.size < n / 32:
        return none
    cross, norm, before = products(y, rows, ref)
    factor = np.clip(cross / np.maximum(norm, 1e-30), 0, 1)
    alpha = np.rint(factor * ALPHA_UNIT).astype(np.int32)
    before = before / rows.size
    after = before - (2 * factor * cross - factor**2 * norm) / rows.size
    noise = step * step / 8
    saved = 0.5 * np.log2((before + noise) / (np.maximum(after, 0) + noise)).sum() * rows.size
    return (ref, alpha) if saved > n * n.bit_length() + 8 * k else none


def plain(symbols: npt.NDArray[np.int32]) -> Rows:
    """Given integers (K, N) as a block without references and gains."""
    k, n = symbols.shape
    level, family = _levels(symbols, np.arange(n), None)
    level[~symbols.any(1)] = 0
    none, zeros = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    flags = _FAMILIES * bool(family.any())
    live = symbols[np.flatnonzero(level)]
    return Rows(flags, np.stack([level, level]), family, none, np.zeros(k, np.int32), zeros, live)
