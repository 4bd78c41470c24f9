"""Map-style access to a packed data set: one sample, or one batch in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ...codecs.base import Codec
from ...entropy.errors import InputError
from ..archive import Archive
from .cache import Cache, build_cache, check_latents, find_cache
from .collate import LatentBatch
from .decoding import codec_of, decode_latents, decode_signals
from .draw import Draw
from .sampler import BatchIndices, ElasticBatchSampler
from .transforms import check_declared

TIERS = ("auto", "archive", "cache")
OUTPUTS = ("latent", "signal", "bytes")
REMOTE_WINDOW = 64  # shards that a shuffled epoch of a remote pack reads at a time


def rank_and_world() -> tuple[int, int]:
    """This process among those of a distributed run: torch.distributed if it is up, else torchrun's variables."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class LatentDataset(Dataset[dict[str, Any]]):
    """Samples of a pack as dicts: ``{"latent": (L, h, w) int8, "label": 3, "index": 17}``.

    Read batches, not samples: with a batch sampler a DataLoader calls `__getitems__`, which decodes the whole batch in
    one threaded call (or gathers it from the training tier). ``num_workers=0`` with `LatentStream`'s prefetch thread is
    faster than worker processes, which copy every batch once more; both work, forked or spawned.

    Args:
        path: what `codec-cli pack` wrote; a folder or an fsspec URL.
        tier: "archive" entropy-decodes the range-coded streams, "cache" reads the training tier and makes it when there
            is none, "auto" reads the training tier where it exists.
        to: "latent", "signal" (pictures (C, H, W) float32 in [0, 1], decoded in batches on `device`) or "bytes" (the
            `.ltz` streams).
        columns: columns of the pack that every sample carries, beside ``index``.
        transform: a callable on batches, such as `transforms.RandomCrop`: takes the dict of a batch with numpy latents
            and a `Draw`, returns the dict.
        mirror: probability of the mirrored twin of a sample, for packs made with ``--mirror``.
        seed: of mirror and transform, which also depend on epoch and sample number; a batch sampler brings its own.
        device: where signals are decoded.
        threads: for entropy decoding; by default one a core, in a worker process of a DataLoader one.
        cache: folder of the training tier, where it is not in its default place.
        cache_dir: where the small files of a remote pack are kept, as for `Archive`.

    Raises:
        InputError: an argument that does not suit the pack; the text says what to do.
        UnsupportedError: a transform that the codec does not declare.
        FormatError, OSError: as `Archive`.

    Example:
        >>> data = lz.data.LatentDataset("mypack")                                         # doctest: +SKIP
        >>> loader = DataLoader(data, batch_sampler=data.sampler(256), collate_fn=lz.data.latent_collate)
        ...                                                                                # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        tier: Literal["auto", "archive", "cache"] = "auto",
        to: Literal["latent", "signal", "bytes"] = "latent",
        columns: Sequence[str] = ("label",),
        transform: Callable[[dict[str, Any], Draw], dict[str, Any]] | None = None,
        mirror: float = 0.0,
        seed: int = 0,
        device: str = "cpu",
        threads: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        for value, allowed, name in ((tier, TIERS, "tier"), (to, OUTPUTS, "to")):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}; one of {', '.join(allowed)}")
        if tier == "cache" and to != "latent":
            raise InputError(f"the training tier holds latents only; to={to!r} needs tier='archive'")
        self.archive = Archive(path, cache_dir)
        if to == "latent":
            check_latents(self.archive)
        self.to, self.transform, self.mirror = to, transform, mirror
        self.seed, self.epoch, self.device, self.threads = seed, 0, device, threads
        self.columns = self._check_columns(columns)
        if not 0 <= mirror <= 1:
            raise InputError(f"mirror is {mirror}; a probability from 0 to 1")
        if mirror and self.archive.variants < 2:
            raise InputError(
                f"{self.archive.path} holds no mirrored twins, and a latent cannot be flipped exactly: pack it again "
                "with --mirror"
            )
        if transform is not None:
            if to == "bytes":
                raise InputError("a transform needs latents or signals, not bytes")
            operation = getattr(transform, "operation", None)
            if operation is not None and to == "latent":
                check_declared(self.codec, operation)
        self.cache = self._open_cache(tier, cache) if to == "latent" else None

    def _check_columns(self, names: Sequence[str]) -> tuple[str, ...]:
        if isinstance(names, str):
            names = (names,)
        present = self.archive.manifest["columns"]
        missing = [name for name in names if name not in present]
        if missing == ["label"] and tuple(names) == ("label",):  # the default, of a pack without labels
            return ()
        if missing:
            raise InputError(f"{self.archive.path} has no column {missing[0]!r}; it has {', '.join(sorted(present))}")
        return tuple(names)

    def _open_cache(self, tier: str, folder: str | os.PathLike[str] | None) -> Cache | None:
        if tier == "archive":
            return None
        if tier == "cache":
            return build_cache(self.archive, folder, threads=self.threads)
        found = find_cache(self.archive) if folder is None else folder
        return None if found is None else Cache(found, self.archive)

    # --- what the pack is ----------------------------------------------------------------------------------------

    @property
    def codec(self) -> Codec:
        """The codec with the weights that the pack was made with."""
        return codec_of(self.archive.manifest, self.device if self.to == "signal" else "cpu")

    @property
    def quality(self) -> float | None:
        """Quality of the streams; None for codecs of one fixed rate."""
        return self.archive.manifest.get("quality")

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """(L, h, w) where all latents have one shape, before any transform."""
        shape = (self.archive.manifest["latent"] or {}).get("fixed_shape")
        return None if shape is None else tuple(shape)

    @property
    def classes(self) -> list[str] | None:
        """Names of the values of column ``label``."""
        return self.archive.manifest["columns"].get("label", {}).get("classes")

    def __len__(self) -> int:
        return len(self.archive)

    def __repr__(self) -> str:
        return f"LatentDataset({self.archive.path!r}, samples={len(self)}, to={self.to!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_loaded_columns"}

    # --- order ---------------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """The epoch that mirror and transform follow where no batch sampler says it."""
        self.epoch = epoch

    def sampler(self, batch_size: int, *, bucket: bool = False, window: int | None = None, **options: Any) -> Any:
        """An `ElasticBatchSampler` for this data set and this process.

        Args:
            batch_size: of the global batch, over all ranks.
            bucket: put only latents of one shape into a batch.
            window: shards read at a time; by default everything is permuted when the pack is local, and 64 shards at a
                time when it is remote.
            options: `shuffle`, `seed`, `drop_last`, `rank`, `world` of `ElasticBatchSampler`; rank and world default to
                those of torch.distributed or torchrun.
        """
        rank, world = rank_and_world()
        if window is None:
            window = REMOTE_WINDOW if "://" in self.archive.path else 0
        defaults: dict[str, Any] = {"seed": self.seed, "rank": rank, "world": world}
        return ElasticBatchSampler(
            len(self),
            batch_size,
            buckets=self.buckets if bucket else None,
            starts=self.archive.starts,
            window=window,
            **(defaults | options),
        )

    @property
    def buckets(self) -> np.ndarray:
        """(samples,) a number for every shape of latents that occurs."""
        columns = self.archive.columns
        h, w = columns["latent_h"].astype(np.int64), columns["latent_w"].astype(np.int64)
        return np.unique(h << 32 | w, return_inverse=True)[1].reshape(-1)

    # --- samples -------------------------------------------------------------------------------------------------

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> LatentBatch:
        """Samples read in one go; the order is that of ``indices``."""
        numbers = np.asarray(indices, np.int64)
        count = len(self)
        if numbers.size and not (-count <= int(numbers.min()) and int(numbers.max()) < count):
            raise IndexError(f"sample {int(numbers[np.argmax(np.abs(numbers))])} of a data set of {count}")
        numbers = np.where(numbers < 0, numbers + count, numbers)
        seed, epoch = self.seed, self.epoch
        if isinstance(indices, BatchIndices):
            seed, epoch = indices.seed, indices.epoch
        draw = Draw(seed, epoch, numbers) if self.mirror or self.transform is not None else None
        variant = (draw.uniform() < self.mirror).astype(np.int64) if draw is not None and self.mirror else 0
        batch = {self.to: self._read(numbers, variant)}
        for name in self.columns:
            values = self._loaded_columns[name][numbers]
            batch[name] = torch.from_numpy(values) if values.dtype.kind in "biuf" else values.tolist()
        batch["index"] = torch.from_numpy(numbers)
        if self.transform is not None and draw is not None:
            batch = self.transform(batch, draw)
        if self.to == "latent":
            batch["latent"] = _tensors(batch["latent"])
        return LatentBatch(batch, len(numbers))

    @cached_property
    def _loaded_columns(self) -> dict[str, np.ndarray]:
        return {name: self.archive.columns[name] for name in self.columns}

    def _read(self, numbers: np.ndarray, variant: Any) -> Any:
        if self.cache is not None:
            return self.cache.gather(numbers, variant)
        blobs = self.archive.read_many(numbers, variant)
        if self.to == "bytes":
            return blobs
        threads = self.threads or (1 if get_worker_info() is not None else os.cpu_count() or 1)
        if self.to == "signal":
            signals = decode_signals(blobs, self.codec, threads)
            same = len({s.shape for s in signals}) == 1
            return torch.stack(signals) if same else signals
        return decode_latents(blobs, self.codec, threads, self.latent_shape)


def _tensors(latents: Any) -> Tensor | list[Tensor]:
    if isinstance(latents, np.ndarray):
        return torch.from_numpy(latents)
    tensors = [torch.from_numpy(np.ascontiguousarray(z)) for z in latents]
    same = len({z.shape for z in tensors}) == 1
    return torch.stack(tensors) if same else tensors
