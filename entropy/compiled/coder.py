"""The coder's inner loops, compiled by numba: cached on disk, GIL released, every read bounded.

The same functions as `plain/coder.py`, which is their definition; both write and read the same bytes. Shared
conventions:

* A *pair* is what an interval comes to: `start << 16 | frequency` in one uint32 when the precision is at most
  16, or two uint32 (start, then frequency) of 24 bits each for the mixtures.
* `state` is a uint64 array of K coder states, `ptr` and `begin` bound each stream's unread words in `words`;
  `side` = [symbols so far, raw bit position, raw bits, escape position, escape bytes] is kept between calls;
  `raw` holds the raw section as uint32 with three words of padding.
* Functions that parse untrusted bytes or indices return 0, or one of the negative codes below.
"""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit

BAD_INDEX = -1
RAW_END = -2
ESCAPE_END = -3
ESCAPE_BAD = -4


_u = np.uint64  # unsigned indices spare numba's wrap-around of negative ones


@_jit
def _top(index, tables):
    """The largest index, or -1 if one is outside 0..tables-1."""
    top, bottom = np.int64(0), np.int64(0)
    for i in range(index.shape[0]):
        top = max(top, np.int64(index[i]))
        bottom = min(bottom, np.int64(index[i]))
    return top if bottom >= 0 and top < tables else np.int64(-1)


@_jit
def ranges_table(residuals, index, info, pack, plain, out, away, buf, pos):
    """Pairs of n integers under indexed tables, their raw low bits, and the first escaped ones.

    residuals: (n,) int32; index: (n,) uint8 or int32; info: `TableBank.rows`; plain: how many tables of the bank come
    before the first with raw bits; out: (n,) uint32; away: uint32, zigzag values of escaped integers as far as it
    goes (`escapes_table` gives all); buf: uint32, little-endian bits, written from bit `pos` on.
    Returns (escapes or BAD_INDEX, new bit position).
    """
    top = _top(index, info.shape[0])
    if top < 0:
        return BAD_INDEX, pos
    escapes, room = 0, away.shape[0]
    if top < plain:
        for i in range(_u(residuals.shape[0])):
            t = _u(index[i])
            last = _u(info[t, _u(2)])
            e = _u(np.int64(residuals[i]) - np.int64(info[t, _u(0)]))
            if e >= last:
                e = last
                if escapes < room:
                    away[escapes] = np.uint32((residuals[i] << 1) ^ (residuals[i] >> 31))
                escapes += 1
            out[i] = pack[_u(info[t, _u(3)]) + e]
        return escapes, pos
    # each step writes the word it is filling: no branch asks whether a table has raw bits
    w, have = _u(pos >> 5), _u(pos & 31)
    acc = _u(buf[w]) & ((_u(1) << have) - _u(1))
    for i in range(_u(residuals.shape[0])):
        t = _u(index[i])
        r = np.int64(residuals[i])
        k = _u(info[t, _u(1)])
        last = _u(info[t, _u(2)])
        e = _u((r >> np.int64(k)) - np.int64(info[t, _u(0)]))
        if e >= last:
            e = last
            k = _u(0)
            if escapes < room:
                away[escapes] = np.uint32((r << 1) ^ (r >> 31))
            escapes += 1
        out[i] = pack[_u(info[t, _u(3)]) + e]
        acc |= (_u(r) & ((_u(1) << k) - _u(1))) << have
        have += k
        buf[w] = np.uint32(acc)
        w += have >> _u(5)
        acc >>= have & _u(32)
        have &= _u(31)
    buf[w] = np.uint32(acc)
    return escapes, (np.int64(w) << 5) + np.int64(have)


@_jit
def escapes_table(residuals, index, info, out):
    """The zigzag values of the escaped integers, in order, into out (uint32)."""
    m = 0
    for i in range(residuals.shape[0]):
        t = np.int64(index[i])
        r = residuals[i]
        e = np.int64(r >> info[t, 1]) - np.int64(info[t, 0])
        if e < 0 or e >= info[t, 2]:
            out[m] = np.uint32((r << 1) ^ (r >> 31))
            m += 1


