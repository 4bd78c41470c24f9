"""SiLU, depthwise 3x3 and bias in one kernel, channels-last: what lies between the two 1x1 products of a trunk's block.

A program takes 32 columns of a strip of 16 rows and 64 channels (a warp reads whole rows of 128 bytes in bfloat16) and
walks down the strip with three running sums: each row of inputs is read, shifted by -1, 0 and 1, and added to the
outputs above, beside and below it, so that the activation is computed three times a value instead of nine, and nothing
is kept but sums. Taller strips read less of their edges twice, shorter ones give more programs: 16 reads 1/8 again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from . import on

ROWS, COLUMNS, CHANNELS = 16, 32, 64


@triton.jit
def _row(x, y, across, c, height, width, channels, SILU: tl.constexpr):
    """Activated inputs of one row at these columns, (COLUMNS, CHANNELS) float32."""
    inside = (y >= 0) & (y < height) & (across >= 0) & (across < width) & (c < channels)
    v = tl.load(x + (y.to(tl.int64) * width + across) * channels + c, inside, 0).to(tl.float32)
    if SILU:
        v = v / (1 + tl.exp(-v))
    return v


@triton.jit
def depthwise_kernel(
    x, weight, bias, out, height, width, channels, parts,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """x, out: (B, height, width, channels); weight: (9, channels), taps row by row; parts: of CHANNELS channels."""
    across = tl.program_id(0) // parts * COLUMNS + tl.arange(0, COLUMNS)[:, None]
    c = tl.program_id(0) % parts * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    top = tl.program_id(1) * ROWS
    picture = tl.program_id(2).to(tl.int64) * height * width * channels
    x += picture
    has = c < channels
    w0 = tl.load(weight + c, has, 0).to(tl.float32)
    w1 = tl.load(weight + channels + c, has, 0).to(tl.float32)
    w2 = tl.load(weight + 2 * channels + c, has, 0).to(tl.float32)
    w3 = tl.load(weight + 3 * channels + c, has, 0).to(tl.float32)
    w4 = tl.load(weight + 4 * channels + c, has, 0).to(tl.float32)
    w5 = tl.load(weight + 5 * channels + c, has, 0).to(tl.float32)
    w6 = tl.load(weight + 6 * channels + c, has, 0).to(tl.float32)
    w7 = tl.load(weight + 7 * channels + c, has, 0).to(tl.float32)
    w8 = tl.load(weight + 8 * channels + c, has, 0).to(tl.float32)
    start = tl.load(bias + c, has, 0).to(tl.float32) + tl.zeros([COLUMNS, CHANNELS], tl.float32)
    above, beside = start, start  # sums of the rows y - 1 and y
    for step in range(ROWS + 2):
        y = top + step - 1
        left = _row(x, y, across - 1, c, height, width, channels, SILU)
        middle = _row(x, y, across, c, height, width, channels, SILU)
        right = _row(x, y, across + 1, c, height, width, channels, SILU)
        done = above + w6 * left + w7 * middle + w8 * right
        at = picture + ((y - 1).to(tl.int64) * width + across) * channels + c
        written = (step > 1) & (y <= height) & (across < width) & has
        tl.store(out + at, done.to(out.dtype.element_ty), written)
        above = beside + w3 * left + w4 * middle + w5 * right
        beside = start + w0 * left + w1 * middle + w2 * right


@torch.library.custom_op("latentzip::depthwise3x3", mutates_args=())
def depthwise3x3(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """``conv2d(silu(x), weight, bias, padding=1, groups=C)``, without the activation where ``silu`` is False.

    Args:
        x: (B, C, H, W), float32, float16 or bfloat16; channels-last, others are brought into that layout.
        weight: (C, 1, 3, 3). bias: (C,).

    Returns:
        As ``x``, channels-last; sums are float32.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    b, c, h, w = x.shape
    if not x.numel():
        return out
    parts = triton.cdiv(c, CHANNELS)
    with on(x):
        depthwise_kernel[(triton.cdiv(w, COLUMNS) * parts, triton.cdiv(h, ROWS), b)](
            x, weight.view(c, 9).t().contiguous(), bias, out, h, w, c, parts,
            SILU=silu, ROWS=ROWS, COLUMNS=COLUMNS, CHANNELS=CHANNELS, num_warps=8,
        )  # fmt: skip
    return out


@depthwise3x3.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, weight, bias, ctx.silu = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = bias.dtype


def _backward(ctx: Any, grad: Tensor) -> Any:
    x, weight = ctx.saved_tensors
    h = F.silu(x) if ctx.silu else x
    grad_h, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, h, weight.to(h.dtype), [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], weight.shape[0],
        [True, True, True],
    )  # fmt: skip
    if ctx.silu:
        s = torch.sigmoid(x)
        grad_h = grad_h * (s * (1 + x * (1 - s)))
    return grad_h, grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype), None


depthwise3x3.register_autograd(_backward, setup_context=_setup)
