"""Fitting a `ContextModel`: choose taps, train a small network a step, round it, then count the tables.

Every step is fitted alone: its inputs are true samples of the training latents, so steps need not wait for
each other. Floats live here and in `train` only; what comes out is integers, and the tables are
counted with the *rounded* networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dense import to_numpy
from ..errors import InputError
from ..tables import TableBank
from . import net
from .steps import BASE, CHECKER, DEEP, EVEN, MIDDLE, NEAR, ODD, OWN_TAPS, STEPS, Step, geometry, plane_pad
from .taps import ZERO, inputs, surroundings
from .train import CLASS_LOW, CLASS_STEP, CLASSES, pursue, ridge, rounded_net, train

PRIOR_WEIGHT = 64  # symbols that a parametric table counts for beside what was seen
_PRECISION = 12


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    deep, middle: how many channels are coded in ten and how many in four passes, those that their own neighbours
        predict best; the others take two.
    chunk: latents are cut into tiles of at most this size, as they will be coded.
    value_taps, magnitude_taps, hidden: the size of a network; checker_hidden for channels coded in two passes.
        Magnitudes are of one place or, with ``sums``, of all around it: fewer bits for sound, but a model that has
        some decodes latents one by one (`lockstep`).
    steps: gradient steps for a network; samples: symbols a network sees at most.
    """

    deep: int = 6
    middle: int = 6
    chunk: int = 64
    value_taps: int = 12
    magnitude_taps: int = 8
    sums: bool = True
    hidden: int = 24
    checker_hidden: int = 16
    steps: int = 1500
    batch: int = 1024
    samples: int = 200_000
    seed: int = 0
    workers: int = 2


@dataclass(eq=False)
class _Tile:
    """One training chunk as the coder would see it."""

    size: tuple[int, int]
    samples: npt.NDArray[np.uint8]  # (C, h * w)
    planes: npt.NDArray[np.uint8]  # (C, padded plane)
    around: npt.NDArray[np.uint8]  # (C, padded plane)


@dataclass(eq=False)
class _Fitted:
    """A rounded network and what it says about its training samples."""

    net: net.StepNet
    index: npt.NDArray[np.int32]  # (n,) tables
    residuals: npt.NDArray[np.int32]  # (n,) symbols less their offsets
    weight: float  # symbols in the training set per sample
    info: dict[str, float] = field(default_factory=dict)


def fit(latents: Sequence[npt.NDArray[Any]], *, report: Any = None, **options: Any) -> tuple[Any, ...]:
    """The fields of a `ContextModel` of latents (C, h, w); see `FitOptions` for what can be chosen.

    Two to three hundred latents of about 64 x 64 positions serve well; a codec of several rates passes latents of
    all its gains in turn. Deterministic for given latents, options and torch build. `report(channel, step, info)`
    is called as each step is done.

    Raises:
        InputError: no latents, or latents that are no integer arrays with the same number of channels.
    """
    opt = FitOptions(**options)
    if not latents:
        raise InputError("fitting a context model needs at least one latent")
    latents = [to_numpy(z, "a latent") for z in latents]
    channels = latents[0].shape[0] if latents[0].ndim else 0
    for z in latents:
        if z.ndim != 3 or z.shape[0] != channels or z.dtype.kind not in "iu" or z.size == 0:
            raise InputError(f"latents to fit must be integer arrays ({channels}, h, w), not {z.dtype}{z.shape}")
    tiles = [t for z in latents for t in _tiles(z, opt.chunk)]
    depths = _depths(tiles, channels, opt)
    gains = _gains(tiles, channels)
    tables = np.concatenate([net.input_table(int(g)) for g in gains])
    jobs = [(c, s) for c in range(channels) for s in STEPS[int(depths[c])]]

    def one(job: tuple[int, tuple[int, Step]]) -> _Fitted:
        number, (channel, step) = job
        fitted = _fit_step(tiles, tables, channel, step, opt, np.random.default_rng([opt.seed, number]))
        if report is not None:
            report(channel, step, fitted.info)
        return fitted

    with ThreadPoolExecutor(opt.workers) as pool:
        fitted = list(pool.map(one, enumerate(jobs)))
    start, fractions = _classes()
    nets = tuple(f.net for f in fitted)
    return depths, gains, nets, _count_tables(fitted), start.astype(np.int16), fractions


