"""Layers that hyperprior codecs and bottlenecks are made of."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ..kernels.gated_block import BlockWeights, gated_block
from ..kernels.pointwise import Pointwise

ANCHORS = 8  # qualities with parameters of their own; those between are interpolated


def hyper_group(quality: float) -> int:
    """Which tables of the hyper-latent a quality uses: the number of the nearest anchor."""
    return int((quality - 1) * (ANCHORS - 1) / 99 + 0.5)


def hyper_groups(quality: Tensor) -> Tensor:
    """`hyper_group` of qualities (B,) where they lie, int64: nothing waits for a device."""
    return ((quality - 1) * (ANCHORS - 1) / 99 + 0.5).long()


class ByQuality(nn.Module):
    """A vector a quality: linear between `ANCHORS` learned ones that lie evenly over qualities 1..100.

    Args:
        channels: length of the vector.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(ANCHORS, channels))

    def forward(self, quality: Tensor) -> Tensor:
        """Qualities (B,) float in 1..100 -> (B, channels, 1, 1) float32."""
        at = (quality.float() - 1) / 99 * (ANCHORS - 1)
        low = at.floor().clamp(0, ANCHORS - 2).long()
        share = (at - low)[:, None]
        below, above = self.values.index_select(0, low), self.values.index_select(0, low + 1)
        return (below * (1 - share) + above * share)[:, :, None, None]


def conv(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the deviation of what goes through it."""
    made = (
        Pointwise(inputs, outputs) if size == 1 else nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups)
    )
    nn.init.normal_(made.weight, std=made.weight[0].numel() ** -0.5)
    nn.init.zeros_(cast(Tensor, made.bias))
    return made


def zero(inputs: int, outputs: int) -> nn.Conv2d:
    """The last product of a branch: nothing comes through it at first."""
    made = Pointwise(inputs, outputs)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(cast(Tensor, made.bias))
    return made


class Block(nn.Module):
    """Two residual branches: 1x1, SiLU, depthwise 3x3, 1x1; then a gated pair of 1x1 products.

    Features have a deviation near 1 and are bounded: gates multiply, so without a bound a rare picture could grow
    from block to block without end.

    Args:
        width: channels in and out.
        expand: hidden channels of the gated branch over ``width``.
    """

    BOUND = 12.0

    def __init__(self, width: int, expand: int = 2) -> None:
        super().__init__()
        self.mix_in = conv(width, width)
        self.depthwise = conv(width, width, 3, groups=width)
        self.mix_out = zero(width, width)
        self.gate_in = conv(width, 2 * expand * width)
        self.gate_out = zero(expand * width, width)

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.mix_in, self.depthwise, self.mix_out, self.gate_in, self.gate_out)
        weights = BlockWeights(*(cast(Tensor, p) for layer in layers for p in (layer.weight, layer.bias)))
        return gated_block(x, weights, self.BOUND)


def nhwc(x: Tensor) -> Tensor:
    """The same values, channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last)
