"""The definition of what is fitted, in plain differentiable torch: what the compiled loops are tested against, and what
runs on a GPU (`device`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.pyramid.constants import GAIN, LOG_SCALE_BEGIN, LOG_SCALE_HIGH, LOG_SCALE_LOW, REACH
from .nets import FEATURE_LEVELS, LEVELS, Size, neighbours


def soften(latent: Tensor, noise: Tensor, sigma: float, temperature: float) -> Tensor:
    """Soft rounding, noise, soft rounding."""

    def soft(x: Tensor) -> Tensor:
        f = torch.floor(x).detach()
        return f + 0.5 + 0.5 * torch.tanh((x - f - 0.5) / temperature) / math.tanh(0.5 / temperature)

    return soft(soft(GAIN * latent) + sigma * noise)


def features(grids: Sequence[Tensor], nets: Mapping[str, Tensor]) -> list[Tensor]:
    """Grids (h, w), finest first -> planes (F, h', w') for each of the finest grids, at the next coarser resolution."""
    out = []
    for k in range(FEATURE_LEVELS):
        h, w = grids[k + 1].shape
        planes = []
        for j in range(k + 1, LEVELS):
            p, times = grids[j], 2 ** (j - k - 1)
            planes.append(p.repeat_interleave(times, 0).repeat_interleave(times, 1)[:h, :w])
        x = torch.stack(planes).flatten(1)
        out.append((nets[f"fw{k}"] @ x + nets[f"fb{k}"][:, None]).view(-1, h, w))
    return out


def contexts(grid: Tensor, feature: Tensor | None, size: Size) -> Tensor:
    """One grid (h, w) -> what the context net sees of each position, (C, h * w)."""
    h, w = grid.shape
    r = REACH
    padded = F.pad(grid, [r, r, r, 0])
    dy, dx = neighbours(size.neighbours)
    seen = [padded[r + y : r + y + h, r + x : r + x + w].reshape(-1) for y, x in zip(dy.tolist(), dx.tolist())]
    if feature is None:
        rest = grid.new_zeros(size.features, h * w)
    else:
        rest = feature.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :h, :w].reshape(size.features, -1)
    return torch.cat([torch.stack(seen), rest])


def distribution(x: Tensor, nets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Contexts (C, n) -> means and raw log-scales (n,)."""
    h = F.relu(x + nets["w1"] @ x + nets["b1"][:, None])
    h = F.relu(h + nets["w2"] @ h + nets["b2"][:, None])
    mean, raw = nets["w3"] @ torch.cat([h, x]) + nets["b3"][:, None]
    return mean, raw


def laplace_bits(v: Tensor, mean: Tensor, raw: Tensor) -> Tensor:
    """-log2 of the mass of a Laplace on [v - 1/2, v + 1/2], at most 16."""
    inverse = torch.exp(-(raw + LOG_SCALE_BEGIN).clamp(LOG_SCALE_LOW, LOG_SCALE_HIGH))
    d = (v - mean).abs()
    e1, e2 = torch.exp(-(d - 0.5).abs() * inverse), torch.exp(-(d + 0.5) * inverse)
    p = torch.where(d > 0.5, 0.5 * (e1 - e2), 1 - 0.5 * (e1 + e2))
    return -torch.log2(p.clamp_min(2.0**-16))


def bits(grids: Sequence[Tensor], nets: Mapping[str, Tensor], size: Size) -> Tensor:
    """Rate of all grids."""
    planes: list[Tensor | None] = [*features(grids, nets)]
    planes += [None] * (LEVELS - len(planes))
    x = torch.cat([contexts(g, f, size) for g, f in zip(grids, planes)], 1)
    return laplace_bits(torch.cat([g.reshape(-1) for g in grids]), *distribution(x, nets)).sum()


def _upsample_rows(x: Tensor, taps: Tensor, dim: int, length: int) -> Tensor:
    n = x.shape[dim]
    index = torch.arange(-2, n + 2, device=x.device).clamp(0, n - 1)
    padded = x.index_select(dim, index)
    part = [padded.narrow(dim, i, n) for i in range(5)]
    odd = taps[0] * part[1] + taps[1] * part[2] + taps[2] * part[3] + taps[3] * part[4]
    even = taps[0] * part[3] + taps[1] * part[2] + taps[2] * part[1] + taps[3] * part[0]
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1).narrow(dim, 0, length)


def upsample(grids: Sequence[Tensor], nets: Mapping[str, Tensor]) -> Tensor:
    """All grids at the size of the first: (LEVELS, h, w)."""
    planes = grids[-1][None]
    for k in range(LEVELS - 2, -1, -1):
        h, w = grids[k].shape
        up = _upsample_rows(_upsample_rows(planes, nets[f"up{k}"], 1, h), nets[f"up{k}"], 2, w)
        planes = torch.cat([grids[k][None], up])
    return planes


class _Rectifier(torch.autograd.Function):
    """relu, whose gradient also passes below zero where it says that the value should rise: no channel dies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        y = F.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return torch.where((y > 0) | (g < 0), g, torch.zeros_like(g))


def synthesis(grids: Sequence[Tensor], nets: Mapping[str, Tensor], size: Size) -> Tensor:
    """Grids -> picture (channels, h, w), about [0, 1]."""
    planes = upsample(grids, nets)
    h, w = planes.shape[1:]
    x = planes.flatten(1)
    hidden = F.relu(nets["s1"] @ x + nets["sb1"][:, None])
    y = (nets["s2"] @ torch.cat([hidden, x]) + nets["sb2"][:, None]).view(1, -1, h, w)
    for k in range(size.residuals):
        y = y + F.conv2d(F.pad(y, [1] * 4, mode="replicate"), nets[f"c{k}"], nets[f"cb{k}"])
        if k < size.residuals - 1:
            y = _Rectifier.apply(y)
    return y[0]
