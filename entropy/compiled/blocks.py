"""The compiled body of `blocks.decode`: one call a chunk from its bytes to the latent, the GIL released.

It accepts exactly what `ans.unpack`, `blocks.program` and `Decoder.finish` accept and says nothing about the rest:
on failure the caller takes that slower way, which knows what to complain about.
"""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit
from .chunk import MAX_STREAMS, cursors, sections, words_of
from .coder import decode_four, decode_lut_raw


@_jit
def decode(data, lut, entries, limit, whole, out):  # type: ignore[no-untyped-def]
    """Decode a chunk, (n,) uint8, into out (C, h, w); whether that worked.

    lut, entries: of the frozen Laplacian bank; limit: largest magnitude allowed; whole: whether the chunk has to end
    with the last channel of out.
    """
    count = np.empty(MAX_STREAMS, np.int64)
    streams, pos, raw_size, escape_size = sections(data, count)
    if not streams:
        return False
    first_word = pos + raw_size + escape_size
    total = (data.size - first_word + 3) >> 2
    # cursors, as in Decoder
    words = np.empty(total + 1, np.uint32)
    words[0] = 0
    words_of(data, first_word, words, 1)
    raw = np.zeros((raw_size >> 2) + 4, np.uint32)
    words_of(data[: pos + raw_size], pos, raw, 0)
    escapes = data[pos + raw_size : first_word]
    state, ptr, begin = np.empty(streams, np.uint64), np.empty(streams, np.int64), np.empty(streams, np.int64)
    if not cursors(words, count, streams, np.int64(1), state, ptr, begin):
        return False
    side = np.array([0, 0, 8 * raw_size, 0, escape_size], np.int64)

    channels, h, w = out.shape
    rows, columns = (h + 7) >> 3, (w + 7) >> 3
    tables = np.int64(64)
    one, predictor = np.full(1, 9, np.uint8), np.empty(1, np.int32)
    many, scale = np.full(rows * columns, 22, np.uint8), np.empty(rows * columns, np.int32)
    index, residual = np.empty(h * w, np.uint8), np.empty(h * w, np.int32)
    first = np.int64(10)
    for channel in range(channels):
        if decode_lut_raw(state, ptr, begin, words, side, raw, escapes, one, tables, lut, entries, 12, predictor):
            return False
        if decode_lut_raw(state, ptr, begin, words, side, raw, escapes, many, tables, lut, entries, 12, scale):
            return False
        if predictor[0] < 0 or predictor[0] > 1:
            return False
        for i in range(rows * columns):
            near = first if i == 0 else np.int64(scale[i - 1] if i % columns else scale[i - columns])
            near += scale[i]
            if near < 0 or near >= 32:
                return False
            scale[i] = near
        first = np.int64(scale[0])
        _spread(scale, h, w, index)
        done = np.int64(0)
        while done < h * w:
            done += decode_four(state, ptr, begin, words, side, index[done:], lut, entries, residual[done:])
            part, target = index[done : done + 64], residual[done : done + 64]
            if decode_lut_raw(state, ptr, begin, words, side, raw, escapes, part, tables, lut, entries, 12, target):
                return False
            done += part.size
        if predictor[0] == 1:
            _from_med(residual, h, w)
        if _store(residual, out[channel]) > limit:
            return False
    if whole:  # as Decoder.finish
        if side[3] != side[4] or (side[1] + 7) >> 3 << 3 != side[2]:
            return False
        if side[1] & 7 and raw[side[1] >> 5] >> np.uint32(side[1] & 31):
            return False
        for j in range(streams):
            if state[j] or ptr[j] != begin[j]:
                return False
    return True


# Unsigned positions below: numba would let signed ones count from the end, and not vectorise for it.


@_jit
def _spread(scale, h, w, index):  # type: ignore[no-untyped-def]
    """The table of every position, (h * w,) uint8, from the scale numbers of the blocks."""
    width = np.uint64(w)
    columns = (width + np.uint64(7)) >> np.uint64(3)
    for y in range(np.uint64(h)):
        row, blocks = y * width, (y >> np.uint64(3)) * columns
        for x in range(width):
            index[row + x] = np.uint8(scale[blocks + (x >> np.uint64(3))] << 1)


@_jit
def _store(values, plane):  # type: ignore[no-untyped-def]
    """(h * w,) int32 into a plane (h, w) of any integers; returns the largest magnitude."""
    low, high = np.int32(0), np.int32(0)
    for i in range(np.uint64(values.size)):
        low, high = min(low, values[i]), max(high, values[i])
    width = np.uint64(plane.shape[1])
    for y in range(np.uint64(plane.shape[0])):
        row = y * width
        for x in range(width):
            plane[y, x] = values[row + x]
    return max(np.int64(high), -np.int64(low))


@_jit
def _from_med(x, h, w):  # type: ignore[no-untyped-def]
    """`blocks.from_med` in place on (h * w,) int32."""
    width = np.uint64(w)
    for i in range(np.uint64(1), width):
        x[i] += x[i - np.uint64(1)]
    for y in range(np.uint64(1), np.uint64(h)):
        row = y * width
        c = np.int64(x[row - width])
        x[row] += c
        a = np.int64(x[row])
        for i in range(row + np.uint64(1), row + width):
            b = np.int64(x[i - width])
            # the median of a, b and a + b - c
            x[i] += min(max(a + b - c, min(a, b)), max(a, b))
            a = np.int64(x[i])
            c = b
