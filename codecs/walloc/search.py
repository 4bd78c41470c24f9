"""WaLLoC codecs as `codecs.search` sees them: latents move by a step where the context model's tables and the decoder
agree; what a move does to the tables of others is measured, not foreseen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy.context.steps import STEPS, geometry
from ...kernels.compand import expand
from ..search.descent import nearest
from ..search.piece import Field, Piece, Rule, State
from ..search.trade import natural_trade
from ..tiling import Tile, tile_grid

HALO = 8  # positions around a chunk that are decoded with it


class WallocField(Field):
    """A picture (C, H, W), at a quality where the codec has one."""

    def __init__(self, codec: Any, x: Tensor, quality: int) -> None:
        self.codec, self.quality = codec, quality or None
        self.size = (x.shape[-2], x.shape[-1])
        self.latent = codec.latent(x, self.quality)
        self.y = torch.empty(self.latent.shape)
        codec.by_tiles(x, lambda part: codec.real_latent(part, self.quality), self.y)
        self.tiles = tile_grid(*self.latent.shape[1:], codec.chunk, HALO)
        first = self.piece(self.tiles[0])
        self.trade = natural_trade(first, first.settle(first.target, nearest))

    def piece(self, tile: Tile) -> WallocPiece:
        return WallocPiece(self, tile)

    def accept(self, tile: Tile, piece: Piece, state: State) -> None:
        self.latent[:, tile.y0 : tile.y1, tile.x0 : tile.x1] = state.symbols[0].to(torch.int16).cpu()


class WallocPiece(Piece):
    """One chunk, with the latents of its neighbours around it."""

    def __init__(self, field: WallocField, tile: Tile) -> None:
        codec, self.quality = field.codec, field.quality
        self.codec = codec
        s = self.stride = codec.stride
        self.scale = torch.exp(-codec.log_gain.detach()) / codec.rate_gain(field.quality)
        self.step = torch.ones(1, device=codec.device)
        bottom, right = (min(n, t * s) for n, t in zip(field.size, (tile.hy1, tile.hx1)))
        self.box = (tile.hy0 * s, tile.hx0 * s, bottom, right)
        top, left = tile.y0 - tile.hy0, tile.x0 - tile.hx0
        self.free = (slice(top, top + tile.y1 - tile.y0), slice(left, left + tile.x1 - tile.x0))
        self.target = field.y[None, :, tile.y0 : tile.y1, tile.x0 : tile.x1].to(codec.device)
        self._around = field.latent[None, :, tile.hy0 : tile.hy1, tile.hx0 : tile.hx1].to(codec.device).float()
        self._tables: tuple[np.ndarray, np.ndarray] | None = None

    def settle(self, target: Tensor, rule: Rule) -> State:
        limit = self.codec.latent_limit
        symbols = rule(target, self._costs).clamp(-limit, limit)
        reading = _Tables(self.codec.context, tuple(symbols.shape[1:]))
        self.codec.context.program(reading, symbols[0].to(torch.int32).cpu().numpy(), reading.shape)
        self._tables = reading.index.reshape(reading.shape), reading.offset.reshape(reading.shape)
        values = self._around.clone()
        self.inner(values).copy_(symbols)
        return State(symbols, values, reading.bits)

    def decode(self, values: Tensor) -> Tensor:
        y = expand(values, self.codec.config.bits) * self.scale
        size = (self.box[2] - self.box[0], self.box[3] - self.box[1])
        return self.codec.reconstruct(y, size, self.quality)

    def _costs(self, symbols: Tensor) -> Tensor:
        """Bits of symbols under the tables of the last reading, as if no other table would change."""
        if self._tables is None:
            return torch.zeros_like(symbols)
        index, offset = self._tables
        found = self.codec.context.bank.costs(symbols[0].cpu().numpy().astype(np.int64) - offset, index)
        return torch.from_numpy(found[None].astype(np.float32)).to(symbols.device)


class _Tables:
    """A reading of the context model's program that remembers which table every symbol is coded with."""

    def __init__(self, context: Any, shape: tuple[int, ...]) -> None:
        c, h, w = self.shape = (shape[0], shape[1], shape[2])
        self.index, self.offset = np.zeros((c, h * w), np.int64), np.zeros((c, h * w), np.int64)
        steps = ((k, geometry(h, w, s).flat) for k in range(c) for s in STEPS[int(context.depths[k])])
        self._places = iter([(k, flat) for k, flat in steps if flat.size])
        self.bits = 0.0

    def code(self, symbols: Any, model: Any) -> Any:
        channel, flat = next(self._places)
        self.index[channel, flat], self.offset[channel, flat] = model.index, model.offset
        self.bits += model.bits(symbols)
        return symbols
