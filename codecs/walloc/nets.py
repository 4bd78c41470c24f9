"""Networks of the WaLLoC codecs: all local, so that the cost is linear in the pixels and tiles agree with the whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """``x + conv3x3(relu(conv3x3(x)))``, no norm (statistics over a picture would couple its tiles).

    The second convolution starts at zero: the codec begins as its linear solution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Decoder(nn.Module):
    """Latent coefficients (B, L, h, w) -> wavelet packet bands (B, K, h, w): linear solution plus a residual network.

    Args:
        latent_channels: L.
        bands: K, 192 for RGB at J = 3.
        width, depth: channels and number of residual blocks; ``depth=0`` leaves the linear decoder.
    """

    def __init__(self, latent_channels: int, bands: int, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.linear = nn.Conv2d(latent_channels, bands, 1)
        self.register_buffer("latent_std", torch.ones(latent_channels, 1, 1))
        self.register_buffer("error_std", torch.ones(bands, 1, 1))
        self.latent_std: Tensor
        self.error_std: Tensor
        if depth:
            self.conv_in = nn.Conv2d(latent_channels, width, 3, padding=1)
            self.blocks = nn.Sequential(*[ResBlock(width) for _ in range(depth)])
            self.conv_out = nn.Conv2d(width, bands, 3, padding=1)
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    @property
    def halo(self) -> int:
        """Latent positions on each side that an output position depends on."""
        return 2 + 2 * self.depth if self.depth else 0

    def forward(self, y: Tensor) -> Tensor:
        with torch.autocast(y.device.type, enabled=False):
            linear = self.linear(y.float())
        if not self.depth:
            return linear
        # one memory layout, so that one arithmetic: the same bits at any thread count
        h = self.conv_in((y / self.latent_std).contiguous(memory_format=torch.channels_last))
        h = self.conv_out(F.relu(self.blocks(h)))
        return linear + h.float() * self.error_std
