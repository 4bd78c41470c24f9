"""Annealed rounding: gradients through real-valued latents that are rounded up or down at random, less and less so.

After stochastic Gumbel annealing (Yang, Bamler & Mandt, "Improving Inference for Neural Image Compression", NeurIPS
2020), with the chances of SGA+ (Perugachi-Diaz, Gansekoele & Bhulai, 2024: sigmoid scaled logit). Latents are in steps
of the quantiser, rates of learning too; temperatures follow the length of the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .measures import Measure
from .piece import RelaxedPiece

RATE, SIDE_RATE = 0.03, 0.02  # steps a step of Adam, at first: of the latent, and of what is coded beside it
WARM, COLD, FLAT = 1.0, 0.4, 0.6  # temperatures, and the share of the search that stays warm
LEAN = 2.3  # how much more likely than in proportion the nearer integer is: the logit's factor


def anneal(
    piece: RelaxedPiece, measure: Measure, trade: float, steps: int, generator: torch.Generator,
    tick: Callable[[], None],
) -> list[Tensor]:  # fmt: skip
    """Variables of the piece after ``steps`` steps of Adam; arguments as in `descent.descend`."""
    variables = [v.detach().clone().requires_grad_(True) for v in piece.variables()]
    rates = [RATE] + [SIDE_RATE] * (len(variables) - 1)
    optimiser = torch.optim.Adam([{"params": [v]} for v in variables], betas=(0.9, 0.999))
    for i in range(steps):
        done = i / steps
        heat = WARM * (COLD / WARM) ** max(0.0, (done - FLAT) / (1 - FLAT))
        for group, rate in zip(optimiser.param_groups, rates):
            group["lr"] = rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        with torch.enable_grad():
            pixels, bits = piece.relaxed(variables, Rounding(heat, generator))
            loss = trade * measure(pixels) + bits
            gradients = torch.autograd.grad(loss, variables)
        for variable, gradient in zip(variables, gradients):
            variable.grad = gradient
        optimiser.step()
        tick()
    return [v.detach() for v in variables]


class Rounding:
    """A value becomes its floor or its ceiling, nearly, more likely the nearer one."""

    def __init__(self, heat: float, generator: torch.Generator) -> None:
        self.heat, self.generator = heat, generator

    def __call__(self, values: Tensor) -> Tensor:
        floor = values.detach().floor()
        part = (values - floor).clamp(1e-4, 1 - 1e-4)
        lean = LEAN * torch.logit(part)
        chance = torch.rand(values.shape, generator=self.generator).to(values.device).clamp(1e-6, 1 - 1e-6)
        # the difference of two Gumbel variables is logistic
        return floor + torch.sigmoid((lean + torch.logit(chance)) / self.heat)
