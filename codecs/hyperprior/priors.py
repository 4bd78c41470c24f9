"""The factorised prior of a variable-rate codec: a set of distributions for each group of qualities."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ...entropy.priors import FactorizedPrior, float_costs, logit_costs
from ..layers import ANCHORS, hyper_groups


class HyperPriors(nn.ModuleList):
    """Distributions of the hyper-latent to train: a `FactorizedPrior` for each group of qualities."""

    def __init__(self, channels: int) -> None:
        super().__init__(FactorizedPrior(channels) for _ in range(ANCHORS))

    def of_group(self, group: int) -> FactorizedPrior:
        return cast(FactorizedPrior, self[group])

    def bits(self, z: Tensor, quality: Tensor) -> Tensor:
        """Bits of the hyper-latents (B, N, h, w), one figure a picture (B,)."""
        logits = torch.stack([self.of_group(group).logits for group in range(ANCHORS)])
        costs = logit_costs(logits.index_select(0, hyper_groups(quality)))
        return float_costs(z.flatten(2), costs, self.of_group(0).reach).sum((1, 2))
