"""Region-adaptive transform: features are bent by what is typical of the region that they lie in.

After SegPIC (Liu et al., ECCV 2024, arXiv 2407.09983), made light: it works at 1/8, its kernels are shared by groups of
channels, and region tokens are pooled from features that both sides have, so that neither masks nor tokens are coded.
Masks are privileged information of training; in use, regions are the cells of a grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.local_conv import local_conv3x3

CELL = 8  # positions at 1/8: cells of 64 pixels, the unit to which pictures are padded, so no tile cuts one
GROUP = 8  # channels that share a kernel


def pool_regions(x: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of features (B, C, h, w) over each region, numbered from 0 in each picture.

    Args:
        regions: (B, h, w) int64.

    Returns:
        Tokens (B, C, R, 1), zero for numbers that a picture does not use, and the index that `spread_regions` takes.
    """
    count = int(regions.max()) + 1
    index = regions.flatten(1)[:, None]  # (B, 1, h w)
    shape = (len(x), x.shape[1], count)
    total = x.new_zeros(shape).scatter_add(2, index.expand(-1, x.shape[1], -1), x.flatten(2))
    size = x.new_zeros(len(x), 1, count).scatter_add(2, index, x.new_ones(index.shape))
    return (total / size.clamp(min=1))[..., None], index


def spread_regions(tokens: Tensor, index: Tensor, h: int, w: int) -> Tensor:
    """Tokens (B, C, R, 1) -> (B, C, h, w): each position gets its region's."""
    return tokens[..., 0].gather(2, index.expand(-1, tokens.shape[1], -1)).unflatten(2, (h, w))


class RegionAdaptive(nn.Module):
    """A scale and an offset for every feature, then a convolution whose 3x3 kernels depend on position and region.

    Args:
        width: channels, a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.affine = nn.Sequential(nn.Conv2d(width, half, 1), nn.SiLU(), nn.Conv2d(half, 2 * width, 1))
        self.token = nn.Sequential(nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, half, 1))
        self.value = nn.Conv2d(width, width, 1)
        self.local = nn.Conv2d(width, half, 1)
        self.kernel = nn.Conv2d(half, 9 * (width // GROUP), 1)
        self.out = nn.Conv2d(width, width, 1)
        for last in (self.affine[2], self.out):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        centre = torch.zeros(width // GROUP, 9)
        centre[:, 4] = 1
        with torch.no_grad():
            self.kernel.bias.copy_(centre.flatten())  # type: ignore[union-attr]

    def forward(self, x: Tensor, regions: Tensor | None = None) -> Tensor:
        """(B, width, h, w) -> the same shape; ``regions`` (B, h, w) int64, or a grid of `CELL` positions."""
        h, w = x.shape[2:]
        scale, offset = self.affine(x).chunk(2, 1)
        x = x * (1 + scale) + offset
        if regions is None:
            token = F.interpolate(self.token(F.avg_pool2d(x, CELL, ceil_mode=True)), scale_factor=CELL)[..., :h, :w]
        else:
            tokens, index = pool_regions(x, regions)
            token = spread_regions(self.token(tokens), index, h, w)
        kernel = self.kernel(F.silu(self.local(x) + token)).unflatten(1, (-1, 9))
        return x + self.out(local_conv3x3(self.value(x), kernel))
