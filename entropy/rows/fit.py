"""Fits the integers of `rows` to examples: weights first, then tables for what the weights foretell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..compiled import rows as loops
from ..tables import LUT_ENTRIES, TableBank
from .program import _NOTHING, _RATIO, KINDS, NOT_CODED, Ints, MagnitudeTables, ValueTables

_PRECISION = 12
_MISSES = 9  # the last one stands for what follows zeros
_QUARTERS = 4
_TOP_LEVEL = 33
_TABLES = 160  # of magnitudes; twice as many gain a tenth of a percent
_WIDEST = 40.0  # mean magnitude from which on low bits go raw
_PRIOR = 24.0  # examples that a parent distribution counts for


class ValueExample(NamedTuple):
    """Arguments of `ValueRows`, and its symbols."""

    rows: Ints
    places: Ints
    symbols: Ints


class MagnitudeExample(NamedTuple):
    """Arguments of `MagnitudeRows`, and its symbols."""

    rows: Ints
    step: npt.NDArray[np.int16]
    known: npt.NDArray[np.uint8]
    symbols: Ints


# --- values ------------------------------------------------------------------------------------------------------


def fit_values(examples: Sequence[ValueExample]) -> ValueTables:
    """Weights by least squares for each kind of row, tables by how far the guesses before were off."""
    identity = np.arange(KINDS * _MISSES * _QUARTERS, dtype=np.int32).reshape(KINDS, -1)
    features, targets, kinds = [], [], []
    for e in examples:
        columns = [_walk_values(e, _single(i), identity)[1] for i in range(6)]
        features.append(np.stack([*columns, np.ones_like(columns[0])], 1).astype(np.float64))
        start = np.zeros(e.symbols.size, np.int64)
        start[e.rows[:, 0]] = 1
        number = np.repeat(_row_kinds(e.rows), e.rows[:, 1])
        kinds.append(2 * number + start)
        targets.append(e.symbols.astype(np.float64))
    x, y, kind = np.concatenate(features), np.concatenate(targets), np.concatenate(kinds)
    weights = np.zeros((2 * KINDS, 7), np.int32)
    for k in np.unique(kind):
        a = x[kind == k]
        gram = a.T @ a + np.eye(7) * 1e-3 * len(a)
        w = np.linalg.solve(gram, a.T @ y[kind == k])
        weights[k] = np.clip(np.rint(w * 256), -(1 << 16), 1 << 16)
    counts = np.zeros((identity.size, 401))
    for e in examples:
        index, offset = _walk_values(e, weights, identity)
        np.add.at(counts, (index, np.clip(e.symbols - offset, -200, 200) + 200), 1)
    counts = counts.reshape(KINDS, _MISSES, _QUARTERS, -1)
    guessed, silent = counts[:, :-1], counts[:, -1:]
    for axis in (0, 1):  # what is rare borrows from what is like it
        total = guessed.sum(axis, keepdims=True)
        guessed = guessed + _PRIOR * total / np.maximum(total.sum(3, keepdims=True), 1)
    silent = silent + silent.sum(0)
    silent[..., 200] += _PRIOR  # silence goes on
    counts = np.concatenate([guessed, silent], 1)
    counts = counts.reshape(identity.size, -1) + 0.02 / (1 + np.abs(np.arange(-200, 201)))
    bank = TableBank.from_histograms([c[80:321] for c in counts], -120, _PRECISION)
    return ValueTables(bank, identity, weights)


def _single(feature: int) -> Ints:
    weights = np.zeros((2 * KINDS, 7), np.int32)
    weights[:, feature] = 256
    return weights


def _walk_values(e: ValueExample, weights: Ints, tables: Ints) -> tuple[Ints, Ints]:
    index, offset = np.empty(e.symbols.size, np.int32), np.empty(e.symbols.size, np.int32)
    loops.values(False, *_NOTHING, e.rows, e.places, weights.astype(np.int64), tables, e.symbols, index, offset)
    return index, offset


def _row_kinds(rows: Ints) -> npt.NDArray[np.int64]:
    layout = rows[:, 4]
    kind = np.where(rows[:, 2] < 0, 4, np.where(layout[np.maximum(rows[:, 2], 0)] == layout, 0, 2))
    return kind + (rows[:, 3] >= 0)


# --- magnitudes --------------------------------------------------------------------------------------------------


def fit_magnitudes(examples: Sequence[MagnitudeExample], classes: int) -> MagnitudeTables:
    """Weights that make the expected magnitude likely, then a table for each class and level, alike ones merged."""
    weights = _magnitude_weights(examples)
    levels = _levels()
    identity = np.arange(classes * (_TOP_LEVEL + 1), dtype=np.int32).reshape(classes, -1)
    widest = 4096
    counts = np.zeros((identity.size, widest))
    for e in examples:
        index = np.full(e.symbols.size, -1, np.int32)
        args = (e.rows, e.step, e.known, _RATIO, weights.astype(np.int64), levels, identity)
        loops.magnitudes(False, *_NOTHING, *args, e.symbols, index)
        coded = e.known != NOT_CODED
        size = np.minimum(np.abs(e.symbols[coded]), widest - 1)
        counts += np.bincount(index[coded] * widest + size, minlength=counts.size).reshape(counts.shape)
    of, merged = _merge(_smooth(counts, classes), _TABLES)
    tables, lows, raws = [], [], []
    for c in merged:
        freq, low, raw = _signed_histogram(c)
        tables.append(freq)
        lows.append(low)
        raws.append(raw)
    order = np.argsort(raws, kind="stable")  # tables without raw bits first: coders are faster on these
    rank = np.argsort(order)
    bank = TableBank.from_histograms(
        [tables[i] for i in order], [lows[i] for i in order], _PRECISION, [raws[i] for i in order]
    )
    return MagnitudeTables(bank, rank[of].astype(np.int32).reshape(classes, -1), weights, levels)


def _levels() -> npt.NDArray[np.uint8]:
    """Levels of expected magnitudes in 64ths: each one up to 4, then two an octave."""
    x = np.arange(loops.WIDE)
    return np.where(x < 4, x, np.floor(2 * np.log2(np.maximum(x, 1)) + 1e-9)).astype(np.uint8)


def _magnitude_weights(examples: Sequence[MagnitudeExample], most: int = 400_000) -> Ints:
    """(KINDS, 6): of an exponential distribution whose mean is the weighted sum, the likeliest ones."""
    xs, ys, ks = [], [], []
    for e in examples:
        x, kind = np.zeros((e.symbols.size, 6), np.int64), np.zeros(e.symbols.size, np.uint8)
        loops.features(e.rows, e.step, e.known, _RATIO, e.symbols, x, kind)
        coded = np.flatnonzero(e.known != NOT_CODED)[:: max(1, len(examples) * e.symbols.size // most // 4)]
        xs.append(x[coded] / 256.0)
        ys.append(np.abs(e.symbols[coded]))
        ks.append(kind[coded])
    x, y = torch.from_numpy(np.concatenate(xs)).float(), torch.from_numpy(np.concatenate(ys)).float()
    kind = np.concatenate(ks)
    out = np.zeros((KINDS, 6), np.int32)
    start = np.array([0.3, 0.15, 0.25, 0.08, 0.1, 0.03])
    for k in range(KINDS):
        at = torch.from_numpy(np.flatnonzero(kind == k))
        w = start * [1, 1, k < 4, k < 4, k % 2, k % 2]
        if at.numel() > 2000:
            w = _likeliest(x[at], y[at], w)
        out[k] = np.rint(np.clip(w, 0, 4) * 256)
    return out


def _likeliest(x: torch.Tensor, y: torch.Tensor, start: np.ndarray) -> np.ndarray:
    used = torch.from_numpy(start > 0)
    log_w = torch.tensor(np.log(np.maximum(start, 1e-3)), dtype=torch.float32, requires_grad=True)
    floor = torch.tensor(-3.0, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_w, floor], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        mean = x @ (log_w.exp() * used) + floor.exp()
        value = ((1 + y) * torch.log1p(mean) - y * mean.log()).mean()  # of a geometric distribution, in nats
        value.backward()
        return value

    optimiser.step(loss)
    return (log_w.exp() * used).detach().numpy()


def _smooth(counts: np.ndarray, classes: int) -> np.ndarray:
    """Histograms (contexts, magnitudes), with the level's own added where examples are few, and a tail to all."""
    shaped = counts.reshape(classes, -1, counts.shape[1])
    parent = shaped.sum(0)
    m = np.arange(counts.shape[1])
    centre = np.concatenate([np.arange(4), 2.0 ** (np.arange(4, shaped.shape[1]) / 2)]) / 64 + 0.02
    ratio = centre / (1 + centre)
    geometric = (1 - ratio[:, None]) * ratio[:, None] ** m
    parent = (parent + _PRIOR * geometric) / (parent.sum(1, keepdims=True) + _PRIOR)
    tail = 1e-5 / (1 + m) ** 2
    return (shaped + _PRIOR * (parent + tail)).reshape(counts.shape)