def _tiles(z: npt.NDArray[Any], chunk: int) -> list[_Tile]:
    out = []
    for y in range(0, z.shape[1], chunk):
        for x in range(0, z.shape[2], chunk):
            t = np.clip(z[:, y : y + chunk, x : x + chunk], -net.INPUT_MAX, net.INPUT_MAX)
            c, h, w = t.shape
            flat = (t.reshape(c, h * w).astype(np.int16) + ZERO).astype(np.uint8)
            around = np.stack([surroundings(s, h, w) for s in flat])
            out.append(_Tile((h, w), flat, np.ascontiguousarray(flat[:, plane_pad(h, w)]), around))
    return out


def _depths(tiles: list[_Tile], channels: int, opt: FitOptions) -> npt.NDArray[np.int8]:
    """More passes for the channels that their own neighbours say most about."""
    worth = np.zeros(channels)
    around = np.array([(net.VALUE, 0, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx], np.int16)
    plain = np.concatenate([net.input_table(1)] * channels)
    for c in range(channels):
        a, x, _ = _read(tiles, plain, around, c, Step(1, BASE), 20_000, np.random.default_rng(opt.seed))
        w = ridge(a, x)
        # a tenth of a step stands for rounding, so channels of hardly any information do not count
        left, all_of_it = np.var(x - w[:-1] @ a - w[-1]) + 0.1, np.var(x) + 0.1
        worth[c] = np.log2(all_of_it / left)
    order = np.argsort(-worth, kind="stable")
    depths = np.full(channels, CHECKER, np.int8)
    depths[order[: opt.deep + opt.middle]] = MIDDLE
    depths[order[: opt.deep]] = DEEP
    return depths


def _gains(tiles: list[_Tile], channels: int) -> npt.NDArray[np.int8]:
    """Powers of two that bring nearly all samples of each channel into the range of an input."""
    out = np.ones(channels, np.int8)
    for c in range(channels):
        x = np.abs(np.concatenate([t.samples[c] for t in tiles]).astype(np.int32) - ZERO)
        top = max(1.0, float(np.quantile(x, 0.999)))
        out[c] = 2 ** int(np.clip(np.floor(np.log2(net.INPUT_MAX / top)), 0, 4))
    return out


def _candidates(channel: int, step: Step) -> npt.NDArray[np.int16]:
    """(n, 3) back, dy, dx of every place a step may look at."""
    places = [(0, dy, dx) for dy, dx in OWN_TAPS[step.kind]]
    for j in range(channel):
        r = 2 if j < 6 else 1
        places += [(channel - j, dy, dx) for dy in range(-r, r + 1) for dx in range(-r, r + 1)]
    return np.array(places, np.int16).reshape(-1, 3)


def _read(
    tiles: list[_Tile],
    tables: npt.NDArray[np.float32],
    taps: npt.NDArray[np.int16],
    channel: int,
    step: Step,
    limit: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], int]:
    """Inputs (F, n) and symbols (n,) at about `limit` random points of all tiles, and how many there were."""
    sizes = [geometry(*t.size, step).flat.size for t in tiles]
    share = min(1.0, limit / max(1, sum(sizes)))
    a, symbols = [], []
    reader, (read, _) = net.reader(taps), net.kernels()
    for t, n in zip(tiles, sizes):
        pick = np.flatnonzero(rng.random(n) < share) if share < 1 else np.arange(n)
        known = t.samples[channel]
        g = geometry(*t.size, step).at(pick)
        a.append(inputs(reader, channel, known, t.planes[:channel], t.around[:channel], step.kind, g, tables, read))
        symbols.append(known[g.flat].astype(np.int32) - ZERO)
    return np.concatenate(a, 1), np.concatenate(symbols), sum(sizes)


