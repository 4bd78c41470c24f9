"""Fitting a `ContextModel`: choose taps, train a small network a step by gradient descent, round, then count tables.

Every step is fitted alone: its inputs are true samples of the training latents, so steps need not wait for each other.
Floats live here only; what comes out is integers, and the tables are counted with the *rounded* networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from . import context_net as net
from .context import ZERO, ContextModel, inputs
from .context_steps import CHECKER, DEEP, MIDDLE, OWN_TAPS, STEPS, Step, geometry, plane_pad
from .errors import InputError
from .tables import TableBank

CLASS_LOW, CLASS_STEP, CLASSES = -4.2, 0.2, 41  # scale class k: logistic scale exp(CLASS_LOW + k CLASS_STEP)
PRIOR_WEIGHT = 64  # symbols that a parametric table counts for beside what was seen
_PRECISION = 12


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    deep, middle: how many channels are coded in ten and the next in four passes; the others take two.
    chunk: latents are cut into tiles of at most this size, as they will be coded.
    value_taps, magnitude_taps, hidden: the size of a network.
    steps: gradient steps for a network; samples: symbols a network sees at most.
    """

    deep: int = 6
    middle: int = 6
    chunk: int = 64
    value_taps: int = 24
    magnitude_taps: int = 24
    hidden: int = 24
    steps: int = 600
    batch: int = 2048
    samples: int = 120_000
    seed: int = 0
    workers: int = 2


@dataclass(eq=False)
class _Tile:
    """One training chunk as the coder would see it."""

    size: tuple[int, int]
    samples: npt.NDArray[np.uint8]  # (C, h * w)
    planes: npt.NDArray[np.uint8]  # (C, padded plane)


@dataclass(eq=False)
class _Fitted:
    """A rounded network and what it says about its training samples."""

    net: net.StepNet
    index: npt.NDArray[np.int32]  # (n,) tables
    residuals: npt.NDArray[np.int32]  # (n,) symbols less their offsets
    weight: float  # symbols in the training set per sample
    info: dict[str, float] = field(default_factory=dict)


def fit(latents: Sequence[npt.NDArray[Any]], *, report: Any = None, **options: Any) -> ContextModel:
    """Fit a context model to latents (C, h, w); see `FitOptions` for what can be chosen.

    A hundred latents of 64 x 64 positions are enough; mix the gains that the codec will use. Deterministic for given
    latents, options and torch build.

    Raises:
        InputError: no latents, or latents that are no integer arrays with the same number of channels.
    """
    opt = FitOptions(**options)
    if not latents:
        raise InputError("fitting a context model needs at least one latent")
    channels = latents[0].shape[0]
    for z in latents:
        if z.ndim != 3 or z.shape[0] != channels or z.dtype.kind not in "iu" or z.size == 0:
            raise InputError(
                f"latents to fit must be integer arrays ({channels}, h, w), not {z.dtype}{z.shape}"
            )
    tiles = [t for z in latents for t in _tiles(z, opt.chunk)]
    depths = np.full(channels, CHECKER, np.int8)
    depths[: opt.deep + opt.middle] = MIDDLE
    depths[: opt.deep] = DEEP
    gains = _gains(tiles, channels)
    tables = np.concatenate([net.input_table(int(g)) for g in gains])
    jobs = [(c, s) for c in range(channels) for s in STEPS[int(depths[c])]]

    def one(job: tuple[int, tuple[int, Step]]) -> _Fitted:
        number, (channel, step) = job
        fitted = _fit_step(tiles, tables, channel, step, opt, np.random.default_rng([opt.seed, number]))
        if report is not None:
            report(channel, step, fitted.info)
        return fitted

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(opt.workers) as pool:
            fitted = list(pool.map(one, enumerate(jobs)))
    finally:
        torch.set_num_threads(threads)
    start, fractions = _classes()
    nets = tuple(f.net for f in fitted)
    return ContextModel(depths, gains, nets, _count_tables(fitted), start.astype(np.int16), fractions)


def _tiles(z: npt.NDArray[Any], chunk: int) -> list[_Tile]:
    out = []
    for y in range(0, z.shape[1], chunk):
        for x in range(0, z.shape[2], chunk):
            t = np.clip(z[:, y : y + chunk, x : x + chunk], -net.INPUT_MAX, net.INPUT_MAX)
            c, h, w = t.shape
            flat = (t.reshape(c, h * w) + ZERO).astype(np.uint8)
            out.append(_Tile((h, w), flat, np.ascontiguousarray(flat[:, plane_pad(h, w)])))
    return out


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
        a.append(inputs(reader, channel, known, t.planes[:channel], g, tables, read))
        symbols.append(known[g.flat].astype(np.int32) - ZERO)
    return np.concatenate(a, 1), np.concatenate(symbols), sum(sizes)