def _merge(counts: np.ndarray, most: int) -> tuple[npt.NDArray[np.int64], np.ndarray]:
    """Which of at most `most` tables each histogram is coded with, and their sums: k-means on the bits lost."""
    short = np.concatenate([counts[:, :64], counts[:, 64:].sum(1, keepdims=True)], 1)
    share = short / short.sum(1, keepdims=True)
    mass = counts.sum(1)
    centres = share[np.sort(np.argsort(-mass, kind="stable")[:most])]
    of = np.zeros(len(counts), np.int64)
    for _ in range(12):
        of = (share @ -np.log2(centres).T).argmin(1)
        used = np.unique(of)
        of = np.searchsorted(used, of)
        centres = np.stack([short[of == t].sum(0) for t in range(used.size)])
        centres /= centres.sum(1, keepdims=True)
    return of, np.stack([counts[of == t].sum(0) for t in range(len(centres))])


def _signed_histogram(counts: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Magnitudes to signed values without their raw low bits: counts, the first value, raw bits."""
    m = np.arange(counts.size)
    mean = float((counts * m).sum() / counts.sum())
    raw = max(0, int(np.ceil(np.log2(max(mean, 1) / _WIDEST)))) if mean > _WIDEST else 0
    reach = min(counts.size - 1, (LUT_ENTRIES // 2 - 1) << raw)
    signed = np.concatenate([counts[reach:0:-1] / 2, counts[:1], counts[1 : reach + 1] / 2])
    low = -reach >> raw
    bins = ((np.arange(-reach, reach + 1)) >> raw) - low
    return np.bincount(bins, signed)[: LUT_ENTRIES - 1], low, raw
