"""A store of embeddings: one file, short rows of a known error, random access by groups of rows.

A fitted rotation (see `FeatureCodec.fit`) travels in the file; groups of some hundred rows are coded under it and
decode alone. The file is a `.ltz` stream: `latentzip.inspect` reads it, every group has its checksum.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ...codecs.features import profiled
from ...codecs.features.codec import FeatureCodec
from ...codecs.features.profile import Profile, water_step
from ...entropy import container
from ...entropy.errors import InputError
from ...entropy.numbers import share, whole
from ...files import atomic_writer
from ...warn import converted
from .file import LIMITS, RowFile
from .rows import FIT_ROWS, HUGE, Nearest, asked, finite, first_parts, grouped, numbers_of, parts_of

ROWS = 256  # of a group: fewer cost more bits, more cost more time for one row
_MOST = container.DEFAULT_LIMITS.samples  # values of a group
_BLOCK = 1 << 14  # rows that a search compares at once
_TRIES = 8  # steps that are tried for a goal
_GROUP_ROWS = 1 << 12  # rows whose error is measured at once


class EmbeddingStore(RowFile):
    """Embeddings in a file, read by number; made with `EmbeddingStore.write`.

    Safe to hand to other processes: they open the file themselves.

    Args:
        path: of the file; it is mapped into memory, not read.

    Attributes:
        shape: (N, D).
        dtype: float32 or float16, of what was written and of what is read.
        group: rows of a group.
        profile: the rotation that the file carries.

    Raises:
        FormatError: not a store, or a damaged one; damage of a group shows when it is read.
        OSError: the file cannot be read.

    Example:
        >>> import numpy as np, os, tempfile
        >>> x = np.random.default_rng(0).standard_normal((1000, 16)).astype("float32")
        >>> path = os.path.join(tempfile.mkdtemp(), "rows.ltz")
        >>> store = EmbeddingStore.write(path, x, nmse=0.01)
        >>> store.shape, store[3].shape, store[[5, 900, 5]].shape, store[10:20].shape
        ((1000, 16), (16,), (3, 16), (10, 16))
        >>> scores, numbers = store.search(x[:2], k=5)
        >>> numbers.shape
        (2, 5)
    """

    _name = "embeddings"
    _kind = ("store", "embeddings")
    _params = struct.Struct("<BIf")  # version, rows of a group, step

    def __init__(self, path: str | os.PathLike[str]) -> None:
        stream = self._mapped(path)
        _, self.group, self._step = self._params.unpack(stream.header.params)
        self.profile = Profile.from_bytes(stream.chunks[0])
        sound = self.group > 0 and 0 < self._step < inf and self.profile.channels == self.shape[1]
        sound = sound and self.profile.fingerprint == stream.header.fingerprint
        if not sound or self.group * self.shape[1] > _MOST or len(stream.chunks) != 1 + -(-self.shape[0] // self.group):
            raise self._contradiction()
        self._chunks = stream.chunks
        self._last: tuple[int, np.ndarray] | None = None

    def __repr__(self) -> str:
        return f"EmbeddingStore({self.path!r}, shape={self.shape}, {self.num_bytes} bytes)"

    # --- writing -------------------------------------------------------------------------------------------------

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        vectors: Any,
        *,
        nmse: float | None = None,
        codec: FeatureCodec | None = None,
        group: int = ROWS,
        force: bool = False,
    ) -> Self:
        """Code embeddings into a file; it appears whole or not at all.

        Args:
            path: of the file to write.
            vectors: (N, D) array or tensor, float32 or float16; or an iterable of such arrays, taken one by one.
            nmse: mean squared error over the variance about the mean, over all rows alike; 0.01 without a codec.
            codec: a fitted `FeatureCodec`, with its step where there is no nmse. None: fitted to the rows, of an
                iterable to the first 65,536.
            group: rows that are coded together.
            force: replace an existing file.

        Returns:
            The store, open.

        Raises:
            InputError: no rows, rows of other sizes or dtypes, values that are not finite, or an existing file.
        """
        nmse, group = _checked(nmse, codec, group)
        parts, at_hand = parts_of(vectors)
        first = first_parts(parts, codec is None)
        kind = first[0]
        profile = (codec or FeatureCodec.fit(first, nmse=nmse or 0.01)).profile
        if not isinstance(profile, Profile):
            raise InputError("the codec's profile holds codebooks: a store of codes is CodeStore.write(path, vectors)")
        if profile.channels != kind.shape[1]:
            raise InputError(
                f"the codec was fitted to {profile.channels} channels, the embeddings have {kind.shape[1]}"
            )
        if group * profile.channels > _MOST:
            raise InputError(f"group is {group}; {_MOST // profile.channels} rows of these are the most")
        if codec is None or nmse is not None:
            nmse = nmse or 0.01
            step = _step(profile, first, nmse, codec is None, at_hand)
        else:
            step = profile.step
        target = Path(path)
        with atomic_writer(target, force) as file, tempfile.TemporaryFile(dir=target.parent) as payload:
            attempt = 0
            while True:
                attempt += 1
                step = float(np.float32(step))
                if not 1e-30 <= step <= HUGE:
                    raise InputError(f"rows of this scale need a step of {step:.3g}: multiply them by a power of two")
                sizes, error = _coded(profile, step, grouped(chain(first, parts), kind, group), kind, payload)
                if nmse is None or error.nmse() <= nmse or not at_hand or attempt == _TRIES:
                    break
                step *= 0.99 * (nmse / error.nmse()) ** 0.5
            if nmse is not None and error.nmse() > nmse:
                converted(
                    f"{target}: squared error over variance is {error.nmse():.3g}, {nmse:g} was asked for: the first "
                    f"{FIT_ROWS} rows are not like the others; hand in an array, or a codec fitted to a sample of all"
                )
            header = cls._header(profile.fingerprint, (error.count, kind.shape[1]), kind.dtype, group, step)
            file.write(container.head(header, sizes, limits=LIMITS))
            payload.seek(0)
            shutil.copyfileobj(payload, file, 1 << 20)
        return cls(path)

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, rows: Sequence[int] | np.ndarray, components: int | None = None) -> np.ndarray:
        """Rows (M, D) by number, in the order asked for; each group that they lie in is decoded once.

        Args:
            rows: numbers; negative ones count from the end.
            components: the strongest components only: coarser, and less to compute.

        Raises:
            IndexError: there is no such row.
            InputError: there are not so many components.
            FormatError: a group is damaged.
        """
        if components is not None and not 1 <= components <= len(self.profile.basis):
            raise InputError(f"components is {components}; the store has {len(self.profile.basis)}")
        numbers = numbers_of(rows, len(self))
        out = np.empty((numbers.size, self.shape[1]), self.dtype)
        home = numbers // self.group
        for group in np.unique(home):
            here = home == group
            out[here] = self._decode(int(group), components)[numbers[here] - group * self.group]
        return out

    def _decode(self, group: int, components: int | None = None) -> np.ndarray:
        if components is None and self._last is not None and self._last[0] == group:
            return self._last[1]
        count = min(self.group, len(self) - group * self.group)
        x = profiled.decode(self.profile, self._step, self._chunks[group + 1], count, components)
        limit = float(np.finfo(self.dtype).max)
        rows = x.clamp(-limit, limit).numpy().astype(self.dtype, copy=False)
        if components is None:
            self._last = group, rows
        return rows

    def search(
        self, queries: Any, k: int = 10, metric: Literal["cosine", "dot"] = "cosine"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest rows of each query, by comparing with all of them, block by block.

        Args:
            queries: (Q, D) float array or tensor.
            k: how many; at most as many as there are rows.
            metric: "cosine", or "dot" for the product without norms.

        Returns:
            Scores (Q, k) float32, the best first, and row numbers (Q, k) int64.

        Raises:
            InputError: queries that do not fit, or another metric.
        """
        q = asked(queries, k, metric, self.shape)
        nearest = Nearest(len(q), k)
        block = max(1, _BLOCK // self.group) * self.group
        for start in range(0, len(self), block):
            x = torch.from_numpy(self[start : start + block]).float()
            scores = q @ (torch.nn.functional.normalize(x) if metric == "cosine" else x).T
            nearest.add(scores, start)
        return nearest.scores.numpy(), nearest.numbers.numpy()


def _checked(nmse: float | None, codec: FeatureCodec | None, group: int) -> tuple[float | None, int]:
    """Raises InputError for arguments of `EmbeddingStore.write` that make no sense."""
    nmse = None if nmse is None else share("nmse", nmse)
    if codec is not None and codec.profile is None:
        raise InputError("the codec has no profile: make one with FeatureCodec.fit, or leave codec out")
    return nmse, whole("group", group, 1)


def _coded(
    profile: Profile, step: float, groups: Iterable[Tensor], kind: Tensor, payload: BinaryIO
) -> tuple[list[int], _Error]:
    """Write profile and groups into an open file from its beginning: sizes, and the error that was made."""
    payload.seek(0)
    payload.truncate()
    sizes = [payload.write(container.seal(profile.to_bytes())) - container.CRC_BYTES]
    error = _Error(kind.shape[1])
    for rows in groups:
        x = finite(rows, error.count)
        found, restored = profiled.quantised(profile, step, x)
        data = container.seal(profiled.coded(profile, step, found))
        sizes.append(payload.write(data) - container.CRC_BYTES)
        error.add(x, restored.to(kind.dtype))
    return sizes, error


class _Error:
    """Squared error over the variance about the mean, of rows that come in parts."""

    def __init__(self, channels: int) -> None:
        self.count, self.error = 0, 0.0
        self.sum, self.square = torch.zeros(channels).double(), torch.zeros(channels).double()

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in rows (N, D), and what they decode to."""
        wide = x.double()
        self.count += len(x)
        self.error += float((wide - y.double()).square().sum())
        self.sum += wide.sum(0)
        self.square += wide.square().sum(0)

    def nmse(self) -> float:
        """0 where nothing varies."""
        variance = float((self.square - self.sum.square() / max(1, self.count)).sum())
        return self.error / variance if variance > 0 else 0.0


def _step(profile: Profile, parts: list[Tensor], nmse: float, fitted: bool, whole: bool) -> float:
    """The widest step found under which these rows have at most this error, decoded as they will be.

    Args:
        fitted: whether the profile was fitted to these rows, so that its step is a good guess.
        whole: whether there will be no other rows; otherwise the first ones do.
    """
    x = finite(torch.cat(parts) if len(parts) > 1 else parts[0], 0)
    x = x if whole else x[:FIT_ROWS]
    step = profile.step
    if not fitted:
        transform = profile.transform
        assert transform.synthesis is not None
        energy = transform.forward(x[:FIT_ROWS]).double().square().mean(0)
        target = nmse * float(x[:FIT_ROWS].double().var(0, correction=0).sum())
        step = water_step(energy, transform.synthesis.double().square().sum(1), target)
    best = 0.0
    for _ in range(_TRIES):
        step = float(np.float32(step))
        error = _Error(x.shape[1])
        for rows in x.split(_GROUP_ROWS):
            error.add(rows, profiled.quantised(profile, step, rows)[1])
        got = error.nmse()
        if got <= nmse:
            best = max(best, step)
            if got > 0.98 * nmse or got == 0:
                break
        step *= min(2.0, max(0.25, (0.99 * nmse / got) ** 0.5)) if got > 0 else 1.0
    if not best:
        raise InputError(f"nmse is {nmse}; these rows do not keep to it under this profile: fit one to them")
    return best
