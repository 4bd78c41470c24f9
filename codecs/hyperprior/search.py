"""Hyperprior codecs as `codecs.search` sees them: pieces are chunks, since a chunk's rate depends on nothing else."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy.models import mixture_bits
from ..search.piece import Costs, Field, RelaxedPiece, Rounding, Rule, State
from ..search.rates import Channels, Gaussians, deviations
from ..tiling import Tile, tile_grid
from .nets import standardise

HALO = 8  # positions around a chunk that are decoded with it: what lies further away is next to nothing
LAMBDA_LOW, LAMBDA_HIGH = 0.001, 0.15  # at quality 1 and 100, geometric in between: what the weights are trained with


def lambda_of(quality: int) -> float:
    """Weight of an 8-bit squared error against bits per pixel."""
    return LAMBDA_LOW * (LAMBDA_HIGH / LAMBDA_LOW) ** ((quality - 1) / 99)


class HyperpriorField(Field):
    """A picture (3, H, W) for one quality."""

    def __init__(self, codec: Any, x: Tensor, quality: int) -> None:
        self.codec, self.quality, self.trade = codec, quality, lambda_of(quality)
        self.size = (x.shape[-2], x.shape[-1])
        self.y = codec.real_latent(x, quality)[None]
        q = torch.full((1,), float(quality), device=self.y.device)
        self.z = codec.hyper_analysis(standardise(self.y, codec.std), q)
        self.latent = codec.quantise(self.y, quality)[0].cpu()
        self.tiles = tile_grid(*self.latent.shape[1:], codec.chunk, HALO, codec.latent_multiple)

    def piece(self, tile: Tile) -> HyperpriorPiece:
        return HyperpriorPiece(self, tile)

    def accept(self, tile: Tile, piece: HyperpriorPiece, state: State) -> None:  # type: ignore[override]
        z = F.pixel_shuffle(piece.inner_z, 4)
        found = torch.cat((z, state.symbols), 1)[0]
        self.latent[:, tile.y0 : tile.y1, tile.x0 : tile.x1] = found.to(torch.int16).cpu()


class HyperpriorPiece(RelaxedPiece):
    """One chunk, with the integers of its neighbours around it."""

    def __init__(self, field: HyperpriorField, tile: Tile) -> None:
        codec = self.codec = field.codec
        s, device = codec.stride, field.y.device
        self.stride = s
        self.quality = field.quality
        self.q = torch.full((1,), float(field.quality), device=device)
        self.gain = codec.gain(self.q).detach()
        self._hyper = Channels(codec.hyper_costs(field.quality))
        self.step = 1 / self.gain
        bottom, right = (min(n, t * s) for n, t in zip(field.size, (tile.hy1, tile.hx1)))
        self.box = (tile.hy0 * s, tile.hx0 * s, bottom, right)
        top, left = tile.y0 - tile.hy0, tile.x0 - tile.hx0
        self.free = (slice(top, top + tile.y1 - tile.y0), slice(left, left + tile.x1 - tile.x0))
        self._free_z = (_quarter(self.free[0]), _quarter(self.free[1]))
        self.target = field.y[..., tile.y0 : tile.y1, tile.x0 : tile.x1]
        self._start_z = field.z[..., tile.y0 // 4 : tile.y1 // 4, tile.x0 // 4 : tile.x1 // 4]
        n = codec.config.hyper // 16
        around = field.latent[None, :, tile.hy0 : tile.hy1, tile.hx0 : tile.hx1].to(device).float()
        self._z, self._around = F.pixel_unshuffle(around[:, :n], 4), around[:, n:]
        self.inner(self._around).zero_()
        h, w = self._around.shape[2:]
        step = torch.stack([codec.means.step_mask(i, h, w) * (3 - i) / 3 for i in range(4)]).sum(0)
        self.reach = self.inner(step[None])
        self._take_z(self.inner_z)

    @property
    def inner_z(self) -> Tensor:
        """Hyper-latent of the chunk, integers (1, N, h/4, w/4)."""
        return self._z[..., self._free_z[0], self._free_z[1]]

    def _take_z(self, z: Tensor) -> None:
        self.inner_z.copy_(z)
        self._spread = spread_of(self.codec, self.inner_z, self.quality)
        self._coded = self._spread.number > self.codec.config.skip
        self._z_bits = float(self._hyper.costs(self.inner_z).sum())

    def _whole(self, inner: Tensor, around: Tensor, free: tuple[slice, slice]) -> Tensor:
        """The free part and, around it, what is fixed (zero inside)."""
        h, w = around.shape[2:]
        return around + F.pad(inner, (free[1].start, w - free[1].stop, free[0].start, h - free[0].stop))

    # --- quantised -----------------------------------------------------------------------------------------------

    def settle(self, target: Tensor, rule: Rule) -> State:
        symbols = torch.zeros_like(target)
        bits, limit, steps = self._z_bits, self.codec.latent_limit, self._coding_steps()
        sent: Tensor | None = None

        def fix(mean: Tensor, mask: Tensor) -> Tensor:
            nonlocal symbols, bits, sent
            costs = steps.send(sent)
            found = rule((target - self.inner(mean)) * self.gain, costs)
            found = found.clamp(-limit, limit) * self._coded
            here = self.inner(mask[None])
            sent = symbols = symbols + here * found
            bits += float((costs(found) * self._coded * here).sum())
            return mean + self._whole(found, self._around, self.free) / self.gain

        with torch.no_grad():
            values = self.codec.refine(self._z, self.q, fix)
        return State(symbols, values, bits)

    def _coding_steps(self) -> Generator[Costs, Tensor | None, None]:
        """What symbols cost in each of the four steps, given (sent) those of the steps before; nothing at first."""
        if self.codec.scale_context is None:
            while True:
                yield self._spread.costs
        sigma = deviations(self.target.device)
        steps, part = self.codec.coding_steps(self.inner_z, self.quality), None
        number = torch.zeros_like(self.target, dtype=torch.int32)
        while True:
            step = steps.send(part)
            step.elements.put(number, step.number)
            symbols = yield Gaussians(number, sigma[number.long()]).costs
            assert symbols is not None
            part = step.elements.take(symbols).int()

    def decode(self, values: Tensor) -> Tensor:
        x = self.codec.synthesis_transform(values, self.q, self.codec.std) + 0.5
        return x[..., : self.box[2] - self.box[0], : self.box[3] - self.box[1]]

    # --- relaxed -------------------------------------------------------------------------------------------------

    def variables(self) -> list[Tensor]:
        return [self.target * self.gain, self._start_z]

    def relaxed(self, variables: Sequence[Tensor], rounding: Rounding) -> tuple[Tensor, Tensor]:
        y, z = variables[0], rounding(variables[1])
        spread = spread_of(self.codec, z, self.quality)
        coded = (spread.number > self.codec.config.skip).to(y)
        around_z = self._z.clone()
        around_z[..., self._free_z[0], self._free_z[1]] = 0
        residual = torch.zeros_like(y)

        def fix(mean: Tensor, mask: Tensor) -> Tensor:
            nonlocal residual
            found = rounding(y - self.inner(mean) * self.gain) * coded
            residual = residual + self.inner(mask[None]) * found
            return mean + self._whole(found, self._around, self.free) / self.gain

        values = self.codec.refine(self._whole(z, around_z, self._free_z), self.q, fix)
        bits = (spread.bits(residual) * coded).sum() + self._hyper.bits(z).sum()
        return self.decode(values), bits

    def adopt(self, variables: Sequence[Tensor]) -> None:
        self.target = variables[0] / self.gain
        self._take_z(variables[1].round().clamp(-self._hyper.reach, self._hyper.reach))


def _quarter(s: slice) -> slice:
    return slice(s.start // 4, s.stop // 4)


# --- distributions of the latent ---------------------------------------------------------------------------------


class Spread(Protocol):
    """How the symbols of a chunk are coded: ``number`` (1, M, h, w) decides whether they are."""

    number: Tensor

    def costs(self, symbols: Tensor) -> Tensor: ...

    def bits(self, residual: Tensor) -> Tensor: ...


class Mixtures:
    """Gaussian mixtures, in floats for the tables' integers."""

    def __init__(self, number: Tensor, weights: Tensor, means: Tensor, sigma: Tensor) -> None:
        self.number, self._parts = number, (weights, means, sigma)

    def costs(self, symbols: Tensor) -> Tensor:
        return mixture_bits(symbols, *self._parts)

    def bits(self, residual: Tensor) -> Tensor:
        return mixture_bits(residual, *self._parts)


def spread_of(codec: Any, z: Tensor, quality: int) -> Spread:
    """What a chunk's hyper-latent (1, N, h/4, w/4), rounded, says of its symbols.

    ``bits`` of the result has gradients by a hyper-latent that asks for them: there the networks are smooth, and taken
    where it is, not where it is rounded to.
    """
    slope = codec.scale_slope(z, quality) if z.requires_grad else z.new_ones(1, 1, 1, 1)
    z, sigma = z.detach().round(), deviations(z.device)  # tables are chosen by integers
    if codec.mixture_net is None:
        number = codec.scale_index(z, quality)
        return Gaussians(number, slope * sigma[number.long()])
    number, weights, means, spread = codec.mixture_numbers(z, quality)
    slope, weights = slope[..., None], weights / weights.sum(-1, keepdim=True)
    return Mixtures(number, weights, slope * means * sigma[number.long()][..., None], slope * sigma[spread.long()])
