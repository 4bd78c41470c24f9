"""From pixels to integer latents in one kernel: packet, linear encoder, companding and rounding of WaLLoC.

A program makes the latents of one 64 x 64 tile: for each channel of the signal the tile's bands as in `packet`, kept
in registers, turned from [band, block] x [band, block] into blocks x bands, and multiplied by the encoder's weights of
that channel. What is written is a byte a latent: at 16x fewer numbers, 1/64 of the bytes that bands would take. The
turn needs more registers than the packet alone, so eight warps share a tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import on
from .packet import TILE, arguments, by_rows, constants, shape_of, window_product


@triton.jit
def packet_encode_kernel(
    x, latents, a, b, row_kinds, column_kinds, row_starts, column_starts, nh, nw, weight, bias, channels, size,
    top, slope, LATENTS: tl.constexpr, COMPAND: tl.constexpr, BYTES: tl.constexpr, SHIFT: tl.constexpr,
    LEVELS: tl.constexpr, INVERSE: tl.constexpr, WRAP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SLAB: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one signal. weight: (channels, 4**LEVELS, LATENTS), bands as [y, x]; size: how many latents."""
    S: tl.constexpr = 1 << LEVELS
    PER: tl.constexpr = TILE // S
    column, row, signal = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row_kind, column_kind = tl.load(row_kinds + row), tl.load(column_kinds + column)
    row_start, column_start = tl.load(row_starts + row), tl.load(column_starts + column)
    out_channel = tl.arange(0, LATENTS)
    z = tl.zeros([PER * PER, LATENTS], tl.float32)
    for c in range(channels):
        tile = window_product(
            x + (signal * channels + c) * (nh * nw) * (S * S), a, b, row_kind, column_kind, row_start, column_start,
            nh, nw, LEVELS, INVERSE, WRAP, ROWS, COLUMNS, SLAB, CHUNK, TILE, PRECISION, BYTES, SHIFT,
        )  # fmt: skip
        bands = tl.permute(tl.reshape(tile, (S, PER, S, PER)), (1, 3, 0, 2))
        bands = tl.reshape(bands, (PER * PER, S * S))
        at = (c * (S * S) + tl.arange(0, S * S))[:, None] * LATENTS + out_channel[None, :]
        z = tl.dot(bands, tl.load(weight + at), z, input_precision=PRECISION)
    z += tl.load(bias + out_channel)[None, :]
    if COMPAND:
        z = top * tl.erf(z * slope)
        z = (z + 12582912.0) - 12582912.0  # to the nearest integer, ties to even
    p = tl.arange(0, PER * PER)
    y, across = row * PER + p // PER, column * PER + p % PER
    latents += signal * size * nh * nw
    at = (out_channel[None, :] * nh + y[:, None]) * nw + across[:, None]
    inside = ((y < nh) & (across < nw))[:, None] & (out_channel < size)[None, :]
    tl.store(latents + at, z.to(latents.dtype.element_ty), inside)


@torch.library.custom_op("latentzip::packet_encode", mutates_args=())
def packet_encode(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    levels: int,
    wavelet: str,
    mode: str,
    bits: int,
    shift: float = 0.0,
    precision: str = "tf32x3",
) -> Tensor:
    """Latents of signals: ``round(compand(weight @ packet(x + shift) + bias))``. No gradients.

    Args:
        x: (B, C, H, W) float, or uint8, which stands for 0 to 1; sides are multiples of ``2**levels``.
        weight: (L, C * 4**levels) float32, at most 256 latents. bias: (L,) float32.
        bits: of a latent (`compand`); 0 leaves companding and rounding out.
        precision: as in `packet2d`.

    Returns:
        (B, L, H / 2**levels, W / 2**levels): int8 or, beyond 8 bits, int16; float32 where ``bits`` is 0.
    """
    b, c, h, w = x.shape
    out = _empty(x, weight, levels, bits)
    nh, nw = h >> levels, w >> levels
    shape = shape_of(nh, nw, levels, wavelet, mode, False, False, x.device)
    width = max(16, triton.next_power_of_2(len(weight)))
    top, slope = _companding(bits) if bits else (0.0, 0.0)
    s = 1 << levels
    by_channel = weight.view(len(weight), c, s * s)[:, :, by_rows(levels, weight.device)]
    packed = x.new_zeros(c, s * s, width, dtype=torch.float32)
    packed[:, :, : len(weight)] = by_channel.permute(1, 2, 0)
    padded = x.new_zeros(width, dtype=torch.float32)
    padded[: len(weight)] = bias
    per = TILE >> levels
    with on(x):
        packet_encode_kernel[(-(-nw // per), -(-nh // per), b)](
            x.contiguous(), out, *arguments(shape), packed, padded, c, len(weight), top, slope, LATENTS=width,
            COMPAND=bits > 0, BYTES=x.dtype == torch.uint8, SHIFT=shift, enable_fp_fusion=False,
            **constants(shape, levels, False, precision), num_warps=8,
        )  # fmt: skip
    return out


def _empty(x: Tensor, weight: Tensor, levels: int, bits: int) -> Tensor:
    dtype = torch.float32 if not bits else torch.int8 if bits <= 8 else torch.int16
    return x.new_empty((x.shape[0], weight.shape[0], x.shape[2] >> levels, x.shape[3] >> levels), dtype=dtype)


def _companding(bits: int) -> tuple[float, float]:
    from ..compand import constants as companding

    s, limit = companding(bits)
    return limit, 1 / (s * 2**0.5)


@packet_encode.register_fake
def _(x, weight, bias, levels, wavelet, mode, bits, shift=0.0, precision="tf32x3"):  # type: ignore[no-untyped-def]
    return _empty(x, weight, levels, bits)
