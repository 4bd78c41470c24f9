"""Map-style access to a packed data set: one sample, or one batch in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ...api import device_of
from ...codecs.contract import TOKENS
from ...entropy.errors import FormatError, InputError
from ...entropy.numbers import real, truth, whole
from ..archive import Archive
from ..arguments import mapping, names, sample_numbers
from ..codec import codec_of
from ..modality import MODALITIES
from ..modality.base import Modality, Table
from .cache import Cache, build_cache, check_latents, find_cache, table_of
from .check import shape_columns
from .collate import LatentBatch
from .draw import Draw
from .sampler import BatchIndices, ElasticBatchSampler
from .spans import PLACES, Spans
from .transforms import check_declared

TIERS = ("auto", "archive", "cache")
OUTPUTS = ("latent", "tokens", "signal", "bytes")
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
        to: "latent" ((L, h, w), of sound (rows, frames)), "tokens" (of `vq` and `vq-audio`: numbers of codewords,
            (levels, h, w) or (levels, frames) uint16, in a column ``tokens``; of tensors as `FeatureCodec.tokens`),
            "signal" (pictures (C, H, W) float32 in [0, 1], sound (C, T) float32 of full scale 1, tensors as they were;
            decoded in batches on `device`) or "bytes" (the `.ltz` streams).
        streams: of packs with several streams a sample: name -> "latent", "signal" or "bytes"; each becomes a column
            of that name. They follow ``mirror``, and neither transforms nor ``seconds``.
        columns: columns of the pack that every sample carries, beside ``index``.
        seconds: of sound: give a span of this length of each sample, on the grid of the codec's frames; of the archive
            only the chunks that it touches are decoded.
        place: where the span lies: "random", anew in every epoch, "start" or "center".
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
        to: Literal["latent", "tokens", "signal", "bytes"] = "latent",
        streams: Mapping[str, str] | None = None,
        columns: Sequence[str] = ("label",),
        transform: Callable[[dict[str, Any], Draw], dict[str, Any]] | None = None,
        mirror: float = 0.0,
        seconds: float | None = None,
        place: Literal["random", "start", "center"] = "random",
        seed: int = 0,
        device: str = "cpu",
        threads: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        for value, allowed, name in ((tier, TIERS, "tier"), (to, OUTPUTS, "to"), (place, PLACES, "place")):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}; one of {', '.join(allowed)}")
        self.archive = Archive(path, cache_dir)
        self.kind = MODALITIES[self.archive.manifest["modality"]]
        self.levels = token_levels(self.archive) if to == "tokens" else None
        # of tensors tokens are read as they are, of pictures and sound they are the first levels of a latent
        to = "latent" if to == "tokens" and self.archive.facts("")["latent"] is not None else to
        if to == "latent":
            check_latents(self.archive)
        if tier == "cache" and to != self.kind.output:
            held = "latents" if self.kind.output == "latent" else "values"
            raise InputError(f"the training tier holds {held} only; to={to!r} needs tier='archive'")
        self.streams = mapping("streams", streams, '{"mask": "signal"}')
        for name, wanted in self.streams.items():
            if wanted not in OUTPUTS or wanted == "tokens":
                known = ", ".join(output for output in OUTPUTS if output != "tokens")
                raise InputError(f"stream {name}: {wanted!r}; one of {known}")
            self.archive.facts(name)
            if wanted == "latent":
                check_latents(self.archive, name)
        mirror = 0.0 if mirror is False else real("mirror", mirror, "a probability from 0 to 1")
        self.to, self.transform, self.mirror = to, transform, mirror
        self.seed, self.epoch, self.device = whole("seed", seed), 0, str(device)
        if "signal" in (to, *self.streams.values()):  # others may be read where there is no such device
            self.device = device_of(device)
        self.threads = None if threads is None else whole("threads", threads, 1)
        self.columns = self._check_columns(columns)
        if not 0 <= mirror <= 1:
            raise InputError(f"mirror is {mirror}; a probability from 0 to 1")
        if mirror and self.archive.variants < 2:
            raise InputError(
                f"{self.archive.path} holds no mirrored twins, and a latent cannot be flipped exactly: pack it again "
                "with --mirror"
            )
        if transform is not None:
            if not callable(transform) or isinstance(transform, type):
                raise InputError(f"transform is {transform!r:.60}; one that was made is needed, such as RandomCrop(16)")
            if to == "bytes":
                raise InputError("a transform needs latents or signals, not bytes")
            operation = getattr(transform, "operation", None)
            if operation is not None and to == "latent":
                check_declared(self.codec, operation)
        self.spans = None
        if seconds is not None:
            if to == "bytes":
                raise InputError("seconds needs latents or signals, not bytes: a stream holds all of its sample")
            self.spans = Spans(self.archive, self.codec, seconds, place)
        self.cache = self._open_cache(tier, cache) if to == self.kind.output else None

    def _check_columns(self, wanted: Sequence[str]) -> tuple[str, ...]:
        wanted = names("columns", (wanted,) if isinstance(wanted, str) else wanted)
        present = self.archive.manifest["columns"]
        missing = [name for name in wanted if name not in present]
        if missing == ["label"] and wanted == ("label",):  # the default, of a pack without labels
            return ()
        if missing:
            raise InputError(f"{self.archive.path} has no column {missing[0]!r}; it has {', '.join(sorted(present))}")
        return wanted

    def _open_cache(self, tier: str, folder: str | os.PathLike[str] | None) -> Cache | None:
        if tier == "archive":
            return None
        if tier == "cache":
            return build_cache(self.archive, folder, threads=self.threads)
        found = find_cache(self.archive) if folder is None else folder
        return None if found is None else Cache(found, self.archive)

    # --- what the pack is ----------------------------------------------------------------------------------------

    @property
    def codec(self) -> Any:
        """The codec with the weights that the pack was made with."""
        return codec_of(self.archive, "", self.device if self.to == "signal" else "cpu")

    @property
    def quality(self) -> float | None:
        """Quality of the streams; None for codecs of one fixed rate."""
        return self.archive.manifest.get("quality")

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """(L, h, w), of sound (rows, frames), where all latents have one shape, before any transform and span."""
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
        self.epoch = whole("epoch", epoch)

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
            buckets=self.buckets if truth("bucket", bucket) else None,
            starts=self.archive.starts,
            window=window,
            **(defaults | options),
        )

    @property
    def buckets(self) -> np.ndarray:
        """(samples,) a number for every shape that occurs."""
        number = np.zeros(len(self), np.int64)
        for name in shape_columns("", self.archive.manifest):
            own = np.unique(self.archive.columns[name], return_inverse=True)[1].reshape(-1)
            number = np.unique(number * (int(own.max(initial=0)) + 1) + own, return_inverse=True)[1].reshape(-1)
        return number

    # --- samples -------------------------------------------------------------------------------------------------

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> LatentBatch:
        """Samples read in one go; the order is that of ``indices``."""
        numbers = sample_numbers(indices, len(self), "a data set")
        seed, epoch = self.seed, self.epoch
        if isinstance(indices, BatchIndices):
            seed, epoch = indices.seed, indices.epoch
        random = self.mirror or self.transform is not None or self.spans is not None
        draw = Draw(seed, epoch, numbers) if random else None
        variant = (draw.uniform() < self.mirror).astype(np.int64) if draw is not None and self.mirror else 0
        spans = self.spans(numbers, draw) if self.spans is not None and draw is not None else None
        batch = {self.to: self._read(numbers, variant, spans)}
        for name, wanted in self.streams.items():
            batch[name] = self._paired(name, wanted, numbers, variant)
        for name in self.columns:
            values = self._loaded_columns[name][numbers]
            batch[name] = torch.from_numpy(values) if values.dtype.kind in "biuf" else values.tolist()
        batch["index"] = torch.from_numpy(numbers)
        if self.transform is not None and draw is not None:
            batch = self.transform(batch, draw)
        if self.to == "latent":
            latent = _tensors(batch.pop("latent"))
            if self.levels is None:
                batch = {"latent": latent, **batch}
            else:
                batch = {"tokens": _as_tokens(latent, self.codec, self.levels), **batch}
        return LatentBatch(batch, len(numbers))

    @cached_property
    def _loaded_columns(self) -> dict[str, np.ndarray]:
        return {name: self.archive.columns[name] for name in self.columns}

    @property
    def _threads(self) -> int:
        return self.threads or (1 if get_worker_info() is not None else os.cpu_count() or 1)

    def _read(self, numbers: np.ndarray, variant: Any, spans: list[tuple[int, int]] | None) -> Any:
        table = table_of(self.archive)
        if self.cache is not None:
            found = self.cache.gather(numbers, variant)
            if spans is not None:
                found = [z[..., a:b] for z, (a, b) in zip(found, spans)]
            return found if self.to == "latent" else _tensors(found, table)
        blobs = self.archive.read_many(numbers, variant)
        if self.to == "bytes":
            return blobs
        return _decoded(self.kind, blobs, numbers, self.codec, self._threads, self.to, table, spans)

    def _paired(self, name: str, wanted: str, numbers: np.ndarray, variant: Any) -> Any:
        blobs = self.archive.read_many(numbers, variant, stream=name)
        if wanted == "bytes":
            return blobs
        facts = self.archive.facts(name)
        kind, codec = MODALITIES[facts["modality"]], codec_of(self.archive, name, self.device)
        found = _decoded(kind, blobs, numbers, codec, self._threads, wanted, kind.table(facts))
        return _tensors(found) if wanted == "latent" else found


def token_levels(archive: Archive) -> int | None:
    """How many levels of tokens the latents of a pack have; None where tokens are read from streams of tensors.

    Raises:
        InputError: its codec has no tokens.
    """
    codec = codec_of(archive, "", "cpu")
    if TOKENS not in codec.capabilities:
        if archive.facts("")["latent"] is None:
            raise InputError(
                f"{archive.path} holds signals of {codec.name} without tokens: a feature profile of codebooks has some"
            )
        raise InputError(f"{archive.path} holds latents of {codec.name}, which are no tokens; to='latent' reads them")
    if archive.facts("")["latent"] is None:
        return None
    said = archive.manifest.get("options", {}).get("levels")
    return int(said) if said is not None else codec.levels(archive.manifest.get("quality"))


def _decoded(
    kind: Modality, blobs: list[bytes], numbers: np.ndarray, codec: Any, threads: int, to: str, table: Table | None,
    spans: list[tuple[int, int]] | None = None,
) -> Any:  # fmt: skip
    """A batch of streams as latents (arrays) or as signals (tensors), stacked where they are alike."""
    try:
        found = _read_all(kind, blobs, codec, threads, to, table, spans)
    except FormatError:
        for i, number in enumerate(numbers.tolist()):  # which one is it?
            try:
                span = None if spans is None else spans[i : i + 1]
                _read_all(kind, blobs[i : i + 1], codec, 1, to, table, span)
            except FormatError as error:
                raise type(error)(f"sample {number}: {error}") from None
        raise
    if to in ("signal", "tokens"):
        return torch.stack(found) if len({(s.shape, s.dtype) for s in found}) == 1 else found
    return found


def _read_all(
    kind: Modality, blobs: list[bytes], codec: Any, threads: int, to: str, table: Table | None,
    spans: list[tuple[int, int]] | None,
) -> Any:  # fmt: skip
    """The same, as the kind gives them."""
    if to == "signal":
        return kind.signals(blobs, codec, threads, spans)
    if to == "tokens":
        return kind.tokens(blobs, codec, threads)
    assert table is not None
    return kind.arrays(blobs, codec, threads, table, spans)


def _as_tokens(latent: Tensor | list[Tensor], codec: Any, levels: int) -> Tensor | list[Tensor]:
    """The first levels of latents that are tokens, uint16: a batch (B, levels, ...)."""
    if isinstance(latent, Tensor):
        return codec.first_levels(latent, levels, 1).to(torch.uint16)
    return [codec.first_levels(z, levels).to(torch.uint16) for z in latent]


def _tensors(latents: Any, table: Table | None = None) -> Tensor | list[Tensor]:
    if isinstance(latents, np.ndarray):
        return _valued(torch.from_numpy(latents), table)
    tensors = [_valued(torch.from_numpy(np.ascontiguousarray(z).reshape(z.shape)), table) for z in latents]
    same = len({z.shape for z in tensors}) == 1
    return torch.stack(tensors) if same else tensors


def _valued(x: Tensor, table: Table | None) -> Tensor:
    """The values of the training tier's arrays: those of bfloat16 are kept as their bits."""
    return x.view(torch.bfloat16) if table is not None and table.dtype == "bfloat16" else x
