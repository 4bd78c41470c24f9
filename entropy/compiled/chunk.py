"""What `ans.unpack` and `Decoder` make of a chunk's bytes, compiled."""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit

MAX_STREAMS = 64


@_jit
def _varint(data, pos):  # type: ignore[no-untyped-def]
    """(value, new position), the position -1 where `ans` refuses the bytes."""
    value = np.int64(0)
    for b in range(5):
        if pos >= data.size:
            return value, -1
        byte = np.int64(data[pos])
        pos += 1
        value |= (byte & 127) << (7 * b)
        if byte < 128:
            return value, -1 if b and byte == 0 else pos
    return value, -1


@_jit
def words_of(data, at, words, to):  # type: ignore[no-untyped-def]
    """Little-endian uint32 from a byte position on, as many as it takes, into words[to:]; what the last one lacks
    counts as zero. Returns how many."""
    p, n = np.uint64(at), np.uint64(to)
    whole = np.uint64((data.size - at) >> 2)
    for i in range(whole):
        low = np.uint32(data[p]) | np.uint32(data[p + np.uint64(1)]) << np.uint32(8)
        high = np.uint32(data[p + np.uint64(2)]) | np.uint32(data[p + np.uint64(3)]) << np.uint32(8)
        words[n + i] = low | high << np.uint32(16)
        p += np.uint64(4)
    left = data.size - np.int64(p)
    if left:
        last = np.uint32(0)
        for i in range(left):
            last |= np.uint32(data[p + np.uint64(i)]) << np.uint32(8 * i)
        words[n + whole] = last
    return np.int64(whole) + np.int64(left > 0)


@_jit
def sections(data, count):  # type: ignore[no-untyped-def]
    """(streams, where the raw section begins, its bytes, bytes of escapes) of a chunk, (n,) uint8, and the words of
    each stream into count, (MAX_STREAMS,) int64; no streams where `ans.unpack` refuses the bytes."""
    none = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    if data.size == 0 or data[0] >> 5 or data[0] & 7 > 6:
        return none
    streams, pos = np.int64(1) << np.int64(data[0] & 7), np.int64(1)
    raw_size, escape_size = np.int64(0), np.int64(0)
    if data[0] & 8:
        raw_size, pos = _varint(data, pos)
        if pos < 0 or raw_size == 0:
            return none
    if data[0] & 16:
        escape_size, pos = _varint(data, pos)
        if pos < 0 or escape_size == 0:
            return none
    for j in range(streams - 1):
        z, pos = _varint(data, pos)
        if pos < 0:
            return none
        count[j] = (z >> 1) ^ -(z & 1)
    first_word = pos + raw_size + escape_size
    if first_word > data.size or (first_word < data.size and data[data.size - 1] == 0):
        return none
    total = (data.size - first_word + 3) >> 2
    mean, left = total // streams, total
    for j in range(streams - 1):
        count[j] += mean
        if count[j] < 0 or count[j] > left:
            return none
        left -= count[j]
    count[streams - 1] = left
    return streams, pos, raw_size, escape_size


@_jit
def cursors(words, count, streams, end, state, ptr, begin):  # type: ignore[no-untyped-def]
    """State of each stream whose words lie from words[end] on, and where its unread ones end and begin; whether no
    stream ends in a word of zero."""
    for j in range(streams):
        begin[j] = end
        end += count[j]
        if count[j] and words[end - 1] == 0:
            return False
        state[j] = 0
        ptr[j] = end - min(count[j], 2)
        for i in range(end - 1, np.int64(ptr[j]) - 1, -1):
            state[j] = state[j] << np.uint64(32) | np.uint64(words[i])
    return True
