"""The coder's inner loops in plain numpy and Python: the definition of the stream, and the body where numba
is missing.

Same functions, arguments and results as `compiled/coder.py`, which explains them; every byte is the same, only slower.
The recurrence is that of constriction's `AnsCoder` (64-bit state, 32-bit words, 24-bit probabilities):

    push:  if state >> 40 >= f: write the low word, state >>= 32      state = (state // f) << 24 | (start +
    state % f)
    pop:   q = state & 0xFFFFFF; find start <= q < start + f          state = (state >> 24) * f + (q - start)
           if state < 2**32 and a word is left: state = state << 32 | word
"""

from __future__ import annotations

import numpy as np

BAD_INDEX = -1
RAW_END = -2
ESCAPE_END = -3
ESCAPE_BAD = -4

_LOW = 0xFFFFFFFF
_QUANTILE = 0xFFFFFF


def _entries(residuals, index, info):
    """(residuals, rows, entries, escape mask)."""
    row = info[index.astype(np.int64)].astype(np.int64)
    r = residuals.astype(np.int64)
    e = (r >> row[:, 1]) - row[:, 0]
    escape = (e < 0) | (e >= row[:, 2])
    return r, row, np.where(escape, row[:, 2], e), escape


def _known(index, tables):
    return not index.size or 0 <= int(index.min()) <= int(index.max()) < tables


def ranges_table(residuals, index, info, pack, plain, out, away, buf, pos):
    if not _known(index, info.shape[0]):
        return BAD_INDEX, pos
    r, row, e, escape = _entries(residuals, index, info)
    out[:] = pack[row[:, 3] + e]
    first = r[escape][: away.size]
    away[: first.size] = ((first << 1) ^ (first >> 63)) & _LOW
    keep = ~escape & (row[:, 1] > 0)
    if keep.any():
        pos = _append_bits(r[keep].tolist(), row[keep, 1].tolist(), buf, pos)
    return int(escape.sum()), pos


def escapes_table(residuals, index, info, out):
    r, _, _, escape = _entries(residuals, index, info)
    r = r[escape]
    out[: r.size] = ((r << 1) ^ (r >> 63)) & _LOW


def _append_bits(values, widths, buf, pos):
    acc = int(buf[pos >> 5]) & ((1 << (pos & 31)) - 1)
    have = pos & 31
    for value, k in zip(values, widths):
        acc |= (value & ((1 << k) - 1)) << have
        have += k
    words = np.frombuffer(acc.to_bytes((have // 32 + 1) * 4, "little"), "<u4")
    buf[pos >> 5 : (pos >> 5) + words.size] = words
    return (pos & ~31) + have


def write_raw(symbols, bits, lo, buf, pos):
    values = (symbols.astype(np.int64) - lo).tolist()
    return _append_bits(values, [bits] * len(values), buf, pos)


def estimate_bits(pairs, segments, every):
    total = 0
    for first, n, precision, wide in segments.tolist():
        f = pairs[first + 1 : first + 2 * n : 2][::every] if wide else pairs[first : first + n : every] & 0xFFFF
        f = f.astype(np.int64)
        log = np.frexp(f.astype(np.float64))[1].astype(np.int64) - 1
        m = (f << 8 >> log) - 256  # log2(1 + x) is x + 0.344 x (1 - x), nearly
        part = int((((precision - log) << 8) - m - (88 * m * (256 - m) >> 16)).sum())
        if f.size:
            total += part * n // f.size
    return total


def encode(pairs, segments, log_k, out, used):
    streams = 1 << log_k
    flat = []
    for first, n, precision, wide in segments.tolist():
        if wide:
            both = pairs[first : first + 2 * n].reshape(-1, 2)
            flat.append((both[:, 0], both[:, 1]))
        else:
            part = pairs[first : first + n]
            flat.append(((part >> 16) << (24 - precision), (part & 0xFFFF) << (24 - precision)))
    start = np.concatenate([s for s, _ in flat]) if flat else np.zeros(0, np.uint32)
    freq = np.concatenate([f for _, f in flat]) if flat else np.zeros(0, np.uint32)
    for j in range(streams):
        state, words = 0, []
        for a, f in zip(start[j::streams][::-1].tolist(), freq[j::streams][::-1].tolist()):
            if state >> 40 >= f:
                words.append(state & _LOW)
                state >>= 32
            q, r = divmod(state, f)
            state = (q << 24) + a + r
        while state:
            words.append(state & _LOW)
            state >>= 32
        out[j, : len(words)] = words
        used[j] = len(words)


def _escape(side, escapes):
    z = 0
    for b in range(5):
        p = int(side[3])
        if p >= side[4]:
            return ESCAPE_END, 0
        byte = int(escapes[p])
        side[3] = p + 1
        z |= (byte & 127) << (7 * b)
        if byte < 128:
            if z >> 32 or (b > 0 and byte == 0):
                return ESCAPE_BAD, 0
            return 0, (z >> 1) ^ -(z & 1)
    return ESCAPE_BAD, 0


def _raw(side, raw, k):
    p = int(side[1])
    if p + k > side[2]:
        return RAW_END, 0
    side[1] = p + k
    w = p >> 5
    return 0, ((int(raw[w + 1]) << 32 | int(raw[w])) >> (p & 31)) & ((1 << k) - 1)


def decode_search(
    state, ptr, begin, words, side, raw, escapes, index, info, pack, buckets, bucket_bits, precision, out
):
    if not _known(index, info.shape[0]):
        return BAD_INDEX
    shift = 24 - precision
    streams = state.size
    states, ptrs, begins = state.tolist(), ptr.tolist(), begin.tolist()
    rows = info.tolist()
    pairs = pack.tolist() if pack.size <= 4 * out.size else pack
    phase = int(side[0])
    values = []
    for i, t in enumerate(index.tolist()):
        lo, k, last, base = rows[t]
        j = (phase + i) & (streams - 1)
        s = states[j]
        q = s & _QUANTILE
        slot = q >> shift
        e = int(buckets[(t << bucket_bits) | (q >> 24 - bucket_bits)])
        while e < last and int(pairs[base + e + 1]) >> 16 <= slot:
            e += 1
        pair = int(pairs[base + e])
        s = (s >> 24) * ((pair & 0xFFFF) << shift) + q - (pair >> 16 << shift)
        if s <= _LOW and ptrs[j] > begins[j]:
            ptrs[j] -= 1
            s = s << 32 | int(words[ptrs[j]])
        states[j] = s
        if e == last:
            err, v = _escape(side, escapes)
            if err:
                return err
        else:
            v = e + lo
            if k:
                err, low = _raw(side, raw, k)
                if err:
                    return err
                v = v << k | low
        values.append(v)
    state[:] = states
    ptr[:] = ptrs
    out[:] = values
    side[0] = phase + out.size
    return 0


def decode_raw(side, raw, bits, lo, out):
    for i in range(out.size):
        err, v = _raw(side, raw, bits)
        if err:
            return err
        out[i] = v + lo
    return 0
