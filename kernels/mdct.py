"""The lapped transform with blocks of many sizes: rotations at the borders of blocks, then a DCT-IV of each block.

An MDCT is two orthogonal steps. At every border between two blocks, the samples on both sides are rotated into each
other over a zone as wide as the smaller block (a sine window); then each block is transformed alone, after Malvar,
"Lapped transforms for efficient transform/subband coding" (1990), and Princen & Bradley (1986). Both steps are
orthogonal, whatever the sequence of sizes is: reconstruction is perfect by construction, and the inverse is the same
two steps backwards.

The bodies here are the definition, differentiable and for any device; on the CPU compiled loops do the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .compiled import wanted


def lapped(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Samples to coefficients.

    Args:
        x: (..., T) float32 or float64.
        sizes: even lengths of the blocks, T in all. The first block begins and the last one ends without overlap.

    Returns:
        (..., T): the coefficients of each block, lowest frequency first, block after block. The transform is
        orthonormal: squares add up to those of the samples.

    Raises:
        ValueError: sizes that are odd or do not add up to T.
    """
    blocks = np.asarray(sizes, np.int64)
    _check(x, blocks)
    if _compiled_takes(x):
        return _fast(x, blocks, 1)
    out = x.clone()
    _rotate(out, blocks, 1)
    _dct_blocks(out, blocks)
    return out


def unlapped(y: Tensor, sizes: Sequence[int]) -> Tensor:
    """The inverse of `lapped`: coefficients (..., T) to samples (..., T)."""
    blocks = np.asarray(sizes, np.int64)
    _check(y, blocks)
    if _compiled_takes(y):
        return _fast(y, blocks, -1)
    out = y.clone()
    _dct_blocks(out, blocks)
    _rotate(out, blocks, -1)
    return out


def _check(x: Tensor, blocks: np.ndarray) -> None:
    if blocks.ndim != 1 or (blocks < 2).any() or (blocks & 1).any() or int(blocks.sum()) != x.shape[-1]:
        raise ValueError(f"blocks must be of even sizes that add up to {x.shape[-1]}, not to {int(blocks.sum())}")


def _rotate(x: Tensor, blocks: np.ndarray, direction: int) -> None:
    """Fold (1) or unfold (-1) the zones around all inner borders, in place."""
    border = np.cumsum(blocks)[:-1]
    half = np.minimum(blocks[:-1], blocks[1:]) // 2
    for h in np.unique(half).tolist():
        at = torch.from_numpy(border[half == h]).to(x.device)
        reach = torch.arange(h, device=x.device)
        after, before = at[:, None] + reach, at[:, None] - 1 - reach
        c, s = (w.to(x) for w in _window(h))
        right, left = x[..., after], x[..., before]
        # the block that begins here continues evenly beyond its border, the one that ends here oddly
        x[..., after] = c * right + direction * s * left
        x[..., before] = c * left - direction * s * right


def _dct_blocks(x: Tensor, blocks: np.ndarray) -> None:
    """Replace every block by its DCT-IV."""
    first = np.cumsum(blocks) - blocks
    for n in np.unique(blocks).tolist():
        at = first[blocks == n]
        if at.size * n == x.shape[-1]:
            x[...] = dct4(x.reshape(*x.shape[:-1], -1, n)).reshape(x.shape)
            continue
        index = torch.from_numpy(at).to(x.device)[:, None] + torch.arange(n, device=x.device)
        x[..., index] = dct4(x[..., index])


