"""Scales refined by what is decoded: exact integer networks between the four steps of the means.

The hyper-latent says at 1/64 how wide symbols spread; those of a step that are known say it at 1/16 for those of the
next. What the networks see of a known symbol is the score of its scale, d log p / d log sigma: positive where it is
larger than its table expects, zero on average where the table is right. All of it is integer arithmetic, so that no
float decides an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...entropy import exact
from ...entropy.banks import NUM_SCALES
from ...entropy.exact import QatConv2d
from ...entropy.models import float_bits

EIGHTHS = 8  # exact networks answer in eighths of a scale number
TOP = EIGHTHS * (NUM_SCALES - 1)
ONE = 32  # codes of a unit in what the networks see and say
REACH = 255  # magnitudes beyond this one count as this one
_WIDEST = 127
_HIDDEN = 5  # fraction bits of features, which lie between 0 and 8


def to_number(code: Tensor) -> Tensor:
    """Eighths of a scale number, any integers -> scale numbers 0..63."""
    return ((code + EIGHTHS // 2) >> 3).clamp(0, NUM_SCALES - 1)


@dataclass(frozen=True)
class Elements:
    """Some elements of a latent (B, M, h, w), or all.

    Attributes:
        phases: of each quarter of the channels the phase of 2x2 positions, numbered row by row; empty: all there are.
    """

    phases: tuple[int, ...] = ()

    def take(self, x: Tensor) -> Tensor:
        """These elements of a latent, (B, M, h/2, w/2) or all."""
        return torch.cat([x[at] for at in self._places(x.shape[1])], 1) if self.phases else x

    def put(self, x: Tensor, part: Tensor) -> None:
        """Write elements to their places in a latent."""
        for at, quarter in zip(self._places(x.shape[1]), part.chunk(4, 1)) if self.phases else [(..., part)]:
            x[at] = quarter

    def _places(self, channels: int) -> list[tuple[slice, ...]]:
        q = channels // 4
        return [
            (slice(None), slice(k * q, (k + 1) * q), slice(phase // 2, None, 2), slice(phase % 2, None, 2))
            for k, phase in enumerate(self.phases)
        ]


@dataclass(frozen=True)
class CodingStep:
    """What is coded in one call.

    Attributes:
        number: scale numbers 0..63 of the step's elements, int32. coded: which of them are coded, bool.
        elements: where they lie in a latent.
    """

    number: Tensor
    coded: Tensor
    elements: Elements = Elements()


class ScaleContext(nn.Module):
    """Corrections of scale numbers for the last three of the four steps.

    Args:
        latent: M, channels of the latent.
        width: of the networks.
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.nets = nn.ModuleList(_net(latent, width) for _ in range(3))
        self.register_buffer("scores", torch.zeros(NUM_SCALES, REACH + 1, dtype=torch.int8))
        self.scores: Tensor

    def score(self, number: Tensor, symbols: Tensor) -> Tensor:
        """How much larger integers are than their tables expect, int8: as large as ``number``, 0..63, both int32."""
        at = symbols.abs().clamp_(0, REACH).add_(number, alpha=REACH + 1)  # the least int32 has no magnitude
        return self.scores.view(-1).index_select(0, at.view(-1)).view(at.shape)

    def given(self, code: Tensor, quality: int | Tensor) -> Tensor:
        """What the networks see while no symbol is known, integers as floats (B, 2 M + 1, h, w).

        Args:
            code: scale numbers in eighths (B, M, h, w), clamped to 0..`TOP`.
            quality: 1..100, or (B,) of them.
        """
        b, m, h, w = code.shape
        given = torch.zeros(b, 2 * m + 1, h, w, device=code.device)
        given[:, :m] = (code >> 2).sub_(2 * ONE)
        given[:, 2 * m] = quality if isinstance(quality, int) else quality[:, None, None]
        return given

    @staticmethod
    def known(given: Tensor) -> Tensor:
        """The part of ``given`` that holds scores of known symbols, (B, M, h, w)."""
        return given[:, given.shape[1] // 2 : -1]

    def correction(self, step: int, given: Tensor) -> Tensor:
        """Integers to be added to the codes of step 1, 2 or 3. Of exact networks, once exported."""
        return self.nets[step - 1](given)

    def to_exact(self) -> None:
        """Turn the networks into integers."""
        self.nets = nn.ModuleList(exact.export(net) for net in self.nets)  # type: ignore[arg-type]

    def restore(self, exported: ScaleContext) -> None:
        """Take over exact networks, to train them on.

        Raises:
            InputError: they are of another size.
        """
        for own, given in zip(self.nets, exported.nets):
            exact.restore(own, given)  # type: ignore[arg-type]

    @torch.no_grad()
    def fill_scores(self) -> None:
        """Set the table of scores: derivatives of what the Gaussian tables cost, in 1/8 bits a scale number."""
        number = torch.arange(NUM_SCALES, dtype=torch.float32)[:, None].expand(-1, REACH + 1).clone()
        with torch.enable_grad():
            number.requires_grad_(True)
            bits = float_bits(torch.arange(REACH + 1.0).expand_as(number), exact.scale_of(number))
            (slope,) = torch.autograd.grad(bits.sum(), number)
        self.scores.copy_((-4 * ONE * slope).round().clamp(-_WIDEST, _WIDEST))


def _net(latent: int, width: int) -> nn.Sequential:
    """Codes in 1/32 -> corrections in eighths of a scale number, zero at first."""
    net = nn.Sequential(
        QatConv2d(2 * latent + 1, width, 1, in_range=(-_WIDEST, _WIDEST), in_frac=5, out_frac=_HIDDEN),
        QatConv2d(width, width, 3, padding=1, in_frac=_HIDDEN, out_frac=_HIDDEN),
        QatConv2d(width, latent, 1, in_frac=_HIDDEN, out_range=(-_WIDEST, _WIDEST), out_frac=5),
    )
    nn.init.zeros_(net[2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(net[2].bias)  # type: ignore[arg-type]
    return net
