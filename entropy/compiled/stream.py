"""The range coder of `stream`, compiled; `plain.stream` defines and explains it."""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit
from ..plain.stream import BAD_ESCAPE, BAD_POINT, WAIT, read_mixture
from .coder import _u

__all__ = ["BAD_ESCAPE", "BAD_POINT", "WAIT", "read_mixture", "read_raw", "read_table", "write"]

_WORD = (1 << 32) - 1


@_jit
def write(start, freq, coder, out):
    """Code n intervals; returns how many words went to out."""
    lower, width, held, first = coder[0], coder[1], np.int64(coder[2]), coder[3]
    n = 0
    for i in range(_u(start.shape[0])):
        scale = width >> _u(24)
        before = lower
        lower = before + scale * _u(start[i])
        width = scale * _u(freq[i])
        if held and lower + width > lower:
            carry = lower < before
            out[n] = np.uint32(first + _u(carry))
            for k in range(1, held):
                out[n + k] = np.uint32(0) if carry else np.uint32(_WORD)
            n += held
            held = np.int64(0)
        if width <= _u(_WORD):
            word = lower >> _u(32)
            lower <<= _u(32)
            width <<= _u(32)
            if held:
                held += 1
            elif lower + width > lower:
                out[n] = np.uint32(word)
                n += 1
            else:
                held, first = np.int64(1), word
    coder[0], coder[1], coder[2], coder[3] = lower, width, _u(held), first
    return n


@_jit
def _uniform(lower, width, point, after, missing, words, bits):
    """`bits` equiprobable bits: (error, value) and what became of the state."""
    while missing and after < words.shape[0]:
        missing -= 1
        point |= _u(words[after]) << _u(32 * missing)
        after += 1
    low = point - lower
    scale = width >> _u(24)
    back = _u(24 - bits)
    value = low // scale >> back
    if missing:
        high = low + _u(_WORD)
        if missing > 1 or high < low:
            return WAIT, _u(0), lower, width, point, after, missing
        if value >> _u(bits):
            return BAD_POINT, _u(0), lower, width, point, after, missing
        if high // scale >> back != value:
            return WAIT, _u(0), lower, width, point, after, missing
    elif value >> _u(bits):
        return BAD_POINT, _u(0), lower, width, point, after, missing
    lower += scale * (value << back)
    width = scale << back
    if width <= _u(_WORD):
        lower <<= _u(32)
        point <<= _u(32)
        width <<= _u(32)
        missing += 1
    return 0, value, lower, width, point, after, missing


@_jit
def read_table(coder, at, words, index, rows, pack, buckets, bucket_bits, precision, out):
    """out.size integers under indexed tables; 0 or an error code."""
    lower, width, point = coder[0], coder[1], coder[2]
    after, missing = at[0], at[1]
    shift, coarse, fine = _u(24 - precision), _u(24 - bucket_bits), _u(bucket_bits)
    for i in range(_u(out.shape[0])):
        t = _u(index[i])
        while missing and after < words.shape[0]:
            missing -= 1
            point |= _u(words[after]) << _u(32 * missing)
            after += 1
        low = point - lower
        if missing and (missing > 1 or low + _u(_WORD) < low):
            return WAIT
        scale = width >> _u(24)
        q = low // scale
        if q >> _u(24):
            return BAD_POINT
        base, last = _u(rows[t, _u(3)]), _u(rows[t, _u(2)])
        e = _u(buckets[(t << fine) | (q >> coarse)])
        while e < last and _u(pack[base + e + _u(1)] >> np.uint32(16)) <= q >> shift:
            e += _u(1)
        pair = _u(pack[base + e])
        a, f = (pair >> _u(16)) << shift, (pair & _u(0xFFFF)) << shift
        if missing and (low + _u(_WORD)) // scale >= a + f:
            return WAIT
        lower += scale * a
        width = scale * f
        if width <= _u(_WORD):
            lower <<= _u(32)
            point <<= _u(32)
            width <<= _u(32)
            missing += 1
        v = np.int64(e) + np.int64(rows[t, _u(0)])
        if e == last:
            z, b = _u(0), 0
            while True:
                err, byte, lower, width, point, after, missing = _uniform(lower, width, point, after, missing, words, 8)
                if err:
                    return err
                z |= (byte & _u(127)) << _u(7 * b)
                if byte < _u(128):
                    if z >> _u(32) or (b > 0 and byte == _u(0)):
                        return BAD_ESCAPE
                    break
                b += 1
                if b == 5:
                    return BAD_ESCAPE
            v = np.int64(z >> _u(1)) ^ -np.int64(z & _u(1))
        else:
            bits, done = np.int64(rows[t, _u(1)]), np.int64(0)
            v <<= bits
            while done < bits:
                size = min(np.int64(16), bits - done)
                err, low, lower, width, point, after, missing = _uniform(
                    lower, width, point, after, missing, words, size
                )
                if err:
                    return err
                v |= np.int64(low << _u(done))
                done += size
        out[i] = np.int32(v)
    coder[0], coder[1], coder[2] = lower, width, point
    at[0], at[1] = after, missing
    return 0


@_jit
def read_raw(coder, at, words, bits, lo, out):
    """out.size integers of `bits` (1..25) bits each, plus lo; 0 or an error code."""
    lower, width, point = coder[0], coder[1], coder[2]
    after, missing = at[0], at[1]
    for i in range(_u(out.shape[0])):
        v, done = np.int64(0), np.int64(0)
        while done < bits:
            size = min(np.int64(16), bits - done)
            err, low, lower, width, point, after, missing = _uniform(lower, width, point, after, missing, words, size)
            if err:
                return err
            v |= np.int64(low << _u(done))
            done += size
        out[i] = np.int32(v + lo)
    coder[0], coder[1], coder[2] = lower, width, point
    at[0], at[1] = after, missing
    return 0
