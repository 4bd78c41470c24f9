"""Two ways to train the shared nets that fits of the codec `overfit` start from.

`SharedFit` makes nets from nothing: several crops are fitted at once, each at another age of its life, and every step
updates the one set of nets, so that they serve latents at every age. `Reptile` (Nichol, Achiam & Schulman, 2018) goes
on from there: each crop is fitted as an encoder would, its nets' bits included, and the start moves towards the fitted
nets, since what a file pays for are differences from the start. Latents begin at zero in both, as they do when a
picture is encoded.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from ..codecs.overfit.chain import Chain
from ..codecs.overfit.fit import Fit, Part, Schedule
from ..codecs.overfit.integers import bounded
from ..codecs.overfit.nets import SIZES, Floats, Nets
from ..codecs.overfit.rates import Penalty, Storage, usual
from ..codecs.overfit.soap import Soap
from ..codecs.overfit.weights import Start, to_units
from ..codecs.overfit.workers import Workers
from .data import CropSampler

_CROPS = 4
_LIFE = 240  # steps that a crop is fitted for
_YOUNG = 0.3  # weight of crops in the first fifth of their life: their gradients are the largest and teach least
_RATE = 5e-3
_NOISE_EXTRA = 1 << 18
_STEPS = 300  # of a fit towards which a start moves: effort 1
_PACE = 0.1  # share of the way that it moves
_PIXELS = 768 * 512  # of the picture whose share of the nets' bits a crop pays


class Training(ABC):
    """Nets under training, and crops to train them on.

    Args:
        nets: where to start; changed in place.
        rate_weight: lambda of mean squared error + lambda * bits a pixel, samples in [0, 1].
        data: folder of pictures.
        side: of the crops, in pixels.
        seed: which crops are drawn.
    """

    def __init__(self, nets: Nets, rate_weight: float, data: str | Path, side: int = 256, seed: int = 1) -> None:
        self.nets, self.rate_weight, self.side = nets, rate_weight, side
        self.sampler = CropSampler(data, 1, side, seed)
        self.chain = Chain(nets.size, nets.channels, (side, side), Workers(1))
        self.steps = 0
        self.finished: list[tuple[float, float]] = []  # error and bits a pixel of each crop, fitted

    @abstractmethod
    def step(self, share: float) -> None:
        """Change the nets once; ``share`` of the training lies behind."""

    def crop(self) -> Floats:
        """The next crop, (channels, side, side) float32 in [0, 1]."""
        crop = _drawn(self.sampler)
        return crop if self.nets.channels == 3 else crop.mean(0, keepdims=True)

    def train(self, minutes: float, out: Path, report: float = 60.0) -> None:
        """Steps for so long; saves now and then, and at the end."""
        begin, last = time.time(), time.time()
        while (share := (time.time() - begin) / (60 * minutes)) < 1:
            self.step(share)
            self.steps += 1
            if time.time() - last > report and self.finished:
                last = time.time()
                error, bits = np.mean(self.finished[-24:], 0)
                cost = 1e4 * (error + self.rate_weight * bits)
                print(f"{self.steps:6d} steps {len(self.finished):5d} crops cost {cost:.3f} bpp {bits:.4f}", flush=True)
                save(self.nets, self.rate_weight, out)
        save(self.nets, self.rate_weight, out)


def _drawn(sampler: CropSampler) -> Floats:
    """A crop in colour, (3, side, side) float32 in [0, 1]."""
    return np.ascontiguousarray(sampler.make()[0].numpy().astype(np.float32) / 255)


class _Crop:
    """One crop on its way: latents, their moments, its age."""

    def __init__(self, target: Floats, count: int, life: int) -> None:
        self.target, self.life, self.age = target, life, 0
        self.latent, self.m, self.v, self.slope = (np.zeros(count, np.float32) for _ in range(4))


class SharedFit(Training):
    """Trains nets by staggered fits that share them; see `Training`."""

    def __init__(self, nets: Nets, rate_weight: float, data: str | Path, side: int = 256, seed: int = 1) -> None:
        super().__init__(nets, rate_weight, data, side, seed)
        self.soap = Soap(nets, eager=1000, every=4)
        self.rng = np.random.default_rng(seed)
        self.noise = self.rng.standard_normal(self.chain.count + _NOISE_EXTRA, np.float32)
        self.crops = [_Crop(self.crop(), self.chain.count, _LIFE * (i + 1) // _CROPS) for i in range(_CROPS)]

    def step(self, share: float) -> None:
        """One step of the nets and of each crop's latents, at a rate that falls by a cosine."""
        total = self.nets.zeros()
        for i, crop in enumerate(self.crops):
            age = crop.age / crop.life
            late = max(0.0, (age - 0.33) / 0.67)
            temperature, sigma = 0.35 - 0.27 * late, 0.204 if age < 0.33 else 0.22 - 0.07 * late
            at = int(self.rng.integers(0, _NOISE_EXTRA))
            self.chain.soften(crop.latent, self.noise[at:], sigma, temperature, crop.slope)
            self.chain.gradients(self.nets, crop.target, self.rate_weight / self.side**2)
            total.flat += (_YOUNG if age < 0.2 else 1.0) / len(self.crops) * self.chain.nets_grad.flat
            crop.age += 1
            pace = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * late))
            self.chain.adam(crop.latent, crop.slope, crop.m, crop.v, 1.5e-2 * pace, (0.5, 0.97), crop.age)
            if crop.age >= crop.life:
                self._finish(i)
        warm = min(1.0, (self.steps + 1) / 50)
        self.soap.step(total, _RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))))

    def _finish(self, i: int) -> None:
        crop, chain = self.crops[i], self.chain
        chain.harden(crop.latent)
        bits = chain.rate(self.nets) / self.side**2
        self.finished.append((chain.error(self.nets, crop.target), bits))
        self.crops[i] = _Crop(self.crop(), chain.count, _LIFE)


