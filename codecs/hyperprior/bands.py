"""Integers of large pictures, a band of chunks after the other.

The real-valued latent of a hundred megapixels is as large as the picture in bytes, and its quantisation needs several
times that. Here the rows that a band needs are held, no others; halos make the result that of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..memory import give_back
from ..samples import Samples
from ..tiling import Tile

LARGE = 1 << 15  # latent positions (8 megapixels): larger pictures go in bands
_HYPER_REACH = 4  # positions that the hyper-analysis looks beyond a cell's own: 3 and up to a cell's border
_REACH = 8  # positions beyond which a mean depends on nothing: 3 of the hyper-decoder, 3 of the context steps
_ABREAST = 1  # chunks of a band that are quantised together: two take a twentieth less time and 100 MB more
_TILE = 64  # of the analysis: a quarter of the memory, a fifth more time


def in_bands(codec: Any, x: Tensor | Samples, quality: int) -> Iterator[tuple[int, Tensor]]:
    """Integers of one picture (3, H, W), for a `HyperpriorCodec`: first row and (L, rows, w) int16 of each band."""
    h, w = size = codec.latent_size((x.shape[-2], x.shape[-1]))
    q = torch.full((1,), float(quality), device=codec.device)
    rows = _Rows(codec, x, quality, size)
    z = torch.empty(1, codec.config.hyper, h // 4, w // 4, device=codec.device)
    coded: dict[Tile, Tensor] = {}
    chunks = codec.chunk_grid(h, w, codec.chunk)
    bands = [list(group) for _, group in groupby(chunks, key=lambda t: t.y0)]

    def look_at(t: Tile) -> None:
        """Hyper-latent of a chunk, and which elements it says are coded."""
        near = _grown(t, _HYPER_REACH, size)
        found = codec.round_hyper(rows.part(near)[None], q)
        top, left = (t.y0 - near.hy0) // 4, (t.x0 - near.hx0) // 4
        block = found[..., top : top + (t.y1 - t.y0) // 4, left : left + (t.x1 - t.x0) // 4]
        z[..., t.y0 // 4 : t.y1 // 4, t.x0 // 4 : t.x1 // 4] = block
        coded[t] = codec.scale_index(block.contiguous(), quality) > codec.config.skip

    @torch.inference_mode()
    def quantised(number: int) -> Tensor:
        band = bands[number]
        for t in (band if number == 0 else []) + (bands[number + 1] if number + 1 < len(bands) else []):
            look_at(t)
        out = torch.empty(codec.latent_channels, band[0].y1 - band[0].y0, w, dtype=torch.int16)
        for i in range(0, len(band), _ABREAST):
            first, last = band[i], band[i : i + _ABREAST][-1]
            t = _grown(Tile(first.y0, first.y1, first.x0, last.x1, 0, 0, 0, 0), _REACH, size)
            near_z = z[..., t.hy0 // 4 : t.hy1 // 4, t.hx0 // 4 : t.hx1 // 4]
            symbols = codec.symbols(rows.part(t)[None], near_z, _gathered(coded, t, codec.config.latent), q)
            found = torch.cat((F.pixel_shuffle(near_z, 4), symbols), 1)[0]
            inner = found[:, t.y0 - t.hy0 : t.y1 - t.hy0, t.x0 - t.hx0 : t.x1 - t.hx0]
            out[:, :, t.x0 : t.x1] = inner.to(torch.int16)
            del symbols, found, inner
            give_back()
        for t in bands[number - 1] if number else []:
            del coded[t]
        rows.forget(band[0].y1 - _REACH)
        return out

    for number, band in enumerate(bands):
        yield band[0].y0, quantised(number)


def _grown(t: Tile, reach: int, size: tuple[int, int]) -> Tile:
    """The same tile with another halo."""
    top, left = max(0, t.y0 - reach), max(0, t.x0 - reach)
    return Tile(t.y0, t.y1, t.x0, t.x1, top, min(size[0], t.y1 + reach), left, min(size[1], t.x1 + reach))


def _gathered(coded: dict[Tile, Tensor], t: Tile, channels: int) -> Tensor:
    """What chunks say of a tile and its halo: (1, M, h, w) bool."""
    out = torch.empty(
        1, channels, t.hy1 - t.hy0, t.hx1 - t.hx0, dtype=torch.bool, device=next(iter(coded.values())).device
    )
    for u, flags in coded.items():
        y0, y1, x0, x1 = max(u.y0, t.hy0), min(u.y1, t.hy1), max(u.x0, t.hx0), min(u.x1, t.hx1)
        if y0 < y1 and x0 < x1:
            part = flags[..., y0 - u.y0 : y1 - u.y0, x0 - u.x0 : x1 - u.x0]
            out[..., y0 - t.hy0 : y1 - t.hy0, x0 - t.hx0 : x1 - t.hx0] = part
    return out


class _Rows:
    """The real-valued latent, made strip by strip as it is asked for; ``forget`` gives strips back."""

    def __init__(self, codec: Any, x: Tensor | Samples, quality: int, size: tuple[int, int]) -> None:
        self._codec, self._x, self._quality, self._size = codec, x, quality, size
        self._strips: dict[int, Tensor] = {}  # by their first row
        self._bottom = 0
        self._coming = self._made()

    def _made(self) -> Iterator[tuple[int, Tensor]]:
        codec, width = self._codec, self._size[1]
        strip = torch.empty(0)
        tiles = codec.tiles_of(self._x, lambda part: codec.transform(part, self._quality), self._size, _TILE)
        while True:
            with codec.arithmetic():
                item = next(tiles, None)
            if item is None:
                return
            t, y = item
            if t.x0 == 0:
                strip = torch.empty(codec.config.latent, t.y1 - t.y0, width, device=codec.device)
            strip[:, :, t.x0 : t.x1] = y
            give_back()
            if t.x1 == width:
                yield t.y0, strip

    def part(self, t: Tile) -> Tensor:
        """(M, h, w) of a tile and its halo."""
        while self._bottom < t.hy1:
            top, strip = next(self._coming)
            self._strips[top], self._bottom = strip, top + strip.shape[1]
        parts = [
            strip[:, max(0, t.hy0 - top) : t.hy1 - top, t.hx0 : t.hx1]
            for top, strip in self._strips.items()
            if top < t.hy1 and top + strip.shape[1] > t.hy0
        ]
        return torch.cat(parts, 1)

    def forget(self, row: int) -> None:
        """Rows above this one are not asked for again."""
        for top in [top for top, strip in self._strips.items() if top + strip.shape[1] <= row]:
            del self._strips[top]