@_jit
def write_raw(symbols, bits, lo, buf, pos):
    """Append `bits` (1..25) raw bits of each symbol - lo to buf as above; returns the new bit position."""
    k = _u(bits)
    w, have = _u(pos >> 5), _u(pos & 31)
    acc = _u(buf[w]) & ((_u(1) << have) - _u(1))
    for i in range(symbols.shape[0]):
        acc |= (_u(np.int64(symbols[i]) - lo) & ((_u(1) << k) - _u(1))) << have
        have += k
        buf[w] = np.uint32(acc)
        w += have >> _u(5)
        acc >>= have & _u(32)
        have &= _u(31)
    buf[w] = np.uint32(acc)
    return (np.int64(w) << 5) + np.int64(have)


@_jit
def estimate_bits(pairs, segments, every):
    """About how many bits the pairs will take, times 256: from each `every`-th pair, integers only."""
    total = 0
    for g in range(segments.shape[0]):
        first, n, precision, wide = segments[g, 0], segments[g, 1], segments[g, 2], segments[g, 3]
        part = 0
        seen = 0
        for i in range(0, n, every):
            f = np.int64(pairs[first + 2 * i + 1]) if wide else np.int64(pairs[first + i] & np.uint32(0xFFFF))
            log = 0
            while f >> (log + 1):
                log += 1
            m = (f << 8 >> log) - 256  # log2(1 + x) is x + 0.344 x (1 - x), nearly
            part += ((precision - log) << 8) - m - (88 * m * (256 - m) >> 16)
            seen += 1
        if seen:
            total += part * n // seen
    return total


@_jit
def _divide(x, f):
    """x // f for f < 2**24 and x < f * 2**40: a float64 division that is at most one off, put right."""
    q = _u(np.int64(np.float64(x) / np.float64(np.int64(f))))
    r = np.int64(x - q * f)
    return q + _u(r >= np.int64(f)) - _u(r < 0)


@_jit
def encode(pairs, segments, log_k, out, used):
    """Push all pairs, last first, onto K streams; pair i goes to stream i mod K.

    segments: (G, 4) int64 rows (first, count, precision, wide) in coding order; out: (K, capacity) uint32,
    the words of each stream in constriction's order; used: (K,) int64, filled with the word counts.
    """
    streams = 1 << log_k
    capacity = out.shape[1]
    flat = out.reshape(-1)
    mask = _u(streams - 1)
    state = np.zeros(streams, np.uint64)
    where = np.empty(streams, np.uint64)
    for j in range(streams):
        where[j] = _u(j * capacity)
    after = _u(0)
    for g in range(segments.shape[0]):
        after += _u(segments[g, 1])
    for g in range(segments.shape[0] - 1, -1, -1):
        first, n, wide = _u(segments[g, 0]), _u(segments[g, 1]), segments[g, 3]
        shift = _u(24 - segments[g, 2])
        before = after - n
        # The loops differ in how they divide. Below 2**12 counts, (s >> shift) < 2**52 and the quotient < 2**40, so a
        # float64 division cannot cross an integer; it has the better throughput, the integer one the better latency.
        if wide:
            for c in range(n):
                i = n - _u(1) - c
                j = (before + i) & mask
                f = _u(pairs[first + i + i + _u(1)])
                s = state[j]
                flat[where[j]] = np.uint32(s)
                over = _u((s >> _u(40)) >= f)
                where[j] += over
                s >>= over << _u(5)
                state[j] = s + _divide(s, f) * (_u(1 << 24) - f) + _u(pairs[first + i + i])
        elif shift >= _u(12) and streams > 2:
            for c in range(n):
                i = n - _u(1) - c
                j = (before + i) & mask
                e = _u(pairs[first + i])
                f = e & _u(0xFFFF)
                s = state[j]
                flat[where[j]] = np.uint32(s)
                over = _u((s >> _u(40)) >= (f << shift))
                where[j] += over
                s >>= over << _u(5)
                q = _u(np.int64(np.float64(np.int64(s >> shift)) / np.float64(np.int64(f))))
                state[j] = s + q * (_u(1 << 24) - (f << shift)) + ((e >> _u(16)) << shift)
        elif streams > 2:
            for c in range(n):
                i = n - _u(1) - c
                j = (before + i) & mask
                e = _u(pairs[first + i])
                f = e & _u(0xFFFF)
                s = state[j]
                flat[where[j]] = np.uint32(s)
                over = _u((s >> _u(40)) >= (f << shift))
                where[j] += over
                s >>= over << _u(5)
                q = _divide(s >> shift, f)
                state[j] = s + q * (_u(1 << 24) - (f << shift)) + ((e >> _u(16)) << shift)
        else:
            for c in range(n):
                i = n - _u(1) - c
                j = (before + i) & mask
                e = _u(pairs[first + i])
                f = e & _u(0xFFFF)
                s = state[j]
                flat[where[j]] = np.uint32(s)
                over = _u((s >> _u(40)) >= (f << shift))
                where[j] += over
                s >>= over << _u(5)
                q = (s >> shift) // f
                state[j] = s + q * (_u(1 << 24) - (f << shift)) + ((e >> _u(16)) << shift)
        after = before
    for j in range(streams):
        w = np.int64(where[j])
        s = state[j]
        while s:
            flat[w] = np.uint32(s)
            s >>= _u(32)
            w += 1
        used[j] = w - j * capacity


