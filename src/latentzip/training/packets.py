"""What the trainers of the WaLLoC codecs share, of pictures and of sound: the linear solution, and how they learn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import trainer
from .rate import fit_rate


@torch.no_grad()
def principal(model: Any, bands: Tensor, gain: float, floor: float) -> None:
    """Set encoder and linear decoder of a codec to the principal components of packet bands (B, K, ...).

    The decoder is the least-squares map from the latents to the bands, not the transpose: the latents' mean carries
    what the dropped components share with them, and the bands are not orthonormal.

    Args:
        gain: factor on the components; sets the first quantisation step.
        floor: of the deviations that networks divide by.
    """
    ones = [1] * model.decoder.dims
    flat = bands.movedim(1, -1).reshape(-1, bands.shape[1]).double()
    second = flat.T @ flat / len(flat)  # about zero, the natural origin: no bias is needed
    _, vectors = torch.linalg.eigh(second)
    basis = vectors.flip(1)[:, : model.config.latent_channels].T  # (L, K)
    basis = basis * torch.sign(basis.sum(1, keepdim=True))
    latents = flat @ basis.T
    inverse = torch.linalg.lstsq(latents, flat).solution  # (L, K)
    model.encoder.weight.copy_(basis.reshape(*basis.shape, *ones))
    model.encoder.bias.zero_()
    model.log_gain.fill_(math.log(gain))
    model.decoder.linear.weight.copy_(inverse.T.reshape(*inverse.T.shape, *ones))
    model.decoder.linear.bias.zero_()
    model.decoder.latent_std.copy_(latents.std(0).reshape(-1, *ones).clamp_min(floor))
    model.decoder.error_std.copy_((flat - latents @ inverse).std(0).reshape(-1, *ones).clamp_min(floor))


class PacketTrainer(trainer.Trainer):
    """Trains a codec of packets together with a differentiable estimate of its rate.

    Attributes:
        rate_lr: learning rate of the estimate, in that of the decoder.
    """

    model: Any
    rate: Any
    rate_lr = 4.0
    graphable = True

    def phase(self) -> bool:
        """Whether noise stands for rounding."""
        return self.progress() < self.recipe.noise_until

    def signals(self, crops: Tensor) -> Tensor:
        """Crops as the codec takes them."""
        return crops

    def parameter_groups(self) -> list[dict[str, Any]]:
        lr = self.recipe.lr
        return [
            {"params": [*self.model.decoder.parameters()], "lr": lr},
            {"params": [*self.model.encoder.parameters()], "lr": lr / 4},
            {"params": [self.model.log_gain], "lr": lr * 8},  # the steps have far to go
            {"params": [*self.rate.parameters()], "lr": lr * self.rate_lr},
        ]

    def take(self, given: dict[str, Tensor], config: dict[str, Any], crops: Tensor) -> str:
        """As the base says; the estimate of the rate, which no release holds, learns what the codec's latents cost."""
        word = super().take(given, config, crops)
        learns = any(p.requires_grad for p in self.rate.parameters())
        if learns and not any(key.startswith("rate.") for key in given):
            parts = crops.to(self.device).split(self.recipe.batch)
            with torch.no_grad():
                latents = [self.model(self.signals(part))[1] for part in parts]
            fit_rate(self.rate, latents)
        return word

    def compile(self) -> None:
        self.model.decoder.compile()
