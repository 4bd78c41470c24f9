"""Bjontegaard delta rate: the mean difference in rate between two curves at equal quality."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Curve = Sequence[tuple[float, float]]


def _monotone(curve: Curve) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Log-rates over strictly increasing quality; points that cost more without being better are dropped."""
    best: list[tuple[float, float]] = []
    for rate, quality in sorted(curve):
        if not best or quality > best[-1][1]:
            best.append((rate, quality))
    rates, qualities = np.array(best).T
    return np.log(rates), qualities


def bd_rate(anchor: Curve, test: Curve) -> float:
    """Per cent of rate that ``test`` needs more than ``anchor`` (negative: saves), over the quality both cover.

    Piecewise cubic (PCHIP) interpolation of log-rate over quality, as in the VCEG-AI11 spreadsheet successors.

    Args:
        anchor, test: (rate, quality) points, at least two each.

    Returns:
        NaN when the curves share no quality range.
    """
    from scipy.interpolate import PchipInterpolator

    (ra, qa), (rt, qt) = _monotone(anchor), _monotone(test)
    low, high = max(qa[0], qt[0]), min(qa[-1], qt[-1])
    if len(qa) < 2 or len(qt) < 2 or low >= high:
        return math.nan
    area = [PchipInterpolator(q, r).integrate(low, high) for q, r in ((qa, ra), (qt, rt))]
    return (math.exp((area[1] - area[0]) / (high - low)) - 1) * 100


def bd_psnr(anchor: Curve, test: Curve) -> float:
    """Quality that ``test`` has more than ``anchor`` (negative: less), in its unit, mean over the log-rates that both
    cover; arguments as `bd_rate`.

    Returns:
        NaN when the curves share no range of rates.
    """
    from scipy.interpolate import PchipInterpolator

    (ra, qa), (rt, qt) = _monotone(anchor), _monotone(test)
    low, high = max(ra[0], rt[0]), min(ra[-1], rt[-1])
    if len(ra) < 2 or len(rt) < 2 or low >= high:
        return math.nan
    area = [PchipInterpolator(r, q).integrate(low, high) for r, q in ((ra, qa), (rt, qt))]
    return float((area[1] - area[0]) / (high - low))


def overlap(anchor: Curve, test: Curve) -> float:
    """Part of the smaller of two ranges of quality that both curves cover, 0 to 1: how much `bd_rate` rests on."""
    (_, qa), (_, qt) = _monotone(anchor), _monotone(test)
    shared = min(qa[-1], qt[-1]) - max(qa[0], qt[0])
    smaller = min(qa[-1] - qa[0], qt[-1] - qt[0])
    return float(max(0.0, shared / smaller)) if smaller > 0 else 0.0


def quality_at_rate(curve: Curve, rate: float) -> float:
    """Quality of a curve at a rate, interpolated over log-rate; NaN outside of the curve."""
    from scipy.interpolate import PchipInterpolator

    r, q = _monotone(curve)
    x = math.log(rate)
    if len(r) < 2 or not r[0] <= x <= r[-1]:
        return math.nan
    return float(PchipInterpolator(r, q)(x))
