"""The factorised prior of a variable-rate codec: a set of distributions for each group of qualities."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ...entropy.priors import FactorizedPrior
from ..layers import ANCHORS, hyper_group


class HyperPriors(nn.ModuleList):
    """Distributions of the hyper-latent to train: a `FactorizedPrior` for each group of qualities."""

    def __init__(self, channels: int) -> None:
        super().__init__(FactorizedPrior(channels) for _ in range(ANCHORS))

    def of_group(self, group: int) -> FactorizedPrior:
        return cast(FactorizedPrior, self[group])

    def bits(self, z: Tensor, quality: Tensor) -> Tensor:
        """Bits of the hyper-latents (B, N, h, w), one figure a picture (B,)."""
        return torch.stack([self.of_group(hyper_group(float(q))).bits(part[None]) for part, q in zip(z, quality)])
