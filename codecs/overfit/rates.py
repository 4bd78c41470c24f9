"""What the nets' bits cost while they are fitted, and the steps that they are stored with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...entropy.banks import frozen_bank
from ...entropy.errors import FormatError
from . import weights
from .fit import Fit
from .integers import BITS, bounded
from .nets import GROUPS, Nets, layout
from .weights import Start

# steps of most pictures at a lambda of 0.0013: 2**-n
_USUAL = {
    "context": 6, "context-bias": 6, "features": 4, "upsampling": 10,
    "synthesis": 7, "synthesis-bias": 8, "residual": 10,
}  # fmt: skip
_RATE_GROUPS = ("context", "context-bias", "features")  # the others change the picture alone


def usual(rate_weight: float) -> dict[str, int]:
    """Steps that serve most pictures: those of weights that change pixels grow as the root of lambda."""
    less = round(0.5 * math.log2(rate_weight / 0.0013))
    return {g: n if g in _RATE_GROUPS else min(max(n - less, 4), BITS[g]) for g, n in _USUAL.items()}


class Penalty:
    """Adds the gradient of the nets' bits to the others: log2(1 + |difference| / step) a weight.

    Args:
        start: what differences are taken from.
        bit_weight: price of a bit in the loss: lambda over the pixels of the whole picture.
    """

    def __init__(self, start: Start, bit_weight: float) -> None:
        steps = [np.full(w.total, 2.0 ** -_USUAL[w.group], np.float32) for w in layout(start.size, start.channels)]
        self._step, self._from = np.concatenate(steps), start.nets.flat
        self._price = np.float32(bit_weight / np.log(2))

    def __call__(self, nets: Nets, grads: Nets) -> None:
        d = nets.flat - self._from
        size = np.abs(d)
        # within a quarter of a step of the start the pull fades, so that weights come to rest there
        grads.flat += self._price / (self._step + size) * d / np.sqrt(size * size + (self._step / 4) ** 2)


@dataclass(frozen=True)
class Storage:
    """How nets are stored: differences from a start, in steps of 2**-n a group; called, it rounds nets so.

    Attributes:
        bit_weight: price of a bit in the loss: lambda over the pixels of the whole picture.
    """

    start: Start
    steps: Mapping[str, int]
    bit_weight: float

    def moved(self, nets: Nets) -> npt.NDArray[np.int32]:
        """Differences in steps, of nets inside their bounds."""
        return weights.differences(bounded(nets), self.start, self.steps)

    def cost(self, nets: Nets) -> float:
        return self.bit_weight * weights.bits(self.moved(nets), self.start)

    def __call__(self, nets: Nets) -> Nets:
        return weights.apply(self.start, self.steps, self.moved(nets)).floats()


def _loss(fit: Fit, nets: Nets, rate: bool, bit_weight: float) -> float:
    """What other nets make of the picture's error, or of lambda times the bits a pixel of its latents."""
    held, fit.nets = fit.nets, nets
    try:
        return bit_weight * fit.pixels * fit.bits_a_pixel() if rate else fit.mean_error()
    finally:
        fit.nets = held


def choose_steps(fit: Fit, start: Start, bit_weight: float, steps: dict[str, int]) -> dict[str, int]:
    """The steps, a power of two a group, with which error, latents and nets together cost least.

    Each group is tried alone, the others all but exact: a coarse neighbour would hide what its own step costs.

    Args:
        fit: at the end of its soft phase; its nets are the ones to be stored.
        bit_weight: lambda over the pixels of the whole picture.
        steps: where to begin.
    """
    exact = fit.nets

    def cost(group: str, step: int) -> float:
        storage = Storage(start, BITS | {group: step}, bit_weight)
        return _loss(fit, storage(exact), group in _RATE_GROUPS, bit_weight) + storage.cost(exact)

    chosen = {}
    for group in GROUPS:
        step, best = steps[group], cost(group, steps[group])
        for direction in (-1, 1):
            while 2 <= step + direction <= BITS[group]:
                now = cost(group, step + direction)
                if now >= best:
                    break
                best, step = now, step + direction
        chosen[group] = step
    return chosen


def polish(fit: Fit, storage: Storage) -> None:
    """A greedy pass over the stored weights: each goes one step down or up where error, latents and nets together
    cost less. ``fit.nets`` become what is stored.

    Costs a reading of the picture or its rate for each weight and way, about one step of the fit per weight.
    """
    start = storage.start
    moved = storage.moved(fit.nets)
    of_rate = np.concatenate([np.full(w.total, w.group in _RATE_GROUPS) for w in layout(start.size, start.channels)])

    def cost(trial: npt.NDArray[np.int32], rate: bool) -> float:
        return _loss(fit, weights.apply(start, storage.steps, trial).floats(), rate, storage.bit_weight)

    here = {rate: cost(moved, rate) for rate in (False, True)}
    bank, tables = frozen_bank("laplace"), weights.tables_of(moved, start)
    for i in np.argsort(np.abs(moved), kind="stable").tolist():
        rate, inward = bool(of_rate[i]), -1 if moved[i] > 0 else 1
        for way in (inward, -inward):
            trial = moved.copy()
            trial[i] += way
            try:
                now = cost(trial, rate)
            except FormatError:  # beyond a weight's bounds
                continue
            before, after = bank.costs([moved[i], trial[i]], tables[i])
            if now + storage.bit_weight * (after - before) < here[rate]:
                moved, here[rate] = trial, now
                break
    fit.nets = weights.apply(start, storage.steps, moved).floats()