def _pursue(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], count: int) -> list[int]:
    """Orthogonal matching pursuit: the rows of x (F, n) that together best explain y (n,)."""
    x = x - x.mean(1, keepdims=True)
    x /= x.std(1, keepdims=True) + 1e-3
    y = y - y.mean()
    gram, b = (x @ x.T).astype(np.float64) / y.size, (x @ y).astype(np.float64) / y.size
    chosen: list[int] = []
    rest = b.copy()
    for _ in range(min(count, x.shape[0])):
        score = np.abs(rest)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        w = np.linalg.solve(gram[np.ix_(chosen, chosen)] + 1e-3 * np.eye(len(chosen)), b[chosen])
        rest = b - gram[:, chosen] @ w
    return chosen


def _ridge(x: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Weights (F + 1,) of the least squares fit of y to the rows of x and a constant."""
    x1 = np.concatenate([x, np.ones((1, x.shape[1]), np.float32)])
    gram = (x1 @ x1.T).astype(np.float64)
    gram[np.diag_indices_from(gram)] += 1e-3 * x1.shape[1]
    return np.linalg.solve(gram, (x1 @ y.astype(np.float32)).astype(np.float64))


def _choose_taps(
    tiles: list[_Tile], tables: npt.NDArray[np.float32], channel: int, step: Step, opt: FitOptions, rng: Any
) -> npt.NDArray[np.int16]:
    """(F, 4) taps: values that predict the symbol, magnitudes that predict how far it misses."""
    places = _candidates(channel, step)
    if not len(places):
        return np.zeros((0, 4), np.int16)
    n = len(places)
    taps = np.concatenate([np.insert(places, 0, what, axis=1) for what in (net.VALUE, net.MAGNITUDE)])
    a, symbols, _ = _read(tiles, tables, taps, channel, step, 8000, rng)
    values = _pursue(a[:n], symbols.astype(np.float32), opt.value_taps)
    w = _ridge(a[values], symbols)
    miss = np.abs(symbols - w[:-1] @ a[values] - w[-1])
    sizes = _pursue(a[n:], np.log2(miss + 0.3).astype(np.float32), opt.magnitude_taps)
    return taps[sorted(values) + sorted(n + i for i in sizes)]


def _fit_step(
    tiles: list[_Tile], tables: npt.NDArray[np.float32], channel: int, step: Step, opt: FitOptions, rng: Any
) -> _Fitted:
    taps = _choose_taps(tiles, tables, channel, step, opt, rng)
    a, symbols, total = _read(tiles, tables, taps, channel, step, opt.samples, rng)
    if symbols.size == 0:  # tiles too small to have such points
        a, symbols, total = np.zeros((len(taps), 1), np.float32), np.zeros(1, np.int32), 1
    hidden = opt.hidden if len(taps) else 0
    trained, bits = _train(a, symbols, hidden, opt, rng)
    rounded = _round(trained, a, taps)
    info = {"bits": bits, "samples": symbols.size, "taps": len(taps)}
    index, offset = np.empty(symbols.size, np.int32), np.empty(symbols.size, np.int32)
    start, fractions = _classes()
    drop = net.FRACTION_BITS - fractions.astype(np.int32)
    net.finish(rounded, rounded.front @ a, start, drop, net.kernels()[1], index, offset)
    return _Fitted(rounded, index, symbols - offset, total / symbols.size, info)


def _train(
    a: npt.NDArray[np.float32], symbols: npt.NDArray[np.int32], hidden: int, opt: FitOptions, rng: Any
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Minimise the code length under a discretised mixture of two logistics about one mean.

    Returns the float parameters in terms of the raw inputs (w1, b1, wl, w2, b) and the bits a symbol on the last batches.
    """
    import torch
    from torch.nn import functional

    n = symbols.size
    centre, spread = a.mean(1), a.std(1) + 0.5
    x = torch.from_numpy(np.ascontiguousarray(((a - centre[:, None]) / spread[:, None]).T))
    y = torch.from_numpy(symbols.astype(np.float32))
    start = _ridge(a, symbols)
    miss = symbols - start[:-1] @ a - start[-1]
    with torch.no_grad():
        gen = torch.Generator().manual_seed(int(rng.integers(2**31)))
        f = a.shape[0]
        bound = 1 / max(1, f) ** 0.5
        w1 = (torch.rand(f, hidden, generator=gen) * 2 - 1) * bound
        b1 = (torch.rand(hidden, generator=gen) * 2 - 1) * bound
        wl = torch.zeros(f, 2)
        wl[:, 0] = torch.from_numpy((start[:-1] * spread).astype(np.float32))
        w2 = torch.zeros(hidden, 2)
        b = torch.tensor(
            [start[-1] + start[:-1] @ centre, np.log(0.4 * miss.std() + 0.05)], dtype=torch.float32
        )
        tail = torch.tensor([-3.0, 1.2])
    params = [w1, b1, wl, w2, b, tail]
    for p in params:
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(params, lr=4e-3)

    def bits(rows: Any) -> Any:
        xr = x[rows]
        out = xr @ wl + b
        if hidden:
            out = out + torch.relu(xr @ w1 + b1) @ w2
        d = -(y[rows] - out[:, 0]).abs()
        scale = out[:, 1].clamp(-4.5, 4.5)
        slope = torch.exp(-torch.stack([scale, scale + functional.softplus(tail[1])]))
        p = torch.sigmoid((d + 0.5) * slope) - torch.sigmoid((d - 0.5) * slope)
        share = torch.sigmoid(tail[0])
        p = (1 - share) * p[0] + share * p[1]
        return -torch.log2(p.clamp_min(1e-7)).mean()

    # coarse grids have few symbols and little weight in the whole
    steps = max(50, int(opt.steps * min(1.0, max(0.4, n / opt.samples))))
    for i in range(steps):
        lr = 4e-3 * min(1.0, (steps - i) / steps * 1.5, (i + 1) / 30)
        for group in optimiser.param_groups:
            group["lr"] = lr
        rows = torch.from_numpy(rng.integers(0, n, min(opt.batch, n)))
        loss = bits(rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        cost = float(bits(torch.arange(min(n, 20000))))
        w1, b1, wl, w2, b = (p.double().numpy() for p in params[:5])
    w1, wl = w1.T / spread, wl.T / spread
    return {"w1": w1, "b1": b1 - w1 @ centre, "wl": wl, "w2": w2.T, "b": b - wl @ centre}, cost


def _round(
    p: dict[str, npt.NDArray[np.float64]], a: npt.NDArray[np.float32], taps: npt.NDArray[np.int16]
) -> net.StepNet:
    """Float parameters -> integers within the bounds of exact arithmetic."""
    w1, b1 = p["w1"], p["b1"]
    factor = net.INPUT_MAX / np.maximum(np.abs(w1).max(1, initial=0), 1e-6)
    factor = np.minimum(factor, (1 << 21) / np.maximum(np.abs(b1), 1e-6))
    w1q = np.rint(w1 * factor[:, None])
    b1q = np.rint(b1 * factor)
    shift = np.zeros(len(b1), np.int64)
    if len(b1):
        pre = w1q.astype(np.float32) @ a[:, :: max(1, a.shape[1] // 20000)] + b1q[:, None].astype(np.float32)
        top = np.quantile(pre, 0.9995, axis=1)
        shift = np.ceil(np.log2(np.maximum(top, 1) / net.HIDDEN_MAX)).clip(0, 20).astype(np.int64)
    unit = np.array([1 << net.MEAN_BITS, (1 << net.CLASS_BITS) / CLASS_STEP])[:, None]
    w2 = p["w2"] * (2.0**shift / factor) * unit
    wl = p["wl"] * unit
    b = p["b"] * unit[:, 0]
    b[1] -= CLASS_LOW * unit[1, 0]
    # the floor after the hidden shift loses half a step on average
    b = b + 0.5 * (w2 * (shift > 0)).sum(1)
    room = net.EXACT - (1 << net.MEAN_BITS) - 64 * (net.INPUT_MAX + net.HIDDEN_MAX)
    sums = np.abs(wl).sum(1) * net.INPUT_MAX + np.abs(w2).sum(1) * net.HIDDEN_MAX + np.abs(b)
    fit_in = np.minimum(1.0, room / np.maximum(sums, 1))[:, None]
    limit = np.iinfo(np.int16).max
    return net.StepNet(
        taps=taps,
        w1=w1q.astype(np.int8),
        b1=b1q.astype(np.int32),
        s1=shift.astype(np.int8),
        wl=np.rint(wl * fit_in).clip(-limit, limit).astype(np.int16),
        w2=np.rint(w2 * fit_in).clip(-limit, limit).astype(np.int16),
        b=np.rint(b).astype(np.int32),
    )


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
