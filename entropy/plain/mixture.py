"""Mixtures of Gaussians in integers: the definition of their intervals, in numpy.

A symbol x has the 24-bit interval start(x - lo) .. start(x - lo + 1) of a mixture with integer weights w (sum
256), means m and edges in sixteenths, and scale numbers s:

    step(x, k) = (16 x - 8 - m_k) * rate[s_k]                    where the CDF table is read, in steps times
    2**20 cdf(x)     = sum_k w_k * phi(step(x, k)) >> 14                24 bits; phi is interpolated linearly,
    in integers start(e)   = (cdf(lo + e) * (2**24 - (m + 1)) >> 24) + e     for 0 < e < m; start(0) = 0
    start(m)   = 2**24 - 1                                        the escape, one count

lo and m span six deviations of every component that has weight. phi never falls, so start always rises: each
symbol has an interval, whatever the parameters. The decoder searches x by bisection; no table a symbol is
ever built.
"""

from __future__ import annotations

import numpy as np

from .coder import _escape

BAD_MIXTURE = -5
MEAN_LIMIT = 1 << 19  # sixteenths: means lie within +-32768

_ONE = 1 << 24
_FRACTION = 20
_CENTRE = 1024 << _FRACTION
_END = 2048 << _FRACTION


def windows(weights, means, scale, reach, first, count):
    """Fill lo and m of each row, (n,) int64; returns 0, or BAD_MIXTURE if parameters are out of range.

    weights, means, scale: (n, K) int32.
    """
    w, mu = weights.astype(np.int64), means.astype(np.int64)
    if (w < 0).any() or (w.sum(1) != 256).any() or (abs(mu) > MEAN_LIMIT).any() or ((scale < 0) | (scale > 63)).any():
        return BAD_MIXTURE
    span = reach[scale].astype(np.int64)
    first[:] = np.where(w > 0, (mu - span) >> 4, 1 << 40).min(1)
    count[:] = np.where(w > 0, (mu + span + 15) >> 4, -(1 << 40)).max(1) - first + 1
    return 0


def _starts(weights, means, scale, lo, m, e, phi, rate):
    edge = (16 * (lo + e) - 8)[:, None] - means
    step = np.clip(edge * rate[scale] + _CENTRE, 0, _END - 1)
    i = step >> _FRACTION
    a, b = phi[i].astype(np.int64), phi[i + 1].astype(np.int64)
    value = a + ((b - a) * ((step >> 8) & 4095) >> 12)
    cdf = (weights * value).sum(1) >> 14
    start = (cdf * (_ONE - (m + 1)) >> 24) + e
    start = np.where(e <= 0, 0, start)
    return np.where(e == m, _ONE - 1, np.where(e > m, _ONE, start))


def ranges_mixture(symbols, weights, means, scale, first, count, phi, rate, out):
    """Pairs (start, frequency) of n symbols into out (2n,) uint32; returns the number of escapes."""
    w, mu = weights.astype(np.int64), means.astype(np.int64)
    e = symbols - first
    escape = (e < 0) | (e >= count)
    e = np.where(escape, count, e)
    out[0::2] = start = _starts(w, mu, scale, first, count, e, phi, rate)
    out[1::2] = _starts(w, mu, scale, first, count, e + 1, phi, rate) - start
    return int(escape.sum())


def decode_mixture(state, ptr, begin, words, side, escapes, weights, means, scale, first, count, phi, rate, out):
    """Decode out.size symbols (int32); returns 0 or an error code."""
    w, mu = weights.astype(np.int64), means.astype(np.int64)
    phase, streams = int(side[0]), state.size
    for i in range(out.size):
        j = (phase + i) & (streams - 1)
        one = slice(i, i + 1)

        def start(e, one=one):
            row = (w[one], mu[one], scale[one], first[one], count[one], np.array([e]))
            return int(_starts(*row, phi, rate)[0])

        x = int(state[j])
        q = x & 0xFFFFFF
        a, b = 0, int(count[i]) + 1
        while b - a > 1:
            mid = (a + b) >> 1
            if start(mid) <= q:
                a = mid
            else:
                b = mid
        low = start(a)
        x = (x >> 24) * (start(a + 1) - low) + q - low
        if x < 1 << 32 and ptr[j] > begin[j]:
            ptr[j] -= 1
            x = x << 32 | int(words[ptr[j]])
        state[j] = x
        if a == count[i]:
            err, v = _escape(side, escapes)
            if err:
                return err
            out[i] = v
        else:
            out[i] = int(first[i]) + a
    side[0] = phase + out.size
    return 0
