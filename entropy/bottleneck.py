"""Integer tables of a deep factorised density: Balle et al., "Variational image compression with a scale hyperprior".

The density of each channel is the derivative of a small monotone network (arXiv 1802.01436, section 6.1). The tables
are computed from its weights in float64 with additions, multiplications, divisions and roundings alone, element by
element in a fixed order: IEEE 754 defines each to the last bit, so every machine builds the same integers. (exp, log
and tanh of the system's library do not have that property.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .tables import TableBank

Array = npt.NDArray[np.float64]

_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42fefa0000p-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")
_WIDEST = 4096  # symbols to each side of the median that may get an entry of their own
_TAIL = 2.0**-20  # mass that may lie beyond; the tables know steps of 2**-16


def bottleneck_bank(
    matrices: Sequence[Array], biases: Sequence[Array], factors: Sequence[Array], medians: Array
) -> TableBank:
    """One table a channel, of precision 16, for the symbols ``round(z - median)``.

    Args:
        matrices, biases, factors: parameters of the layers, before softplus and tanh: (C, out, in), (C, out, 1) and,
            for all layers but the last, (C, out, 1).
        medians: (C,) what is subtracted before rounding.

    Raises:
        InputError: the weights are not finite, or a density is too wide for any table.
    """
    layers = [*matrices, *biases, *factors, medians]
    if not all(np.isfinite(a).all() for a in layers):
        raise InputError("the factorised density holds NaN or infinite weights")
    weights = [softplus(np.asarray(m, np.float64)) for m in matrices]
    shifts = [np.asarray(b, np.float64) for b in biases]
    gates = [tanh(np.asarray(f, np.float64)) for f in factors]
    reach = 32
    while True:
        edges = np.arange(-reach, reach + 2) - 0.5
        logits = _logits(weights, shifts, gates, np.asarray(medians, np.float64)[:, None] + edges)
        tail = max(sigmoid(logits[:, 0]).max(), sigmoid(-logits[:, -1]).max())
        if tail < _TAIL or reach == _WIDEST:
            break
        reach *= 2
    if tail > 0.5:
        raise InputError(f"a channel's density lies beyond +-{_WIDEST} of its median: the weights are damaged")
    lower, upper = logits[:, :-1], logits[:, 1:]
    sign = np.where(lower + upper > 0, -1.0, 1.0)  # in the upper half the complement has the digits
    mass = np.abs(sigmoid(sign * upper) - sigmoid(sign * lower))
    counts = np.rint(mass * 2.0**40)  # integers, so that sums do not depend on their order
    return TableBank.from_histograms(list(counts), lo=-reach, precision=16)


def _logits(weights: list[Array], shifts: list[Array], gates: list[Array], x: Array) -> Array:
    """Logits of the cumulative distribution at x (C, n)."""
    v = x[:, None]
    for i, (w, b) in enumerate(zip(weights, shifts)):
        total = np.broadcast_to(b, (*b.shape[:2], x.shape[1]))
        for j in range(w.shape[2]):
            total = total + w[:, :, j, None] * v[:, None, j]
        v = total + gates[i] * tanh(total) if i < len(gates) else total
    return v[:, 0]


def exp(x: Array) -> Array:
    """e**x for x <= 0 within 1e-15 relative, from exactly defined operations."""
    x = np.maximum(x, -700.0)
    k = np.rint(x * 1.4426950408889634)
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    total = np.ones_like(r)
    for n in range(14, 0, -1):
        total = 1.0 + total * r / n
    return np.ldexp(total, k.astype(np.int32))


def softplus(x: Array) -> Array:
    """log(1 + e**x), from exactly defined operations."""
    e = exp(-np.abs(x))
    t = e / (2.0 + e)  # log(1 + e) = 2 artanh(t), 0 < t <= 1/3
    square, total = t * t, np.zeros_like(t)
    for n in range(35, 0, -2):
        total = total * square + 1.0 / n
    return np.maximum(x, 0.0) + 2.0 * t * total


def tanh(x: Array) -> Array:
    """Hyperbolic tangent, from exactly defined operations."""
    e = exp(-2.0 * np.abs(x))
    return np.sign(x) * ((1.0 - e) / (1.0 + e))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e**-x), from exactly defined operations, accurate in the lower tail."""
    e = exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)
