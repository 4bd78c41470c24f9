"""Networks of the supervised bottleneck: a light encoder for the device, a larger decoder for the server."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import Block, ByQuality, conv, nhwc, zero


def _halvings(factor: int) -> int:
    return factor.bit_length() - 1


class Encoder(nn.Sequential):
    """Strided convolutions: (B, inputs, H, W), sides multiples of ``down`` -> (B, latent, H/down, W/down)."""

    def __init__(self, inputs: int, width: int, latent: int, down: int) -> None:
        layers: list[nn.Module] = []
        stages = _halvings(down)
        for stage in range(stages):
            # narrow where the resolution is high: that is where a device would spend its time
            outputs = max(16, width >> (stages - 1 - stage))
            size = 5 if stage == 0 else 3
            down = nn.Conv2d(inputs, outputs, size, stride=2, padding=size // 2)
            nn.init.kaiming_normal_(down.weight)
            layers += [down, nn.SiLU()]
            inputs = outputs
        last = conv(inputs, latent)
        nn.init.normal_(last.weight, std=4 * inputs**-0.5)  # latents near a deviation of one: less would round to zero
        super().__init__(*layers, Block(inputs, 1), last)


class Decoder(nn.Sequential):
    """Residual blocks and pixel shuffles: (B, latent, h, w) -> features (B, outputs, h * up, w * up)."""

    def __init__(self, latent: int, width: int, outputs: int, up: int) -> None:
        layers: list[nn.Module] = [nn.Conv2d(latent, width, 3, padding=1), Block(width)]
        for _ in range(_halvings(up)):
            layers += [conv(width, 4 * width), nn.PixelShuffle(2), Block(width)]
        super().__init__(*layers, nn.Conv2d(width, outputs, 3, padding=1))


class HyperEncoder(nn.Module):
    """Latent (B, L, h, w), sides multiples of 4 -> hyper-latent (B, N, h/4, w/4), not rounded."""

    def __init__(self, latent: int, width: int, hyper: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(latent, width, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(width, hyper, 3, stride=2, padding=1)
        )
        self.log_scale = ByQuality(hyper)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        return self.layers(y).float() * (2 * torch.exp(self.log_scale(quality)))


class HyperMeans(nn.Module):
    """Hyper-latent (B, N, h/4, w/4) -> means of the latent (B, L, h, w) float32, zero at first."""

    def __init__(self, latent: int, width: int, hyper: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(hyper, 4 * width), nn.PixelShuffle(2), nn.SiLU(),
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.SiLU(), zero(width, latent),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(nhwc(z / 2)).float()
