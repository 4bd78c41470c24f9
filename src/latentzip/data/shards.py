"""Writing shards: tar files with the same bytes for the same samples, an index beside each."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from ..entropy.container import EXTENSION
from ..entropy.errors import InputError
from .archive import INDEX_DTYPE, index_name

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
    """Writes one shard and its index; they appear when the block ends, and vanish when it raises.

    Args:
        folder: where.
        file: name of the shard, such as ``00000.tar``.
        mirror: whether every sample comes with a mirrored twin.

    Example:
        >>> with ShardWriter(Path("mypack"), "00000.tar") as shard:  # doctest: +SKIP
        ...     shard.add("cats/1", blob)
        >>> shard.info                                               # doctest: +SKIP
    """

    def __init__(self, folder: Path, file: str, mirror: bool = False) -> None:
        self._folder, self._file, self._mirror = folder, file, mirror
        self._part = folder / f".{file}.{os.getpid()}.part"
        self._rows: list[list[tuple[int, int, int]]] = [[], []]
        self._hash, self._at = hashlib.sha256(), 0
        self.info: ShardInfo | None = None

    def __enter__(self) -> Self:
        self._stream = open(self._part, "wb")
        return self

    def add(self, key: str, blob: bytes, mirror: bytes | None = None) -> None:
        """Append a sample: member ``KEY.ltz``, and ``KEY.mirror.ltz`` for its twin."""
        if (mirror is not None) != self._mirror:
            raise InputError(f"{key}: either every sample of a shard has a mirrored twin or none has")
        self._member(key + EXTENSION, blob, 0)
        if mirror is not None:
            self._member(key + MIRROR + EXTENSION, mirror, 1)

    def _member(self, name: str, data: bytes, variant: int) -> None:
        self._put(member_header(name, len(data)))
        self._rows[variant].append((self._at, len(data), zlib.crc32(data)))
        self._put(data)
        self._put(bytes(-len(data) % _BLOCK))

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self._at += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stream.close()
            with suppress(OSError):
                self._part.unlink()
            return
        self._put(bytes(2 * _BLOCK))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        for variant in range(1 + self._mirror):
            write_bytes(
                self._folder / index_name(self._file, variant), npy_bytes(np.array(self._rows[variant], INDEX_DTYPE))
            )
        os.replace(self._part, self._folder / self._file)
        self.info = ShardInfo(self._file, len(self._rows[0]), self._at, self._hash.hexdigest())


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file by these bytes in one step."""
    write_file(path, lambda file: file.write(data))


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace a file by what ``write`` puts into an open one, in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


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
