"""Wavelet packets by lifting: CDF 9/7 (bior4.4) with symmetric edges, several times faster than products.

A split of a line of samples into a low and a high band is four steps, each of which adds to every other sample a
multiple of the sum of its two neighbours (Daubechies & Sweldens, 1998); reflection at the ends is a neighbour taken
twice. All happens in place: after J levels the line's samples hold the 2**J bands of its blocks of 2**J, in the order
of `order`, and what lies side by side is computed side by side.

In two dimensions stripes of columns are split first, then rows of blocks: a row of blocks holds, for each column, the
2**J bands of each channel (W, C * 2**J), and afterwards for each block all its coefficients, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compiled import wanted
from .parallel import parallel

STEPS = np.array([-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971], np.float32)
BACK = -STEPS[::-1]
GAINS = 1.149604398860241, -0.869864451624781  # what samples of the low and the high band are multiplied by in the end
LEVELS = 3, 4  # with fewer, lines are shorter than a vector; with more, products are as fast


def serves(x: Tensor, levels: int, wavelet: str, mode: str = "symmetric") -> bool:
    """Whether lifting is what transforms a signal, or its bands: on a CPU, where no gradient is asked for."""
    return (
        (wavelet, mode) == ("bior4.4", "symmetric")
        and levels in LEVELS
        and (x.device.type, x.dtype) == ("cpu", torch.float32)
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.compiler.is_compiling()
        and x.numel() > 0
        and wanted()
    )


@cache
def _loops() -> ModuleType:
    from . import lifting_loops

    return lifting_loops


@cache
@torch.inference_mode(False)
def order(levels: int, channels: int) -> tuple[Tensor, Tensor]:
    """Where each band of `wavelet_packet2d` lies among a block's coefficients, int64, and what those are multiplied by,
    float32."""
    side, digits = 1 << levels, 4**levels
    places, gains = torch.empty(channels * digits, dtype=torch.int64), torch.empty(channels * digits)
    for band in range(digits):
        y = x = 0
        gain = 1.0
        for level in range(levels):  # the first split is the most significant digit, and the lowest bit of a place
            digit = band >> 2 * (levels - 1 - level) & 3
            y |= (digit & 1) << level
            x |= (digit >> 1) << level
            gain *= GAINS[digit & 1] * GAINS[digit >> 1]
        for c in range(channels):
            places[c * digits + band] = (x * channels + c) * side + y
            gains[c * digits + band] = gain
    return places, gains


def _shared(task: Callable[[int, int], Any], count: int, unit: int = 1) -> None:
    """task(first, end) of parts of ``count`` that begin at multiples of a unit, one a thread."""
    units = -(-count // unit)
    size = -(-units // torch.get_num_threads()) * unit
    for _ in parallel(lambda at: task(at, min(at + size, count)), list(range(0, count, size))):
        pass


def blocks(x: Tensor, levels: int, add: float = 0.0) -> Tensor:
    """Signal (C, H, W) plus ``add``, sides multiples of 2**levels -> coefficients (h, w, C * 4**levels) of its blocks,
    in a place and size of their own: `order` leads to those of `wavelet_packet2d`."""
    c, h, w = x.shape
    x = x.detach().contiguous()
    rows = torch.empty(h >> levels, w, c << levels)
    a, out = x.numpy(), rows.numpy()
    loops = _loops()
    _shared(lambda i, j: loops.columns(a, out, i, j, levels, STEPS, np.float32(add)), w, loops.STRIPE)
    _shared(lambda i, j: loops.across(out, i, j, levels, STEPS, False), h >> levels)
    return rows.view(h >> levels, w >> levels, c << 2 * levels)


def from_blocks(rows: Tensor, levels: int, add: float = 0.0) -> Tensor:
    """Inverse of `blocks`, plus ``add``; ``rows`` is overwritten."""
    h, w, k = rows.shape
    c = k >> 2 * levels
    flat = rows.contiguous().view(h, w << levels, c << levels).numpy()
    out = torch.empty(c, h << levels, w << levels)
    a = out.numpy()
    loops = _loops()
    _shared(lambda i, j: loops.across(flat, i, j, levels, BACK, True), h)
    _shared(lambda i, j: loops.columns_back(flat, a, i, j, levels, BACK, np.float32(add)), w << levels, loops.STRIPE)
    return out


def packet(x: Tensor, levels: int) -> Tensor:
    """(B, C, H, W) -> (B, C * 4**levels, H / 2**levels, W / 2**levels) as `wavelet_packet2d`."""
    places, gains = (a.numpy() for a in order(levels, x.shape[1]))
    y = x.new_empty(x.shape[0], len(places), x.shape[2] >> levels, x.shape[3] >> levels)
    for signal, bands in zip(x, y.numpy()):
        rows = blocks(signal, levels).numpy()
        _shared(lambda i, j, r=rows, b=bands: _loops().ordered(r, b, places, gains, i, j), len(rows))
    return y


def inverse_packet(y: Tensor, levels: int) -> Tensor:
    """Inverse of `packet`."""
    places, gains = (a.numpy() for a in order(levels, y.shape[1] >> 2 * levels))
    out = []
    for bands in y.detach().permute(0, 2, 3, 1).contiguous():
        rows = torch.empty_like(bands)
        a, r = bands.numpy(), rows.numpy()
        _shared(lambda i, j, a=a, r=r: _loops().disordered(a, r, places, gains, i, j), len(rows))
        out.append(from_blocks(rows, levels))
    return torch.stack(out)
