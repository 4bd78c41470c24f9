"""Convolution with another 3x3 kernel at every position."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from . import cuda


def local_conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Each position's own 3x3 kernel, shared by the channels of a group; zeros beyond the edges.

    Args:
        x: (B, C, H, W) float.
        weight: (B, G, 9, H, W) float, taps row by row; G divides C, group g covers channels g C/G to (g + 1) C/G.

    Returns:
        (B, C, H, W): sum over taps k of ``x[.., y + k // 3 - 1, x + k % 3 - 1] * weight[.., k, y, x]``.
    """
    if cuda.usable(x, weight):
        from .cuda.local_conv import local_conv3x3 as on_gpu

        return on_gpu(x, weight)
    h, w = x.shape[2:]
    groups = weight.shape[1]
    padded = F.pad(x, (1, 1, 1, 1)).unflatten(1, (groups, -1))
    # nine shifted products: unfolding would hold nine copies of x
    taps = (padded[..., k // 3 : k // 3 + h, k % 3 : k % 3 + w] * weight[:, :, k, None] for k in range(9))
    out = next(taps)
    for tap in taps:
        out = out + tap
    return out.flatten(1, 2)