def dct4(x: Tensor) -> Tensor:
    """Orthonormal DCT-IV along the last axis, of even length n, by a complex FFT of n/2; its own inverse."""
    n = x.shape[-1]
    twiddle = _twiddle(n).to(device=x.device, dtype=torch.complex64 if x.dtype == torch.float32 else torch.complex128)
    t = torch.fft.fft(torch.complex(x[..., 0::2], x.flip(-1)[..., 0::2]) * twiddle) * twiddle
    out = torch.empty_like(x)
    out[..., 0::2] = t.real
    out[..., 1::2] = -t.imag.flip(-1)
    return out


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept: gradients may flow past it later
def _twiddle(n: int) -> Tensor:
    k = torch.arange(n // 2, dtype=torch.float64)
    return torch.polar(torch.full_like(k, (2 / n) ** 0.25), -math.pi * (8 * k + 1) / (8 * n))


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _window(half: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotations, from the border outwards."""
    angle = math.pi / 4 * (1 - (2 * torch.arange(half, dtype=torch.float64) + 1) / (2 * half))
    return torch.cos(angle), torch.sin(angle)


@lru_cache(maxsize=32)
def _rotation(half: int) -> tuple[np.ndarray, np.ndarray]:
    """`_window` as the compiled loops take it."""
    cosines, sines = (w.float().numpy() for w in _window(half))
    return cosines, sines


@lru_cache(maxsize=32)
def _turns(n: int) -> np.ndarray:
    """`_twiddle` as the compiled loops take it."""
    return _twiddle(n).to(torch.complex64).numpy()


def _compiled_takes(x: Tensor) -> bool:
    differentiable = x.requires_grad and torch.is_grad_enabled()
    return x.device.type == "cpu" and x.dtype == torch.float32 and not differentiable and wanted()


def _fast(x: Tensor, blocks: np.ndarray, direction: int) -> Tensor:
    """`lapped` (1) or `unlapped` (-1) by compiled loops."""
    from . import mdct_loops as body

    if direction == 1 and (blocks == blocks[0]).all():
        return folded(x.reshape(-1, x.shape[-1]), int(blocks[0])).coefficients().reshape(x.shape)
    out = x.reshape(-1, x.shape[-1]).clone(memory_format=torch.contiguous_format)
    data = out.numpy()
    border, half = np.cumsum(blocks)[:-1], np.minimum(blocks[:-1], blocks[1:]) // 2
    widths, which = np.unique(half, return_inverse=True)
    windows = [_rotation(h) for h in widths.tolist()] or [_rotation(1)]
    at = (np.cumsum(widths) - widths)[which]
    cosines, sines = (np.concatenate([w[i] for w in windows]) for i in (0, 1))
    if direction == 1:
        body.rotate(data, border, half, at, cosines, sines, np.float32(1))
    first = np.cumsum(blocks) - blocks
    for n in np.unique(blocks).tolist():
        starts, twiddle = first[blocks == n], _turns(n)
        packed = torch.empty(data.shape[0] * starts.size, n // 2, dtype=torch.complex64)
        body.pack(data, starts, twiddle, packed.numpy())
        body.unpack(torch.fft.fft(packed).numpy(), starts, twiddle, data)
    if direction == -1:
        body.rotate(data, border, half, at, cosines, sines, np.float32(-1))
    return out.reshape(x.shape)


@dataclass(frozen=True)
class Folded:
    """What `lapped` makes of blocks of one size on the CPU, up to its last step.

    spectrum: (C T / n, n / 2) complex64. Multiplied with `twiddle` (n / 2,), its real parts are the even coefficients
    of a block, and its negative imaginary parts, backwards, the odd ones.
    """

    spectrum: np.ndarray
    twiddle: np.ndarray

    def coefficients(self) -> Tensor:
        """All of them, block after block: (C T,)."""
        from . import mdct_loops as body

        out = torch.empty(1, self.spectrum.size * 2)
        first = np.arange(len(self.spectrum)) * (2 * self.twiddle.size)
        body.unpack(self.spectrum, first, self.twiddle, out.numpy())
        return out[0]


def folded(x: Tensor, size: int) -> Folded:
    """Samples (C, T) float32 in blocks of one even size, of which T is a multiple."""
    from . import mdct_loops as body

    data, twiddle = x.contiguous().numpy(), _turns(size)
    packed = torch.empty(data.size // size, size // 2, dtype=torch.complex64)
    body.fold(data, size, *_rotation(size // 2), twiddle, packed.numpy())
    return Folded(torch.fft.fft(packed).numpy(), twiddle)
