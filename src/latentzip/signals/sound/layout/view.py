"""Parts of a file, patched here and there, as a file of their own."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO

Segment = bytes | tuple[int, int]  # bytes as they are, or (start, stop) in the file
_BLOCK = 1 << 20


@dataclass
class Layout:
    """What of a file is sound.

    Attributes:
        parts: streams to be read one after the other, each a list of segments.
        notes: what differs from what the file says, for a warning.
    """

    parts: list[list[Segment]]
    notes: list[str] = field(default_factory=list)


class Window:
    """Bytes of a file at any place, a block of them in memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file, self._at, self._block = file, 0, b""

    def get(self, at: int, count: int) -> bytes:
        """Bytes from a place on; fewer at the end of the file."""
        first = at - self._at
        if first < 0 or first + count > len(self._block):
            self._file.seek(at)
            self._at, self._block, first = at, self._file.read(max(count, _BLOCK)), 0
        return self._block[first : first + count]

    def find(self, text: bytes, start: int) -> int:
        """The place of the first occurrence from a place on, -1 without one."""
        at = start
        while at < self.size:
            block = self.get(at, _BLOCK)
            found = block.find(text)
            if found >= 0:
                return at + found
            at += max(1, len(block) - len(text) + 1)
        return -1


class View(io.RawIOBase):
    """Segments end to end, readable and seekable."""

    def __init__(self, file: BinaryIO, segments: list[Segment]) -> None:
        super().__init__()
        self._file, self._segments, self._place = file, segments, 0
        self._sizes = [len(s) if isinstance(s, bytes) else s[1] - s[0] for s in segments]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, sum(self._sizes))[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        begin = 0
        for segment, size in zip(self._segments, self._sizes):
            inside = self._place - begin
            if 0 <= inside < size and done < len(view):
                count = min(size - inside, len(view) - done)
                if isinstance(segment, bytes):
                    data = segment[inside : inside + count]
                else:
                    self._file.seek(segment[0] + inside)
                    data = self._file.read(count)
                view[done : done + len(data)] = data
                done += len(data)
                self._place += len(data)
                if len(data) < count:
                    break
            begin += size
        return done
