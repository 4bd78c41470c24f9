"""CompressAI's models as `codecs.search` sees them: those whose symbols depend on the hyper-latent at most, so that a
piece is decoded in one pass. The hyper-latent of a piece reaches into its surroundings: what it does there counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..search.descent import nearest
from ..search.piece import Field, RelaxedPiece, Rounding, Rule, State
from ..search.rates import Channels, Gaussians
from ..search.trade import natural_trade
from ..tiling import Tile, tile_grid
from .layout import HYPER_HALO, Z_CELL, fold, scale_number, unfold

PART = 32  # positions of y a side of a piece: 512 pixels, as most of the memory is for gradients
HALO = 8  # positions around a piece that are decoded with it; the hyper-latent reaches no further
_REACH = 512  # symbols of factorised tables whose bits are looked up


class CompressAIField(Field):
    """A picture (3, H, W) for a model without a context."""

    def __init__(self, codec: Any, x: Tensor) -> None:
        self.codec, self.size = codec, (x.shape[-2], x.shape[-1])
        y, z = codec.real_latents(x)
        self.y = torch.from_numpy(y).to(codec.device)[None]
        self.real_z = None if z is None else torch.from_numpy(z).to(codec.device)[None]
        self.latent = torch.from_numpy(codec.rounded(y, z).astype(np.int16))
        table = codec.bank.costs(np.arange(-_REACH, _REACH + 1), np.arange(codec.bank.num_tables)[:, None])
        self.factorised = Channels(torch.from_numpy(table.astype(np.float32)).to(codec.device))
        self.medians = codec.medians[:, None, None]
        self.tiles = tile_grid(y.shape[1], y.shape[2], PART, HALO, codec.latent_multiple)
        first = self.piece(self.tiles[0])
        self.trade = natural_trade(first, first.settle(first.target, nearest))

    def piece(self, tile: Tile) -> CompressAIPiece:
        return (Hyper if self.real_z is not None else Factorised)(self, tile)

    def accept(self, tile: Tile, piece: CompressAIPiece, state: State) -> None:  # type: ignore[override]
        found = torch.cat([state.symbols[0], *piece.folded()])
        self.latent[:, tile.y0 : tile.y1, tile.x0 : tile.x1] = found.to(torch.int16).cpu()


class CompressAIPiece(RelaxedPiece):
    """A part of a picture: what both kinds of model have in common."""

    stride = 16

    def __init__(self, field: CompressAIField, tile: Tile) -> None:
        codec = self.codec = field.codec
        self.step = torch.ones(1, device=codec.device)
        bottom, right = (min(n, t * self.stride) for n, t in zip(field.size, (tile.hy1, tile.hx1)))
        self.box = (tile.hy0 * self.stride, tile.hx0 * self.stride, bottom, right)
        top, left = tile.y0 - tile.hy0, tile.x0 - tile.hx0
        self.free = (slice(top, top + tile.y1 - tile.y0), slice(left, left + tile.x1 - tile.x0))
        self.target = field.y[..., tile.y0 : tile.y1, tile.x0 : tile.x1]
        near = field.latent[None, : codec.y_channels, tile.hy0 : tile.hy1, tile.hx0 : tile.hx1]
        self.around = near.to(codec.device).double()
        self.inner(self.around).zero_()
        self.factorised, self.medians = field.factorised, field.medians

    def folded(self) -> list[Tensor]:
        """What is coded beside the symbols of y, as channels of the latent."""
        return []

    def decode(self, values: Tensor) -> Tensor:
        x = self.codec.g_s(values.to(next(self.codec.g_s.parameters()).dtype)).float()
        return x[..., : self.box[2] - self.box[0], : self.box[3] - self.box[1]]

    def whole(self, symbols: Tensor) -> Tensor:
        """Symbols of the free part and, around them, those that are fixed."""
        h, w = self.around.shape[2:]
        rows, columns = self.free
        return self.around + F.pad(symbols, (columns.start, w - columns.stop, rows.start, h - rows.stop))

    def rounded(self, target: Tensor, means: Tensor, rule: Rule, rates: Gaussians | Channels) -> Tensor:
        limit = self.codec.latent_limit
        return rule(target - means, rates.costs).clamp(-limit, limit)


class Factorised(CompressAIPiece):
    """One table a channel."""

    def settle(self, target: Tensor, rule: Rule) -> State:
        with torch.no_grad():
            symbols = self.rounded(target, self.medians, rule, self.factorised)
            bits = float(self.factorised.costs(symbols).sum())
            return State(symbols, (self.whole(symbols) + self.medians).float(), bits)

    def variables(self) -> list[Tensor]:
        return [(self.target - self.medians).float()]

    def relaxed(self, variables: Sequence[Tensor], rounding: Rounding) -> tuple[Tensor, Tensor]:
        symbols = rounding(variables[0])
        return self.decode(self.whole(symbols) + self.medians), self.factorised.bits(symbols).sum()

    def adopt(self, variables: Sequence[Tensor]) -> None:
        self.target = variables[0].double() + self.medians


class Hyper(CompressAIPiece):
    """Scales, and means where the model has them, from the hyper-latent."""

    def __init__(self, field: CompressAIField, tile: Tile) -> None:
        super().__init__(field, tile)
        assert field.real_z is not None
        s, halo = Z_CELL, HYPER_HALO
        h, w = field.real_z.shape[2:]
        # all that h_s needs for the box; in it the box, and the piece
        near = (
            slice(max(0, tile.hy0 // s - halo), min(h, tile.hy1 // s + halo)),
            slice(max(0, tile.hx0 // s - halo), min(w, tile.hx1 // s + halo)),
        )
        folded = field.latent[self.codec.y_channels :].numpy()
        z = unfold(folded, self.codec.bank.num_tables)[:, near[0], near[1]]
        self.z = torch.from_numpy(z).to(field.y)[None]
        self._box = _within(tile.hy0, tile.hy1, near[0], s), _within(tile.hx0, tile.hx1, near[1], s)
        self._free_z = tuple(
            slice(first // s - n.start, last // s - n.start)
            for first, last, n in ((tile.y0, tile.y1, near[0]), (tile.x0, tile.x1, near[1]))
        )
        self._start_z = field.real_z[..., tile.y0 // s : tile.y1 // s, tile.x0 // s : tile.x1 // s]
        self._take(self.inner_z)

    @property
    def inner_z(self) -> Tensor:
        """Symbols of the hyper-latent of the piece (1, N, h / 4, w / 4)."""
        return self.z[..., self._free_z[0], self._free_z[1]]

    def _take(self, z: Tensor) -> None:
        self.inner_z.copy_(z)
        with torch.no_grad():
            self._scales, self._means = self._parameters(self.z)
        self._rates = self._of(self.inner(self._scales))
        self._fixed = self._of(self._scales)  # of the whole box, for what lies around
        self._z_bits = float(self.factorised.costs(self.inner_z).sum())

    @staticmethod
    def _of(deviations: Tensor) -> Gaussians:
        number = np.rint(scale_number(deviations.detach().cpu().numpy()))
        return Gaussians(torch.from_numpy(number).to(deviations.device), deviations.float(), "max")

    def _parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations and means of the box (1, M, h, w) float64."""
        found = self.codec.h_s(z + self.medians)[..., self._box[0], self._box[1]]
        return (found, torch.zeros_like(found)) if self.codec.scales_only else found.chunk(2, 1)  # type: ignore[return-value]

    def _outer(self, bits: Tensor) -> Tensor:
        """Bits of what lies around, of those of the box."""
        return bits.sum() - self.inner(bits).sum()

    def settle(self, target: Tensor, rule: Rule) -> State:
        with torch.no_grad():
            symbols = self.rounded(target, self.inner(self._means), rule, self._rates)
            bits = self._rates.costs(symbols).sum() + self._outer(self._fixed.costs(self.around))
            return State(symbols, (self.whole(symbols) + self._means).float(), float(bits) + self._z_bits)

    def variables(self) -> list[Tensor]:
        return [self.target.float(), self._start_z.float()]

    def relaxed(self, variables: Sequence[Tensor], rounding: Rounding) -> tuple[Tensor, Tensor]:
        z = rounding(variables[1])
        near = self.z.clone()
        near[..., self._free_z[0], self._free_z[1]] = z.double()
        deviations, means = self._parameters(near)
        symbols = rounding(variables[0] - self.inner(means).float())
        whole = self.whole(symbols.double())
        bits = self._of(deviations).bits(whole.float()).sum() + self.factorised.bits(z).sum()
        return self.decode(whole + means), bits

    def adopt(self, variables: Sequence[Tensor]) -> None:
        self.target = variables[0].double()
        self._take(variables[1].round())

    def folded(self) -> list[Tensor]:
        return [torch.from_numpy(fold(self.inner_z[0].to(torch.int32).cpu().numpy())).to(self.z)]


def _within(first: int, last: int, outer: slice, cell: int) -> slice:
    """Positions first..last of y in what h_s makes of a part of z."""
    return slice(first - outer.start * cell, last - outer.start * cell)