@_jit
def read_escape(data, at, end):
    """One zigzag LEB128 value of an escape section that ends at ``end``: (error, value, new position)."""
    z = _u(0)
    for b in range(5):
        if at >= end:
            return ESCAPE_END, np.int64(0), at
        byte = _u(data[at])
        at += 1
        z |= (byte & _u(127)) << _u(7 * b)
        if byte < _u(128):
            if z >> _u(32) or (b > 0 and byte == _u(0)):
                return ESCAPE_BAD, np.int64(0), at
            return 0, np.int64(z >> _u(1)) ^ -np.int64(z & _u(1)), at
    return ESCAPE_BAD, np.int64(0), at


@_jit
def _escape(side, escapes):
    """The same of the side sections: (error, value); advances side[3]."""
    error, value, side[3] = read_escape(escapes, side[3], side[4])
    return error, value


@_jit
def _leave(side, count, at, end):
    """Note how far a call came; RAW_END if it used more raw bits than there are."""
    if at > end:
        return RAW_END
    side[0] += count
    side[1] = np.int64(at)
    return 0


# The hot loops below hand no array to another compiled function where it can be helped: numba would count references
# at each call, which costs several times what a symbol does. Likewise the words are refilled in a nested branch.


@_jit
def decode_lut(state, ptr, begin, words, side, raw, escapes, index, tables, lut, entries, precision, out):
    """Decode out.size integers (int32) under indexed tables with lookup slots, in a chunk without raw bits.

    Returns 0 or an error code.
    """
    if _top(index, tables) < 0:
        return BAD_INDEX
    mask, bits, shift = _u(state.shape[0] - 1), _u(precision), _u(24 - precision)
    phase = _u(side[0])
    for i in range(_u(out.shape[0])):
        t = _u(index[i])
        j = (phase + i) & mask
        s = state[j]
        q = s & _u(0xFFFFFF)
        entry = entries[(t << _u(8)) | _u(lut[(t << bits) | (q >> shift)])]
        s = (s >> _u(24)) * (entry & _u(0x1FFF000)) + q - ((entry >> _u(13)) & _u(0xFFF000))
        if s < _u(0x100000000):
            p = _u(ptr[j])
            if p > _u(begin[j]):
                s = (s << _u(32)) | _u(words[p - _u(1)])
                ptr[j] = np.int64(p - _u(1))
        state[j] = s
        v = np.int64(entry) >> np.int64(37)
        if entry & _u(31):
            if entry & _u(31) != _u(31):
                return RAW_END
            err, v = _escape(side, escapes)
            if err:
                return err
        out[i] = np.int32(v)
    side[0] += out.shape[0]
    return 0


