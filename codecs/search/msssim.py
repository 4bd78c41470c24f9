"""Multi-scale structural similarity (Wang, Simoncelli & Bovik 2003), differentiable, with a weight for every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA = 11, 1.5
LEAST = (_WINDOW - 1) * 2 ** (len(_SCALES) - 1) + 1  # 161: the window fits the smallest scale


def _blur(x: Tensor) -> Tensor:
    at = torch.arange(_WINDOW, device=x.device, dtype=x.dtype) - _WINDOW // 2
    row = torch.exp(-at.square() / (2 * _SIGMA**2))
    row = (row / row.sum()).expand(x.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(x, row, groups=x.shape[1]), row.transpose(2, 3), groups=x.shape[1])


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over positions, (B, C); the weight (H, W) is cut to where windows are whole."""
    if weight is None:
        return values.mean((2, 3))
    edge = _WINDOW // 2
    w = weight[edge : edge + values.shape[2], edge : edge + values.shape[3]] + 1e-9
    return (values * w).sum((2, 3)) / w.sum()


def ms_ssim(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """MS-SSIM of two batches (B, C, H, W) in [0, 1], sides of 161 at least: (B,).

    Args:
        weight: (H, W), how much each pixel counts; pooled beside the pictures.
    """
    c1, c2 = 0.01**2, 0.03**2
    out = x.new_ones(x.shape[:2])
    for scale, power in enumerate(_SCALES):
        mx, my = _blur(x), _blur(y)
        xx, yy, xy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
        contrast = (2 * xy + c2) / (xx + yy + c2)
        last = scale == len(_SCALES) - 1
        if last:
            contrast = contrast * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        out = out * F.relu(_mean(contrast, weight)).clamp_min(1e-6) ** power
        if not last:
            odd = [n % 2 for n in x.shape[-2:]]
            x, y = (F.avg_pool2d(t, 2, padding=(odd[0], odd[1])) for t in (x, y))
            if weight is not None:
                weight = F.avg_pool2d(weight[None, None], 2, padding=(odd[0], odd[1]))[0, 0]
    return out.mean(1)
