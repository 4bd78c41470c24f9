"""Streams of a data set that differ in one payload alone, read without parsing each header anew."""

from __future__ import annotations

import zlib

from .container import CRC_BYTES, SIGNATURE, Container, read_varint

_AFTER = len(SIGNATURE) + 1  # where the length of a header lies


class Alike:
    """Takes the only chunk out of streams whose header says what that of a first one says, the chunk's size apart.

    Args:
        blob: the first stream.
        stream: the same, taken apart: of one chunk, without boxes.
    """

    def __init__(self, blob: bytes, stream: Container) -> None:
        length, begin = read_varint(blob, _AFTER)
        size, digits = len(stream.chunks[0]), 1
        while size >> 7 * digits:
            digits += 1
        self._start = blob[:_AFTER]
        self._front = blob[begin : begin + length - digits - 1]  # the size, then that there are no boxes

    @staticmethod
    def suits(stream: Container) -> bool:
        """Whether a stream can be the first one."""
        return len(stream.chunks) == 1 and not stream.index.boxes

    def chunk(self, blob: bytes) -> bytes | None:
        """The chunk, its checksum and the header's compared; None where anything is otherwise: `container.read` knows
        what."""
        if not blob.startswith(self._start) or len(blob) <= _AFTER + 9:
            return None
        length, begin = read_varint(blob, _AFTER)
        at, end = begin + len(self._front), begin + length
        if not blob.startswith(self._front, begin) or len(blob) < end + 2 * CRC_BYTES:
            return None
        size, at = read_varint(blob, at)
        first = end + CRC_BYTES
        if at + 1 != end or blob[at] or len(blob) != first + size + CRC_BYTES:
            return None
        chunk = blob[first : first + size]
        if _crc(blob[len(SIGNATURE) : end]) != blob[end:first] or _crc(chunk) != blob[first + size :]:
            return None
        return chunk


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CRC_BYTES, "little")
