"""Bits of symbols as a search asks for them: exact, by look-up in the coder's tables, and a differentiable twin."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...entropy.banks import NUM_SCALES, frozen_bank, scales
from ...entropy.models import float_bits

_REACH = 1200  # symbols whose bits are looked up; beyond they are an escape's


class Gaussians:
    """Zero-mean Gaussians by scale number.

    Args:
        number: 0..63 of each symbol, any shape.
        sigma: deviations for the twin, of the same shape.
        profile: of the tables, see `entropy.models.Gaussian`.
    """

    def __init__(self, number: Tensor, sigma: Tensor, profile: str = "default") -> None:
        self.number, self._sigma, self._profile = number, sigma, profile
        self._row = number.long() * (2 * _REACH + 1) + _REACH

    def costs(self, symbols: Tensor) -> Tensor:
        """Bits of integers under the coder's tables."""
        table = _gaussian_costs(symbols.device, self._profile)
        return table[self._row + symbols.clamp(-_REACH, _REACH).long()]

    def bits(self, residual: Tensor) -> Tensor:
        """Bits of real values, differentiable by them and by the deviations."""
        return float_bits(residual, self._sigma)


class Channels:
    """One table a channel: bits of -R..R of each, (C, 2 R + 1); values beyond cost what R does."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.reach = table, table.shape[1] // 2

    def costs(self, symbols: Tensor) -> Tensor:
        """Bits of integers (1, C, h, w)."""
        return self.table[self._channel(symbols), (symbols.clamp(-self.reach, self.reach) + self.reach).long()]

    def bits(self, values: Tensor) -> Tensor:
        """Bits of real values (1, C, h, w), interpolated between integers."""
        at = values.clamp(-self.reach, self.reach) + self.reach
        low = at.detach().floor().clamp(0, 2 * self.reach - 1).long()
        channel = self._channel(values)
        first, second = self.table[channel, low], self.table[channel, low + 1]
        return first + (second - first) * (at - low)

    @staticmethod
    def _channel(values: Tensor) -> Tensor:
        return torch.arange(values.shape[1], device=values.device).view(1, -1, 1, 1)


@lru_cache(maxsize=4)
def deviations(device: torch.device) -> Tensor:
    """Deviation of each scale number, (64,) float32."""
    with torch.inference_mode(False):
        return torch.tensor(scales(), dtype=torch.float32, device=device)


@lru_cache(maxsize=4)
def _gaussian_costs(device: torch.device, profile: str) -> Tensor:
    """Bits of every symbol within +-_REACH under every table, end to end."""
    values = np.arange(-_REACH, _REACH + 1)
    bank = frozen_bank("gaussian", profile)
    rows = [bank.costs(values, np.full(values.size, t)) for t in range(NUM_SCALES)]
    with torch.inference_mode(False):
        return torch.tensor(np.concatenate(rows), dtype=torch.float32, device=device)
