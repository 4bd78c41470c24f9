"""The codec `overfit`: what one picture's nets and latents are fitted with, and how they become a stream and pixels.

After Cool-chic (Ladune et al., ICCV 2023; Blard et al., 2024) and C3 (Kim et al., CVPR 2024): nothing is trained on
other pictures but where the fit begins. Decoding is integer arithmetic: pixels are the same on every machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ...entropy.coder import Decoder
from ...entropy.container import Header
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.tables import TableBank
from ...kernels.compiled import usable
from ...kernels.parallel import parallel
from ...kernels.pyramid import exact
from ...pretrained import Entry
from .. import storage
from ..base import PictureCodec, Region
from ..contract import GREY, INTEGERS, PARTS, REGION, Compressed
from ..samples import Samples, canvas, stepped
from ..surroundings import plainly
from ..tiling import Tile, tile_grid
from . import decoder, weights
from .integers import IntegerNets
from .nets import SIZES, Size
from .options import EFFORT, OPTIONS
from .weights import GAIN_UNIT, Start
from .workers import Workers

_VERSION = 1
_HEAD = 6  # bytes of parameters before the nets
_CHUNK = 1024  # side of a chunk in pixels, at most
_UNIT = 64
# lambda of mean squared error (samples in [0, 1]) + lambda * bits a pixel, at quality 1 and 100: those of `hyperprior`
_LAMBDA_LOW, _LAMBDA_HIGH = 1 / (0.001 * 65025), 1 / (0.15 * 65025)

Progress = Callable[[float, float, dict[str, float]], None]


def rate_weight(quality: float) -> float:
    """Lambda of a quality, geometric between the ends."""
    return _LAMBDA_LOW * (_LAMBDA_HIGH / _LAMBDA_LOW) ** ((quality - 1) / 99)


class OverfitCodec(PictureCodec):
    """Grids of integers, a context net and a synthesis that are fitted to the picture and sent with it.

    Args:
        starts: shared nets, at least one for each size.
        bank: the frozen tables of `entropy.wavefront`.

    Raises:
        InputError: no start of one of the sizes.
    """

    family = "overfit"
    declared = OPTIONS
    variable_rate = True
    default_quality = 50

    def __init__(self, starts: Sequence[Start], bank: TableBank, name: str = "overfit") -> None:
        super().__init__()
        if missing := [s.name for s in SIZES if s not in {start.size for start in starts}]:
            raise InputError(f"no start for nets of size {' and '.join(missing)}: one of each size is needed")
        self.name, self.starts, self.bank = name, tuple(starts), bank
        self.register_buffer("_place", torch.empty(0), persistent=False)  # says where to fit

    def coding_arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"bank.{k}": v for k, v in self.bank.to_arrays().items()}
        return arrays | {f"start.{i}": s.values for i, s in enumerate(self.starts)}

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset({REGION, INTEGERS, GREY, PARTS})

    # --- encoding ------------------------------------------------------------------------------------------------

    @plainly
    def compress(
        self,
        x: Tensor | Samples,
        quality: float | None = None,
        *,
        effort: int = EFFORT.default,
        seconds: float | None = None,
        objective: Any = "mse",
        weight: Any = None,
        keep_best: bool = False,
        progress: Progress | None = None,
    ) -> Compressed:
        """Fit one picture and code it.

        Args:
            x: (C, H, W), C 1 or 3, any size from 1 x 1: floats in [0, 1], uint8, uint16, or `Samples`.
            quality: 1..100; the lambda of each is that of `hyperprior`.
            effort: 1..9: 300 to 10 000 steps a chunk.
            seconds: instead of an effort: as many steps as there is time for.
            objective: "mse", "ms-ssim" or a function of two batches of pictures, see `search.measures`.
            weight: (H, W) importance of pixels.
            keep_best: an interrupt (Ctrl-C) ends the fit early instead of raising.
            progress: is told steps done, steps in all, and bits a pixel and PSNR of the newest one.

        Raises:
            InputError: a signal or an option that does not suit.
            UnsupportedError: numba is missing.
        """
        q = self.check_quality(quality)
        samples = x if isinstance(x, Samples) else Samples.of(x.detach())
        picture = samples.all().float().cpu().numpy()
        if picture.ndim != 3 or picture.shape[0] not in (1, 3) or 0 in picture.shape:
            raise InputError(f"{self.name} takes pictures (1 or 3, H, W), not {tuple(picture.shape)}")
        if not usable():
            raise UnsupportedError(f"{self.name} encodes with compiled loops: install numba; decoding needs none")
        from .encoder import Options, encode  # what only encoding needs

        options = Options(effort, seconds, objective, weight, keep_best, progress)
        price = rate_weight(q)
        number, gain = self._choose_start(price, picture[0].size)
        start = self._start(number, gain, len(picture))
        tiles = self._tiles((picture.shape[1], picture.shape[2]), _CHUNK)
        workers = Workers(torch.get_num_threads())
        try:
            nets, chunks = encode(picture, tiles, start, price, options, workers, self.bank, self.device)
        finally:
            workers.close()
        head = bytes([_VERSION, q, number, gain, _CHUNK // _UNIT, len(picture)])
        return Compressed(head + nets, chunks)

    def _choose_start(self, price: float, pixels: int) -> tuple[int, int]:
        """Number and gain of the start for a lambda and a picture of so many pixels."""
        size = _size_for(price, pixels)
        own = [i for i, s in enumerate(self.starts) if s.size == size]
        number = min(own, key=lambda i: abs(math.log(self.starts[i].rate_weight / price)))
        gain = round(GAIN_UNIT * math.sqrt(price / self.starts[number].rate_weight))
        return number, min(max(gain, 1), 255)

    def _start(self, number: int, gain: int, channels: int) -> Start:
        start = self.starts[number].scaled(gain)
        return start.grey() if channels == 1 else start

    # --- decoding ------------------------------------------------------------------------------------------------

    @staticmethod
    def _tiles(size: tuple[int, int], side: int) -> list[Tile]:
        return tile_grid(*size, side)

    def read_params(self, params: bytes, count: int, size: tuple[int, int]) -> tuple[IntegerNets, list[Tile]]:
        if len(params) <= _HEAD or params[0] != _VERSION:
            raise FormatError(f"{self.name}: unknown codec parameters; the file may need a newer latentzip")
        _, quality, number, gain, unit, channels = params[:_HEAD]
        good = 1 <= quality <= 100 and number < len(self.starts) and gain and unit and channels in (1, 3)
        if not good:
            raise FormatError(f"{self.name}: codec parameters out of range")
        tiles = self._tiles(size, unit * _UNIT)
        if len(tiles) != count:
            raise FormatError(f"{self.name}: {count} chunks where the size asks for {len(tiles)}")
        return weights.decode(params[_HEAD:], self._start(number, gain, channels)), tiles

    @plainly
    def decompress(
        self,
        params: bytes,
        chunks: Sequence[bytes],
        size: tuple[int, int],
        *,
        to: Literal["signal", "latent"] = "signal",
        region: Region | None = None,
        channels: int | None = None,
        dtype: str | None = None,
    ) -> Tensor:
        """Inverse of `compress`: (C, H, W) float32 in [0, 1], or rounded to "uint8" or "uint16"; with a region, that
        part of it.

        Raises:
            FormatError: not what this codec writes.
            InputError: the region lies outside the picture, or channels are asked for.
            UnsupportedError: the latent is asked for: it is grids of seven sizes.
        """
        if to == "latent":
            raise UnsupportedError(f"{self.name} has no latent of one shape: decode to pixels")
        if channels is not None:
            raise InputError(f"{self.name} decodes all channels or none: leave channels out")
        nets, tiles = self.read_params(params, len(chunks), size)
        top, left, bottom, right = region or (0, 0, *size)
        if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
            raise InputError(f"region {region} does not lie inside the signal of {size[0]} x {size[1]} samples")
        out = canvas((nets.channels, bottom - top, right - left), dtype, torch.device("cpu"))
        wanted = [
            (i, t) for i, t in enumerate(tiles) if t.y0 < bottom and t.y1 > top and t.x0 < right and t.x1 > left
        ]  # fmt: skip
        workers = Workers(torch.get_num_threads() if len(wanted) == 1 else 1)

        def paste(item: tuple[int, Tile]) -> None:
            i, t = item
            samples = self._decode_chunk(chunks[i], (t.y1 - t.y0, t.x1 - t.x0), nets, workers)
            y0, y1, x0, x1 = max(t.y0, top), min(t.y1, bottom), max(t.x0, left), min(t.x1, right)
            part = torch.from_numpy(samples[:, y0 - t.y0 : y1 - t.y0, x0 - t.x0 : x1 - t.x0]).float()
            part = part.mul_(2.0**-exact.FINE_BITS).clamp_(0, 1)
            out[:, y0 - top : y1 - top, x0 - left : x1 - left] = part if dtype is None else stepped(part, dtype)

        try:
            for _ in parallel(paste, wanted):
                pass
        finally:
            workers.close()
        return out.to(self.device)

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Tensor:
        """`decompress` of a stream's header and payloads; see `contract.AnyCodec`."""
        y = self.decompress(header.params, chunks, (header.shape[-2], header.shape[-1]), to=to, **part)
        if header.shape[0] != len(y):
            raise FormatError(f"{self.name}: nets of {len(y)} channels in a stream of {header.shape[0]}")
        return y

    def _decode_chunk(self, data: bytes, shape: tuple[int, int], nets: IntegerNets, workers: Workers) -> np.ndarray:
        source = Decoder(data)
        grids = decoder.program(source, None, shape, nets, self.bank)
        source.finish()
        return decoder.synthesise(grids, nets, workers)


