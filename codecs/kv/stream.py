"""A compressed cache that grows: the first tokens and the most recent as they are, segments of coded ones between."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy import container
from ...entropy.container import Container, Header, Limits
from ...entropy.errors import FormatError, InputError, LimitError, UnsupportedError
from ...entropy.numbers import bounds
from ...kernels.parallel import parallel
from ..features.layout import DTYPES, TORCH
from ..surroundings import plainly
from . import segments
from .layout import Pairs, cat, cut, pairs_of
from .profile import KVProfile, check_geometry

NAME = "kv-cache"
LIMITS = Limits(samples=1 << 36, chunks=1 << 22, header=1 << 26, params=1 << 20)  # caches of long contexts
_MOST = container.DEFAULT_LIMITS.samples  # values of a segment in a layer
_VERSION = 1
_PARAMS = struct.Struct("<BHHHHII")  # version, heads, channels of keys, of values, groups, first tokens, segments


@dataclass(frozen=True)
class _Params:
    """What the container carries: sizes, a step for each layer, and how many tokens each segment has."""

    heads: int
    key_dim: int
    value_dim: int
    groups: int
    first: int
    steps: tuple[float, ...]
    sizes: tuple[int, ...]

    def pack(self) -> bytes:
        head = (self.heads, self.key_dim, self.value_dim, self.groups, self.first, len(self.sizes))
        steps = np.array(self.steps, "<f4").tobytes()
        return _PARAMS.pack(_VERSION, *head) + steps + np.array(self.sizes, "<u4").tobytes()

    @classmethod
    def unpack(cls, data: bytes, layers: int) -> _Params:
        if len(data) < _PARAMS.size or data[0] != _VERSION:
            raise FormatError("a KV cache of unknown parameters; the stream may need a newer latentzip")
        heads, key_dim, value_dim, groups, first, count = _PARAMS.unpack_from(data)[1:]
        if len(data) != _PARAMS.size + 4 * (layers + count):
            raise FormatError("the parameters of a KV cache do not fit its layers: the stream is corrupt")
        numbers = data[_PARAMS.size :]
        steps = tuple(float(s) for s in np.frombuffer(numbers[: 4 * layers], "<f4"))
        sizes = tuple(int(s) for s in np.frombuffer(numbers[4 * layers :], "<u4"))
        if not all(0 < s < inf for s in steps) or not all(sizes):
            raise FormatError("the parameters of a KV cache are out of range: the stream is corrupt")
        return cls(heads, key_dim, value_dim, groups, first, steps, sizes)


class KVStream:
    """A cache in compressed form, made by `KVCacheCodec.stream` or `KVCacheCodec.open`.

    Tokens are appended as the model makes them. A segment is coded once the most recent tokens are beyond it, and its
    bytes never change afterwards; recent ones stay tensors until then.

    Attributes:
        profile: that codes it.
        batch: sequences; all have the same number of tokens. None before the first tokens.
        dtype: of the cache.
    """

    def __init__(self, profile: KVProfile) -> None:
        self.profile = replace(profile, steps=tuple(float(np.float32(s)) for s in profile.steps))
        self.batch: int | None = None
        self.dtype = torch.float32
        self._first = 0  # tokens of the exact chunks at the beginning
        self._sizes: list[int] = []  # tokens of each segment
        self._stored: Sequence[bytes] = []  # layers of the first tokens, then layers of each segment, as they were read
        self._chunks: list[bytes] = []  # and what came after
        self._count = 0  # of the chunks that were read
        self._recent: Pairs = []

    def __len__(self) -> int:
        """Tokens."""
        return self._coded + self.recent

    def __repr__(self) -> str:
        return f"KVStream({len(self)} tokens of {self.batch or 0} sequences, {self.recent} not coded yet)"

    @property
    def _coded(self) -> int:
        return self._first + sum(self._sizes)

    @property
    def recent(self) -> int:
        """Tokens that are not coded yet."""
        return self._recent[0][0].shape[2] if self._recent else 0

    @property
    def num_bytes(self) -> int:
        """Length of `to_bytes()`, which this makes."""
        return len(self.to_bytes())

    # --- growing -------------------------------------------------------------------------------------------------

    @plainly
    def append(self, cache: Any) -> None:
        """Add the tokens of a cache, those after what is here already.

        Args:
            cache: (keys, values) (B, H, T, d) of every layer, or an object that holds them, see `pairs_of`. Tokens
                that are here already must not be in it.

        Raises:
            InputError: not a cache of the model that the codec was fitted to, or of another batch or dtype.
        """
        pairs = pairs_of(cache)
        check_geometry(pairs, self.profile.geometry)
        keys = pairs[0][0]
        if self.batch is None:
            self.batch, self.dtype = keys.shape[0], keys.dtype
        if (keys.shape[0], keys.dtype) != (self.batch, self.dtype):
            raise InputError(
                f"the cache has {keys.shape[0]} sequences of {keys.dtype}, the stream has {self.batch} of {self.dtype}"
            )
        new = [(k.detach().cpu(), v.detach().cpu()) for k, v in pairs]
        self._recent = cat([self._recent, new]) if self._recent else cat([new])
        self._seal(self.profile.segment)

    @plainly
    def flush(self) -> None:
        """Code all but the most recent tokens, the last segment of them a short one."""
        self._seal(1)

    def _seal(self, least: int) -> None:
        p, at = self.profile, 0
        if not self._first and not self._sizes and self.recent >= p.first > 0:
            self._chunks += self._keep(cut(self._recent, 0, p.first))
            self._first = at = p.first
        started = self._first or self._sizes or not p.first
        full = min(p.segment, max(1, _MOST // ((self.batch or 1) * p.geometry.width)))
        jobs: list[tuple[int, Tensor, Tensor, int]] = []
        while started and (size := min(full, self.recent - at - p.recent)) >= min(least, full):
            part = cut(self._recent, at, at + size)
            jobs += [(layer, k, v, self._coded) for layer, (k, v) in enumerate(part)]
            self._sizes.append(size)
            at += size
        self._chunks += list(parallel(lambda job: segments.encode(p, *job), jobs))
        if at:
            # a copy, so that what is coded can be freed
            self._recent = [(k.clone(), v.clone()) for k, v in cut(self._recent, at, self.recent)]

    def _keep(self, pairs: Pairs) -> list[bytes]:
        return [segments.exact(k, v, half=True) for k, v in pairs]

    # --- bytes ---------------------------------------------------------------------------------------------------

    @plainly
    def to_bytes(self) -> bytes:
        """One `.ltz` stream of everything. Float32 tokens that are not coded are stored as float16.

        Raises:
            InputError: nothing was appended.
        """
        if self.batch is None:
            raise InputError("the stream holds no tokens: append a cache first")
        g = self.profile.geometry
        shape = (g.layers, self.batch, len(self), g.width)
        params = _Params(
            g.heads, g.key_dim, g.value_dim, self.profile.groups, self._first, self.profile.steps, tuple(self._sizes)
        )
        header = Header(NAME, self.profile.fingerprint, "tensor", "tensor", shape, DTYPES[self.dtype])
        tail = self._keep(self._recent) if self.recent else []
        return container.write(replace(header, params=params.pack()), [*self._every(), *tail], limits=LIMITS)

    @classmethod
    def from_container(cls, profile: KVProfile, box: Container) -> KVStream:
        """What `to_bytes` wrote; recent tokens are tensors again, so that more can follow, with the steps it has.

        Raises:
            FormatError: not a KV cache, or a corrupt one.
            UnsupportedError: it needs another profile.
        """
        header, g = box.header, profile.geometry
        if header.codec != NAME or header.modality != "tensor" or len(header.shape) != 4:
            raise FormatError(f"the stream was made by {header.codec}, it is no KV cache")
        if header.fingerprint != profile.fingerprint:
            raise UnsupportedError(
                f"the stream needs the KV profile {header.fingerprint.hex()}, this codec has "
                f"{profile.fingerprint.hex()}: load the profile that it was made with"
            )
        layers, batch, tokens, width = header.shape
        p = _Params.unpack(header.params, layers)
        sizes = (p.heads, p.key_dim, p.value_dim, p.groups)
        recent = tokens - p.first - sum(p.sizes)
        count = layers * (bool(p.first) + len(p.sizes) + (recent > 0))
        sound = sizes == (g.heads, g.key_dim, g.value_dim, profile.groups) and (layers, width) == (g.layers, g.width)
        if not sound or batch < 1 or recent < 0 or len(box.chunks) != count or header.dtype not in TORCH:
            raise FormatError("the sizes of a KV cache contradict each other: the stream is corrupt")
        if max(p.first, recent, *p.sizes) * batch * width > _MOST:
            raise LimitError(
                f"a KV cache with segments of {max(p.first, recent, *p.sizes)} tokens; the stream is refused"
            )
        made = cls(replace(profile, steps=p.steps))  # what is appended is coded as the rest
        made.batch, made.dtype = batch, TORCH[header.dtype]
        made._first, made._sizes = p.first, list(p.sizes)
        made._stored, made._count = box.chunks, count - layers * (recent > 0)
        if recent:
            tail = box.chunks[made._count :]
            span = (tokens - recent, tokens)
            made._recent = [made._decode(layer, data, span, None) for layer, data in enumerate(tail)]
        return made

    @plainly
    def prefix(self, components: int) -> KVStream:
        """The same tokens with the first components of every layer only, a smaller cache; nothing is quantised again.

        Raises:
            InputError: there are not so many components.
        """
        components = segments.checked_components(self.profile, components) or 0
        made = KVStream(self.profile)
        made.__dict__.update(self.__dict__)
        layers, head = self.profile.geometry.layers, self.profile.geometry.layers * bool(self._first)

        def short(item: tuple[int, bytes]) -> bytes:
            at, data = item
            layer, count = at % layers, self._sizes[at // layers] * (self.batch or 0)
            return segments.shorten(self.profile, layer, self.profile.steps[layer], data, count, components)

        made._sizes = list(self._sizes)
        every = self._every()
        made._stored, made._count = [], 0
        made._chunks = every[:head] + list(parallel(short, list(enumerate(every[head:]))))
        return made

    def _every(self) -> list[bytes]:
        return [*self._stored[: self._count], *self._chunks]

    def _chunk(self, number: int) -> bytes:
        return self._stored[number] if number < self._count else self._chunks[number - self._count]

    # --- reading -------------------------------------------------------------------------------------------------

    @plainly
    def decode(
        self,
        tokens: Sequence[int] | None = None,
        *,
        layers: Sequence[int] | None = None,
        components: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Pairs:
        """Keys and values again.

        Args:
            tokens: (start, stop): only these, from the segments that they lie in.
            layers: only these.
            components: of each layer the first ones only: coarser, and less to compute.
            device: where the result shall lie.

        Returns:
            (keys, values) of each layer, (B, H, T, d) in the dtype of what was appended.

        Raises:
            InputError: tokens, layers or components that do not exist.
            FormatError: the bytes are corrupt.
        """
        start, stop = (0, len(self)) if tokens is None else bounds("tokens", tokens, 2, "(start, stop) is needed")
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"tokens {start}..{stop} of a cache that has {len(self)}")
        every = range(self.profile.geometry.layers)
        if layers is not None and not hasattr(layers, "__iter__"):
            raise InputError(f"layers is {layers!r:.60}; a list of numbers is needed")
        wanted = list(every) if layers is None else list(layers)
        if not all(layer in every and not isinstance(layer, bool) for layer in wanted):
            raise InputError(f"layers are {wanted}; the cache has 0..{every[-1]}")
        components = segments.checked_components(self.profile, components)
        edges = list(accumulate(([self._first] if self._first else []) + self._sizes, initial=0))
        jobs = []
        for layer in wanted:
            for i in range(max(0, bisect_right(edges, start) - 1), len(edges) - 1):
                if edges[i] < stop:
                    jobs.append((layer, self._chunk(i * len(every) + layer), (edges[i], edges[i + 1]), components))
        done = list(parallel(lambda job: self._decode(*job), jobs))
        each = len(done) // max(1, len(wanted))
        out = []
        for n, layer in enumerate(wanted):
            parts = []
            for pair, job in zip(done[n * each : (n + 1) * each], jobs[n * each : (n + 1) * each]):
                a, b = job[2]
                parts.append(tuple(t[:, :, max(start, a) - a : min(stop, b) - a] for t in pair))
            if self.recent:
                a = self._coded
                parts.append(tuple(t[:, :, max(start, a) - a : max(stop, a) - a] for t in self._recent[layer]))
            keys, values = (self._empty(i) if not parts else torch.cat([p[i] for p in parts], 2) for i in (0, 1))
            out.append((keys.to(device), values.to(device)))
        return out

    def _empty(self, which: int) -> Tensor:
        g = self.profile.geometry
        return torch.zeros(self.batch or 0, g.heads, 0, (g.key_dim, g.value_dim)[which], dtype=self.dtype)

    def _decode(self, layer: int, data: bytes, tokens: tuple[int, int], components: int | None) -> Any:
        args = (self.profile, layer, self.profile.steps[layer], data, tokens, self.batch or 0, self.dtype, components)
        return segments.decode(*args)
