"""The fit: latents from zero by Adam, nets from a shared start by SOAP, on rate and error of softly rounded latents."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .nets import Floats, Nets
from .soap import Soap

_HARD = 0.04  # of the rates, once nets are rounded: with more they jump between roundings and come back worse
_RAMP = 20  # steps to full rates: the first directions are poor
_NOISE_EXTRA = 1 << 18  # numbers beyond a picture's: each step begins somewhere else in them


@dataclass(frozen=True)
class Schedule:
    """How rates, temperature and noise go over a number of steps.

    First a fifth of the steps at a constant rate; then the latents' moments begin afresh and rates fall by a cosine; in
    the last steps latents are rounded and only the nets learn, rounded as they will be stored.
    """

    steps: int
    rate_weight: float  # lambda of error + lambda * bits a pixel, for errors of samples in [0, 1]

    @property
    def long(self) -> bool:
        return self.steps >= 2500

    @property
    def warm(self) -> int:
        return min(self.steps // 2, max(100, self.steps // 5))

    @property
    def soft(self) -> int:
        """Steps with softly rounded latents."""
        return self.steps - max(self.steps // 12, min(self.steps // 4, 24))

    @property
    def betas(self) -> tuple[float, float]:
        return (0.725, 0.99) if self.long else (0.5, 0.97)

    @property
    def latent_rate(self) -> float:
        return 1e-2 if self.long else 1.5e-2

    @property
    def nets_rate(self) -> float:
        return 8e-3 if self.long else 1e-2

    def at(self, step: int) -> tuple[float, float, float]:
        """Factor of the rates, temperature of the rounding, deviation of the noise."""
        if step >= self.soft:
            return _HARD * (1 - (step - self.soft) / max(1, self.steps - self.soft)) + 0.001, 0.0, 0.0
        if step < self.warm:
            return min(1.0, (step + 1) / _RAMP), 0.35, max(0.05, (0.747 - 0.432 * math.log10(self.rate_weight)) / 10)
        u = (step - self.warm) / max(1, self.soft - self.warm)
        return 1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * u)), 0.35 - 0.27 * u, 0.22 - 0.07 * u


class Rounding(Protocol):
    """How nets are stored."""

    def __call__(self, nets: Nets) -> Nets:
        """The nets that come back."""
        ...

    def cost(self, nets: Nets) -> float:
        """What storing them adds to the loss."""
        ...


class Passes(Protocol):
    """What a fit needs of a chain: `chain.Chain` on processors, `device.DeviceChain` elsewhere.

    Latents, their moments, slopes and noise lie where the chain computes; nets and their gradients are NumPy's.
    """

    count: int
    nets_grad: Nets
    shapes: list[tuple[int, int]]

    def place(self, x: Floats) -> Any: ...
    def integers(self, latent: Any) -> Floats: ...
    def harden(self, latent: Any) -> None: ...
    def soften(self, latent: Any, noise: Any, sigma: float, temperature: float, slope: Any) -> None: ...
    def adam(
        self, latent: Any, slope: Any, m: Any, v: Any, rate: float, betas: tuple[float, float], step: int
    ) -> None: ...
    def rate(self, nets: Nets) -> float: ...
    def error(self, nets: Nets, target: Floats, weight: Floats | None = None) -> float: ...
    def synthesise(self, nets: Nets) -> Floats: ...
    def grid(self, flat: Any, k: int) -> Any: ...
    def gradients(
        self, nets: Nets, target: Floats, rate_weight: float, weight: Floats | None = None,
        objective: Callable[[Floats], tuple[float, Floats]] | None = None,
    ) -> tuple[float, float]: ...  # fmt: skip


class Judge(Protocol):
    """A measure of quality other than the squared error."""

    def settle(self, picture: Floats) -> None:
        """Take the scale of the squared error from a first reconstruction (channels, h, w)."""

    def __call__(self, picture: Floats) -> tuple[float, Floats]:
        """Error of a reconstruction, and its gradient."""
        ...


@dataclass
class Part:
    """One chunk of a picture: what is fitted to it, and what its fit remembers.

    Attributes:
        target: (channels, h, w) float32 in [0, 1].
        weight: (h, w) float32: importance of pixels for the squared error.
        judge: instead of the squared error, from the end of the warm-up on.
    """

    target: Floats
    weight: Floats | None = None
    judge: Judge | None = None
    latent: Any = None
    m: Any = None
    v: Any = None
    steps: int = 0

    def begin(self, chain: Passes) -> None:
        self.latent, self.m, self.v = (chain.place(np.zeros(chain.count, np.float32)) for _ in range(3))


class Fit:
    """Fits nets and the latents of the chunks of one picture; chunks take turns.

    Args:
        nets: the start; changed in place.
        parts: the chunks.
        schedule: of the whole fit; ``schedule.steps`` are steps a chunk.
        chain_for: makes the chain for pictures of (h, w).
        settle: called once before the last steps; returns what rounds nets as they are stored.
        penalty: called with the nets and their gradients before each step, to charge the nets for their bits.
    """

    def __init__(
        self,
        nets: Nets,
        parts: Sequence[Part],
        schedule: Schedule,
        chain_for: Callable[[tuple[int, int]], Passes],
        penalty: Callable[[Nets, Nets], None] | None = None,
        settle: Callable[[Fit], Rounding] | None = None,
        seed: int = 0,
    ) -> None:
        self.nets, self.schedule, self._chain_for = nets, schedule, chain_for
        self.penalty, self.settle = penalty, settle
        self.stored: Rounding | None = None
        self.parts = list(parts)
        self._best: tuple[float, Floats] | None = None
        self._costs: deque[float] = deque(maxlen=len(self.parts))  # of the newest turn with rounded nets
        self.chains: dict[tuple[int, int], Passes] = {}
        self.soap = Soap(nets)
        self.step_number = 0
        self.error, self.bits = math.inf, math.inf  # of the newest step's chunk
        self._rng = np.random.default_rng(seed)
        largest = max((self.chain(p) for p in self.parts), key=lambda c: c.count)
        self._noise = largest.place(self._rng.standard_normal(largest.count + _NOISE_EXTRA, np.float32))
        self._slope = largest.place(np.zeros(largest.count, np.float32))

    @property
    def total_steps(self) -> int:
        return self.schedule.steps * len(self.parts)

    @property
    def pixels(self) -> int:
        """Of the whole picture."""
        return sum(part.target[0].size for part in self.parts)

    def chain(self, part: Part) -> Passes:
        """The chain for a chunk's size; chunks of one size share it."""
        shape = part.target.shape[1], part.target.shape[2]
        if shape not in self.chains:
            self.chains[shape] = self._chain_for(shape)
        return self.chains[shape]

    def step(self) -> None:
        """One step on the next chunk."""
        s, n = self.schedule, len(self.parts)
        part = self.parts[self.step_number % n]
        turn = self.step_number // n
        chain = self.chain(part)
        if part.latent is None:
            part.begin(chain)
        factor, temperature, sigma = s.at(turn)
        hard = turn >= s.soft
        slope = self._slope[: chain.count]
        if hard and self.stored is None and self.settle is not None:
            self.stored = self.settle(self)
        if hard:
            chain.harden(part.latent)
        else:
            at = int(self._rng.integers(0, _NOISE_EXTRA))
            chain.soften(part.latent, self._noise[at:], sigma, temperature, slope)
        pixels = part.target.shape[1] * part.target.shape[2]
        judge = part.judge if turn >= s.warm else None
        if judge is not None and turn == s.warm:
            judge.settle(chain.synthesise(self.nets))
        nets = self.nets if self.stored is None else self.stored(self.nets)
        self.error, self.bits = chain.gradients(nets, part.target, s.rate_weight / pixels, part.weight, judge)
        if self.stored is not None:
            self._keep_best(self.error + s.rate_weight * self.bits / pixels)
        if self.penalty is not None:
            self.penalty(self.nets, chain.nets_grad)
        self.soap.step(chain.nets_grad, s.nets_rate * factor)
        if not hard:
            if turn == s.warm:
                part.m[:] = part.v[:] = 0
                part.steps = 0
            part.steps += 1
            chain.adam(part.latent, slope, part.m, part.v, s.latent_rate * factor, s.betas, part.steps)
        self.step_number += 1
        if self.step_number == self.total_steps and self._best is not None:
            self.nets.flat[:] = self._best[1]

    def _keep_best(self, cost: float) -> None:
        """Remember the nets with which the newest turn cost least: rounded nets go to and fro."""
        assert self.stored is not None
        self._costs.append(cost)
        mean = sum(self._costs) / len(self._costs) + self.stored.cost(self.nets)
        if len(self._costs) == len(self.parts) and (self._best is None or mean < self._best[0]):
            self._best = mean, self.nets.flat.copy()

    def rounded(self, part: Part) -> Floats:
        """Integers of a chunk's grids, end to end."""
        return self.chain(part).integers(part.latent)

    def _measured(self, part: Part) -> Passes:
        chain = self.chain(part)
        chain.harden(part.latent)
        return chain

    def mean_error(self) -> float:
        """Mean error of all chunks with rounded latents; nets as they are."""
        total = samples = 0.0
        for part in self.parts:
            chain = self._measured(part)
            if part.judge is None:
                error = chain.error(self.nets, part.target, part.weight)
            else:
                error = part.judge(chain.synthesise(self.nets))[0]
            total, samples = total + error * part.target.size, samples + part.target.size
        return total / samples

    def bits_a_pixel(self) -> float:
        """Bits of all rounded latents over pixels, as the nets in floats foretell them."""
        bits = sum(self._measured(part).rate(self.nets) for part in self.parts)
        return bits / self.pixels
