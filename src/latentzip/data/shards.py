"""Writing shards: tar files with the same bytes for the same samples, an index beside each."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..codecs.outputs import naming
from ..entropy.container import EXTENSION
from ..entropy.errors import InputError
from .archive import INDEX_DTYPE, index_name
from .places import Place

MIRROR = ".mirror"
MAX_KEY = 200  # bytes: USTAR splits a name at a "/" into 155 + 100, the extensions take 11
_BLOCK = 512
_ORIGIN = 0  # mtime, uid, gid: the same input gives the same bytes


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard, as the manifest lists it."""

    file: str
    samples: int
    bytes: int
    sha256: str


def member_header(name: str, size: int) -> bytes:
    """The USTAR header block of one regular file.

    Raises:
        InputError: the name does not fit into a header.
    """
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, _ORIGIN, 0o644
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise InputError(f"the key {name!r} does not fit into a tar header: {error}") from error


class ShardWriter:
    """Writes one shard and its indexes; they appear when the block ends, and vanish when it raises.

    Args:
        folder: where: a folder, or a `Place`.
        file: name of the shard, such as ``00000.tar``.
        mirror: whether every stream comes with a mirrored twin.
        streams: names of what a sample has beside its first stream.

    Example:
        >>> with ShardWriter(Path("mypack"), "00000.tar") as shard:  # doctest: +SKIP
        ...     shard.add("cats/1", blob)
        >>> shard.info                                               # doctest: +SKIP
    """

    def __init__(self, folder: Path | Place, file: str, mirror: bool = False, streams: Sequence[str] = ()) -> None:
        self._place = folder if isinstance(folder, Place) else Place(os.fspath(folder))
        self._file, self._mirror = file, mirror
        self._part = self._place.scratch / f".{file}.{os.getpid()}.part"
        # in the order of the members of a sample
        members = [(stream, variant) for stream in ("", *streams) for variant in range(1 + mirror)]
        self._rows: dict[tuple[str, int], list[tuple[int, int, int]]] = {member: [] for member in members}
        self._hash, self._at = hashlib.sha256(), 0
        self.info: ShardInfo | None = None
        self.files: dict[str, str] = {}  # of a finished shard: name -> SHA-256

    def __enter__(self) -> Self:
        self._stream = open(self._part, "wb")
        return self

    @property
    def num_bytes(self) -> int:
        """Written so far."""
        return self._at

    def add(self, key: str, blob: bytes, mirror: bytes | None = None) -> None:
        """Append a sample of one stream: member ``KEY.ltz``, and ``KEY.mirror.ltz`` for its twin."""
        self.add_all(key, {("", 0): blob} if mirror is None else {("", 0): blob, ("", 1): mirror})

    def add_all(self, key: str, blobs: Mapping[tuple[str, int], bytes]) -> None:
        """Append a sample of several: ``KEY.ltz``, ``KEY.NAME.ltz`` and their twins, by (name, variant)."""
        if {v for _, v in blobs} != set(range(1 + self._mirror)):
            raise InputError(f"{key}: either every sample of a shard has a mirrored twin or none has")
        if set(blobs) != set(self._rows):
            raise InputError(f"{key}: the streams {sorted(blobs)} are not those of the shard, {sorted(self._rows)}")
        for (stream, variant), rows in self._rows.items():
            self._member(member_name(key, stream, variant), blobs[stream, variant], rows)

    def _member(self, name: str, data: bytes, rows: list[tuple[int, int, int]]) -> None:
        self._put(member_header(name, len(data)))
        rows.append((self._at, len(data), zlib.crc32(data)))
        self._put(data)
        self._put(bytes(-len(data) % _BLOCK))

    def _put(self, data: bytes) -> None:
        with naming(self._place.where(self._file)):
            self._stream.write(data)
        self._hash.update(data)
        self._at += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._finish()
                return
            except BaseException:
                self._remove()
                raise
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):  # what is still to be written may not fit
            self._stream.close()
        with suppress(OSError):
            self._part.unlink()

    def _finish(self) -> None:
        self._put(bytes(2 * _BLOCK))
        with naming(self._place.where(self._file)):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        for (stream, variant), rows in self._rows.items():
            name, data = index_name(self._file, variant, stream), npy_bytes(np.array(rows, INDEX_DTYPE))
            self._place.write(name, data)
            self.files[name] = hashlib.sha256(data).hexdigest()
        self._place.adopt(self._part, self._file)
        self.info = ShardInfo(self._file, len(self._rows["", 0]), self._at, self._hash.hexdigest())
        self.files[self._file] = self.info.sha256


def member_name(key: str, stream: str = "", variant: int = 0) -> str:
    """``KEY.ltz``, ``KEY.mirror.ltz``, ``KEY.mask.ltz``, ``KEY.mask.mirror.ltz``."""
    return key + (f".{stream}" if stream else "") + (MIRROR if variant else "") + EXTENSION


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npz_bytes(columns: dict[str, np.ndarray]) -> bytes:
    """Columns as the bytes of an ``.npz`` file, the same for the same columns."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, column in sorted(columns.items()):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(column))  # ZipInfo's date is fixed
    return stream.getvalue()


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """A manifest as bytes, the same for the same manifest."""
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def fitted(key: str, members: Sequence[tuple[str, int]]) -> str:
    """The key itself, or a hash of it where the names of its members do not fit into tar headers."""
    ends = [member_name("", stream, variant).encode() for stream, variant in members]
    return key if all(fits(key, end) for end in ends) else hashlib.sha256(key.encode()).hexdigest()[:32]


def fits(key: str, end: bytes = (MIRROR + EXTENSION).encode()) -> bool:
    """Whether a member's name splits into the 155 + 100 bytes of a tar header."""
    data = key.encode() + end
    return len(data) <= 100 or any(at <= 155 and len(data) - at - 1 <= 100 for at, c in enumerate(data) if c == 0x2F)
