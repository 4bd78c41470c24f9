"""Descent over integers: each step moves symbols by one where a model of the distortion and exact table bits agree.

Around the decoded values v the distortion is taken as D + g d + w d^2 with the true gradient g and a curvature w a
channel, and every symbol chooses among itself and its two neighbours (a majorised, proximal step). Half of the symbols
may move in a step, so that neighbours do not correct the same error twice. What is measured is the quantised picture,
so that each step can be kept or taken back: the result is never worse than the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .measures import Measure
from .piece import Costs, Piece, State

SAFETY = 0.85  # of the curvature that is measured: moves are few and apart
UPSET = 0.5  # more where later elements are predicted from what moves
SHARE = 0.5  # of the symbols that may move in a step
GROW, SHRINK = 1.4, 0.95  # of the safety, after a step that failed and one that held
FEWER, MORE = 0.5, 1.25  # of the share, likewise
PATIENCE = 6  # failed steps in a row that end a search
_PROBE = 0.5  # steps, by which values are shaken to see how curved the distortion is


class Point(NamedTuple):
    """A state with what it costs (bits), and the slope of its weighted distortion by the free values, in steps."""

    state: State
    cost: float
    slope: Tensor


def nearest(values: Tensor, costs: Costs) -> Tensor:
    """The rule of one pass: rounding."""
    return values.round()


def cost(piece: Piece, measure: Measure, trade: float, state: State) -> float:
    """Weighted distortion and bits of a state."""
    with torch.no_grad():
        return trade * float(measure(piece.decode(state.values))) + state.bits


def descend(
    piece: Piece, measure: Measure, trade: float, start: State, steps: int, generator: torch.Generator,
    tick: Callable[[], None],
) -> tuple[State, float]:  # fmt: skip
    """The best state that ``steps`` steps find from ``start``, and its cost.

    Args:
        trade: bits that one unit of the measure is worth.
        generator: on the CPU; with its seed the result is given.
        tick: called after every evaluation.
    """
    best = _at(piece, measure, trade, start)
    tick()
    curvature = _curvature(piece, measure, trade, best, generator)
    tick()
    safety, share, failed = 1.0, SHARE, 0
    for _ in range(steps):
        may = torch.rand(best.slope.shape, generator=generator).to(best.slope.device) < share
        weight = curvature * safety
        values = piece.inner(best.state.values)
        target = torch.where(may, values - best.slope / (2 * weight) * piece.step, values)
        found = _at(piece, measure, trade, piece.settle(target, _Move(weight, may)))
        tick()
        if found.cost < best.cost:
            best, safety, share, failed = found, safety * SHRINK, min(SHARE, share * MORE), 0
        else:
            safety, share, failed = safety * GROW, share * FEWER, failed + 1
            if failed == PATIENCE:
                break
    return best.state, best.cost


class _Move:
    """The rule of a step: the symbol, or a neighbour where that is cheaper."""

    def __init__(self, weight: Tensor, may: Tensor) -> None:
        self.weight, self.may = weight, may

    def __call__(self, values: Tensor, costs: Costs) -> Tensor:
        middle = values.round()
        best, least = middle, self.weight * (values - middle).square() + costs(middle)
        for side in (-1.0, 1.0):
            other = middle + side
            price = self.weight * (values - other).square() + costs(other)
            better = (price < least) & self.may
            best, least = torch.where(better, other, best), torch.where(better, price, least)
        return best


def _at(piece: Piece, measure: Measure, trade: float, state: State) -> Point:
    distortion, slope = _slope(piece, measure, trade, state.values)
    return Point(state, distortion + state.bits, slope)


def _slope(piece: Piece, measure: Measure, trade: float, values: Tensor) -> tuple[float, Tensor]:
    values = values.detach().requires_grad_(True)
    with torch.enable_grad():
        distortion = trade * measure(piece.decode(values))
        (slope,) = torch.autograd.grad(distortion, values)
    return float(distortion.detach()), piece.inner(slope) * piece.step


def _curvature(piece: Piece, measure: Measure, trade: float, point: Point, generator: torch.Generator) -> Tensor:
    """Half the second derivative by each value, in bits a squared step: the mean of its channel, with a margin."""
    sign = (torch.rand(point.slope.shape, generator=generator) < 0.5).to(point.slope) * 2 - 1
    shaken = point.state.values.clone()
    piece.inner(shaken).add_(_PROBE * sign * piece.step)
    _, there = _slope(piece, measure, trade, shaken)
    total = (sign * (there - point.slope)).mean((2, 3), keepdim=True) / (2 * _PROBE)
    total = total.clamp_min(0.1 * total.clamp_min(0).mean().clamp_min(1e-6))
    share = measure.shares(piece.stride, (shaken.shape[2], shaken.shape[3]))
    if isinstance(share, Tensor):
        share = piece.inner(share)
        total = total * (share / share.mean().clamp_min(1e-6)).clamp_min(0.1)
    return total * (SAFETY + UPSET * piece.reach)
