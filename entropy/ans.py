"""The entropy-coded chunk: K constriction ANS streams and two side sections behind a header of a few bytes.

    byte 0      bits 0-2: log2 K (0..6)   bit 3: raw section   bit 4: escape section   bits 5-7: zero
    varint      bytes of the raw section, if bit 3
    varint      bytes of the escape section, if bit 4
    K-1 varints zigzag(words of stream j - floor(all words / K)) for j = 0..K-2; the rest gives the last
    bytes       raw section: low bits of wide symbols, least significant first, zero-padded to a byte
    bytes       escape section: zigzag LEB128 values, canonical, at most five bytes each
    bytes       the words of stream 0, 1, ..., K-1, little-endian; zero bytes at the very end are left out

Varints are LEB128. Each stream's words are what constriction's `AnsCoder.get_compressed()` gives, so
`AnsCoder(words)` decodes them alone. Symbol i of the chunk lies in stream i mod K. Nothing says how many
symbols there are: the program that decodes knows, and at its end every state must be 0 and every section used
up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import FormatError

MAX_LOG_STREAMS = 6
BYTES_PER_STREAM = 3600  # the 4-5 bytes that a stream costs stay near a tenth of a percent


class Sections(NamedTuple):
    """One chunk, taken apart."""

    words: npt.NDArray[np.uint32]  # all streams end to end
    counts: npt.NDArray[np.int64]  # (K,) words of each stream
    raw: bytes
    escapes: bytes


def choose_log_streams(payload_bytes: int) -> int:
    """log2 of the number of streams that a payload of this size can carry for about a tenth of a percent."""
    return min(MAX_LOG_STREAMS, max(1, payload_bytes // BYTES_PER_STREAM).bit_length() - 1)


def pack(sections: Sections) -> bytes:
    """Sections -> the bytes of one chunk."""
    counts = sections.counts
    head = bytearray([(counts.size.bit_length() - 1) | bool(sections.raw) << 3 | bool(sections.escapes) << 4])
    for part in (sections.raw, sections.escapes):
        if part:
            _put_varint(head, len(part))
    if counts.size > 1:
        mean = int(counts.sum()) // counts.size
        for c in counts[:-1].tolist():
            d = c - mean
            _put_varint(head, d << 1 if d >= 0 else -2 * d - 1)
    data = sections.words.astype("<u4", copy=False).tobytes().rstrip(b"\0")
    return b"".join((head, sections.raw, sections.escapes, data))


def unpack(blob: bytes | bytearray | memoryview) -> Sections:
    """The bytes of one chunk -> its sections.

    Raises:
        FormatError: the bytes are no chunk: empty, truncated within the header, or not in canonical form.
    """
    view = memoryview(blob).cast("B")
    if len(view) == 0:
        raise FormatError("an entropy-coded chunk is empty: its first byte is missing")
    flags = view[0]
    log_k = flags & 7
    if flags >> 5 or log_k > MAX_LOG_STREAMS:
        raise FormatError(f"an entropy-coded chunk begins with 0x{flags:02x}, which no version of this format writes")
    pos = 1
    sizes = [0, 0]
    for i in range(2):
        if flags >> (3 + i) & 1:
            sizes[i], pos = _get_varint(view, pos)
            if sizes[i] == 0:
                raise FormatError("an entropy-coded chunk declares a side section of no bytes")
    streams = 1 << log_k
    deltas = []
    for _ in range(streams - 1):
        z, pos = _get_varint(view, pos)
        deltas.append((z >> 1) ^ -(z & 1))
    a, b = pos + sizes[0], pos + sizes[0] + sizes[1]
    if b > len(view):
        raise FormatError(f"an entropy-coded chunk declares {b} bytes of header and side sections but has {len(view)}")
    data = bytes(view[b:])
    if data.endswith(b"\0"):
        raise FormatError("an entropy-coded chunk ends in a zero byte: it was padded or altered")
    data += bytes(-len(data) % 4)
    words = np.frombuffer(data, "<u4")
    counts = np.empty(streams, np.int64)
    mean = words.size // streams
    left = words.size
    for j, d in enumerate(deltas):
        if not 0 <= mean + d <= left:
            raise FormatError(f"stream {j} of an entropy-coded chunk claims {mean + d} words of {left}")
        counts[j] = mean + d
        left -= mean + d
    counts[-1] = left
    ends = np.cumsum(counts)[counts > 0]
    if ends.size and not words[ends - 1].all():
        raise FormatError("a stream of an entropy-coded chunk ends in a zero word: the chunk was altered")
    return Sections(words, counts, bytes(view[pos:a]), bytes(view[a:b]))


def leb128(values: npt.NDArray[np.uint32]) -> bytes:
    """Little-endian base-128 bytes of each value, end to end."""
    v = values.astype(np.uint64)
    sizes = np.ones(v.size, np.int64)
    for b in range(1, 5):
        sizes += v >= 1 << (7 * b)
    first = np.cumsum(sizes) - sizes
    out = np.zeros(int(sizes.sum()), np.uint8)
    for b in range(5):
        at = sizes > b
        part = (v[at] >> np.uint64(7 * b)) & np.uint64(127)
        out[first[at] + b] = part | np.where(sizes[at] > b + 1, np.uint64(128), np.uint64(0))
    return out.tobytes()


def _put_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _get_varint(view: memoryview, pos: int) -> tuple[int, int]:
    value = 0
    for b in range(5):
        if pos >= len(view):
            raise FormatError("an entropy-coded chunk ends within its header")
        byte = view[pos]
        pos += 1
        value |= (byte & 127) << (7 * b)
        if byte < 128:
            if b and byte == 0:
                break
            return value, pos
    raise FormatError("an entropy-coded chunk holds a malformed length")
