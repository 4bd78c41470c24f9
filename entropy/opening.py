"""Opening files of others: regular files of a bounded size, the texts in a weights file, records of a known size."""

from __future__ import annotations

import io
import os
import stat
import zlib

from . import schema
from .errors import FormatError

MAX_WEIGHTS = 1 << 32  # bytes of a weights file
_PIECE = 1 << 20  # bytes that are unpacked at a time


def open_regular(path: str | os.PathLike[str]) -> int:
    """A file descriptor for reading; of a named pipe or a device, which might never answer, FormatError.

    Raises:
        FormatError: not a regular file.
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(f"{os.fspath(path)}: not a regular file")
    return fd


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """All bytes of a regular file of at most so many.

    Raises:
        FormatError: longer, or not a regular file.
        OSError: it cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise FormatError(f"{os.fspath(path)}: {size} bytes, more than the {most} that it may have")
        return file.read(size)


_METADATA = schema.mapping(schema.text(most=1 << 22), 1000)


def metadata(data: bytes | memoryview, where: str = "weights file") -> dict[str, str]:
    """The texts in the header of a safetensors file; empty where it has none.

    Raises:
        FormatError: no such header.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, 1 << 27):
        raise FormatError(f"{where}: not a safetensors file: no header of {size} bytes is in it")
    head = schema.parse(bytes(data[8 : 8 + size]), where, schema.record({}), 1 << 27)
    return _METADATA(head.get("__metadata__", {}), f"{where}: __metadata__")


def zstd(data: bytes, size: int) -> bytes | bytearray:
    """Unpack a zstd record that must have ``size`` bytes, without ever making more.

    Raises:
        FormatError: damaged, or of another size.
        ImportError: zstandard is not installed.
    """
    import zstandard

    raw = bytearray()
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(data)) as reader:
            while len(raw) <= size and (part := reader.read(min(_PIECE, size + 1 - len(raw)))):
                raw += part
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd: {error}") from None
    if len(raw) != size:
        raise FormatError(f"zstd: {'more' if len(raw) > size else len(raw)} bytes where {size} belong")
    return raw


def inflate(data: bytes, size: int) -> bytes:
    """Unpack a zlib record that must have ``size`` bytes, without ever making more.

    Raises:
        FormatError: damaged, or of another size.
    """
    reader = zlib.decompressobj()
    try:
        raw = reader.decompress(data, size + 1)
    except zlib.error as error:
        raise FormatError(f"zlib: {error}") from None
    if len(raw) != size or not reader.eof or reader.unused_data:
        raise FormatError(f"zlib: {'more' if len(raw) > size else len(raw)} bytes where {size} belong")
    return raw
