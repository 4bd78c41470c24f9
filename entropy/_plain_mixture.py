"""Mixtures of Gaussians in integers: the definition of their intervals, in numpy.

A symbol x has the 24-bit interval start(x - lo) .. start(x - lo + 1) of a mixture with integer weights w (sum 256),
means m and edges in sixteenths, and scale numbers s:

    step(x, k) = (16 x - 8 - m_k) * rate[s_k]                    where the CDF table is read, in steps times 2**20
    cdf(x)     = sum_k w_k * phi(step(x, k)) >> 14                24 bits; phi is interpolated linearly, in integers
    start(e)   = (cdf(lo + e) * (2**24 - (m + 1)) >> 24) + e     for 0 < e < m; start(0) = 0
    start(m)   = 2**24 - 1                                        the escape, one count

lo and m span six deviations of every component that has weight. phi never falls, so start always rises: each symbol has
an interval, whatever the parameters. The decoder searches x by bisection; no table a symbol is ever built.
"""

from __future__ import annotations

import numpy as np

from ._plain import _escape, _wrap

BAD_MIXTURE = -5
MEAN_LIMIT = 1 << 19  # sixteenths: means lie within +-32768

_ONE = 1 << 24
_FRACTION = 20
_CENTRE = 1024 << _FRACTION
_END = 2048 << _FRACTION


def _valid(weights, means, scale):
    return (
        bool((weights >= 0).all() and (weights.sum(1) == 256).all())
        and bool((np.abs(means) <= MEAN_LIMIT).all())
        and bool(((scale >= 0) & (scale < 64)).all())
    )


def _window(weights, means, scale, reach):
    used = weights > 0
    span = reach[scale].astype(np.int64)
    lo = np.where(used, (means - span) >> 4, 1 << 40).min(1)
    hi = np.where(used, (means + span + 15) >> 4, -(1 << 40)).max(1)
    return lo, hi - lo + 1


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


def ranges_mixture(symbols, weights, means, scale, phi, rate, reach, out):
    """Pairs (start, frequency) of n symbols into out (2n,) uint32; returns the number of escapes or BAD_MIXTURE.

    symbols: (n,) int32; weights, means, scale: (n, K) int32.
    """
    w, mu, s = (a.astype(np.int64) for a in (weights, means, scale))
    if not _valid(w, mu, s):
        return BAD_MIXTURE
    lo, m = _window(w, mu, s, reach)
    e = symbols - lo
    escape = (e < 0) | (e >= m)
    e = np.where(escape, m, e)
    out[0::2] = first = _starts(w, mu, s, lo, m, e, phi, rate)
    out[1::2] = _starts(w, mu, s, lo, m, e + 1, phi, rate) - first
    return int(escape.sum())


def escapes_mixture(symbols, weights, means, scale, reach, out):
    """The zigzag values of the escaped symbols, in order, into out (uint32)."""
    w, mu, s = (a.astype(np.int64) for a in (weights, means, scale))
    lo, m = _window(w, mu, s, reach)
    x = symbols.astype(np.int64)
    x = x[(x < lo) | (x >= lo + m)]
    out[: x.size] = (x << 1) ^ (x >> 63)


def decode_mixture(state, ptr, begin, words, side, escapes, weights, means, scale, phi, rate, reach, out):
    """Decode out.size symbols (int32); returns 0 or an error code."""
    w, mu, s = (a.astype(np.int64) for a in (weights, means, scale))
    if not _valid(w, mu, s):
        return BAD_MIXTURE
    lo, m = _window(w, mu, s, reach)
    phase, streams = int(side[0]), state.size
    for i in range(out.size):
        j = (phase + i) & (streams - 1)
        one = slice(i, i + 1)

        def start(e, one=one):
            return int(_starts(w[one], mu[one], s[one], lo[one], m[one], np.array([e]), phi, rate)[0])

        x = int(state[j])
        q = x & 0xFFFFFF
        a, b = 0, int(m[i]) + 1
        while b - a > 1:
            mid = (a + b) >> 1
            if start(mid) <= q:
                a = mid
            else:
                b = mid
        first = start(a)
        x = (x >> 24) * (start(a + 1) - first) + q - first
        if x < 1 << 32 and ptr[j] > begin[j]:
            ptr[j] -= 1
            x = x << 32 | int(words[ptr[j]])
        state[j] = x
        if a == m[i]:
            err, v = _escape(side, escapes)
            if err:
                return err
            out[i] = _wrap(v)
        else:
            out[i] = int(lo[i]) + a
    side[0] = phase + out.size
    return 0