def _choose_taps(
    tiles: list[_Tile], tables: npt.NDArray[np.float32], channel: int, step: Step, opt: FitOptions, rng: Any
) -> npt.NDArray[np.int16]:
    """(F, 4) taps: values that predict the symbol, magnitudes that predict how far it misses."""
    places = _candidates(channel, step)
    if not len(places):
        return np.zeros((0, 4), np.int16)
    n = len(places)
    here = [(channel - j, 0, 0) for j in range(channel)] + ([(0, 0, 0)] if NEAR[step.kind] else [])
    here = here if opt.sums else []
    sums = np.insert(np.array(here, np.int16).reshape(-1, 3), 0, net.SURROUND, axis=1)
    taps = np.concatenate([*(np.insert(places, 0, what, axis=1) for what in (net.VALUE, net.MAGNITUDE)), sums])
    a, symbols, _ = _read(tiles, tables, taps, channel, step, 8000, rng)
    values = pursue(a[:n], symbols.astype(np.float32), opt.value_taps)
    w = ridge(a[values], symbols)
    miss = np.abs(symbols - w[:-1] @ a[values] - w[-1])
    sizes = pursue(a[n:], np.log2(miss + 0.3).astype(np.float32), opt.magnitude_taps)
    return taps[sorted(values) + sorted(n + i for i in sizes)]


def _fit_step(
    tiles: list[_Tile], tables: npt.NDArray[np.float32], channel: int, step: Step, opt: FitOptions, rng: Any
) -> _Fitted:
    taps = _choose_taps(tiles, tables, channel, step, opt, rng)
    a, symbols, total = _read(tiles, tables, taps, channel, step, opt.samples, rng)
    if symbols.size == 0:  # tiles too small to have such points
        a, symbols, total = np.zeros((len(taps), 1), np.float32), np.zeros(1, np.int32), 1
    hidden = opt.checker_hidden if step.kind in (EVEN, ODD) else opt.hidden
    hidden = hidden if len(taps) else 0
    trained, bits = train(a, symbols, hidden, opt, rng)
    rounded = rounded_net(trained, a, taps)
    info = {"bits": bits, "samples": symbols.size, "taps": len(taps)}
    index, offset = np.empty(symbols.size, np.int32), np.empty(symbols.size, np.int32)
    start, fractions = _classes()
    drop = net.FRACTION_BITS - fractions.astype(np.int32)
    net.finish(rounded, rounded.front @ a, start, drop, net.kernels()[1], index, offset)
    return _Fitted(rounded, index, symbols - offset, total / symbols.size, info)


def _classes() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
    """The first table of each scale class, and log2 of how many fractions of the mean it distinguishes.

    A fraction is a third of the logistic scale or finer, down to 1/16.
    """
    scale = np.exp(CLASS_LOW + CLASS_STEP * np.arange(CLASSES))
    fractions = np.clip(np.ceil(np.log2(3 / scale)), 0, net.FRACTION_BITS).astype(np.int8)
    sizes = 1 << fractions.astype(np.int32)
    return (np.cumsum(sizes) - sizes).astype(np.int32), fractions


def _count_tables(fitted: list[_Fitted]) -> TableBank:
    """Frequencies of what the symbols were wherever the rounded networks said the same."""
    start, fractions = _classes()
    reach = 320
    counts = np.zeros((int(start[-1]) + (1 << int(fractions[-1])), 2 * reach))
    for f in fitted:
        place = f.index.astype(np.int64) * 2 * reach + np.clip(f.residuals + reach, 0, 2 * reach - 1)
        counts += f.weight * np.bincount(place, minlength=counts.size).reshape(counts.shape)
    histograms, raw_bits = [], []
    for k, first in enumerate(start):
        scale = np.exp(CLASS_LOW + CLASS_STEP * k)
        raw = int(np.clip(np.ceil(np.log2(scale / 8)), 0, 4))
        prior = _prior(scale, 1 << int(fractions[k]), reach)
        for t, q in enumerate(prior):
            histograms.append((counts[first + t] + PRIOR_WEIGHT * q).reshape(-1, 1 << raw).sum(1))
            raw_bits.append(raw)
    return TableBank.from_histograms(histograms, [-reach >> r for r in raw_bits], _PRECISION, raw_bits)


def _prior(scale: float, count: int, reach: int) -> npt.NDArray[np.float64]:
    """(count, 2 reach) probabilities of a residual under logistics about the means of each fraction, with a tail."""
    centre = ((np.arange(count) + 0.5) / count - 0.5)[:, None]
    edge = np.arange(-reach, reach + 1)[None, :] - 0.5 - centre

    def cdf(s: float) -> npt.NDArray[np.float64]:
        return 0.5 + 0.5 * np.tanh(edge / (2 * s))

    out = np.diff(0.95 * cdf(scale) + 0.05 * cdf(3 * scale), axis=1)
    return np.maximum(out, 1e-9)
