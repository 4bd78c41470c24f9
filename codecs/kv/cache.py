"""`KVCacheCodec`: the cache of a transformer as a short, growing bitstream.

Keys and values of a layer are rotated together by a matrix that was fitted to the model, as PCA does, quantised with
one step, and coded component by component (KVTC, arXiv:2511.01815, and CSKV, arXiv:2409.10593, go similar ways). Keys
are taken as before the rotary positions where that needs fewer bits. The first tokens, on which attention rests
(Xiao et al. 2023, "sinks"), and the most recent ones are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...entropy import container, opening
from ...entropy.container import Limits
from ...entropy.errors import InputError
from ...entropy.numbers import real, share, whole
from ..outputs import write_file
from ..surroundings import plainly
from . import profile as profiles
from . import segments
from .budget import allocate
from .layout import Geometry, Pairs, Rotary, pairs_of
from .profile import KVProfile
from .stream import LIMITS, NAME, KVStream

__all__ = ["KVCacheCodec", "KVStream", "Rotary"]

FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)  # of the steps, what `measure` tries


class Point(NamedTuple):
    """A layer under a step: bits a value, and what the model's output suffers."""

    step: float
    bits: float
    damage: float


class KVCacheCodec:
    """Codec of the keys and values that a transformer keeps, fitted to one model.

    Args:
        profile: what `fit` learned.

    Example:
        >>> import torch
        >>> cache = [(torch.randn(1, 2, 300, 8), torch.randn(1, 2, 300, 8)) for _ in range(3)]  # of three layers
        >>> codec = KVCacheCodec.fit([cache])
        >>> blob = codec.encode(cache)
        >>> keys, values = codec.decode(blob, tokens=(100, 120))[0]
        >>> keys.shape
        torch.Size([1, 2, 20, 8])
    """

    name = NAME

    def __init__(self, profile: KVProfile) -> None:
        self.profile = profile

    def __repr__(self) -> str:
        return f"KVCacheCodec(profile {self.fingerprint.hex()}, {self.geometry})"

    @property
    def fingerprint(self) -> bytes:
        """8 bytes that name the profile; steps and what is kept exactly are not part of it."""
        return self.profile.fingerprint

    @property
    def geometry(self) -> Geometry:
        """Layers, heads and channels of the model's cache."""
        return self.profile.geometry

    @property
    def steps(self) -> tuple[float, ...]:
        """Width of the quantisation cells of each layer."""
        return self.profile.steps

    # --- fitting -------------------------------------------------------------------------------------------------

    @classmethod
    @plainly
    def fit(
        cls,
        caches: Iterable[Any],
        *,
        rotary: Rotary | None = None,
        nmse: float = 0.01,
        weights: Sequence[Any] | None = None,
        keys_weight: float = 1.0,
        first: int = 4,
        recent: int = 32,
        segment: int = 128,
    ) -> KVCacheCodec:
        """Learn a rotation for each layer from caches that the model made; some thousand tokens do.

        Args:
            caches: each (keys, values) (B, H, T, d) of every layer, position 0 first; see `encode`.
            rotary: the model's rotary positions. A layer's keys are coded as before them where that takes fewer bits
                at the same error, which is nearly always; None codes them as they are.
            nmse: sets the steps: weighted squared error over the weighted variance.
            weights: for each layer what an error costs, (D,) or (D, D) over all channels of keys, then of values, such
                as `latentzip.kv.sensitivity` measures. All layers then share one step. None: errors of keys and of
                values count by their variances, and every layer has its own step.
            keys_weight: how much more an error of keys counts; without weights.
            first, recent: so many tokens at the beginning and at the end are kept as they are.
            segment: tokens that are coded together; longer ones take fewer bits, short ones are coded sooner.

        Raises:
            InputError: caches that do not fit each other, are not finite, or have fewer than two tokens.
        """
        if real("keys_weight", keys_weight, "a number above 0") <= 0:
            raise InputError(f"keys_weight is {keys_weight}; a number above 0 is needed")
        first, recent, segment = whole("first", first), whole("recent", recent), whole("segment", segment, 1)
        made = profiles.fit(caches, rotary, nmse, weights, keys_weight)
        return cls(replace(made, first=first, recent=recent, segment=segment))

    @plainly
    def at(
        self, *, nmse: float | None = None, steps: Sequence[float] | None = None, first: int | None = None,
        recent: int | None = None, segment: int | None = None,
    ) -> KVCacheCodec:  # fmt: skip
        """A codec of the same profile (streams of either decode with both) with other choices, as `fit` takes them.

        Args:
            steps: one a layer.
        """
        p = self.profile
        if nmse is not None and steps is not None:
            raise InputError("nmse and steps exclude each other: give one of them")
        if nmse is not None:
            steps = p.steps_for(share("nmse", nmse), common=len(set(p.steps)) == 1 < len(p.steps))
        keep = {"first": first, "recent": recent, "segment": segment}
        keep = {name: whole(name, n, int(name == "segment")) for name, n in keep.items() if n is not None}
        p = replace(p, **keep)
        return KVCacheCodec(p if steps is None else p.with_steps(steps))

    @plainly
    def measure(
        self, cache: Any, damage: Callable[[Pairs], float], factors: Sequence[float] = FACTORS
    ) -> list[list[Point]]:
        """What steps of different width cost and do to the model's output, layer by layer, for `allocate`.

        Args:
            cache: a sample, as `encode` takes it; all of its tokens are coded.
            damage: what the model suffers under a cache (keys and values of all layers), such as the divergence of
                its output; called layers x factors times, with one layer coded and the others exact.
            factors: of the present steps, which steps to try.

        Returns:
            For each layer a point for each factor.
        """
        pairs = pairs_of(cache)
        profiles.check_geometry(pairs, self.geometry)
        batch, _, count, _ = pairs[0][0].shape
        points = []
        for layer, (keys, values) in enumerate(pairs):
            row = []
            for factor in factors:
                step = float(np.float32(self.steps[layer] * factor))
                trial = self.profile.with_steps([step] * self.geometry.layers)
                data = segments.encode(trial, layer, keys.detach().cpu(), values.detach().cpu(), 0)
                k, v = segments.decode(trial, layer, step, data, (0, count), batch, keys.dtype)
                changed = [*pairs[:layer], (k.to(keys.device), v.to(values.device)), *pairs[layer + 1 :]]
                bits = 8.0 * len(data) / (batch * count * self.geometry.width)
                row.append(Point(step, bits, float(damage(changed))))
            points.append(row)
        return points

    def allocate(self, points: Sequence[Sequence[Point]], bits: float) -> KVCacheCodec:
        """Share a budget of bits among the layers so that the sum of measured damages is least.

        Args:
            points: from `measure`.
            bits: a value of the coded tokens, at most, on average over the layers.

        Returns:
            A codec of the same profile with the chosen steps.

        Raises:
            InputError: the budget is too small for the coarsest steps.
        """
        if len(points) != self.geometry.layers:
            raise InputError(f"points are of {len(points)} layers, the codec has {self.geometry.layers}")
        chosen = allocate([[(p.bits, p.damage) for p in layer] for layer in points], bits * len(points))
        return self.at(steps=[layer[i].step for layer, i in zip(points, chosen)])

    # --- files ---------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the profile as a safetensors file; it appears whole or not at all."""
        write_file(path, self.profile.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> KVCacheCodec:
        """Read what `save` wrote.

        Raises:
            FormatError: not a KV profile.
            OSError: the file cannot be read.
        """
        return cls(KVProfile.from_bytes(opening.read_file(path, opening.MAX_WEIGHTS)))

    # --- caches <-> streams --------------------------------------------------------------------------------------

    def stream(self) -> KVStream:
        """An empty stream to append tokens to."""
        return KVStream(self.profile)

    @plainly
    def encode(self, cache: Any) -> bytes:
        """A whole cache as one `.ltz` stream.

        Args:
            cache: (keys, values), each (B, H, T, d) float16, bfloat16 or float32, of every layer; or a cache of
                transformers.

        Raises:
            InputError: not a cache of the model that the codec was fitted to.
            UnsupportedError: a cache that has dropped tokens.
        """
        stream = self.stream()
        stream.append(cache)
        stream.flush()
        return stream.to_bytes()

    @plainly
    def decode(
        self, blob: bytes | bytearray | memoryview, tokens: Sequence[int] | None = None, *,
        layers: Sequence[int] | None = None, components: int | None = None, device: str | torch.device = "cpu",
        limits: Limits = LIMITS,
    ) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
        """Inverse of `encode`: (keys, values) of every layer; arguments and errors as `KVStream.decode`."""
        return self.open(blob, limits=limits).decode(tokens, layers=layers, components=components, device=device)

    @plainly
    def open(self, blob: bytes | bytearray | memoryview, *, limits: Limits = LIMITS) -> KVStream:
        """A stream from its bytes, to read parts of it or to append to it.

        Raises:
            FormatError: not a KV cache, or a damaged one.
            UnsupportedError: it needs another profile.
        """
        return KVStream.from_container(self.profile, container.read(blob, limits))
