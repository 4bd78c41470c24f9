"""Networks of the WaLLoC codecs: all local, so that the cost is linear in the signal and parts agree with the whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.dense import tensor_of
from ..base import check_latent

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}  # by dimensions of a signal


class ResBlock(nn.Module):
    """``x + conv3(relu(conv3(x)))``, no norm (statistics over a signal would couple its parts).

    The second convolution starts at zero: the codec begins as its linear solution.
    """

    def __init__(self, width: int, dims: int = 2) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.conv1 = conv(width, width, 3, padding=1)
        self.conv2 = conv(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class Decoder(nn.Module):
    """Latent coefficients (B, L, h, w) -> wavelet packet bands (B, K, h, w): linear solution plus a residual network.

    In one dimension the same from (B, L, n) to (B, K, n).

    Args:
        latent_channels: L.
        bands: K, 192 for RGB at J = 3.
        width, depth: channels and number of residual blocks; ``depth=0`` leaves the linear decoder.
        dims: of the signal.
        told: whether the network has one more input, how fine the latent was quantised.
    """

    def __init__(
        self, latent_channels: int, bands: int, width: int, depth: int, dims: int = 2, told: bool = False
    ) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.depth, self.dims, self.told = depth, dims, told and depth > 0
        self.linear = conv(latent_channels, bands, 1)
        self.register_buffer("latent_std", torch.ones(latent_channels, *[1] * dims))
        self.register_buffer("error_std", torch.ones(bands, *[1] * dims))
        self.latent_std: Tensor
        self.error_std: Tensor
        if depth:
            self.conv_in = conv(latent_channels + self.told, width, 3, padding=1)
            self.blocks = nn.Sequential(*[ResBlock(width, dims) for _ in range(depth)])
            self.conv_out = conv(width, bands, 3, padding=1)
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    @property
    def halo(self) -> int:
        """Latent positions on each side that an output position depends on."""
        return 2 + 2 * self.depth if self.depth else 0

    def forward(self, y: Tensor, fineness: float | Tensor = 0.0) -> Tensor:
        """``fineness``, a number or (B,), is for a network that is told."""
        with torch.autocast(y.device.type, enabled=False):
            linear = self.linear(y.float())
        if not self.depth:
            return linear
        h = y / self.latent_std
        if self.told:
            plane = h.new_zeros(len(h), 1, *h.shape[2:])
            plane += fineness.view(-1, 1, *[1] * self.dims) if isinstance(fineness, Tensor) else fineness
            h = torch.cat((h, plane), 1)
        if self.dims == 2:  # one memory layout, so that one arithmetic: the same bits at any thread count
            h = h.contiguous(memory_format=torch.channels_last)
        h = self.conv_out(F.relu(self.blocks(self.conv_in(h))))
        return linear + h.float() * self.error_std


def expanded(latent: Tensor, table: Tensor) -> Tensor:
    """What integers of a latent stand for: entry ``i + (n - 1) / 2`` of a table of n; of the latent's shape.

    Raises:
        InputError: other values, or (seen on a CPU) some beyond the table.
    """
    latent, limit = tensor_of(latent, "iuf", "the latent"), len(table) // 2
    check_latent(latent, limit)
    return F.embedding(latent.long() + limit, table[:, None])[..., 0]