@_jit
def decode_lut_raw(state, ptr, begin, words, side, raw, escapes, index, tables, lut, entries, precision, out):
    """As `decode_lut`, for chunks with raw bits; read without a branch, as a table of none reads none."""
    if _top(index, tables) < 0:
        return BAD_INDEX
    mask, bits, shift = _u(state.shape[0] - 1), _u(precision), _u(24 - precision)
    phase = _u(side[0])
    w, end = _u(side[1] >> 5), _u(side[2])
    have = _u(32) - _u(side[1] & 31)
    acc = _u(raw[w]) >> _u(side[1] & 31)
    for i in range(_u(out.shape[0])):
        t = _u(index[i])
        j = (phase + i) & mask
        s = state[j]
        q = s & _u(0xFFFFFF)
        entry = entries[(t << _u(8)) | _u(lut[(t << bits) | (q >> shift)])]
        s = (s >> _u(24)) * (entry & _u(0x1FFF000)) + q - ((entry >> _u(13)) & _u(0xFFF000))
        if s < _u(0x100000000):
            p = _u(ptr[j])
            if p > _u(begin[j]):
                s = (s << _u(32)) | _u(words[p - _u(1)])
                ptr[j] = np.int64(p - _u(1))
        state[j] = s
        v = np.int64(entry) >> np.int64(37)
        k = entry & _u(31)
        if k == _u(31):
            err, v = _escape(side, escapes)
            if err:
                return err
        else:
            if have < _u(32):
                if w << _u(5) >= end:  # then more was used than there is; else the next word is there, or padding
                    return RAW_END
                w += _u(1)
                acc |= _u(raw[w]) << have
                have += _u(32)
            v = (v << np.int64(k)) | np.int64(acc & ((_u(1) << k) - _u(1)))
            acc >>= k
            have -= k
        out[i] = np.int32(v)
    return _leave(side, out.shape[0], (w << _u(5)) + _u(32) - have, end)


@_jit
def decode_four(state, ptr, begin, words, side, index, lut, entries, out):  # type: ignore[no-untyped-def]
    """As `decode_lut_raw` on four streams of tables of 12 bits, their states in registers; returns how many symbols it
    did.

    It stops before the first four symbols of which one has raw bits or is an escape: the general loop takes over.
    """
    if state.shape[0] != 4:
        return 0
    phase = np.uint64(side[0])
    j0, j1 = phase & np.uint64(3), (phase + np.uint64(1)) & np.uint64(3)
    j2, j3 = (phase + np.uint64(2)) & np.uint64(3), (phase + np.uint64(3)) & np.uint64(3)
    s0, s1, s2, s3 = state[j0], state[j1], state[j2], state[j3]
    p0, p1, p2, p3 = np.uint64(ptr[j0]), np.uint64(ptr[j1]), np.uint64(ptr[j2]), np.uint64(ptr[j3])
    b0, b1, b2, b3 = np.uint64(begin[j0]), np.uint64(begin[j1]), np.uint64(begin[j2]), np.uint64(begin[j3])
    low, one, shift = np.uint64(0xFFFFFF), np.uint64(1), np.uint64(12)
    i, end = np.uint64(0), np.uint64(out.shape[0] & ~3)
    while i < end:
        q0, q1, q2, q3 = s0 & low, s1 & low, s2 & low, s3 & low
        t0, t1 = np.uint64(index[i]), np.uint64(index[i + one])
        t2, t3 = np.uint64(index[i + np.uint64(2)]), np.uint64(index[i + np.uint64(3)])
        e0 = entries[(t0 << np.uint64(8)) | np.uint64(lut[(t0 << shift) | (q0 >> shift)])]
        e1 = entries[(t1 << np.uint64(8)) | np.uint64(lut[(t1 << shift) | (q1 >> shift)])]
        e2 = entries[(t2 << np.uint64(8)) | np.uint64(lut[(t2 << shift) | (q2 >> shift)])]
        e3 = entries[(t3 << np.uint64(8)) | np.uint64(lut[(t3 << shift) | (q3 >> shift)])]
        if (e0 | e1 | e2 | e3) & np.uint64(31):
            break
        s0 = (s0 >> np.uint64(24)) * (e0 & np.uint64(0x1FFF000)) + q0 - ((e0 >> np.uint64(13)) & np.uint64(0xFFF000))
        s1 = (s1 >> np.uint64(24)) * (e1 & np.uint64(0x1FFF000)) + q1 - ((e1 >> np.uint64(13)) & np.uint64(0xFFF000))
        s2 = (s2 >> np.uint64(24)) * (e2 & np.uint64(0x1FFF000)) + q2 - ((e2 >> np.uint64(13)) & np.uint64(0xFFF000))
        s3 = (s3 >> np.uint64(24)) * (e3 & np.uint64(0x1FFF000)) + q3 - ((e3 >> np.uint64(13)) & np.uint64(0xFFF000))
        if s0 < np.uint64(0x100000000) and p0 > b0:
            p0 -= one
            s0 = (s0 << np.uint64(32)) | np.uint64(words[p0])
        if s1 < np.uint64(0x100000000) and p1 > b1:
            p1 -= one
            s1 = (s1 << np.uint64(32)) | np.uint64(words[p1])
        if s2 < np.uint64(0x100000000) and p2 > b2:
            p2 -= one
            s2 = (s2 << np.uint64(32)) | np.uint64(words[p2])
        if s3 < np.uint64(0x100000000) and p3 > b3:
            p3 -= one
            s3 = (s3 << np.uint64(32)) | np.uint64(words[p3])
        out[i] = np.int32(np.int64(e0) >> np.int64(37))
        out[i + one] = np.int32(np.int64(e1) >> np.int64(37))
        out[i + np.uint64(2)] = np.int32(np.int64(e2) >> np.int64(37))
        out[i + np.uint64(3)] = np.int32(np.int64(e3) >> np.int64(37))
        i += np.uint64(4)
    state[j0], state[j1], state[j2], state[j3] = s0, s1, s2, s3
    ptr[j0], ptr[j1], ptr[j2], ptr[j3] = np.int64(p0), np.int64(p1), np.int64(p2), np.int64(p3)
    side[0] += np.int64(i)
    return np.int64(i)


