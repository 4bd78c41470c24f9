"""Spectral losses and measures of sound in plain torch."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

_FLOOR = 1e-3  # power below which differences of level are not heard: about 84 dB below a full-scale sine


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept: a loss may need it after a validation
def mel_filters(bands: int, size: int, rate: int) -> Tensor:
    """(bands, size // 2 + 1) triangular filters, evenly spaced on the mel scale (2595 log10(1 + f / 700))."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    centres = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * rate / size
    rise = (bins - centres[:-2, None]) / (centres[1:-1] - centres[:-2])[:, None]
    fall = (centres[2:, None] - bins) / (centres[2:] - centres[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp_min(0).float()


def powers(x: Tensor, size: int, pad_mode: str = "reflect") -> Tensor:
    """Waveforms (N, T) -> powers (N, size // 2 + 1, frames) of short spectra, Hann window, hop size / 4."""
    window = torch.hann_window(size, device=x.device)
    spectrum = torch.stft(x, size, size // 4, window=window, pad_mode=pad_mode, return_complex=True)
    return spectrum.real.square() + spectrum.imag.square()


def log_mel(x: Tensor, size: int, bands: int, rate: int = 44100) -> Tensor:
    """Waveforms (N, T) -> log10 of mel band powers (N, bands, frames), Hann window, hop size / 4."""
    return torch.log10(mel_filters(bands, size, rate).to(x.device) @ powers(x, size) + _FLOOR)


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel spectra in dB, over several window lengths.

    Args:
        sizes: window lengths in samples, each with its number of bands.
    """

    def __init__(self, sizes: tuple[tuple[int, int], ...] = ((256, 20), (1024, 64), (2048, 96))) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, C, T) twice -> scalar."""
        x, y = x.flatten(0, 1), y.flatten(0, 1)
        parts = [(log_mel(x, n, bands) - log_mel(y, n, bands)).abs().mean() for n, bands in self.sizes]
        return 10 * torch.stack(parts).mean()


class FrameRate(nn.Module):
    """A differentiable estimate of what the context coder spends on latents z (B, L, n).

    A discretised logistic about zero whose scale follows magnitudes that a coder knows by then: of the two frames
    before, and of the two channels before around the same frame.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((7, channels, 1), 0.1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, z: Tensor) -> Tensor:
        """-log2 of the probability of the unit interval around each element, (B, L, n)."""
        m = torch.log1p(z.abs())
        before = torch.nn.functional.pad(m, (2, 1))  # frames -2 ... n
        above = torch.nn.functional.pad(before, (0, 0, 2, 0))[:, :-2]  # two channels up
        above1 = torch.nn.functional.pad(before, (0, 0, 1, 0))[:, :-1]
        n = z.shape[-1]
        known = [before[..., 1 : n + 1], before[..., :n], above1[..., 2 : n + 2], above1[..., 1 : n + 1],
                 above1[..., 3 : n + 3], above[..., 2 : n + 2], above[..., 1 : n + 1]]  # fmt: skip
        log_scale = self.bias + sum(w * k for w, k in zip(self.weight, known))
        inv = torch.exp(-log_scale.clamp(-4, 6))
        d = z.abs()
        p = torch.sigmoid((0.5 - d) * inv) - torch.sigmoid((-0.5 - d) * inv)
        return -torch.log2(p.clamp_min(1e-9))
