"""A linear map of wavelet packets and its mirror image: encoder and decoder of a linear codec, each in one function.

Where packets are lifted (`lifting`), their bands are never put in order: the map's weights are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import lifting
from .wavelet import inverse_wavelet_packet2d, pad_edge, wavelet_packet2d


def packet_product(x: Tensor, levels: int, wavelet: str, weight: Tensor, bias: Tensor, add: float = 0.0) -> Tensor:
    """``weight`` times the packets of a signal plus ``add``, plus ``bias``, with symmetric edges.

    Args:
        x: (B, C, H, W) float, any size from 1 x 1.
        weight, bias: (L, C * 4**levels) and (L,).

    Returns:
        (B, L, ceil(H / 2**levels), ceil(W / 2**levels)).
    """
    with torch.autocast(x.device.type, enabled=False):  # transforms must not lose digits
        if lifting.serves(x, levels, wavelet):
            return _encoded(x, levels, weight, bias, add)
        bands = wavelet_packet2d(x + add, levels, wavelet)
        return torch.einsum("lk,bkhw->blhw", weight, bands) + bias[:, None, None]


def _encoded(x: Tensor, levels: int, weight: Tensor, bias: Tensor, add: float) -> Tensor:
    x = pad_edge(x, levels, 2)
    places, gains = lifting.order(levels, x.shape[1])
    weight = torch.empty_like(weight).index_copy(1, places, weight * gains)
    out = []
    for signal in x:
        rows = lifting.blocks(signal, levels, add)
        y = torch.addmm(bias, rows.flatten(0, 1), weight.t())
        out.append(y.t().reshape(-1, *rows.shape[:2]))
    return torch.stack(out)


def product_packet(
    y: Tensor, levels: int, wavelet: str, weight: Tensor, bias: Tensor, size: tuple[int, int] | None, add: float = 0.0
) -> Tensor:
    """The signal whose packets are ``weight`` times ``y``, plus ``bias``, plus ``add``.

    Args:
        y: (B, L, h, w) float.
        weight, bias: (C * 4**levels, L) and (C * 4**levels,).
        size: (H, W) to crop to.

    Returns:
        (B, C, H, W), by default H = h * 2**levels and W = w * 2**levels.
    """
    with torch.autocast(y.device.type, enabled=False):
        if lifting.serves(y, levels, wavelet):
            x = _decoded(y, levels, weight, bias, add)
        else:
            bands = torch.einsum("kl,blhw->bkhw", weight, y) + bias[:, None, None]
            x = inverse_wavelet_packet2d(bands, levels, wavelet) + add
        return x if size is None else x[..., : size[0], : size[1]]


def _decoded(y: Tensor, levels: int, weight: Tensor, bias: Tensor, add: float) -> Tensor:
    places, gains = lifting.order(levels, len(weight) >> 2 * levels)
    weight = torch.empty_like(weight).index_copy(0, places, weight / gains[:, None])
    bias = torch.empty_like(bias).index_copy(0, places, bias / gains)
    h, w = y.shape[2:]
    out = []
    for latent in y:
        rows = torch.addmm(bias, latent.flatten(1).t(), weight.t())
        out.append(lifting.from_blocks(rows.view(h, w, -1), levels, add))
    return torch.stack(out)
