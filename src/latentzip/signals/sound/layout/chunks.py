"""WAV, RF64, Wave64, AIFF, CAF and AU: files that say how many bytes of sound they hold."""

from __future__ import annotations

from .view import Layout, Segment, Window

MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b".snd", b"fLaC")
_UNKNOWN = 0x7FFFF000  # from here on 32 bits say that the length was not known when the header was written
_SLACK = 16  # bytes at the end that nobody misses


def examine(window: Window) -> Layout:
    """The whole file with a length that is true, and what is missing or left over."""
    head = window.get(0, 64)
    magic = head[:4]
    whole: list[list[Segment]] = [[(0, window.size)]]
    if magic == b"fLaC":
        again = window.find(b"fLaC\0\0\0\x22", 4)
        return Layout(whole, ["a second FLAC stream follows, which is not coded"] if again > 0 else [])
    if magic == b"riff":
        end = int.from_bytes(head[16:24], "little")
        return Layout([[(0, min(end, window.size))]], _difference(end, window.size))
    if magic == b"RF64" and head[12:16] == b"ds64":
        return Layout(whole, _difference(int.from_bytes(head[20:28], "little") + 8, window.size))
    if magic == b".snd":
        start, length = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
        return Layout(whole, _difference(start + length, window.size) if length < _UNKNOWN else [])
    if magic == b"caff":
        return Layout(whole, _walk(window, 8, "big", 8)[2])
    order = "little" if magic == b"RIFF" else "big"
    start, length, notes = _walk(window, 12, order, 4)
    if start < 0:
        return Layout(whole, notes)
    room = window.size - start
    if length == 0 and room > _SLACK and magic in (b"RIFF", b"RIFX") and room < 1 << 32:
        note = f"the header says that there is no sound: the {room} bytes that follow it are taken for it"
        sizes = [value.to_bytes(4, order) for value in (window.size - 8, room)]
        return Layout([[(0, 4), sizes[0], (8, start - 4), sizes[1], (start, window.size)]], [note])
    return Layout(whole, notes)


def _difference(end: int, size: int) -> list[str]:
    if end > size:
        return [f"the file is cut short: its header says {end} bytes, it holds {size}"]
    return [f"{size - end} bytes after the sound are not read"] if size - end > _SLACK else []


def _walk(window: Window, at: int, order: str, width: int) -> tuple[int, int, list[str]]:
    """(start, bytes) of the chunk with the sound, -1 without one, and what is missing or left over.

    A length of 0 is believed where further chunks follow to the end of the file.
    """
    start, length = -1, 0
    while at + 4 + width <= window.size:
        head = window.get(at, 4 + width)
        size = int.from_bytes(head[4:], order)  # type: ignore[arg-type]
        body = at + 4 + width
        if not head[:4].isascii() or not head[:4].decode("ascii").isprintable():
            break
        if head[:4] in (b"data", b"SSND"):
            start, length = body, size
            unknown = size >= _UNKNOWN if width == 4 else size >= 1 << 63
            if size > window.size - body:
                said = [] if unknown else _difference(body + size, window.size)
                return start, length, said
        elif body + size > window.size:
            break
        at = body + size + (size & 1 if width == 4 else 0)
    if start >= 0 and length == 0 and at < window.size - _SLACK:
        return start, 0, [f"{window.size - start} bytes after a length of 0 are not read"]
    rest = window.size - at
    notes = [f"{rest} bytes after the sound are not read"] if rest > _SLACK else []
    return start if length or notes else -1, length, notes