def _size_for(price: float, pixels: int) -> Size:
    """The size of nets that pays: the larger one where its bits, some 8000, are a small part of the file."""
    small, large = SIZES
    expected = 0.5 * (0.001 / price) ** 0.65 * pixels  # bits of a photograph's latents
    return large if expected > 80_000 else small


def to_bytes(codec: OverfitCodec) -> bytes:
    """A weights file: starts and tables."""
    config = {"starts": [{"size": s.size.name, "rate_weight": s.rate_weight} for s in codec.starts]}
    tensors = {f"coding.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in codec.coding_arrays().items()}
    meta = {"format": storage.FORMAT, "codec": codec.name, "family": "overfit", "config": json.dumps(config)}
    return save(tensors, meta)


def from_bytes(data: bytes) -> OverfitCodec:
    """The codec of a weights file; raises FormatError where it is none."""
    held = storage.read(data)
    try:
        sizes = {s.name: s for s in SIZES}
        starts = [
            Start(sizes[s["size"]], 3, float(s["rate_weight"]), held.coding[f"start.{i}"].astype(np.int32))
            for i, s in enumerate(held.config["starts"])
        ]
        bank = TableBank.from_arrays({k[5:]: v for k, v in held.coding.items() if k.startswith("bank.")})
        for start in starts:
            IntegerNets(start.size, start.channels, start.values)
        return OverfitCodec(starts, bank, held.name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"not weights of an overfitted codec: {error}") from error


def load_bundled(entry: Entry) -> OverfitCodec:
    """The codec of a release."""
    return from_bytes(entry.read())
