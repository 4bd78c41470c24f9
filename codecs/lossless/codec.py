"""The codec `lossless`: samples in, the same samples out; no weights, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from ...entropy import adaptive
from ...entropy.container import Header
from ...entropy.errors import CodecError, FormatError, InputError
from ...kernels.parallel import parallel
from ..contract import EXACT, LATENT, REGION, SPAN, STREAMING, Compressed, Option
from . import pictures, planes
from .effort import DEFAULT, TRIED
from .options import OPTIONS
from .streams import SoundDecoder, SoundEncoder

Region = tuple[int, int, int, int]


class LosslessCodec:
    """Pictures of 8 and 16 bits and sound of 8 to 32 to the last bit: photographs, screenshots, scans, recordings.

    Attributes:
        name, modality, options, capabilities: as in `contract.AnyCodec`. The face hands over the samples themselves.
    """

    name: ClassVar[str] = "lossless"
    modality: ClassVar[tuple[str, ...]] = ("image", "audio")
    options: ClassVar[tuple[Option, ...]] = OPTIONS
    capabilities: ClassVar[frozenset[str]] = frozenset({EXACT, LATENT, REGION, SPAN, STREAMING})
    variable_rate: ClassVar[bool] = False
    fast_coding: ClassVar[bool] = False
    needs_level: ClassVar[bool] = False
    precision = "fp32"

    @property
    def fingerprint(self) -> bytes:
        """8 bytes over the tables that decoding depends on."""
        h = hashlib.sha256(b"lossless 1")
        for table in (adaptive.STRETCH, adaptive.SQUASH, adaptive.RATE, planes.LEVEL, planes.SIGNED, planes.WEIGHT):
            h.update(table.astype("<i4").tobytes())
        return h.digest()[:8]

    def to(self, device: Any) -> LosslessCodec:
        """Itself: it computes on the CPU."""
        return self

    def eval(self) -> LosslessCodec:
        """Itself: there is nothing to train."""
        return self

    def compress(self, x: np.ndarray, *about: Any, effort: int = DEFAULT, verify: bool = False) -> Compressed:
        """Code one picture or one sound.

        Args:
            x: a picture (C, H, W) uint8 or uint16, C = 1..4; or sound (C, T) uint8, int16, int32 or float32.
            about: of sound: its sampling rate in Hz.
            effort: 1 (fastest) to 9 (smallest).
            verify: decode and compare.

        Raises:
            InputError: not such an array.
            CodecError: what was decoded differs; nothing is lost but time, please report it.
        """
        if about:
            encoder = SoundEncoder(x.shape[0], about[0], effort, verify)
            chunks = [*encoder.feed(x), *encoder.finish()]
            return Compressed(encoder.params, chunks)
        if not isinstance(x, np.ndarray) or x.dtype not in (np.uint8, np.uint16) or x.ndim != 3 or 0 in x.shape:
            raise InputError("lossless takes integer planes (C, H, W) of uint8 or uint16 with C, H, W >= 1")
        if x.shape[0] > 4:
            raise InputError(f"lossless takes 1 to 4 channels, not {x.shape[0]}; code the others on their own")
        effort = int(effort)
        plan, numbers = pictures.plan_of(x, effort)
        side = pictures.CHUNK
        windows = [
            np.s_[y : y + side, c : c + side] for y in range(0, x.shape[1], side) for c in range(0, x.shape[2], side)
        ]

        def chunk(way: pictures.Plan, window: tuple[slice, slice]) -> bytes:
            return pictures.encode_chunk(way, pictures.coded(way, x, numbers, window), len(x))

        levels = TRIED.get(effort, (effort,)) if pictures.depends(plan) else (effort,)
        streams = []
        for level in levels:
            way = replace(plan, effort=level)
            chunks = list(parallel(partial(chunk, way), windows))
            streams.append(Compressed(way.pack(), chunks))
        packed = min(streams, key=lambda stream: sum(map(len, stream.chunks)))
        chunks = packed.chunks
        if verify and not np.array_equal(self._decode(packed.params, chunks, x.shape, np.dtype(x.dtype), None), x):
            raise CodecError("lossless: decoding gave other samples than were coded; please report this picture")
        return packed

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Any:
        """Inverse of `compress`: (C, H, W) or (C, T) in the stream's dtype, or a part of it.

        Args:
            to: "latent" gives the same samples as an int32 tensor.
            part: of pictures ``region``, (top, left, bottom, right) in pixels; of sound ``span``, (start, stop) in
                samples.
        """
        if header.modality == "audio":
            return self.open_decoder(header, len(chunks), to=to, **part).all(chunks)
        if part.keys() - {"region"}:
            raise InputError(f"{self.name} decodes all channels or none; leave channels out")
        if header.dtype not in ("uint8", "uint16") or len(header.shape) != 3 or not 1 <= header.shape[0] <= 4:
            raise FormatError(f"a picture of {header.dtype}{header.shape} in a stream of {self.name}: it is corrupt")
        shape = header.shape[0], header.shape[1], header.shape[2]
        x = self._decode(header.params, chunks, shape, np.dtype(header.dtype), part.get("region"))
        return torch.from_numpy(x.astype(np.int32)) if to == "latent" else x

    def open_encoder(self, channels: int, rate: int, **options: Any) -> SoundEncoder:
        """What codes a sound that comes in blocks; options as `compress`."""
        return SoundEncoder(channels, rate, **options)

    def open_decoder(self, header: Header, count: int, **part: Any) -> SoundDecoder:
        """What decodes the ``count`` chunks of a sound, or those of a span in samples, one after the other."""
        if part.keys() - {"to", "span"}:
            raise InputError(f"{self.name} decodes all of a sound or a span; leave the others out")
        return SoundDecoder(header, count, **part)

    def _decode(
        self, params: bytes, chunks: Sequence[bytes], shape: tuple[int, ...], dtype: np.dtype, region: Region | None
    ) -> np.ndarray:
        channels, height, width = shape
        side, most = pictures.CHUNK, int(np.iinfo(dtype).max)
        plan = pictures.Plan.unpack(params, channels, most)
        columns = -(-width // side)
        if len(chunks) != columns * -(-height // side):
            raise FormatError(f"lossless: {len(chunks)} chunks do not make a picture of {width} x {height}")
        top, left, bottom, right = region or (0, 0, height, width)
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise InputError(f"region {region} does not lie inside the signal of {height} x {width} samples")
        out = np.empty((channels, bottom - top, right - left), dtype)

        def decode(at: tuple[int, int]) -> None:
            y, x = at[0] * side, at[1] * side
            h, w = min(side, height - y), min(side, width - x)
            samples = pictures.decode_chunk(plan, chunks[at[0] * columns + at[1]], h, w, channels)
            y0, y1, x0, x1 = max(y, top), min(y + h, bottom), max(x, left), min(x + w, right)
            out[:, y0 - top : y1 - top, x0 - left : x1 - left] = samples[:, y0 - y : y1 - y, x0 - x : x1 - x]

        rows, cols = range(top // side, -(-bottom // side)), range(left // side, -(-right // side))
        for _ in parallel(decode, [(r, c) for r in rows for c in cols]):
            pass
        return out