class Reptile(Training):
    """Moves nets towards those that are fitted to crops, one crop a step; see `Training`."""

    def step(self, share: float) -> None:
        fitted, error, bits = fit(self.nets, self.rate_weight, self.crop(), self.chain)
        if np.isfinite(fitted.flat).all():
            self.nets.flat += np.float32(_PACE * (1 - 0.9 * share)) * (fitted.flat - self.nets.flat)
            self.finished.append((error, bits))


def fit(nets: Nets, rate_weight: float, crop: Floats, chain: Chain, steps: int = _STEPS) -> tuple[Nets, float, float]:
    """Nets fitted to a crop from a start, error of the crop, and bits a pixel of latents and nets (its share of a
    picture's)."""
    start = Start(nets.size, nets.channels, rate_weight, to_units(bounded(nets)))
    bit_weight = rate_weight / _PIXELS
    schedule = Schedule(steps, rate_weight)
    run = Fit(start.nets.copy(), [Part(crop)], schedule, lambda _: chain, Penalty(start, bit_weight))
    for _ in range(schedule.soft):
        run.step()
    stored = Storage(start, usual(rate_weight), bit_weight)
    return run.nets, run.mean_error(), run.bits_a_pixel() + stored.cost(run.nets) / rate_weight


def save(nets: Nets, rate_weight: float, out: Path) -> None:
    """Write nets and their lambda, in one piece or not at all."""
    part = out.with_suffix(".part.npz")
    np.savez(part, flat=nets.flat, rate_weight=rate_weight, size=nets.size.name)
    part.replace(out)


def load(path: Path) -> tuple[Nets, float]:
    """Nets that were saved, and their lambda."""
    held = np.load(path)
    size = next(s for s in SIZES if s.name == str(held["size"]))
    return Nets(size, 3, held["flat"].copy()), float(held["rate_weight"])


def compare(paths: list[Path], data: str | Path, count: int, side: int = 256, seed: int = 7) -> list[float]:
    """Mean cost, 1e4 * (error + lambda * bits a pixel), of the same ``count`` crops fitted from each start."""
    sampler = CropSampler(data, 1, side, seed)
    crops = [_drawn(sampler) for _ in range(count)]
    means = []
    for path in paths:
        nets, rate_weight = load(path)
        chain = Chain(nets.size, nets.channels, (side, side), Workers(1))
        costs = []
        for crop in crops:
            _, error, bits = fit(nets, rate_weight, crop, chain)
            costs.append(1e4 * (error + rate_weight * bits))
        means.append(float(np.mean(costs)))
    return means
