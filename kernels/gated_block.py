"""The block of the hyperprior codecs' trunks: 1x1, SiLU, depthwise 3x3, 1x1; then a gated pair of 1x1 products."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cuda

_SERIAL = 32767  # elements that torch gives to one thread
_ROWS = 1024  # positions a strip: what lies between two products stays in the cache
_BAND = 8 * _ROWS  # positions of the lines that are filtered together: there is no second picture of features


class BlockWeights(NamedTuple):
    """Weights as `torch.nn.Conv2d` has them: (O, I, 1, 1), the depthwise one (C, 1, 3, 3); biases (O,)."""

    mix_in: Tensor
    mix_in_bias: Tensor
    depthwise: Tensor
    depthwise_bias: Tensor
    mix_out: Tensor
    mix_out_bias: Tensor
    gate_in: Tensor
    gate_in_bias: Tensor
    gate_out: Tensor
    gate_out_bias: Tensor


def gated_block(x: Tensor, weights: BlockWeights, bound: float) -> Tensor:
    """Two residual branches, the second gated, clamped to +-bound.

        x = x + mix_out(depthwise(silu(mix_in(x))))
        u, v = gate_in(x)
        y = clamp(x + gate_out(silu(u) v), -bound, bound)

    Args:
        x: (B, C, H, W) float, best in channels-last layout; zeros beyond the edges.

    Returns:
        (B, C, H, W). Without gradients the products run in strips, with equal results: half the time on a CPU.
    """
    if cuda.usable(x):
        return _on_gpu(x, weights, bound)
    if x.is_cuda or (torch.is_grad_enabled() and (x.requires_grad or weights.mix_in.requires_grad)):
        return reference(x, weights, bound)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weights = x.to(dtype), BlockWeights(*(w.to(dtype) for w in weights))
    with torch.autocast(x.device.type, enabled=False):
        return _in_strips(x, weights, bound)


def reference(x: Tensor, weights: BlockWeights, bound: float) -> Tensor:
    """The definition, differentiable."""
    w = weights
    h = F.silu(F.conv2d(x, w.mix_in, w.mix_in_bias))
    h = F.conv2d(h, w.depthwise, w.depthwise_bias, padding=1, groups=x.shape[1])
    return _gated(x + F.conv2d(h, w.mix_out, w.mix_out_bias), w, bound)


def _on_gpu(x: Tensor, weights: BlockWeights, bound: float) -> Tensor:
    """The definition with activation and depthwise filter in one kernel."""
    from .cuda.depthwise import depthwise3x3

    w = weights
    h = depthwise3x3(F.conv2d(x, w.mix_in, w.mix_in_bias), w.depthwise, w.depthwise_bias, True)
    return _gated(x + F.conv2d(h, w.mix_out, w.mix_out_bias), w, bound)


def _gated(x: Tensor, w: BlockWeights, bound: float) -> Tensor:
    u, v = F.conv2d(x, w.gate_in, w.gate_in_bias).chunk(2, 1)
    return F.hardtanh(x + F.conv2d(F.silu(u) * v, w.gate_out, w.gate_out_bias), -bound, bound)


def _in_strips(x: Tensor, weights: BlockWeights, bound: float) -> Tensor:
    c, height, width = x.shape[1:]
    source = x.permute(0, 2, 3, 1).contiguous()
    out = torch.empty_like(source)
    lines = max(1, _BAND // width)
    for rows, made in zip(source, out):
        for top in range(0, height, lines):
            bottom = min(top + lines, height)
            first, last = max(0, top - 1), min(bottom + 1, height)  # with the lines that the filter sees
            inner = slice((top - first) * width, (bottom - first) * width)
            mixed = _filtered(rows[first:last], weights).view(-1, c)[inner]
            _finish(rows[top:bottom].view(-1, c), mixed, weights, bound, made[top:bottom].view(-1, c))
    return out.permute(0, 3, 1, 2)


def _filtered(lines: Tensor, w: BlockWeights) -> Tensor:
    """Lines (n, W, C) after the first product, the activation and the depthwise filter, zeros beyond them."""
    n, width, c = lines.shape
    h, mix_in = torch.empty_like(lines), w.mix_in.flatten(1).t()
    for x, y in zip(lines.view(-1, c).split(_ROWS), h.view(-1, c).split(_ROWS)):
        _silu(torch.addmm(w.mix_in_bias, x, mix_in, out=y))
    h = F.conv2d(h.view(1, n, width, c).permute(0, 3, 1, 2), w.depthwise, w.depthwise_bias, padding=1, groups=c)
    return h.permute(0, 2, 3, 1).contiguous()


def _finish(rows: Tensor, mixed: Tensor, w: BlockWeights, bound: float, out: Tensor) -> None:
    """The products after the filter, of rows (n, C) of what came in and what the filter gave, into ``out``."""
    mix_out, gate_in, gate_out = (a.flatten(1).t() for a in (w.mix_out, w.gate_in, w.gate_out))
    for x, m, y in zip(rows.split(_ROWS), mixed.split(_ROWS), out.split(_ROWS)):
        torch.addmm(w.mix_out_bias, m, mix_out, out=y).add_(x)
        u, v = torch.addmm(w.gate_in_bias, y, gate_in).chunk(2, 1)
        y.add_(torch.addmm(w.gate_out_bias, _silu(u).mul_(v), gate_out)).clamp_(-bound, bound)


def _silu(x: Tensor) -> Tensor:
    """SiLU of rows (n, C), in place, in parts that one thread computes: where threads share a tensor, elements at their
    borders are computed otherwise than by vectors, and round otherwise."""
    for part in x.split(max(1, _SERIAL // x.shape[1])):
        F.silu(part, inplace=True)
    return x
