"""Ogg: streams follow each other in one file (RFC 3533), and a file may end in the middle of a page."""

from __future__ import annotations

from .view import Layout, Segment, Window

_FIRST, _LAST = 2, 4  # flags of a page


def examine(window: Window) -> Layout:
    """Every stream of a file a part of its own; a page that is cut is left out."""
    parts: list[list[Segment]] = []
    notes: list[str] = []
    at = start = 0
    heads, ended = True, True
    while True:
        page = _page(window, at)
        if page is None:
            rest = window.size - at
            again = window.find(b"OggS", at + 1) if rest else -1
            if again >= 0 and _page(window, again) is not None:
                notes.append(f"{again - at} damaged bytes in the middle are left out")
                parts.append([(start, at)])
                at = start = again
                continue
            if rest:
                notes.append(f"the file is cut short: its last {rest} bytes are no whole page")
                ended = True
            break
        flags, end = page
        if flags & _FIRST and not heads:
            parts.append([(start, at)])
            start = at
        heads, ended = bool(flags & _FIRST), bool(flags & _LAST)
        at = end
    if not ended:
        notes.append("the file is cut short: the last page of its stream is missing")
    parts.append([(start, at)])
    return Layout([part for part in parts if part[0][1] > part[0][0]] or [[(0, window.size)]], notes)  # type: ignore[operator]


def _page(window: Window, at: int) -> tuple[int, int] | None:
    """(flags, where it ends) of the page at a place; None where there is no whole one."""
    head = window.get(at, 27)
    if len(head) < 27 or head[:5] != b"OggS\0":
        return None
    sizes = window.get(at + 27, head[26])
    end = at + 27 + head[26] + sum(sizes)
    return None if len(sizes) < head[26] or end > window.size else (head[5], end)
