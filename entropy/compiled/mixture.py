"""Mixtures of Gaussians in integers, compiled; `plain.mixture` defines and explains them."""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit
from .coder import _escape, _u

BAD_MIXTURE = -5
MEAN_LIMIT = 1 << 19

_ONE = 1 << 24
_CENTRE = 1024 << 20
_LAST = (2048 << 20) - 1


@_jit
def _step(edge, mean, rate):
    """Where the CDF table is read for one component: steps times 2**20, within the table."""
    return min(max((edge - np.int64(mean)) * rate + _CENTRE, np.int64(0)), np.int64(_LAST))


@_jit
def _between(a, b, step):
    """The table read at `step`, linearly between the entries a and b around it."""
    return np.int64(a) + ((np.int64(b) - np.int64(a)) * ((step >> 8) & 4095) >> 12)


@_jit
def windows(weights, means, scale, reach, first, count):
    """Fill lo and m of each row; 0 or BAD_MIXTURE."""
    for i in range(weights.shape[0]):
        total = np.int64(0)
        lo, hi = np.int64(1) << 40, -(np.int64(1) << 40)
        for k in range(weights.shape[1]):
            w, mu, s = np.int64(weights[i, k]), np.int64(means[i, k]), np.int64(scale[i, k])
            if w < 0 or mu > MEAN_LIMIT or mu < -MEAN_LIMIT or s < 0 or s > 63:
                return BAD_MIXTURE
            total += w
            if w:
                span = np.int64(reach[s])
                lo = min(lo, (mu - span) >> 4)
                hi = max(hi, (mu + span + 15) >> 4)
        if total != 256:
            return BAD_MIXTURE
        first[i] = lo
        count[i] = hi - lo + 1
    return 0


@_jit
def ranges_mixture(symbols, weights, means, scale, first, count, phi, rate, out):
    """Pairs of n symbols; the number of escapes."""
    escapes = 0
    parts = _u(weights.shape[1])
    for i in range(_u(symbols.shape[0])):
        lo, m = first[i], count[i]
        e = np.int64(symbols[i]) - lo
        if e < 0 or e >= m:
            out[i + i] = np.uint32(_ONE - 1)
            out[i + i + _u(1)] = np.uint32(1)
            escapes += 1
            continue
        edge = 16 * (lo + e) - 8
        low = high = np.int64(0)
        for k in range(parts):
            w, mu, r = np.int64(weights[i, k]), means[i, k], rate[_u(scale[i, k])]
            a = _step(edge, mu, r)
            b = _step(edge + 16, mu, r)
            low += w * _between(phi[_u(a >> 20)], phi[_u(a >> 20) + _u(1)], a)
            high += w * _between(phi[_u(b >> 20)], phi[_u(b >> 20) + _u(1)], b)
        low = ((low >> 14) * (_ONE - (m + 1)) >> 24) + e if e > 0 else np.int64(0)
        high = ((high >> 14) * (_ONE - (m + 1)) >> 24) + e + 1 if e + 1 < m else np.int64(_ONE - 1)
        out[i + i] = np.uint32(low)
        out[i + i + _u(1)] = np.uint32(high - low)
    return escapes


@_jit
def decode_mixture(state, ptr, begin, words, side, escapes, weights, means, scale, first, count, phi, rate, out):
    """Decode out.size symbols; 0 or an error code."""
    phase = _u(side[0])
    mask = _u(state.shape[0] - 1)
    parts = _u(weights.shape[1])
    for i in range(_u(out.shape[0])):
        lo, m = first[i], count[i]
        j = (phase + i) & mask
        s = state[j]
        q = np.int64(s & _u(0xFFFFFF))
        # the answer lies in a <= e < b; begin at the heaviest component and double the step outwards from
        # there
        a, low = np.int64(0), np.int64(0)
        b, high = m, np.int64(_ONE - 1)
        if q >= high:
            a, low, b, high = m, high, m + 1, np.int64(_ONE)
        heavy = _u(0)
        for k in range(_u(1), parts):
            if weights[i, k] > weights[i, heavy]:
                heavy = k
        e = min(max(((np.int64(means[i, heavy]) + 8) >> 4) - lo, np.int64(1)), m - 1)
        up = down = np.int64(1)
        while b - a > 1:
            edge = 16 * (lo + e) - 8
            v = np.int64(0)
            for k in range(parts):
                at = _step(edge, means[i, k], rate[_u(scale[i, k])])
                v += np.int64(weights[i, k]) * _between(phi[_u(at >> 20)], phi[_u(at >> 20) + _u(1)], at)
            v = ((v >> 14) * (_ONE - (m + 1)) >> 24) + e
            if v <= q:
                a, low = e, v
                e += up
                up += up
            else:
                b, high = e, v
                e -= down
                down += down
            if e <= a or e >= b:
                e = (a + b) >> 1
        s = (s >> _u(24)) * _u(high - low) + _u(q - low)
        if s < _u(0x100000000):
            p = _u(ptr[j])
            if p > _u(begin[j]):
                s = (s << _u(32)) | _u(words[p - _u(1)])
                ptr[j] = np.int64(p - _u(1))
        state[j] = s
        if a == m:
            err, x = _escape(side, escapes)
            if err:
                return err
            out[i] = np.int32(x)
        else:
            out[i] = np.int32(lo + a)
    side[0] += out.shape[0]
    return 0
