"""A differentiable estimate of what the context coder will spend on a latent, for the rate term of training.

Not the coder's own model: a small convolutional network that sees what a causal coder sees (earlier channels
everywhere, this channel above and to the left) and says mean and scale of a discretised logistic distribution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalRate(nn.Module):
    """Bits of latents z (B, L, h, w) that carry quantisation noise or are rounded.

    Args:
        channels: L.
        hidden: features a channel.
    """

    def __init__(self, channels: int, hidden: int = 12) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        self.context = nn.Conv2d(channels, channels * hidden, 3, padding=1)
        mask = torch.zeros(channels, hidden, channels, 3, 3)
        for c in range(channels):
            mask[c, :, :c] = 1
            mask[c, :, c, 0] = 1
            mask[c, :, c, 1, 0] = 1
        self.register_buffer("mask", mask.view(channels * hidden, channels, 3, 3))
        self.mask: Tensor
        self.mean = nn.Conv2d(channels * hidden, channels, 1, groups=channels)
        self.scale1 = nn.Conv2d(channels * hidden, channels * hidden, 1, groups=channels)
        self.scale2 = nn.Conv2d(channels * hidden, channels, 1, groups=channels)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.scale2.weight)
        nn.init.constant_(self.scale2.bias, 1.0)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        """-log2 of the probability of the unit interval around each element, (B, L, h, w)."""
        h = F.conv2d(z / 16, self.context.weight * self.mask, self.context.bias, padding=1)
        mean = self.mean(h) * 16
        # magnitudes, not values, tell the scale
        log_scale = self.scale2(F.relu(self.scale1(h.abs())))
        inv = torch.exp(-log_scale.clamp(-4, 6))
        d = (z - mean).abs()
        # symmetric in d: P = sigmoid(-(d - 1/2) / s) - sigmoid(-(d + 1/2) / s), with d >= 0
        p = torch.sigmoid((0.5 - d) * inv) - torch.sigmoid((-0.5 - d) * inv)
        return -torch.log2(p.clamp_min(1e-9))


def fit_rate(rate: nn.Module, latents: list[Tensor], steps: int = 150, lr: float = 4e-3) -> float:
    """Train an estimate of the rate alone on latents (B, L, ...), batch by batch with fresh quantisation noise.

    Returns:
        Bits a number, on the last tenth of the steps.
    """
    optimizer = torch.optim.Adam(rate.parameters(), lr=lr)
    last = []
    for step in range(steps):
        z = latents[step % len(latents)]
        bits = rate(z + torch.rand_like(z) - 0.5).mean()
        optimizer.zero_grad()
        bits.backward()
        optimizer.step()
        if step >= 0.9 * steps:
            last.append(bits.item())
    return sum(last) / max(1, len(last))
