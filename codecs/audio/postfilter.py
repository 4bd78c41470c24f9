"""What is taken from decoded speech, and added to it, before it is heard: gains of short spectra, by a small network.

The sound of what was coded and that of the noise that fills zeros come apart. Both are cut into windows of 32 ms that
overlap by half, in bins of 31 Hz at any sampling rate. From the power of both around it a bin gets two gains, 0.3 to 2
for what was coded and 0 to 2 for the noise; what lies above 8 kHz stays as it is. So noise is shaped between harmonics
and in time, finer than the blocks and bands of the codec tell. After Zhao et al., "Convolutional Neural Networks to
Enhance Coded Speech" (2018), and Korse et al., "Enhancement of Coded Speech Using a Mask-Based Post-Filter" (2020).
Nothing here decides what an entropy decoder reads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.pointwise import Pointwise

BINS = 256  # of 31.25 Hz: up to 8 kHz
_HOP_S = 0.016  # seconds
_RATE = 16000  # at which powers are what they are
_FLOOR = 1e-9  # of powers
REACH_S = 0.112  # seconds on both sides of a sample that decide about it: five windows, and what these overlap with
_LEAST, _MOST = 0.3, 2.0


class PostFilter(nn.Module):
    """The network: one level down and up again, 72,000 multiply-adds a millisecond where ``narrow`` is 16.

    Args:
        narrow: channels at half of the bins; there are half as many more at a quarter of them.
    """

    def __init__(self, narrow: int) -> None:
        super().__init__()
        wide = narrow * 3 // 2
        self.first = nn.Conv2d(3, narrow, (3, 5), (1, 2), (1, 2))
        self.first_place = nn.Parameter(torch.zeros(narrow, 1, BINS // 2))
        self.second = nn.Conv2d(narrow, wide, 3, (1, 2), 1)
        self.second_place = nn.Parameter(torch.zeros(wide, 1, BINS // 4))
        self.far = nn.Conv2d(wide, wide, 3, padding=(2, 1), dilation=(2, 1))
        self.near = nn.Conv2d(wide, wide, 3, padding=1)
        self.up = Pointwise(wide, 2 * narrow)
        self.joined = nn.Conv2d(narrow, narrow, (1, 3), padding=(0, 1))
        self.out = nn.Conv2d(narrow, 4, (1, 3), padding=(0, 1))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, coded: Tensor, noise: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Powers (B, t, BINS) of what was coded and of noise, quality (B,) -> gains (B, t, BINS) of both."""
        known = (quality / 40 - 0.6)[:, None, None].expand_as(coded)
        x = torch.stack([*(torch.log10(p + _FLOOR) / 3 + 1.5 for p in (coded, noise)), known], 1)
        fine = F.relu(self.first(x) + self.first_place)
        y = F.relu(self.second(fine) + self.second_place)
        y = y + F.relu(self.far(y))
        y = y + F.relu(self.near(y))
        y = F.relu(self.joined(F.relu(_finer(self.up(y)) + fine)))
        coded, noise = _finer(self.out(y)).unbind(1)
        one = -0.3567  # where the sigmoid makes a gain of one
        return _LEAST + (_MOST - _LEAST) * torch.sigmoid(coded + one), _MOST * torch.sigmoid(noise)

    def filtered(
        self, coded: Tensor, noise: Tensor, rate: int, quality: Tensor, strength: Tensor, begin: int = 0
    ) -> Tensor:  # fmt: skip
        """Their sum, filtered.

        Args:
            coded, noise: (B, T) float32, of signals whose peak is about one.
            rate: in Hz. quality: (B,) float.
            strength: (parts,) 0..1 how far gains are taken from one, of parts of equal length that make up T.
            begin: the place of the first sample in the signal: windows lie on one grid.
        """
        hop = round(rate * _HOP_S)
        before, length = begin % hop, coded.shape[1]
        after = -(before + length) % hop
        window = torch.hann_window(2 * hop, device=coded.device).sqrt()
        padded = F.pad(torch.cat([coded, noise]), (hop + before, after + hop))
        spectra = torch.fft.rfft(padded.unfold(1, 2 * hop, hop) * window)
        bins = min(BINS, hop)
        power = torch.view_as_real(spectra[..., :bins]).square().sum(-1) * (_RATE / rate / hop)
        gains = torch.cat(self(*F.pad(power, (0, BINS - bins)).chunk(2), quality))[..., :bins]
        middle = (torch.arange(spectra.shape[1], device=coded.device) * hop - before).clamp(0, length - 1)
        part = strength.to(coded)[middle * len(strength) // length][:, None]
        low = (spectra[..., :bins] * (1 + part * (gains - 1))).unflatten(0, (2, -1)).sum(0)
        high = spectra[..., bins:].unflatten(0, (2, -1)).sum(0)
        y = torch.fft.irfft(torch.cat([low, high], -1), 2 * hop) * window
        out = (y[:, :-1, hop:] + y[:, 1:, :hop]).flatten(1)
        return out[:, before : before + length]


def _finer(x: Tensor) -> Tensor:
    """(B, 2 C, t, n) -> (B, C, t, 2 n): pairs of channels are neighbouring bins."""
    b, c, t, n = x.shape
    return x.reshape(b, c // 2, 2, t, n).permute(0, 1, 3, 4, 2).reshape(b, c // 2, t, 2 * n)
