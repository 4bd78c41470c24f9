"""3x3 convolution with a kernel of its own at every position, on the GPU: one read of each tensor, one write.

A program takes 64 positions of a picture and all channels of one group, since those share their kernels: the nine taps
of a position are read once and kept in registers. The nine shifted reads of a value hit the first-level cache, as eight
of them were read by this program or the one beside it. The gradient of the weights is the same walk with the channels
summed; that of the input reads the taps at the nine shifted positions instead.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import on

POSITIONS = 64


@triton.jit
def _places(height, width, POSITIONS: tl.constexpr, GROUP: tl.constexpr):
    """Positions (POSITIONS, 1) of a program, their row and column, and its channels (1, GROUP) in the group."""
    p = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)[:, None]
    return p, p // width, p % width, tl.arange(0, GROUP)[None, :]


@triton.jit
def forward_kernel(
    x, weight, out, channels, height, width, xb, xc, xy, xx, wb, wg, wk, wy, wx, ob, oc, oy, ox,
    POSITIONS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Strides are named after tensor and axis; ``channels`` are those of a group, GROUP their power of two."""
    p, y, across, c = _places(height, width, POSITIONS, GROUP)
    group, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    there = (p < height * width) & (c < channels)
    base = x + b * xb + (group * channels + c) * xc
    taps = weight + b * wb + group * wg + y * wy + across * wx
    total = tl.zeros([POSITIONS, GROUP], tl.float32)
    for k in tl.static_range(9):
        dy = k // 3 - 1
        dx = k % 3 - 1
        inside = (y + dy >= 0) & (y + dy < height) & (across + dx >= 0) & (across + dx < width)
        value = tl.load(base + (y + dy) * xy + (across + dx) * xx, there & inside, 0).to(tl.float32)
        total += value * tl.load(taps + k * wk, p < height * width, 0).to(tl.float32)
    target = out + b * ob + (group * channels + c) * oc + y * oy + across * ox
    tl.store(target, total.to(out.dtype.element_ty), there)


@triton.jit
def backward_kernel(
    grad, x, weight, grad_x, grad_weight, channels, height, width, gb, gc, gy, gx, xb, xc, xy, xx,
    wb, wg, wk, wy, wx, POSITIONS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Both gradients; grad_x has the strides of x, grad_weight those of weight."""
    p, y, across, c = _places(height, width, POSITIONS, GROUP)
    group, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    there = (p < height * width) & (c < channels)
    source = grad + b * gb + (group * channels + c) * gc
    here = tl.load(source + y * gy + across * gx, there, 0).to(tl.float32)
    values = b * xb + (group * channels + c) * xc
    taps = b * wb + group * wg
    total = tl.zeros([POSITIONS, GROUP], tl.float32)
    for k in tl.static_range(9):
        dy = k // 3 - 1
        dx = k % 3 - 1
        inside = (y + dy >= 0) & (y + dy < height) & (across + dx >= 0) & (across + dx < width)
        value = tl.load(x + values + (y + dy) * xy + (across + dx) * xx, there & inside, 0).to(tl.float32)
        summed = tl.sum(here * value, axis=1)[:, None].to(grad_weight.dtype.element_ty)
        tl.store(grad_weight + taps + k * wk + y * wy + across * wx, summed, p < height * width)
        # tap k of the position at -(dy, dx) reads this one
        inside = (y - dy >= 0) & (y - dy < height) & (across - dx >= 0) & (across - dx < width)
        then = tl.load(source + (y - dy) * gy + (across - dx) * gx, there & inside, 0).to(tl.float32)
        tap = tl.load(weight + taps + k * wk + (y - dy) * wy + (across - dx) * wx, inside & (p < height * width), 0)
        total += then * tap.to(tl.float32)
    tl.store(grad_x + values + y * xy + across * xx, total.to(grad_x.dtype.element_ty), there)


def _grid(x: Tensor, groups: int) -> tuple[int, int, int]:
    return triton.cdiv(x.shape[2] * x.shape[3], POSITIONS), groups, x.shape[0]


@torch.library.custom_op("latentzip::local_conv3x3", mutates_args=())
def local_conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """See `kernels.local_conv.local_conv3x3`; any strides, sums in float32, the dtype and layout of ``x`` out."""
    out = torch.empty_like(x)
    groups = weight.shape[1]
    if out.numel():
        channels = x.shape[1] // groups
        with on(x):
            forward_kernel[_grid(x, groups)](
                x, weight, out, channels, *x.shape[2:], *x.stride(), *weight.stride(), *out.stride(),
                POSITIONS=POSITIONS, GROUP=triton.next_power_of_2(channels), num_warps=4,
            )  # fmt: skip
    return out


@local_conv3x3.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("latentzip::local_conv3x3_backward", mutates_args=())
def _gradients(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    grad_x = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    grad_weight = torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype, device=x.device)
    groups = weight.shape[1]
    if x.numel():
        channels = x.shape[1] // groups
        with on(x):
            backward_kernel[_grid(x, groups)](
                grad, x, weight, grad_x, grad_weight, channels, *x.shape[2:], *grad.stride(), *x.stride(),
                *weight.stride(), POSITIONS=POSITIONS, GROUP=triton.next_power_of_2(channels), num_warps=4,
            )  # fmt: skip
    return grad_x, grad_weight


@_gradients.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    del grad
    return (
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device),
        torch.empty_strided(weight.shape, weight.stride(), dtype=weight.dtype, device=x.device),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*(t.contiguous() if 0 in t.stride() else t for t in inputs))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _gradients(grad, *ctx.saved_tensors)


local_conv3x3.register_autograd(_backward, setup_context=_setup)
