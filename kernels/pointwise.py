"""Products of channels at every position, with the same bits at any number of threads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """A 1x1 convolution. Without gradients on a CPU it is one matrix product.

    Libraries of convolutions split long sums between threads, and so round otherwise with another number of them;
    matrix products split rows and columns.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        assert self.bias is not None
        learning = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if learning or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.conv2d(x, self.weight, self.bias)
        b, _, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        y = torch.addmm(self.bias, rows, self.weight.flatten(1).t())
        return y.view(b, h, w, -1).permute(0, 3, 1, 2)
