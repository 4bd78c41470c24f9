"""Walsh-Hadamard rotation of rows: spreads outlying channels over all of them, needs no fitting and no side data."""

from __future__ import annotations

import torch
from torch import Tensor


def block_size(channels: int) -> int:
    """The largest power of two that divides the number of channels: the side of the blocks that are rotated."""
    return channels & -channels


def hadamard(x: Tensor) -> Tensor:
    """Rotate the last axis, block by block, with orthonormal Hadamard matrices; its own inverse.

    Args:
        x: (..., D) floats. D is cut into blocks of `block_size(D)` channels.

    Returns:
        A tensor of the same shape and dtype.

    Example:
        >>> hadamard(torch.tensor([3.0, 1.0]))
        tensor([2.8284, 1.4142])
    """
    side = block_size(x.shape[-1])
    out = x.reshape(-1, side)
    half = 1
    while half < side:
        pairs = out.view(-1, side // (2 * half), 2, half)
        out = torch.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), 2)
        out = out.view(-1, side)
        half *= 2
    return (out * side**-0.5).reshape(x.shape)
