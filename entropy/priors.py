"""The factorised prior to train: one distribution a channel, by its logits, exported as integer tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .errors import InputError
from .models import Factorized, check_float
from .tables import TableBank


class FactorizedPrior(nn.Module):
    """Learned distributions over the integers -reach..reach, one a channel.

    Args:
        channels: number of channels.
        reach: the largest magnitude with a logit of its own; beyond it symbols are escaped.
        deviation: that of the Laplacian from which training starts.

    Example:
        >>> prior = FactorizedPrior(4)
        >>> z = torch.randn(2, 4, 8, 8).round()
        >>> rate = prior.bits(z)                  # differentiable: by z and by the logits
        >>> model = prior.model(z.shape)          # integer tables, to code with
    """

    def __init__(self, channels: int, reach: int = 63, deviation: float = 3.0) -> None:
        super().__init__()
        if channels < 1 or not 1 <= reach <= 1000:
            raise InputError(f"a prior needs channels >= 1 and a reach of 1..1000, not {channels} and {reach}")
        self.reach = reach
        r = torch.arange(-reach, reach + 1).abs().float()
        self.logits = nn.Parameter((-r * math.sqrt(2) / deviation).repeat(channels, 1))

    def bits(self, x: Tensor, axis: int = 1) -> Tensor:
        """Sum of -log2 p of float symbols whose channels lie along `axis`; linear between integers."""
        check_float(x, "x")
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != len(self.logits):
            raise InputError(f"the prior has {len(self.logits)} channels, not what axis {axis} of {tuple(x.shape)} has")
        y = x.movedim(axis, 0).reshape(self.logits.shape[0], -1)
        return float_costs(y, logit_costs(self.logits), self.reach).sum()

    @torch.no_grad()
    def bank(self, precision: int = 12) -> TableBank:
        """The distributions as integer tables: made once, after training, and stored with the weights."""
        p = torch.softmax(self.logits.double().cpu(), 1).numpy()
        return TableBank.from_histograms(list(p), lo=-self.reach, precision=precision)

    @torch.no_grad()
    def restore(self, bank: TableBank, first: int = 0) -> None:
        """Start from stored tables, one a channel from number ``first`` on; what a table leaves to its escape falls
        by a bit a symbol."""
        for channel, row in enumerate(self.logits):
            table = bank.table(first + channel)
            at = torch.arange(-self.reach, self.reach + 1) - int(bank.info[first + channel, 0])
            inside = at.clamp(0, len(table) - 2)
            known = torch.from_numpy(table.astype("int64"))[inside].double()
            row.copy_(torch.log(known) - (at - inside).abs() * math.log(2))

    def model(self, shape: tuple[int, ...], axis: int = 1, bank: TableBank | None = None) -> Factorized:
        """How symbols of this shape are coded; hand in the stored bank, or one is made of the present logits."""
        return Factorized(bank or self.bank(), tuple(shape), axis, tensor=True)


def logit_costs(logits: Tensor) -> Tensor:
    """Bits of each value, from logits along the last axis."""
    return -torch.log_softmax(logits.float(), -1) / math.log(2)


def float_costs(y: Tensor, costs: Tensor, reach: int) -> Tensor:
    """Bits of float symbols (..., n) by their tables (..., 2 reach + 1); linear between integers, differentiable."""
    inside = y.float().clamp(-reach, reach)
    low = inside.detach().floor().clamp(max=reach - 1)
    at = low.long() + reach
    below, above = costs.gather(-1, at), costs.gather(-1, at + 1)
    # an escape costs its bytes, which grow with the logarithm
    beyond = 8 * torch.log2(1 + (y - inside).abs())
    return below + (above - below) * (inside - low) + beyond
