"""From chunks back to a tensor: rows, maps or bit patterns, in parallel, of as much as is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import FormatError, InputError
from ...entropy.numbers import whole
from ...kernels.parallel import parallel
from . import blocks, codewords, maps, transforms
from . import lossless as lossless_
from . import rows as rows_
from .codebooks import CodeProfile
from .encoder import dequantise_map
from .layout import BITS, CODES, CORRECTED, LOSSLESS, MAPS, MEAN, PROFILE, SIDE, TORCH, Params, View
from .profile import Profile
from .transforms import IDENTITY, LINEAR, Transform


class Reader:
    """The decoding of one stream."""

    def __init__(
        self, p: Params, view: View, dtype: str, chunks: Sequence[bytes], profile: Profile | CodeProfile | None
    ) -> None:  # fmt: skip
        self.p, self.view, self.dtype, self.profile = p, view, dtype, profile
        self.workers = 1  # threads that a chunk may use
        self.first = bool(p.flags & SIDE)
        count = -(-view.count // p.chunk) + self.first if view.count else 0
        if len(chunks) != count:
            raise FormatError(f"features: {len(chunks)} chunks where the shape asks for {count}")
        self.chunks = chunks
        self.transform = Transform(p.transform)
        if p.mode == LOSSLESS or not count:
            return
        if p.mode == CODES:
            self.books = codewords.books_of(p, self.chunks[0] if self.first else None, profile, view.channels)
        elif p.flags & PROFILE:
            if not isinstance(profile, Profile) or profile.channels != view.channels:
                raise FormatError("features: the stream's shape does not fit its profile; it is corrupt")
            self.transform = profile.transform
            if p.flags & MEAN:
                mean = transforms.unpack(self._side(), IDENTITY, view.channels, True).mean
                assert mean is not None
                self.transform = self.transform.recentred(mean)
        elif p.mode != MAPS and (p.transform == LINEAR or p.flags & MEAN):
            self.transform = transforms.unpack(self._side(), p.transform, view.channels, bool(p.flags & MEAN))

    def _side(self) -> bytes:
        if not self.first:
            raise FormatError("features: the stream's transform is missing; it is corrupt")
        return self.chunks[0]

    def read(
        self, channels: int | None, region: Sequence[int] | None, to: Literal["signal", "latent", "tokens"]
    ) -> Tensor:
        if to == "tokens" and not self.view.count and isinstance(self.profile, CodeProfile):
            return torch.zeros(self.profile.product.parts, *self.view.positions(region), dtype=torch.int64)
        if to == "tokens" and self.p.mode != CODES:
            raise InputError("the stream has no tokens: its integers are to='latent'; transform='vq' makes tokens")
        depth = self._depth(channels)
        start, stop = self.view.span(region)
        size = self.p.chunk
        if start == stop:
            return self.view.tensor(torch.zeros(0, self.view.channels, dtype=TORCH[self.dtype]), region)
        wanted = list(range(start // size, -(-stop // size)))
        self.workers = max(1, torch.get_num_threads() // len(wanted))
        parts = list(parallel(lambda i: self._chunk(i, depth, to), wanted))
        rows = torch.cat(parts) if len(parts) > 1 else parts[0]
        rows = rows[start - wanted[0] * size : stop - wanted[0] * size]
        if to == "tokens":
            return self.view.tokens(rows.long(), region)
        return rows.contiguous() if to == "latent" else self.view.tensor(rows.contiguous(), region)

    def _depth(self, channels: int | None) -> int | None:
        if channels is None:
            return None
        channels = whole("channels", channels)
        most = self.transform.components(self.view.channels)
        if self.p.mode == CODES:
            if not 1 <= channels <= self.p.offset:
                raise InputError(f"channels is {channels}; the stream has {self.p.offset} levels of codes")
            return int(channels)
        if self.p.mode != 0 or self.transform.kind != LINEAR or self.p.flags & CORRECTED:
            raise InputError(
                f"channels is {channels}; streams of codes, or with a KLT and without max_error, have such a prefix"
            )
        if not 1 <= channels <= max(1, most):
            raise InputError(f"channels is {channels}; the stream has {most} components")
        return int(channels)

    def _chunk(self, i: int, depth: int | None, to: str) -> Tensor:
        p, d = self.p, self.view.channels
        n = min(p.chunk, self.view.count - i * p.chunk)
        data, dtype = self.chunks[i + self.first], TORCH[self.dtype]
        if p.mode == LOSSLESS:
            bits = lossless_.decode(data, (n, d), self.dtype)
            return floats_of(bits, dtype) if to == "signal" else torch.from_numpy(bits.astype(np.int32))
        kept, sections = blocks.split(data, 1 + bool(p.flags & CORRECTED), n * d, dtype.itemsize)
        if p.mode == CODES:
            codes = torch.from_numpy(codewords.decode(self.books, sections[0], n, depth or p.offset, depth is None))
            if to != "signal":
                return codes.int()
            back = self.books.product.rows(codes)
        elif p.mode == MAPS:
            h, w = self.view.shape[-2:]
            q = torch.from_numpy(maps.decode(sections[0], (n, h, w))).reshape(n, d)
            if to == "latent":
                return q
            back = dequantise_map(q, p.step, p.shift)
        else:
            prior = self.profile.levels(p.offset) if p.flags & PROFILE and isinstance(self.profile, Profile) else None
            rows = blocks.decode_rows(sections[0], n, self.transform.components(d), depth, prior)
            if to == "latent":
                return torch.from_numpy(
                    np.ascontiguousarray(rows.whole(self.transform.components(d) if depth is None else depth).T)
                )
            part, live = rows_.reconstruct_live(rows, p.step, self.workers)
            back = self.transform.inverse(torch.from_numpy(part), d, torch.from_numpy(live))
            if p.flags & CORRECTED:
                back = back + torch.from_numpy(blocks.decode_corrections(sections[1], (n, d))) * p.unit
        limit = torch.finfo(dtype).max
        out = back.clamp_(-limit, limit).to(dtype).contiguous()
        if kept is not None:
            flat = out.view(torch.int16 if dtype.itemsize == 2 else torch.int32).reshape(-1)
            flat[torch.from_numpy(kept.at)] = _signed(kept.bits.astype(BITS[self.dtype]))
        return out


def _signed(bits: Any) -> Tensor:
    return torch.from_numpy(bits.view(np.int16 if bits.itemsize == 2 else np.int32).copy())


def floats_of(bits: Any, dtype: torch.dtype) -> Tensor:
    """Unsigned integers (N, K) as the floats of their size; inverse of `layout.bits_of`."""
    return _signed(bits).reshape(bits.shape).view(dtype)
