"""Networks of the hyperprior codecs: a trunk of 1x1 products and depthwise 3x3 at 1/8, the rest at 1/16 and below.

The layout follows the intra coder of DCVC-RT (Jia et al., arXiv 2502.20762): one low resolution instead of a pyramid.
The linear 16x16 block transform beside the trunk is the auxiliary transform of Li et al. (arXiv 2411.13033); the last
product of every residual branch starts at zero, so that training starts from a linear transform codec.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.exact import QatConv2d, no_autocast
from ...kernels.pointwise import Pointwise
from ..layers import Block, ByQuality, conv, nhwc, zero
from .region import RegionAdaptive


class Trunk(nn.Module):
    """Blocks; after the first, a scale a channel and quality and, where asked for, the region-adaptive transform."""

    def __init__(self, width: int, depth: int, region: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.log_scale = ByQuality(width)
        self.region = RegionAdaptive(width) if region else None

    def forward(self, x: Tensor, quality: Tensor, regions: Tensor | None = None) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                x = x * torch.exp(self.log_scale(quality)).to(x.dtype)
                if self.region is not None:
                    x = self.region(x, regions)
        return x


class Analysis(nn.Module):
    """Picture (B, 3, H, W) about zero, sides multiples of 16 -> latent (B, M, H/16, W/16) before its gain."""

    INPUT = 4.0  # brings pixels about zero near a deviation of 1

    def __init__(self, width: int, depth: int, latent: int, region: bool = False) -> None:
        super().__init__()
        self.linear = Pointwise(768, latent)
        self.head = conv(192, width)
        self.trunk = Trunk(width, depth, region)
        self.tail = zero(4 * width, latent)

    def forward(self, x: Tensor, quality: Tensor, std: Tensor, regions: Tensor | None = None) -> Tensor:
        eighth = _unshuffle(x * self.INPUT, 8)
        with no_autocast(x):  # large coefficients: bf16 would round away what the steps can tell apart
            linear = self.linear(_unshuffle(x, 16).float())
        h = self.trunk(self.head(eighth), quality, regions)
        return linear + self.tail(_unshuffle(h, 2)).float() * std


class Synthesis(nn.Module):
    """Latent (B, M, h, w) without its gain -> picture (B, 3, 16 h, 16 w) about zero."""

    OUTPUT = 0.1  # deviation of what the network adds to the linear transform, in the picture's unit

    def __init__(self, width: int, depth: int, latent: int, region: bool = False) -> None:
        super().__init__()
        self.linear = Pointwise(latent, 768)
        self.head = conv(latent, 4 * width)
        self.trunk = Trunk(width, depth, region)
        self.tail = zero(width, 192)

    def forward(self, y: Tensor, quality: Tensor, std: Tensor, regions: Tensor | None = None) -> Tensor:
        h = F.pixel_shuffle(self.head(nhwc(standardise(y, std))), 2)
        h = F.pixel_shuffle(self.tail(self.trunk(nhwc(h), quality, regions)), 8)
        with no_autocast(y):  # last, and in place: each of these is as large as the picture in floats
            x = F.pixel_shuffle(self.linear(y.float()), 16)
            return x.add_(h.float().mul_(self.OUTPUT))


class HyperAnalysis(nn.Module):
    """Latent (B, M, h, w), standardised, sides multiples of 4 -> hyper-latent (B, N, h/4, w/4), not rounded."""

    def __init__(self, latent: int, width: int, hyper: int) -> None:
        super().__init__()
        self.head = conv(latent, width)
        self.block16 = Block(width, 1)
        self.down32 = conv(4 * width, width)
        self.block32 = Block(width, 1)
        self.down64 = conv(4 * width, hyper)
        self.log_scale = ByQuality(hyper)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        h = self.block16(self.head(nhwc(y)))
        h = self.block32(self.down32(_unshuffle(h, 2)))
        return self.down64(_unshuffle(h, 2)).float() * (2 * torch.exp(self.log_scale(quality)))


class Means(nn.Module):
    """Means of the latent: from the hyper-latent, then refined in four steps by what is decoded already.

    Step s fixes a quarter of the elements: of each quarter of the channels another one of the four phases of 2x2
    positions (the four-step order of DCVC-DC, Li et al., arXiv 2302.14402). Scales do not depend on any of it.

    Args:
        latent: M, a multiple of 4. width: features. hyper: N.
    """

    # phases are numbered row by row; entry [step][quarter of the channels] is the phase that is fixed
    ORDER = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))

    def __init__(self, latent: int, width: int, hyper: int) -> None:
        super().__init__()
        self.up32 = conv(hyper, 4 * width)
        self.block32 = Block(width, 1)
        self.up16 = conv(width, 4 * width)
        self.block16 = Block(width, 1)
        self.log_scale = ByQuality(width)
        self.first = zero(width, latent)
        self.adapt = nn.ModuleList(conv(latent + width, width) for _ in range(3))
        self.context = Block(width, 1)
        self.refine = nn.ModuleList(zero(width, latent) for _ in range(3))
        mask = torch.zeros(4, 4, 2, 2)
        for step, phases in enumerate(self.ORDER):
            for quarter, phase in enumerate(phases):
                mask[step, quarter, phase // 2, phase % 2] = 1
        self.register_buffer("mask", mask.repeat_interleave(latent // 4, 1), persistent=False)
        self.mask: Tensor

    def features(self, z: Tensor, quality: Tensor) -> Tensor:
        """Hyper-latent (B, N, h/4, w/4) -> features (B, width, h, w)."""
        h = self.block32(nhwc(F.pixel_shuffle(self.up32(nhwc(z / 2)), 2)))
        h = self.block16(nhwc(F.pixel_shuffle(self.up16(h), 2)))
        return h * torch.exp(self.log_scale(quality)).to(h.dtype)

    def step_mask(self, step: int, h: int, w: int) -> Tensor:
        """(M, h, w) of 0 and 1: the elements that a step fixes; h and w even."""
        return self.mask[step].repeat(1, h // 2, w // 2)

    def predict(self, step: int, features: Tensor, known: Tensor) -> Tensor:
        """Means (B, M, h, w) float32 of the elements of a step; ``known`` holds decoded ones, zero elsewhere; both are
        standardised."""
        if step == 0:
            return self.first(features).float()
        h = self.adapt[step - 1](torch.cat((features, known.to(features.dtype)), 1))
        return self.refine[step - 1](self.context(h)).float()


def standardise(y: Tensor, std: Tensor) -> Tensor:
    """Latent over its deviation, as networks take it: bounded, since gates square what is rare and large."""
    return (y / std).clamp_(-16, 16)


def scale_net(hyper: int, width: int, out: int) -> nn.Sequential:
    """Hyper-latent and a plane of quality -> codes of the scale numbers in eighths, exact once exported.

    The only network that decides a symbol's interval. Input: (B, N + 1, h/4, w/4) integers within +-127; output:
    (B, out, h, w) in eighths of a table number, 0 to 63.9.
    """
    return nn.Sequential(
        QatConv2d(hyper + 1, width, 1, in_range=(-127, 127), in_frac=0, out_frac=4),
        QatConv2d(width, width, 3, padding=1, in_frac=4, out_frac=4),
        QatConv2d(width, 16 * out, 1, in_frac=4, out_range=(0, 511), out_frac=3),
        nn.PixelShuffle(4),
    )


def mixture_net(hyper: int, out: int) -> nn.Sequential:
    """Hyper-latent and a plane of quality -> codes of a mixture's shape, (B, out, h, w) in 1/32 within +-127/32, exact
    once exported. Small: it only bends what `scale_net` says."""
    return nn.Sequential(
        QatConv2d(hyper + 1, 64, 1, in_range=(-127, 127), in_frac=0, out_frac=4),
        QatConv2d(64, 16 * 32, 1, in_frac=4, out_frac=4),
        nn.PixelShuffle(4),
        QatConv2d(32, out, 1, in_frac=4, out_range=(-127, 127), out_frac=5),
    )


def _unshuffle(x: Tensor, factor: int) -> Tensor:
    return nhwc(F.pixel_unshuffle(x, factor))


def kept_as_bytes(key: str, value: Tensor) -> bool:
    """1x1 products between features are stored as bytes with a scale for each output channel; the linear transforms,
    depthwise filters and what ends in pixels or means are not."""
    inner = {"mix_in", "mix_out", "gate_in", "gate_out", "up32", "up16", "down32", "adapt", "head", "region"}
    return value.ndim == 4 and value.is_floating_point() and not inner.isdisjoint(key.split("."))
