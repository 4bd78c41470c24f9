"""The coder's inner loops, compiled by numba: cached on disk, GIL released, every read bounded.

The same functions as `_plain.py`, which is their definition; both write and read the same bytes. Shared conventions:

* A *pair* is what an interval comes to: `start << 16 | frequency` in one uint32 when the precision is at most 16, or two
  uint32 (start, then frequency) of 24 bits each for the mixtures.
* `state` is a uint64 array of K coder states, `ptr` and `begin` bound each stream's unread words in `words`;
  `side` = [symbols so far, raw bit position, raw bits, escape position, escape bytes] is kept between calls.
* Functions that parse untrusted bytes or indices return 0, or one of the negative codes below.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BAD_INDEX = -1
RAW_END = -2
ESCAPE_END = -3
ESCAPE_BAD = -4

_jit = njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
_u = np.uint64  # unsigned indices spare numba's wrap-around of negative ones


@_jit
def ranges_table(symbols, index, offset, info, pack, out):
    """Pairs of n symbols under indexed tables; returns the number of escapes or BAD_INDEX.

    symbols: (n,) int32; index: (n,) uint8 or int32; offset: (1,) or (n,) int32; out: (n,) uint32.
    """
    step = _u(0) if offset.shape[0] == 1 else _u(1)
    tables = _u(info.shape[0])
    escapes = 0
    for i in range(_u(symbols.shape[0])):
        t = _u(index[i])
        if t >= tables:
            return BAD_INDEX
        r = np.int32(symbols[i] - offset[i * step])
        last = _u(info[t, _u(2)])
        e = min(_u(np.int64(r >> info[t, _u(1)]) - np.int64(info[t, _u(0)])), last)
        escapes += e == last
        out[i] = pack[_u(info[t, _u(3)]) + e]
    return escapes


@_jit
def escapes_table(symbols, index, offset, info, out):
    """The zigzag values of the escaped symbols, in order, into out (uint32)."""
    step = 0 if offset.shape[0] == 1 else 1
    m = 0
    for i in range(symbols.shape[0]):
        t = np.int64(index[i])
        r = np.int32(symbols[i] - offset[i * step])
        e = np.int64(r >> info[t, 1]) - np.int64(info[t, 0])
        if e < 0 or e >= info[t, 2]:
            out[m] = np.uint32((r << 1) ^ (r >> 31))
            m += 1


@_jit
def raw_table(symbols, index, offset, info, buf, pos):
    """Append the raw low bits of n symbols to buf (uint8, zeroed past `pos` bits); returns the new bit position."""
    step = 0 if offset.shape[0] == 1 else 1
    byte = pos >> 3
    have = pos & 7
    acc = _u(buf[byte]) if have else _u(0)
    for i in range(symbols.shape[0]):
        t = np.int64(index[i])
        k = np.int64(info[t, 1])
        if k:
            r = np.int32(symbols[i] - offset[i * step])
            e = np.int64(r >> info[t, 1]) - np.int64(info[t, 0])
            if e >= 0 and e < info[t, 2]:
                acc |= (_u(r) & ((_u(1) << _u(k)) - _u(1))) << _u(have)
                have += k
                while have >= 8:
                    buf[byte] = np.uint8(acc & _u(255))
                    acc >>= _u(8)
                    byte += 1
                    have -= 8
    if have:
        buf[byte] = np.uint8(acc & _u(255))
    return (byte << 3) + have


@_jit
def estimate_bits(pairs, segments, every):
    """About how many bits the pairs will take, times 256: each `every`-th pair of every segment, integers only."""
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
            part += ((precision - log + 1) << 8) - (f << 8 >> log)
            seen += 1
        if seen:
            total += part * n // seen
    return total


@_jit
def encode(pairs, segments, log_k, out, used):
    """Push all pairs, last first, onto K streams; pair i goes to stream i mod K.

    segments: (G, 4) int64 rows (first, count, precision, wide) in coding order; out: (K, capacity) uint32, the words of
    each stream in constriction's order; used: (K,) int64, filled with the word counts.
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
                state[j] = s + (s // f) * (_u(1 << 24) - f) + _u(pairs[first + i + i])
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
def _escape(side, escapes):
    """One zigzag LEB128 value from the escape section: (error, value); advances side[3]."""
    z = _u(0)
    for b in range(5):
        p = side[3]
        if p >= side[4]:
            return ESCAPE_END, np.int64(0)
        byte = _u(escapes[p])
        side[3] = p + 1
        z |= (byte & _u(127)) << _u(7 * b)
        if byte < _u(128):
            if z >> _u(32) or (b > 0 and byte == _u(0)):
                return ESCAPE_BAD, np.int64(0)
            return 0, np.int64(z >> _u(1)) ^ -np.int64(z & _u(1))
    return ESCAPE_BAD, np.int64(0)


@_jit
def _raw(side, raw, k):
    """k raw bits: (error, value); advances side[1]. raw carries 8 bytes of padding."""
    p = side[1]
    if p + k > side[2]:
        return RAW_END, np.int64(0)
    side[1] = p + k
    byte = p >> 3
    v = np.int64(raw[byte]) | np.int64(raw[byte + 1]) << 8 | np.int64(raw[byte + 2]) << 16 | np.int64(raw[byte + 3]) << 24
    return 0, (v >> (p & 7)) & ((np.int64(1) << k) - 1)


@_jit
def decode_lut(state, ptr, begin, words, side, raw, escapes, index, offset, info, lut, precision, out):
    """Decode out.size symbols (int32) under indexed tables whose slots fit 32 bits; returns 0 or an error code.

    words carries one word of padding in front, so that ptr[j] - 1 is always readable.
    """
    n = out.shape[0]
    step = 0 if offset.shape[0] == 1 else 1
    tables = _u(info.shape[0])
    mask = _u(state.shape[0] - 1)
    bits = _u(precision)
    shift = _u(24 - precision)
    fine = (_u(1) << shift) - _u(1)
    phase = side[0]
    for i in range(n):
        t = _u(index[i])
        if t >= tables:
            return BAD_INDEX
        j = _u(phase + i) & mask
        s = state[j]
        p = ptr[j]
        q = s & _u(0xFFFFFF)
        slot = _u(lut[(t << bits) | (q >> shift)])
        f = (slot >> _u(8)) & _u(0xFFF)
        s = (s >> _u(24)) * (f << shift) + (((slot >> _u(20)) << shift) | (q & fine))
        word = _u(words[p - 1])
        if s < _u(0x100000000) and p > begin[j]:
            s = (s << _u(32)) | word
            p -= 1
        state[j] = s
        ptr[j] = p
        e = np.int64(slot & _u(255))
        if e == 255:
            err, v = _escape(side, escapes)
            if err:
                return err
        else:
            k = np.int64(info[t, 1])
            v = e + np.int64(info[t, 0])
            if k:
                err, low = _raw(side, raw, k)
                if err:
                    return err
                v = (v << k) | low
        out[i] = np.int32(v + np.int64(offset[i * step]))
    side[0] = phase + n
    return 0


@_jit
def decode_search(state, ptr, begin, words, side, raw, escapes, index, offset, info, pack, buckets, bucket_bits,
                  precision, out):
    """As `decode_lut` for any bank: a bucket of quantiles, then a walk along its table."""
    n = out.shape[0]
    step = 0 if offset.shape[0] == 1 else 1
    tables = _u(info.shape[0])
    mask = _u(state.shape[0] - 1)
    shift = _u(24 - precision)
    coarse = _u(precision - bucket_bits)
    bits = _u(bucket_bits)
    phase = side[0]
    for i in range(n):
        t = _u(index[i])
        if t >= tables:
            return BAD_INDEX
        j = _u(phase + i) & mask
        s = state[j]
        p = ptr[j]
        q = s & _u(0xFFFFFF)
        slot = q >> shift
        e = np.int64(buckets[(t << bits) | (slot >> coarse)])
        base = np.int64(info[t, 3])
        last = np.int64(info[t, 2])
        while e < last and _u(pack[base + e + 1] >> np.uint32(16)) <= slot:
            e += 1
        pair = _u(pack[base + e])
        s = (s >> _u(24)) * ((pair & _u(0xFFFF)) << shift) + (q - ((pair >> _u(16)) << shift))
        word = _u(words[p - 1])
        if s < _u(0x100000000) and p > begin[j]:
            s = (s << _u(32)) | word
            p -= 1
        state[j] = s
        ptr[j] = p
        if e == last:
            err, v = _escape(side, escapes)
            if err:
                return err
        else:
            k = np.int64(info[t, 1])
            v = e + np.int64(info[t, 0])
            if k:
                err, low = _raw(side, raw, k)
                if err:
                    return err
                v = (v << k) | low
        out[i] = np.int32(v + np.int64(offset[i * step]))
    side[0] = phase + n
    return 0


@_jit
def decode_raw(side, raw, bits, lo, out):
    """out.size integers of `bits` raw bits each (1..24), plus lo; returns 0 or RAW_END."""
    for i in range(out.shape[0]):
        err, v = _raw(side, raw, bits)
        if err:
            return err
        out[i] = np.int32(v + lo)
    return 0
