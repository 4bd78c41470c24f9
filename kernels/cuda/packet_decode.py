"""From integer latents to pixels in one kernel: the mirror image of `packet_encode`, for linear decoders.

A program makes one 64 x 64 tile of one channel. The bands of its window are products of the decoder's weights with the
latents under it, a few bytes a block that stay in the cache, and go straight into the first product of the packet: the
bands, as many bytes as the picture itself, never reach memory. Sixteen bands of a window are made at a time, the 64 x
64 elements that one product takes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import on
from .packet import TILE, arguments, by_rows, matrix_of, shape_of


@triton.jit
def packet_decode_kernel(
    latents, x, a, b, row_kinds, column_kinds, row_starts, column_starts, nh, nw, weight, bias, values, least, channels,
    size, shift, LATENTS: tl.constexpr, LEVELS: tl.constexpr, BLOCKS: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one channel. weight: (channels, 4**LEVELS, LATENTS), bands as [y, x]; bias: (channels, 4**LEVELS);
    values: (latents, integers from ``least`` on), what each integer of each latent stands for; BLOCKS: of a window."""
    S: tl.constexpr = 1 << LEVELS
    WINDOW: tl.constexpr = BLOCKS * S
    SIDE: tl.constexpr = 64 // BLOCKS  # bands along each axis that are made at a time
    SOME: tl.constexpr = 16  # latents that a product takes at a time: all 64 would not fit the registers
    column, row = tl.program_id(0), tl.program_id(1)
    signal, channel = (tl.program_id(2) // channels).to(tl.int64), tl.program_id(2) % channels
    row_kind, column_kind = tl.load(row_kinds + row), tl.load(column_kinds + column)
    p = tl.arange(0, BLOCKS * BLOCKS)[None, :]
    y = tl.load(row_starts + row) + p // BLOCKS
    across = tl.load(column_starts + column) + p % BLOCKS
    inside = (y >= 0) & (y < nh) & (across >= 0) & (across < nw)
    count = -2 * least + 1
    latents += signal * size * nh * nw
    out = tl.zeros([TILE, TILE], tl.float32)
    for part in range((S // SIDE) * (S // SIDE)):
        top, left = part % (S // SIDE) * SIDE, part // (S // SIDE) * SIDE
        here = tl.arange(0, SIDE * SIDE)
        band = channel * (S * S) + (top + here // SIDE) * S + left + here % SIDE
        bands = tl.load(bias + band)[:, None] + tl.zeros([SIDE * SIDE, BLOCKS * BLOCKS], tl.float32)
        for first in range(0, LATENTS, SOME):
            latent = first + tl.arange(0, SOME)
            at = (latent[:, None] * nh + y) * nw + across
            known = inside & (latent < size)[:, None]
            number = tl.load(latents + at, known, 0).to(tl.int32) - least
            number = latent[:, None] * count + tl.minimum(tl.maximum(number, 0), count - 1)
            w = tl.load(weight + band[:, None] * LATENTS + latent[None, :])
            bands = tl.dot(w, tl.load(values + number, known, 0.0), bands, input_precision=PRECISION)
        bands = tl.permute(tl.reshape(bands, (SIDE, SIDE, BLOCKS, BLOCKS)), (0, 2, 1, 3))
        bands = tl.reshape(bands, (SIDE * BLOCKS, SIDE * BLOCKS))
        rows = matrix_of(a, row_kind, top * BLOCKS, TILE, WINDOW, SIDE * BLOCKS)
        half = tl.dot(rows, bands, input_precision=PRECISION)
        columns = matrix_of(b, column_kind, left * BLOCKS, TILE, WINDOW, SIDE * BLOCKS)
        out = tl.dot(half, tl.trans(columns), out, input_precision=PRECISION)
    out += shift
    down = row * TILE + tl.arange(0, TILE)
    beside = column * TILE + tl.arange(0, TILE)
    x += (signal * channels + channel) * (nh * S) * (nw * S)
    at = down[:, None] * (nw * S) + beside[None, :]
    tl.store(x + at, out, (down < nh * S)[:, None] & (beside < nw * S)[None, :])


def fits(nh: int, nw: int, levels: int, wavelet: str, mode: str, device: torch.device) -> bool:
    """Whether the kernel serves: windows of 16 blocks, as bior4.4 at three levels has, from sm_90 on.

    Below, the compiler keeps a thousand bytes a thread outside its registers: packet and decoder apart move less.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (9, 0):
        return False
    shape = shape_of(nh, nw, levels, wavelet, mode, True, False, device)
    return shape.rows.window == shape.columns.window == 16 << levels and not shape.rows.wrap


@torch.library.custom_op("latentzip::packet_decode", mutates_args=())
def packet_decode(
    latents: Tensor,
    weight: Tensor,
    bias: Tensor,
    values: Tensor,
    levels: int,
    wavelet: str,
    mode: str,
    shift: float = 0.0,
    precision: str = "tf32x3",
) -> Tensor:
    """Signals of integer latents: ``inverse_packet(weight @ values[latents] + bias) + shift``. No gradients.

    Args:
        latents: (B, L, h, w) integers of magnitude at most m; others count as the nearest of those.
        weight: (C * 4**levels, L) float32, at most 64 latents. bias: (C * 4**levels,).
        values: (L, 2 m + 1) float32, what the integers -m to m of each latent stand for.
        levels, wavelet, mode: of a packet that `fits`.

    Returns:
        (B, C, h * 2**levels, w * 2**levels) float32.
    """
    out = _empty(latents, weight, levels)
    b, size, nh, nw = latents.shape
    s, channels = 1 << levels, len(weight) >> 2 * levels
    shape = shape_of(nh, nw, levels, wavelet, mode, True, False, latents.device)
    width = max(16, triton.next_power_of_2(size))
    order = by_rows(levels, weight.device)
    packed = weight.new_zeros(channels, s * s, width)
    packed[:, :, :size] = weight.view(channels, s * s, size)[:, order]
    per = TILE >> levels
    with on(latents):
        packet_decode_kernel[(-(-nw // per), -(-nh // per), b * channels)](
            latents.contiguous(), out, *arguments(shape), packed, bias.view(channels, -1)[:, order].contiguous(),
            values.contiguous(), -(values.shape[1] // 2), channels, size, shift, LATENTS=width, LEVELS=levels,
            BLOCKS=shape.rows.window >> levels, TILE=TILE, PRECISION=precision, num_warps=4, num_stages=1,
        )  # fmt: skip
    return out


def _empty(latents: Tensor, weight: Tensor, levels: int) -> Tensor:
    b, _, nh, nw = latents.shape
    return weight.new_empty(b, weight.shape[0] >> 2 * levels, nh << levels, nw << levels)


@packet_decode.register_fake
def _(latents, weight, bias, values, levels, wavelet, mode, shift=0.0, precision="tf32x3"):  # type: ignore[no-untyped-def]
    return _empty(latents, weight, levels)
