"""Batches of pictures through a hyperprior codec on a GPU: pixels to files to pixels, symbols never on the host.

The files are those of `HyperpriorCodec`: the same chunks, the same integers, decodable on any machine, and the other
way round. What differs is the order of work: pictures are transformed whole instead of by tiles, all chunks of all
pictures are coded at once (`entropy.cuda`), and the transforms run as CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy.container import Header, read, write
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...kernels.cuda.graphs import Captured
from ..base import CHUNK_UNIT, PARAMS_VERSION
from ..layers import hyper_group
from ..samples import Samples, header_dtype
from ..tiling import Tile
from .context import CodingStep


class HyperpriorBatch:
    """Encodes and decodes batches of one size and quality at a time.

    Args:
        codec: a `HyperpriorCodec` on the device to work on; one Gaussian a latent.

    Raises:
        UnsupportedError: a codec with mixtures, whose symbols have no GPU coder.
    """

    def __init__(self, codec: Any) -> None:
        if codec.mixture_net is not None or codec.hyper_bank is None:
            raise UnsupportedError(
                f"{codec.name} cannot code batches on a GPU: it has mixtures or no entropy model yet"
            )
        self.codec = codec
        self.device = codec.device
        self._analyse: dict[tuple[int, str], Captured] = {}
        self._synthesise: dict[tuple[int, str, tuple[int, int]], Captured] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()  # graphs hold this codec's memory: a copy of the codec makes its own

    # --- pixels to files -----------------------------------------------------------------------------------------

    def encode(self, x: Tensor, quality: float | None = None) -> list[bytes]:
        """Pictures (B, 3, H, W) floats in [0, 1], uint8 or uint16, on the device -> one `.ltz` stream each.

        Raises:
            InputError: another shape, or dtype, floats beyond [0, 1], NaN or infinite values.
        """
        codec = self.codec
        q = codec.check_quality(quality)
        if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape:
            raise InputError(f"encode takes pictures (B, 3, H, W), not {tuple(x.shape)}")
        x = x.to(self.device)
        dtype = header_dtype(x)
        x = Samples.of(x, "the batch").all()
        key = q, codec.precision
        if key not in self._analyse:
            self._analyse[key] = Captured(partial(self._latent, quality=q))
        chunks = self.encode_latent(self._analyse[key](x), q)
        params = bytes([PARAMS_VERSION, q, codec.chunk // CHUNK_UNIT])
        streams = []
        for b, picture in enumerate(x):
            header = Header(
                codec=codec.name, fingerprint=codec.fingerprint, modality=codec.modality, kind="tensor",
                shape=tuple(picture.shape), dtype=dtype, params=params,
            )  # fmt: skip
            streams.append(write(header, chunks[b]))
        return streams

    def _latent(self, x: Tensor, quality: int) -> Tensor:
        with self.codec.arithmetic():
            return self.codec.analysis(x, quality)

    def encode_latent(self, latent: Tensor, quality: int) -> list[list[bytes]]:
        """Latents (B, L, h, w) of integers -> the chunks of each."""
        from ...entropy.gpu.coder import BatchEncoder

        bank = self.codec.hyper_bank
        assert bank is not None
        tiles = self._tiles(latent)
        plan = _Plan(latent, tiles, self.codec.config.hyper)
        n = self.codec.config.hyper // 16
        encoder = BatchEncoder(plan.chunks, device=self.device)
        hyper = [F.pixel_unshuffle(block[:, :n].float(), 4) for block in self._blocks(latent, tiles)]
        encoder.table(
            _flat(hyper).to(torch.int32), bank, self._hyper_index(hyper, quality), plan.hyper_first, plan.hyper_count,
            plan.hyper_limit,
        )  # fmt: skip
        symbols = [block[:, n:].to(torch.int32) for block in self._blocks(latent, tiles)]

        def code(index: Tensor, coded: Compacted, steps: list[CodingStep]) -> Tensor:
            flat = _flat([step.elements.take(block) for step, block in zip(steps, symbols)])
            encoder.table(
                coded.gather(flat), _gaussian(), coded.gather(index), coded.first, coded.count, plan.limit
            )  # fmt: skip
            return flat

        self._in_steps(hyper, quality, plan, code)
        chunks = encoder.finish()
        b = len(latent)
        return [[chunks[t * b + i] for t in range(len(tiles))] for i in range(b)]

    # --- files to pixels -----------------------------------------------------------------------------------------

    def decode(self, streams: Sequence[bytes]) -> list[Tensor]:
        """Inverse of `encode`: one (3, H, W) float32 in [0, 1] a stream, on the device, of any sizes and qualities.

        Raises:
            FormatError: a stream is corrupt or of another codec.
        """
        groups: dict[tuple[bytes, tuple[int, int]], list[int]] = {}
        boxes = [read(s) for s in streams]
        for i, box in enumerate(boxes):
            head = box.header
            if head.codec != self.codec.name or head.fingerprint != self.codec.fingerprint:
                raise FormatError(
                    f"stream {i} was made by {head.codec} ({head.fingerprint.hex()}), not by these weights"
                )
            groups.setdefault((head.params, (head.shape[-2], head.shape[-1])), []).append(i)
        out: dict[int, Tensor] = {}
        for (params, size), members in groups.items():
            chunks = [list(boxes[i].chunks) for i in members]
            q, tiles = self.codec.read_params(params, len(chunks[0]), size)
            latent = self.decode_latent(chunks, tiles, size, int(q or 0))
            pictures = self._pixels(latent, size, int(q or 0))
            out |= dict(zip(members, pictures))
        return [out[i] for i in range(len(streams))]

    def decode_latent(
        self, chunks: Sequence[Sequence[bytes]], tiles: list[Tile], size: tuple[int, int], quality: int
    ) -> Tensor:
        """Chunks of pictures of one size -> latents (B, L, h, w) int16."""
        from ...entropy.gpu.coder import BatchDecoder

        codec, b = self.codec, len(chunks)
        bank = codec.hyper_bank
        assert bank is not None
        n, shape = codec.config.hyper // 16, codec.latent_size(size)
        latent = torch.empty(b, codec.latent_channels, *shape, dtype=torch.int16, device=self.device)
        plan = _Plan(latent, tiles, codec.config.hyper)
        decoder = BatchDecoder([chunks[i][t] for t in range(len(tiles)) for i in range(b)], self.device)
        like = [latent.new_empty(b, codec.config.hyper, (t.y1 - t.y0) // 4, (t.x1 - t.x0) // 4) for t in tiles]
        flat = decoder.table(bank, self._hyper_index(like, quality), plan.hyper_first, plan.hyper_count)
        hyper = _blocks_like(flat.float(), like)
        blocks = [latent[:, n:, t.y0 : t.y1, t.x0 : t.x1] for t in tiles]
        beyond = (flat.abs() > codec.latent_limit).any()

        def code(index: Tensor, coded: Compacted, steps: list[CodingStep]) -> Tensor:
            nonlocal beyond
            found = coded.scatter(decoder.table(_gaussian(), coded.gather(index), coded.first, coded.count))
            beyond = beyond | (found.abs() > codec.latent_limit).any()
            for step, block, part in zip(steps, blocks, _parts(found, steps)):
                step.elements.put(block, part.to(torch.int16))
            return found

        self._in_steps(hyper, quality, plan, code)
        for t, z in zip(tiles, hyper):
            latent[:, :n, t.y0 : t.y1, t.x0 : t.x1] = F.pixel_shuffle(z, 4).to(torch.int16)
        decoder.finish()
        if bool(beyond):
            raise FormatError(f"{codec.name}: a chunk holds latents beyond +-{codec.latent_limit}")
        return latent

    def _in_steps(
        self,
        hyper: list[Tensor],
        quality: int,
        plan: _Plan,
        code: Callable[[Tensor, Compacted, list[CodingStep]], Tensor],
    ) -> None:
        """All blocks through `HyperpriorCodec.coding_steps` side by side.

        Args:
            code: codes the elements of a step, of all blocks, under these table numbers, flat; gives their symbols.
        """
        programs = [self.codec.coding_steps(z, quality) for z in hyper]
        steps = [next(program) for program in programs]
        with suppress(StopIteration):
            while True:
                index, mask = _flat([s.number for s in steps]), _flat([s.coded for s in steps])
                share = plan.elements // len(mask)  # all, or a quarter
                found = code(index, Compacted(mask, plan.first // share, plan.sizes // share), steps)
                steps = [program.send(part) for program, part in zip(programs, _parts(found, steps))]

    def _pixels(self, latent: Tensor, size: tuple[int, int], quality: int) -> Tensor:
        key = quality, self.codec.precision, size
        if key not in self._synthesise:
            self._synthesise[key] = Captured(partial(self._picture, size=size, quality=quality))
        return self._synthesise[key](latent)

    def _picture(self, latent: Tensor, size: tuple[int, int], quality: int) -> Tensor:
        with self.codec.arithmetic():
            return self.codec.synthesis(latent, size, quality).clamp(0, 1)

    # --- layout --------------------------------------------------------------------------------------------------

    def _tiles(self, latent: Tensor) -> list[Tile]:
        return self.codec.chunk_grid(latent.shape[2], latent.shape[3], self.codec.chunk)

    @staticmethod
    def _blocks(latent: Tensor, tiles: list[Tile]) -> list[Tensor]:
        return [latent[:, :, t.y0 : t.y1, t.x0 : t.x1] for t in tiles]

    def _hyper_index(self, hyper: list[Tensor], quality: int) -> Tensor:
        """The table of each element of the hyper-latents, flat: one a channel."""
        n = self.codec.config.hyper
        table = torch.arange(n, dtype=torch.int32, device=self.device) + hyper_group(quality) * n
        return _flat([table[:, None, None].expand(z.shape) for z in hyper])


class _Plan:
    """Where each chunk's elements begin when tiles lie end to end, all pictures of a tile together."""

    def __init__(self, latent: Tensor, tiles: list[Tile], hyper: int) -> None:
        b, channels = latent.shape[:2]
        area = np.array([(t.y1 - t.y0) * (t.x1 - t.x0) for t in tiles for _ in range(b)], np.int64)
        self.chunks = len(area)
        sizes, hyper_sizes = area * (channels - hyper // 16), area // 16 * hyper
        self.elements = int(sizes.sum())
        self.limit, self.hyper_limit = int(sizes.max()), int(hyper_sizes.max())
        both = np.stack((np.cumsum(sizes) - sizes, sizes, np.cumsum(hyper_sizes) - hyper_sizes, hyper_sizes))
        self.first, self.sizes, self.hyper_first, self.hyper_count = torch.from_numpy(both).to(latent.device)


class Compacted:
    """Elements of flat chunks that are coded, moved together without waiting for their number.

    Args:
        mask: (n,) bool, which elements are coded.
        first, sizes: (chunks,) int64, where each chunk begins and how many elements it has.

    Attributes:
        first, count: (chunks,), the same for the coded elements alone.
    """

    def __init__(self, mask: Tensor, first: Tensor, sizes: Tensor) -> None:
        self._mask = mask
        so_far = F.pad(torch.cumsum(mask, 0), (1, 0))
        self._to = torch.where(mask, so_far[:-1], len(mask))  # the others go to a place that is cut off
        self.first = so_far[first]
        self.count = (so_far[first + sizes] - self.first).to(torch.int32)

    def gather(self, x: Tensor) -> Tensor:
        """Elements (n,) -> the coded ones first; the rest is zero."""
        return x.new_zeros(len(x) + 1).scatter_(0, self._to, x)[:-1]

    def scatter(self, x: Tensor) -> Tensor:
        """Inverse of `gather`: zero where nothing is coded."""
        return torch.where(self._mask, F.pad(x, (0, 1)).gather(0, self._to), 0)


def _gaussian():  # type: ignore[no-untyped-def]
    from ...entropy.banks import frozen_bank

    return frozen_bank("gaussian")


def _parts(flat: Tensor, steps: list[CodingStep]) -> list[Tensor]:
    return _blocks_like(flat, [step.number for step in steps])


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([p.reshape(-1) for p in parts])


def _blocks_like(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    return [part.view(p.shape) for part, p in zip(flat.split([p.numel() for p in like]), like)]
