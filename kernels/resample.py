"""Band-limited resampling by any ratio of whole sampling rates, in groups, so that pieces equal the whole to the bit.

Windowed-sinc interpolation (J. O. Smith, "Digital Audio Resampling", CCRMA): sample j of the output lies at input
position p = j * source / target, and is the sum of the inputs x[i] times ``sinc(c (i - p)) w(i - p)``, with the cutoff
c a little below the lower of the two Nyquist frequencies and w a Kaiser window. Width, roll-off and beta are those
of the "kaiser_best" setting that `torchaudio.functional.resample` documents: stop band near -110 dB.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WIDTH = 64  # zero crossings of the sinc on each side
_ROLLOFF = 0.9475937167399596
_BETA = 14.769656459379492
_GROUP = 16384  # samples a group has, about
_TABLE = 1 << 22  # largest table of taps, in numbers; ratios that need more interpolate between fine ones
_FINE = 2048  # taps an input sample in that case: linear interpolation errs by 3e-7
_BLOCK = 2048  # outputs made at a time in that case


class Resampler:
    """Turns groups of ``group_in`` samples into ``group_out``; a group sees ``margin`` samples on each side.

    Args:
        source, target: sampling rates in Hz, whole numbers from 1.
    """

    def __init__(self, source: int, target: int) -> None:
        g = math.gcd(source, target)
        self.step_in, self.step_out = source // g, target // g
        self._cutoff = min(self.step_in, self.step_out) * _ROLLOFF / self.step_in  # in cycles of the input's Nyquist
        self.margin = math.ceil(_WIDTH / self._cutoff) + 1
        repeat = max(1, self.margin // self.step_in)  # wide products: windows overlap by half at most
        self._hop, rows = repeat * self.step_in, repeat * self.step_out
        blocks = max(1, _GROUP // max(self._hop, rows))
        self.group_in, self.group_out = blocks * self._hop, blocks * rows
        self._span = self._hop + 2 * self.margin
        self._taps: Tensor | None = None
        if rows * self._span <= _TABLE:
            position = torch.arange(rows, dtype=torch.float64) * self.step_in / self.step_out
            place = torch.arange(self._span, dtype=torch.float64) - self.margin
            self._taps = self._filter(place[None] - position[:, None]).float().T.contiguous()  # (span, rows)
        else:
            fine = torch.arange((2 * self.margin + 1) * _FINE + 1, dtype=torch.float64) / _FINE - self.margin - 1
            self._fine = self._filter(fine).float()

    def _filter(self, distance: Tensor) -> Tensor:
        """Impulse response at a distance in input samples."""
        t = distance * self._cutoff
        u = (t / _WIDTH).clamp(-1, 1)
        window = torch.special.i0(_BETA * torch.sqrt(1 - u * u)) / torch.special.i0(torch.tensor(_BETA, dtype=t.dtype))
        return self._cutoff * torch.sinc(t) * window * (t.abs() < _WIDTH)

    def length(self, samples: int) -> int:
        """Samples of the output for ``samples`` of the input."""
        return -(-samples * self.step_out // self.step_in)

    def group(self, x: Tensor) -> Tensor:
        """(C, group_in + 2 * margin) float32, the group with its surroundings -> (C, group_out)."""
        if self._taps is None:
            return self._by_blocks(x)
        windows = x.unfold(1, self._span, self._hop)  # (C, blocks, span)
        return (windows @ self._taps.to(x.device)).flatten(1)

    def _by_blocks(self, x: Tensor) -> Tensor:
        parts = []
        reach = torch.arange(2 * self.margin + 1)
        for start in range(0, self.group_out, _BLOCK):
            number = torch.arange(start, min(start + _BLOCK, self.group_out)) * self.step_in
            index = torch.div(number, self.step_out, rounding_mode="floor")[:, None] + reach
            place = (self.step_out - number % self.step_out).double() / self.step_out * _FINE
            low = place.long().clamp_max(_FINE - 1)
            part = (place - low).float()[:, None]
            at = low[:, None] + reach * _FINE
            taps = torch.lerp(self._fine[at], self._fine[at + 1], part).to(x.device)
            parts.append((x[:, index.to(x.device)] * taps).sum(-1))
        return torch.cat(parts, 1)


class ResampleStream:
    """Resamples a signal that comes in blocks; what comes out does not depend on how it was cut.

    Args:
        resampler: the ratio.
        first: number of the first group to make; the input then begins at sample ``input_start(first)`` or, where
            that is negative, at 0.
    """

    def __init__(self, resampler: Resampler, first: int = 0) -> None:
        self.r = resampler
        self._pieces: list[Tensor] = []
        self._missing = max(0, resampler.margin - first * resampler.group_in)  # zeros before the first sample
        self._have = 0

    @staticmethod
    def input_start(resampler: Resampler, first: int) -> int:
        """Where the input of group ``first`` begins; negative near the beginning of the signal."""
        return first * resampler.group_in - resampler.margin

    def feed(self, x: Tensor) -> list[Tensor]:
        """(C, n) more samples -> the groups (C, group_out) that are complete by now."""
        if self._missing:
            x = torch.cat([x.new_zeros(x.shape[0], self._missing), x], 1)
            self._missing = 0
        self._pieces.append(x)
        self._have += x.shape[1]
        need = self.r.group_in + 2 * self.r.margin
        out: list[Tensor] = []
        if self._have < need:
            return out
        data, at = torch.cat(self._pieces, 1), 0
        while self._have - at >= need:
            out.append(self.r.group(data[:, at : at + need]))
            at += self.r.group_in
        self._pieces, self._have = [data[:, at:].clone()], self._have - at
        return out

    def finish(self, channels: int) -> list[Tensor]:
        """The remaining groups: the signal continues with zeros, and the last group may go beyond its end."""
        rest = self._have - self.r.margin  # samples whose group is not made yet
        groups = max(0, -(-rest // self.r.group_in))
        need = groups * self.r.group_in + 2 * self.r.margin
        return self.feed(torch.zeros(channels, max(0, need - self._have))) if groups else []


def resample(x: Tensor, source: int, target: int) -> Tensor:
    """(C, T) float32 at ``source`` Hz -> (C, ceil(T * target / source)) at ``target`` Hz."""
    if source == target:
        return x
    resampler = Resampler(source, target)
    stream = ResampleStream(resampler)
    groups = [*stream.feed(x), *stream.finish(x.shape[0])]
    return torch.cat([x.new_zeros(x.shape[0], 0), *groups], 1)[:, : resampler.length(x.shape[1])]
