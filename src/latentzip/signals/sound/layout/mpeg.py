"""MPEG audio: a chain of frames without a length but what an extra first frame (Xing, Info, VBRI) says.

Without one, decoders guess the length from the bit rate of the first frame. The frames are counted here, and a stream
whose length is missing or wrong gets a first frame that says it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .view import Layout, Segment, Window

_RATES = (  # kbit/s by the number in a header: MPEG-1 layers I, II, III, then MPEG-2 layer I, layers II and III
    (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_NEAR = 1 << 16  # bytes in which the next frame is looked for where one is damaged


class Frame(NamedTuple):
    """A frame's header: bytes, and what must stay the same from frame to frame."""

    size: int
    layer: int
    hertz: int
    mono: bool
    header: bytes


class _Run(NamedTuple):
    """Frames that follow each other: where, how many, and the frame with the length, if there is one."""

    start: int
    stop: int
    frames: int
    first: Frame
    said: int | None
    skip: int


def begins(window: Window) -> bool:
    """Whether a file begins with MPEG audio, after tags."""
    at = _after_tags(window, 0)
    frame = _frame(window, at)
    return frame is not None and (at + frame.size == window.size or _frame(window, at + frame.size) is not None)


def examine(window: Window) -> Layout:
    """Every song of a file a part of its own, each with a length that is true."""
    notes: list[str] = []
    runs = list(_runs(window, notes))
    parts: list[list[Segment]] = []
    for i, run in enumerate(runs):
        begin = 0 if i == 0 else run.start  # tags come with the first
        if run.first.layer != 3 or (run.said is not None and run.said == run.frames):
            parts.append([(begin, run.stop)])
            continue
        if run.said is not None and run.said > run.frames:
            notes.append(
                f"the header says {run.said} frames of MPEG audio, the file holds {run.frames}: it is cut short"
            )
        parts.append([(begin, run.start), _length_frame(run), (run.start + run.skip, run.stop)])
    return Layout(parts or [[(0, window.size)]], notes)


def _runs(window: Window, notes: list[str]):  # type: ignore[no-untyped-def]
    """Frames from the first on; a new run where a frame with a length begins another song, or the format changes."""
    at = _after_tags(window, 0)
    start, count, first, said, skip, damaged = at, 0, None, None, 0, 0
    while at < window.size:
        frame = _frame(window, at)
        if frame is None or at + frame.size > window.size:
            tags = _after_tags(window, at)
            if tags > at:
                at = tags
                continue
            rest = window.size - at
            again = _resync(window, at + 1, first)
            if again < 0:
                if frame is not None or rest > 512:
                    notes.append(f"the file is cut short or damaged: its last {rest} bytes are no whole frame")
                break
            damaged += again - at
            at = again
            continue
        length = _said(window, at, frame)
        other = first is not None and (frame.layer, frame.hertz, frame.mono) != (first.layer, first.hertz, first.mono)
        if first is not None and (length is not None or other):
            yield _Run(start, at, count, first, said, skip)
            first = None
        if first is None:
            start, count, first, said, skip = at, 0, frame, None, 0
            if length is not None:
                said, skip = (length or None), frame.size
                at += frame.size
                continue
        count += 1
        at += frame.size
    if damaged:
        notes.append(f"{damaged} bytes between frames are no MPEG audio and are left out")
    if first is not None:
        yield _Run(start, at, count, first, said, skip)


def _frame(window: Window, at: int) -> Frame | None:
    """The header of a frame at a place; None where there is none, or of a free format."""
    head = window.get(at, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, hertz = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return None
    row = layer - 1 if version == 3 else (3 if layer == 1 else 4)
    bits, herz, pad = _RATES[row][rate] * 1000, _HERTZ[version][hertz], head[2] >> 1 & 1
    if layer == 1:
        size = (12 * bits // herz + pad) * 4
    else:
        size = (72 if layer == 3 and version != 3 else 144) * bits // herz + pad
    return Frame(size, layer, herz, head[3] >> 6 == 3, head) if size > 4 else None


def _said(window: Window, at: int, frame: Frame) -> int | None:
    """Frames that a frame with a length names, 0 where it names none; None for a frame of sound."""
    if frame.layer != 3:
        return None
    data = window.get(at, min(frame.size, 200))
    tag = 4 + _side(frame)
    if data[tag : tag + 4] in (b"Xing", b"Info"):
        return int.from_bytes(data[tag + 8 : tag + 12], "big") if data[tag + 7] & 1 else 0
    return 0 if data[36:40] == b"VBRI" else None


def _side(frame: Frame) -> int:
    """Bytes of side information."""
    one = frame.header[1] >> 3 & 3 == 3
    return (17 if frame.mono else 32) if one else (9 if frame.mono else 17)


def _length_frame(run: _Run) -> bytes:
    """A frame that says how many follow."""
    for rate in range(1, 15):
        head = bytes([0xFF, run.first.header[1] | 1, rate << 4 | run.first.header[2] & 0x0C, run.first.header[3]])
        frame = _frame(_Bytes(head), 0)  # type: ignore[arg-type]
        if frame is not None and frame.size >= 4 + _side(frame) + 20:
            text = struct.pack(">4sIII", b"Xing", 3, run.frames, run.stop - run.start - run.skip + frame.size)
            return (head + bytes(_side(frame)) + text).ljust(frame.size, b"\0")
    raise AssertionError("the largest frames hold a length")


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def get(self, at: int, count: int) -> bytes:
        return self.data[at : at + count]


def _after_tags(window: Window, at: int) -> int:
    """Past ID3 and APE tags that begin at a place."""
    while True:
        head = window.get(at, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            at += 10 + sum((b & 0x7F) << 7 * (3 - i) for i, b in enumerate(head[6:10])) + (10 if head[5] & 16 else 0)
        elif head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            at += int.from_bytes(head[12:16], "little") + 32
        else:
            return min(at, window.size)


def _resync(window: Window, at: int, like: Frame | None) -> int:
    """The next place, not far, where two frames follow each other; -1 without one."""
    stop = min(window.size - 4, at + _NEAR)
    while 0 <= at < stop:
        at = window.find(b"\xff", at)
        if at < 0 or at >= stop:
            return -1
        frame = _frame(window, at)
        if frame is not None and (like is None or frame.hertz == like.hertz) and _frame(window, at + frame.size):
            return at
        at += 1
    return -1
