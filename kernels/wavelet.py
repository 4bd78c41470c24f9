"""Wavelet packet transform: every band split again at each level; 1-D and separable 2-D, any PyWavelets filter.

Two boundary rules:

* ``"periodization"``: as PyWavelets' mode of that name, for every filter;
* ``"symmetric"``: whole-sample symmetric extension at each level (JPEG 2000, ISO/IEC 15444-1 annex F), for the
  odd-length symmetric filters (bior2.2, bior4.4 = CDF 9/7, ...). Edges stay smooth and a part of a signal is
  transformed like the whole away from its own edges, so tiles agree.

Both reconstruct perfectly and change no sizes. Bands come in natural order: channel ``c`` of the signal becomes
channels ``c * F**J ... (c + 1) * F**J - 1`` (F = 2 in 1-D, 4 in 2-D), the first split being the most significant
digit; digits are [A, D] in 1-D and [A, H, V, D] in 2-D, with H high-pass along rows' direction y and V along x, as
`pywt.dwt2` returns them.

The J levels along one axis are one filter bank with hop 2**J; it is applied as block products (`BlockOperator`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cuda, lifting
from .block_operator import BlockOperator
from .packet_operators import Mode, packet_operator

_STAGE = 4  # levels per block product: beyond, the filters grow faster than the products save
_STRIP = 1 << 17  # elements a strip's intermediate holds, so that it stays in the second-level cache


def _stages(levels: int) -> list[int]:
    """Levels split into equal-ish stages of at most `_STAGE`; a packet of a packet is a deeper packet."""
    count = -(-levels // _STAGE)
    return [levels // count + (i < levels % count) for i in range(count)]


class Packet(torch.autograd.Function):
    """One stage, in 1 or 2 dimensions; its gradient is the mirror image with the transposed operator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int, wavelet: str, mode: Mode, inverse: bool, dims: int) -> Tensor:  # type: ignore[override]
        ctx.args = (levels, wavelet, mode, inverse, dims)
        return _BODIES[dims, inverse](x, packet_operator(levels, wavelet, mode, inverse), levels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        levels, wavelet, mode, inverse, dims = ctx.args
        op = packet_operator(levels, wavelet, mode, inverse).adjoint
        return _BODIES[dims, not inverse](grad, op, levels), None, None, None, None, None


def _forward2d(x: Tensor, op: BlockOperator, levels: int) -> Tensor:
    """(B, C, H, W) -> (B, C * 4**J, H / 2**J, W / 2**J)."""
    b, c, h, w = x.shape
    s = 1 << levels
    nh, nw = h // s, w // s
    x = x.reshape(b * c, h, w).contiguous()
    tall = op(x)  # (R, nh * s, W): [block y, band y]
    out = x.new_empty(b * c, *([2, 2] * levels), nh, nw)
    # out axes: (R, x1, y1, x2, y2, ..., nh, nw): V (x) is the more significant bit of a digit
    view = out.permute(0, 2 * levels + 2, *range(1, 2 * levels, 2), 2 * levels + 1, *range(2, 2 * levels + 1, 2))
    rows = max(1, _STRIP // (w * s))
    for y in range(0, nh, rows):
        m = min(rows, nh - y)
        strip = tall[:, y * s : (y + m) * s].transpose(1, 2).contiguous()  # (R, W, m * s)
        wide = op(strip)  # (R, nw * s, m * s)
        target = view[:, :, *[slice(None)] * levels, y : y + m]
        target.copy_(wide.view(b * c, nw, *[2] * levels, m, *[2] * levels))
    return out.view(b, c * s * s, nh, nw)


def _inverse2d(y: Tensor, op: BlockOperator, levels: int) -> Tensor:
    """(B, C * 4**J, h, w) -> (B, C, h * 2**J, w * 2**J); mirror image of `_forward2d`."""
    b, cc, nh, nw = y.shape
    s = 1 << levels
    c = cc // (s * s)
    view = y.reshape(b * c, *([2, 2] * levels), nh, nw)
    view = view.permute(0, 2 * levels + 2, *range(1, 2 * levels, 2), 2 * levels + 1, *range(2, 2 * levels + 1, 2))
    tall = y.new_empty(b * c, nh * s, nw * s)
    rows = max(1, _STRIP // (nw * s * s))
    for i in range(0, nh, rows):
        m = min(rows, nh - i)
        part = view[:, :, *[slice(None)] * levels, i : i + m]
        wide = op(part.reshape(b * c, nw * s, m * s))  # (R, W, m * s)
        tall[:, i * s : (i + m) * s] = wide.transpose(1, 2)
    return op(tall).view(b, c, nh * s, nw * s)


def _forward1d(x: Tensor, op: BlockOperator, levels: int) -> Tensor:
    """(B, C, L) -> (B, C * 2**J, L / 2**J)."""
    b, c, length = x.shape
    s = 1 << levels
    y = op.along_rows(x.reshape(b * c, length))
    return y.view(b * c, length // s, s).transpose(1, 2).reshape(b, c * s, length // s)


def _inverse1d(y: Tensor, op: BlockOperator, levels: int) -> Tensor:
    b, cc, n = y.shape
    s = 1 << levels
    c = cc // s
    return op.along_rows(y.reshape(b * c, s, n).transpose(1, 2).reshape(b * c, n * s)).view(b, c, n * s)


def _stage(x: Tensor, levels: int, wavelet: str, mode: Mode, inverse: bool, dims: int) -> Tensor:
    if levels and cuda.usable(x):
        if dims == 2:
            from .cuda.packet import packet2d as packet
        else:
            from .cuda.packet1d import packet1d as packet
        return packet(x, levels, wavelet, mode, inverse, False)
    return Packet.apply(x, levels, wavelet, mode, inverse, dims)  # type: ignore[return-value]


_BODIES = {(1, False): _forward1d, (1, True): _inverse1d, (2, False): _forward2d, (2, True): _inverse2d}


def padded_length(n: int, levels: int) -> int:
    """Smallest multiple of ``2**levels`` that is at least ``n``."""
    return -(-n // (1 << levels)) << levels


def pad_edge(x: Tensor, levels: int, dims: int) -> Tensor:
    """Continue the last ``dims`` sides with their last sample up to a multiple of ``2**levels``."""
    pad: list[int] = []
    for size in reversed(x.shape[-dims:]):
        pad += [0, padded_length(size, levels) - size]
    return F.pad(x, pad, mode="replicate") if any(pad) else x


def wavelet_packet2d(x: Tensor, levels: int, wavelet: str = "bior4.4", mode: Mode = "symmetric") -> Tensor:
    """Full 2-D wavelet packet analysis.

    Args:
        x: (B, C, H, W) float32 or float64. Sizes that are no multiple of ``2**levels`` are continued with their last
            sample up to one; `inverse_wavelet_packet2d` crops back to ``size``.
        levels: J >= 0.
        wavelet: a PyWavelets discrete wavelet name.
        mode: ``"symmetric"`` or ``"periodization"``.

    Returns:
        (B, C * 4**J, ceil(H / 2**J), ceil(W / 2**J)), same dtype.

    Raises:
        ValueError: mode ``"symmetric"`` with a filter that is not odd-length symmetric.
    """
    x = pad_edge(x, levels, 2)
    if lifting.serves(x, levels, wavelet, mode):
        return lifting.packet(x, levels)
    for j in _stages(levels):
        x = _stage(x, j, wavelet, mode, False, 2)
    return x


def inverse_wavelet_packet2d(
    y: Tensor,
    levels: int,
    wavelet: str = "bior4.4",
    mode: Mode = "symmetric",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Inverse of `wavelet_packet2d`: (B, C * 4**J, h, w) -> (B, C, H, W), cropped to ``size = (H, W)``."""
    if lifting.serves(y, levels, wavelet, mode):
        y = lifting.inverse_packet(y, levels)
    else:
        for j in reversed(_stages(levels)):
            y = _stage(y, j, wavelet, mode, True, 2)
    return y if size is None else y[..., : size[0], : size[1]]


def wavelet_packet1d(x: Tensor, levels: int, wavelet: str = "bior4.4", mode: Mode = "symmetric") -> Tensor:
    """Full 1-D wavelet packet analysis: (B, C, L) -> (B, C * 2**J, ceil(L / 2**J)); see `wavelet_packet2d`."""
    x = pad_edge(x, levels, 1)
    for j in _stages(levels):
        x = _stage(x, j, wavelet, mode, False, 1)
    return x


def inverse_wavelet_packet1d(
    y: Tensor,
    levels: int,
    wavelet: str = "bior4.4",
    mode: Mode = "symmetric",
    size: int | None = None,
) -> Tensor:
    """Inverse of `wavelet_packet1d`: (B, C * 2**J, n) -> (B, C, L), cropped to ``size``."""
    for j in reversed(_stages(levels)):
        y = _stage(y, j, wavelet, mode, True, 1)
    return y if size is None else y[..., :size]
