"""The range coder of `stream` in plain Python: the definition, and the body where numba is missing.

The recurrence is that of constriction's `RangeEncoder` and `RangeDecoder` (64-bit lower bound and range, 32-bit
words, 24-bit probabilities), with a = start and f = frequency of a symbol:

    both:   scale = range >> 24;  lower += scale * a;  range = scale * f           modulo 2**64
            if range < 2**32: the upper word of lower is done;  lower <<= 32;  range <<= 32
    read:   the symbol is the one with a <= (point - lower) // scale < a + f, point being the next 64 bits

A word that is done is held back while a carry out of later symbols may still reach it (lower + range wraps
around): `held` counts such words, all but the first of them are 0xFFFFFFFF as long as no carry comes.

`compiled.stream` has the same functions. `coder` is a uint64 array [lower, range, held, first held word] that
writes, or [lower, range, point] that reads; `at` is [next word, missing words of the point] (int64), `words`
what has arrived. Readers change `coder` and `at` only when all symbols came.
"""

from __future__ import annotations

import numpy as np

WAIT = -10  # what has arrived does not decide the next symbol
BAD_POINT = -11  # no encoder writes these words
BAD_ESCAPE = -12

_MASK = (1 << 64) - 1
_WORD = (1 << 32) - 1


def write(start, freq, coder, out):
    """Code n intervals (uint32 start and frequency, of 2**24); returns how many words went to out.

    `out` needs room for n words and the held ones.
    """
    lower, width, held, first = coder.tolist()
    words = []
    for a, f in zip(start.tolist(), freq.tolist()):
        scale = width >> 24
        width = scale * f
        total = lower + scale * a
        carry, lower = total >> 64, total & _MASK
        if held and (carry or lower + width <= _MASK):
            words.append((first + carry) & _WORD)
            words.extend([0 if carry else _WORD] * (held - 1))
            held = 0
        if width <= _WORD:
            word = lower >> 32
            lower, width = lower << 32 & _MASK, width << 32
            if held:
                held += 1
            elif lower + width <= _MASK:
                words.append(word)
            else:
                held, first = 1, word
    coder[:] = lower, width, held, first
    out[: len(words)] = words
    return len(words)


class _Reader:
    """One pass over the words, on copies of the state."""

    def __init__(self, coder, at, words):
        self.lower, self.width, self.point = coder.tolist()
        self.next, self.missing = at.tolist()
        self.words = words

    def look(self):
        """(first, last) quantile that the words to come leave possible; an error code twice."""
        while self.missing and self.next < self.words.size:
            self.missing -= 1
            self.point |= int(self.words[self.next]) << 32 * self.missing
            self.next += 1
        low = (self.point - self.lower) & _MASK
        high = low + (1 << 32 * self.missing) - 1
        if high > _MASK:
            return WAIT, WAIT
        scale = self.width >> 24
        if low // scale >> 24:
            return BAD_POINT, BAD_POINT
        return low // scale, high // scale

    def take(self, a, f):
        """Go on behind the symbol of this interval."""
        scale = self.width >> 24
        self.lower = (self.lower + scale * a) & _MASK
        self.width = scale * f
        if self.width <= _WORD:
            self.lower = self.lower << 32 & _MASK
            self.point = self.point << 32 & _MASK
            self.width <<= 32
            self.missing += 1

    def uniform(self, bits):
        """(error, value) of `bits` (1..16) equiprobable bits."""
        q, high = self.look()
        if q < 0:
            return q, 0
        value = q >> 24 - bits
        if value != high >> 24 - bits:
            return WAIT, 0
        self.take(value << 24 - bits, 1 << 24 - bits)
        return 0, value

    def low_bits(self, bits):
        """(error, value) of `bits` (0..25) bits in pieces of at most 16, low ones first."""
        value = done = 0
        while done < bits:
            size = min(16, bits - done)
            err, piece = self.uniform(size)
            if err:
                return err, 0
            value |= piece << done
            done += size
        return 0, value

    def escape(self):
        """(error, value) of a zigzag LEB128 integer."""
        z = 0
        for b in range(5):
            err, byte = self.uniform(8)
            if err:
                return err, 0
            z |= (byte & 127) << 7 * b
            if byte < 128:
                if z >> 32 or (b and not byte):
                    break
                return 0, (z >> 1) ^ -(z & 1)
        return BAD_ESCAPE, 0

    def leave(self, coder, at):
        coder[:] = self.lower, self.width, self.point
        at[:] = self.next, self.missing
        return 0


def read_table(coder, at, words, index, rows, pack, buckets, bucket_bits, precision, out):
    """out.size integers (int32) under indexed tables; 0 or an error code."""
    reader = _Reader(coder, at, words)
    shift = 24 - precision
    for i, t in enumerate(index.tolist()):
        lo, bits, last, base = rows[t].tolist()
        q, high = reader.look()
        if q < 0:
            return q
        e = int(buckets[(t << bucket_bits) | (q >> 24 - bucket_bits)])
        while e < last and int(pack[base + e + 1]) >> 16 <= q >> shift:
            e += 1
        a, f = int(pack[base + e]) >> 16 << shift, (int(pack[base + e]) & 0xFFFF) << shift
        if high >= a + f:
            return WAIT
        reader.take(a, f)
        if e == last:
            err, value = reader.escape()
        else:
            err, low = reader.low_bits(bits)
            value = (lo + e) << bits | low
        if err:
            return err
        out[i] = value
    return reader.leave(coder, at)


def read_raw(coder, at, words, bits, lo, out):
    """out.size integers of `bits` (1..25) bits each, plus lo; 0 or an error code."""
    reader = _Reader(coder, at, words)
    for i in range(out.size):
        err, value = reader.low_bits(bits)
        if err:
            return err
        out[i] = value + lo
    return reader.leave(coder, at)


def read_mixture(coder, at, words, weights, means, scale, first, count, phi, rate, out):
    """out.size integers under integer mixtures (see `plain.mixture`); 0 or an error code."""
    from .mixture import _starts

    reader = _Reader(coder, at, words)
    w, mu = weights.astype(np.int64), means.astype(np.int64)
    for i in range(out.size):
        one = slice(i, i + 1)

        def start(e, one=one):
            row = (w[one], mu[one], scale[one], first[one], count[one], np.array([e]))
            return int(_starts(*row, phi, rate)[0])

        q, high = reader.look()
        if q < 0:
            return q
        a, b = 0, int(count[i]) + 1
        while b - a > 1:
            mid = (a + b) >> 1
            if start(mid) <= q:
                a = mid
            else:
                b = mid
        low, end = start(a), start(a + 1)
        if high >= end:
            return WAIT
        reader.take(low, end - low)
        err, value = reader.escape() if a == count[i] else (0, int(first[i]) + a)
        if err:
            return err
        out[i] = value
    return reader.leave(coder, at)
