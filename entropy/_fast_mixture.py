"""Mixtures of Gaussians in integers, compiled; `_plain_mixture` is the definition and explains the arguments."""

from __future__ import annotations

import numpy as np

from ._fast import _escape, _jit, _u

BAD_MIXTURE = -5
MEAN_LIMIT = 1 << 19

_ONE = 1 << 24
_CENTRE = 1024 << 20
_LAST = (2048 << 20) - 1


@_jit
def _window(weights, means, scale, reach, i):
    """(error, lo, m) of row i, its parameters checked."""
    total = np.int64(0)
    lo, hi = np.int64(1) << 40, -(np.int64(1) << 40)
    for k in range(weights.shape[1]):
        w, mu, s = np.int64(weights[i, k]), np.int64(means[i, k]), np.int64(scale[i, k])
        if w < 0 or mu > MEAN_LIMIT or mu < -MEAN_LIMIT or s < 0 or s >= 64:
            return BAD_MIXTURE, lo, hi
        total += w
        if w:
            span = np.int64(reach[s])
            lo = min(lo, (mu - span) >> 4)
            hi = max(hi, (mu + span + 15) >> 4)
    if total != 256:
        return BAD_MIXTURE, lo, hi
    return 0, lo, hi - lo + 1


@_jit
def _start(weights, means, scale, phi, rate, i, lo, m, e):
    if e <= 0:
        return np.int64(0)
    if e >= m:
        return np.int64(_ONE - 1) if e == m else np.int64(_ONE)
    edge = 16 * (lo + e) - 8
    total = np.int64(0)
    for k in range(weights.shape[1]):
        w = np.int64(weights[i, k])
        step = (edge - np.int64(means[i, k])) * rate[_u(scale[i, k])] + _CENTRE
        step = min(max(step, np.int64(0)), np.int64(_LAST))
        at = _u(step >> 20)
        a = np.int64(phi[at])
        total += w * (a + ((np.int64(phi[at + _u(1)]) - a) * ((step >> 8) & 4095) >> 12))
    return ((total >> 14) * (_ONE - (m + 1)) >> 24) + e


@_jit
def ranges_mixture(symbols, weights, means, scale, phi, rate, reach, out):
    """Pairs of n symbols; the number of escapes or BAD_MIXTURE."""
    escapes = 0
    for i in range(symbols.shape[0]):
        err, lo, m = _window(weights, means, scale, reach, i)
        if err:
            return err
        e = np.int64(symbols[i]) - lo
        if e < 0 or e >= m:
            e = m
            escapes += 1
        first = _start(weights, means, scale, phi, rate, i, lo, m, e)
        out[2 * i] = np.uint32(first)
        out[2 * i + 1] = np.uint32(_start(weights, means, scale, phi, rate, i, lo, m, e + 1) - first)
    return escapes


@_jit
def escapes_mixture(symbols, weights, means, scale, reach, out):
    """Zigzag values of the escaped symbols."""
    c = 0
    for i in range(symbols.shape[0]):
        _, lo, m = _window(weights, means, scale, reach, i)
        x = np.int64(symbols[i])
        if x < lo or x >= lo + m:
            out[c] = np.uint32((x << 1) ^ (x >> 63))
            c += 1


@_jit
def decode_mixture(state, ptr, begin, words, side, escapes, weights, means, scale, phi, rate, reach, out):
    """Decode out.size symbols; 0 or an error code."""
    n = out.shape[0]
    phase = side[0]
    mask = _u(state.shape[0] - 1)
    for i in range(n):
        err, lo, m = _window(weights, means, scale, reach, i)
        if err:
            return err
        j = _u(phase + i) & mask
        s = state[j]
        q = np.int64(s & _u(0xFFFFFF))
        a, first = np.int64(0), np.int64(0)
        b, after = m + 1, np.int64(_ONE)
        # begin at the heaviest component and double the step outwards: most symbols lie next to a mean
        heavy = 0
        for k in range(1, weights.shape[1]):
            if weights[i, k] > weights[i, heavy]:
                heavy = k
        e = min(max(((np.int64(means[i, heavy]) + 8) >> 4) - lo, np.int64(1)), m)
        stride = np.int64(1)
        doubling = True
        while b - a > 1:
            v = _start(weights, means, scale, phi, rate, i, lo, m, e)
            if v <= q:
                a, first = e, v
                if doubling and b == m + 1:
                    e += stride
                    stride += stride
                    if e >= b:
                        doubling = False
                else:
                    doubling = False
            else:
                b, after = e, v
                if doubling and a == 0:
                    e -= stride
                    stride += stride
                    if e <= a:
                        doubling = False
                else:
                    doubling = False
            if not doubling:
                e = (a + b) >> 1
        s = (s >> _u(24)) * _u(after - first) + _u(q - first)
        p = ptr[j]
        if s < _u(0x100000000) and p > begin[j]:
            p -= 1
            s = (s << _u(32)) | _u(words[p])
        state[j] = s
        ptr[j] = p
        if a == m:
            err, x = _escape(side, escapes)
            if err:
                return err
            out[i] = np.int32(x)
        else:
            out[i] = np.int32(lo + a)
    side[0] = phase + n
    return 0
