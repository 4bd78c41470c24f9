"""The archive tier on disk: tar shards of `.ltz` files with an index each, columns and a manifest.

docs/datasets.md is normative. Reading needs neither torch nor a codec; `pack` writes, `verify` checks.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..entropy.arrays import map_array, npz_array
from ..entropy.errors import FormatError, InputError
from ..entropy.opening import open_regular, read_file
from .arguments import sample_numbers
from .manifest import MAX_MANIFEST, columns_of, parse_manifest
from .remote import Remote, is_remote, local_path

MANIFEST = "manifest.json"
COLUMNS = "columns.npz"
INDEX_DTYPE = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4")])
MAX_TEXT = 1 << 12  # characters of a text in a column
MAX_COLUMNS = 1 << 36  # bytes of a file of columns
_NPY_HEAD = 1 << 16
_NUMBERS = ("label", "width", "height", "latent_h", "latent_w", "rate", "channels", "samples", "begin", "latent_rows")
_KINDS = {**dict.fromkeys(("key", "shape", "dtype"), "U"), **dict.fromkeys((*_NUMBERS, "latent_frames"), "iu")}
RESERVED = frozenset(_KINDS)  # names of columns that say what a sample is; those of a paired stream follow its name

_OPEN_FILES = 256  # shards kept open; reads from further ones open and close their file


def index_name(shard: str, variant: int = 0, stream: str = "") -> str:
    """Name of a shard's index: ``00000.tar`` -> ``00000.idx.npy``, of its mirrored variant ``00000.mirror.idx.npy``.

    Args:
        stream: the name of a stream beside the first one: ``00000.mask.idx.npy``.
    """
    name = shard.removesuffix(".tar") + (f".{stream}" if stream else "")
    return name + (".mirror.idx.npy" if variant else ".idx.npy")


class Columns(Mapping[str, np.ndarray]):
    """Columns by name, one entry a sample, each read when it is first asked for."""

    def __init__(self, path: Path, samples: int, classes: Mapping[str, int | None]) -> None:
        self._path, self._samples, self._classes = path, samples, classes
        self._names = tuple(sorted(classes))
        self._loaded: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._loaded:
            if name not in self._names:
                raise KeyError(f"{name!r}; the pack has the columns {', '.join(self._names)}")
            with _complete(self._path):
                kinds = _KINDS.get(name.rpartition(".")[2], "biufU")
                column = npz_array(self._path, name, self._samples, kinds, 4 * MAX_TEXT)
            classes = self._classes[name]
            inside = column.dtype.kind in "iu" and (
                not len(column) or 0 <= int(column.min()) <= int(column.max()) < (classes or 0)
            )
            if classes is not None and not inside:
                raise FormatError(f"{self._path}: column {name}: {name}s outside the {classes} classes")
            self._loaded[name] = column
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_index(path: Path, samples: int, num_bytes: int) -> np.ndarray:
    """Index of one shard, memory-mapped: (samples,) of `INDEX_DTYPE`.

    Raises:
        FormatError: missing, damaged, or pointing outside the shard.
    """
    with _complete(path):
        try:
            index = map_array(path, INDEX_DTYPE, (samples,))
        except FormatError as error:
            raise FormatError(f"{path}: an index of {samples} entries was expected: {error}") from None
    room = num_bytes - index["size"].astype(np.int64)
    if bool((index["offset"] > room.clip(0).astype(np.uint64)).any() or (room < 0).any()):
        raise FormatError(f"{path}: the index points beyond the end of its shard of {num_bytes} bytes")
    return index


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FormatError(f"{path} is missing; the pack is incomplete: run pack again") from None


class Archive:
    """A packed data set, read only: bytes of samples by number, columns, manifest.

    Safe to use from several threads, after a fork, and when pickled for another process.

    Args:
        path: folder that `pack` wrote, or a URL that fsspec understands (``s3://bucket/pack``).
        cache_dir: where manifest, columns and indexes of a remote pack are kept; by default ``latentzip/packs`` in the
            user's cache folder.

    Attributes:
        manifest: the parsed ``manifest.json``.
        manifest_sha256: of its bytes, in hex: names this pack, whatever its path.
        variants: 2 where every sample has a mirrored twin, else 1.
        streams: names of what each sample has beside its first stream, such as a mask.
        starts: (shards + 1,) number of the first sample of each shard, then the number of samples.

    Raises:
        FormatError: not a pack, or a damaged one; the text names the file.
        UnsupportedError: a newer version of the format.
        OSError: it cannot be read.

    Example:
        >>> archive = Archive("mypack")                              # doctest: +SKIP
        >>> len(archive), archive.columns["label"][0]                # doctest: +SKIP
        >>> blob = archive.read(0)   # a `.ltz` stream               # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> None:
        self.path = os.fspath(path)
        self._cache_dir = None if cache_dir is None else os.fspath(cache_dir)
        self._open(None)

    def _open(self, expected_sha: str | None) -> None:
        self._remote: Remote | None = None
        if is_remote(self.path):
            self._remote = Remote(self.path)
            data = self._remote.fetch(MANIFEST, MAX_MANIFEST)
        else:
            self.path = local_path(self.path)
            data = _manifest_bytes(Path(self.path))
        self.manifest = parse_manifest(data, _join(self.path, MANIFEST))
        self.manifest_sha256 = hashlib.sha256(data).hexdigest()
        if expected_sha is not None and expected_sha != self.manifest_sha256:
            raise FormatError(f"{self.path}: the pack has changed since it was opened; open it again")
        self.variants: int = self.manifest["variants"]
        self.streams: tuple[str, ...] = tuple(self.manifest.get("streams", {}))
        self._shards: list[str] = [shard["file"] for shard in self.manifest["shards"]]
        counts = [shard["samples"] for shard in self.manifest["shards"]]
        self.starts = np.concatenate([[0], np.cumsum(np.array(counts, np.int64))]).astype(np.int64)
        self._indexes: dict[tuple[str, int], np.ndarray] = {}
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _close_all, self._files)

    def __len__(self) -> int:
        return self.manifest["samples"]

    def __repr__(self) -> str:
        return f"Archive({self.path!r}, samples={len(self)}, codec={self.manifest['codec']!r})"

    def __getstate__(self) -> tuple[str, str | None, str]:
        return self.path, self._cache_dir, self.manifest_sha256

    def __setstate__(self, state: tuple[str, str | None, str]) -> None:
        self.path, self._cache_dir, sha = state
        self._open(sha)

    # --- tables --------------------------------------------------------------------------------------------------

    def local_file(self, name: str, most: int) -> Path:
        """A small file of the pack on this machine: fetched once into the cache folder when the pack is remote.

        Args:
            most: bytes that it may have there.
        """
        if self._remote is None:
            return Path(self.path) / name
        return self._remote.fetched(name, self.manifest_sha256, self._cache_dir, most)

    @cached_property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Column name -> array with one entry a sample; a column is read when it is first used."""
        most = self.manifest.get("columns_file", {}).get("bytes", MAX_COLUMNS)
        return Columns(self.local_file(COLUMNS, most), len(self), columns_of(self.manifest))

    @property
    def offsets(self) -> np.ndarray:
        """Where each sample lies in its shard: (samples,) of `INDEX_DTYPE`."""
        return self.offsets_of()

    @property
    def mirror_offsets(self) -> np.ndarray:
        """As `offsets`, of the mirrored variants; errors as `offsets_of`."""
        return self.offsets_of(variant=1)

    def offsets_of(self, stream: str = "", variant: int = 0) -> np.ndarray:
        """As `offsets`, of another stream of each sample, or of the mirrored variants.

        Raises:
            InputError: the pack has none.
        """
        if variant and self.variants < 2:
            raise InputError(f"{self.path} holds no mirrored variants; pack it again with --mirror")
        if (stream, variant) not in self._indexes:
            self.facts(stream)
            self._indexes[stream, variant] = self._concatenated(stream, variant)
        return self._indexes[stream, variant]

    def facts(self, stream: str = "") -> Mapping[str, Any]:
        """Codec, fingerprint, modality, latent, ... of a stream, as the manifest has them.

        Raises:
            InputError: no such stream.
        """
        if stream in ("", *self.streams):
            return self.manifest["streams"][stream] if stream else self.manifest
        have = ", ".join(self.streams) or "none beside the first"
        raise InputError(f"{self.path} has no stream {stream!r}; it has {have}")

    def _concatenated(self, stream: str, variant: int) -> np.ndarray:
        parts = [self.index_of(shard, stream, variant) for shard in self.manifest["shards"]]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, INDEX_DTYPE), *parts])

    def index_of(self, shard: Mapping[str, Any], stream: str = "", variant: int = 0) -> np.ndarray:
        """The index of one of the shards in the manifest; errors as `load_index`."""
        name = index_name(shard["file"], variant, stream)
        path = self.local_file(name, INDEX_DTYPE.itemsize * shard["samples"] + _NPY_HEAD)
        return load_index(path, shard["samples"], shard["bytes"])

    def shard_of(self, indices: Any) -> np.ndarray:
        """Number of the shard that holds each sample; ``indices`` must lie in 0..samples-1."""
        return np.searchsorted(self.starts, np.asarray(indices, np.int64), side="right") - 1

    # --- records -------------------------------------------------------------------------------------------------

    def read(self, i: int, variant: int = 0, verify: bool = False, stream: str = "") -> bytes:
        """The `.ltz` stream of sample ``i`` (negative numbers count from the end); see `read_many`."""
        return self.read_many([i], variant, verify, stream)[0]

    def read_many(
        self,
        indices: Sequence[int] | np.ndarray,
        variant: int | Sequence[int] | np.ndarray = 0,
        verify: bool = False,
        stream: str = "",
    ) -> list[bytes]:
        """The `.ltz` streams of several samples, in the order of ``indices``.

        Args:
            variant: 0 as packed, 1 the mirrored twin; one number, or one a sample.
            verify: compare each with its CRC-32 in the index. (A stream checks itself again when it is decoded.)
            stream: a name of `streams`; empty for the first.

        Raises:
            IndexError: a number out of range.
            InputError: a mirrored twin or a stream that the pack does not have.
            FormatError: a shard is shorter than its index says, or a checksum does not match.
            OSError: a shard cannot be read.
        """
        numbers = sample_numbers(indices, len(self), "a pack")
        rows = self._rows(numbers, variant, stream)
        shards = self.shard_of(numbers).tolist()
        begins, sizes = rows["offset"].tolist(), rows["size"].tolist()
        if self._remote is not None:
            blobs = self._remote.ranges([self._shards[s] for s in shards], begins, sizes)
        else:
            blobs = [self._read_local(s, size, begin) for s, begin, size in zip(shards, begins, sizes)]
        for i, shard, blob, size, crc in zip(numbers.tolist(), shards, blobs, sizes, rows["crc32"].tolist()):
            if len(blob) != size:
                raise FormatError(f"{_join(self.path, self._shards[shard])}: truncated: sample {i} is not all there")
            if verify and zlib.crc32(blob) != crc:
                raise FormatError(f"{_join(self.path, self._shards[shard])}: the checksum of sample {i} does not match")
        return blobs

    def _rows(self, numbers: np.ndarray, variant: int | Sequence[int] | np.ndarray, stream: str) -> np.ndarray:
        chosen = np.asarray(variant)
        if chosen.size and not bool(np.isin(chosen, (0, 1)).all()):
            raise InputError(f"variant is {variant!r}; 0 is the sample as packed, 1 its mirrored twin")
        if chosen.ndim == 0:
            return self.offsets_of(stream, int(chosen))[numbers]
        if chosen.shape != numbers.shape:
            raise InputError(f"{chosen.size} variants for {numbers.size} samples")
        rows = self.offsets_of(stream)[numbers]
        if chosen.any():
            rows = np.where(chosen == 1, self.offsets_of(stream, 1)[numbers], rows)
        return rows

    def _read_local(self, shard: int, size: int, offset: int) -> bytes:
        fd = self._files.get(shard)
        if fd is None:
            path = os.path.join(self.path, self._shards[shard])
            with _complete(Path(path)):
                fd = open_regular(path)
            with self._lock:
                kept = shard not in self._files and len(self._files) < _OPEN_FILES
                if kept:
                    self._files[shard] = fd
            if not kept:
                try:
                    return os.pread(fd, size, offset)
                finally:
                    os.close(fd)
        return os.pread(fd, size, offset)

    def close(self) -> None:
        """Close the shards; reading opens them again."""
        _close_all(self._files)


def _close_all(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def _manifest_bytes(folder: Path) -> bytes:
    try:
        return read_file(folder / MANIFEST, MAX_MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise FileNotFoundError(2, "No such file or directory", str(folder)) from None
        raise FormatError(
            f"{folder} is no packed data set: it has no {MANIFEST} (unfinished? run pack again)"
        ) from None


def _join(base: str, name: str) -> str:
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else os.path.join(base, name)