@_jit
def decode_search(
    state, ptr, begin, words, side, raw, escapes, index, info, pack, buckets, bucket_bits, precision, out
):
    """As `decode_lut_raw` for any bank: a bucket of quantiles, then a walk along its table."""
    if _top(index, info.shape[0]) < 0:
        return BAD_INDEX
    mask, bits, shift = _u(state.shape[0] - 1), _u(bucket_bits), _u(24 - precision)
    coarse = _u(24 - bucket_bits)
    phase = _u(side[0])
    w, end = _u(side[1] >> 5), _u(side[2])
    have = _u(32) - _u(side[1] & 31)
    acc = _u(raw[w]) >> _u(side[1] & 31)
    for i in range(_u(out.shape[0])):
        t = _u(index[i])
        j = (phase + i) & mask
        s = state[j]
        q = s & _u(0xFFFFFF)
        slot = q >> shift
        base, last = _u(info[t, _u(3)]), _u(info[t, _u(2)])
        e = _u(buckets[(t << bits) | (q >> coarse)])
        while e < last and _u(pack[base + e + _u(1)] >> np.uint32(16)) <= slot:
            e += _u(1)
        pair = _u(pack[base + e])
        s = (s >> _u(24)) * ((pair & _u(0xFFFF)) << shift) + q - ((pair >> _u(16)) << shift)
        if s < _u(0x100000000):
            p = _u(ptr[j])
            if p > _u(begin[j]):
                s = (s << _u(32)) | _u(words[p - _u(1)])
                ptr[j] = np.int64(p - _u(1))
        state[j] = s
        v = np.int64(e) + np.int64(info[t, _u(0)])
        if e == last:
            err, v = _escape(side, escapes)
            if err:
                return err
        else:
            if have < _u(32):
                if w << _u(5) >= end:
                    return RAW_END
                w += _u(1)
                acc |= _u(raw[w]) << have
                have += _u(32)
            k = _u(info[t, _u(1)])
            v = (v << np.int64(k)) | np.int64(acc & ((_u(1) << k) - _u(1)))
            acc >>= k
            have -= k
        out[i] = np.int32(v)
    return _leave(side, out.shape[0], (w << _u(5)) + _u(32) - have, end)


@_jit
def decode_raw(side, raw, bits, lo, out):
    """out.size integers of `bits` raw bits each (1..25), plus lo; returns 0 or RAW_END."""
    k = _u(bits)
    at, end = _u(side[1]), _u(side[2])
    for i in range(out.shape[0]):
        w = at >> _u(5)
        both = (_u(raw[w + _u(1)]) << _u(32)) | _u(raw[w])
        at += k
        if at > end:
            return RAW_END
        out[i] = np.int32(np.int64((both >> ((at - k) & _u(31))) & ((_u(1) << k) - _u(1))) + lo)
    side[1] = np.int64(at)
    return 0
