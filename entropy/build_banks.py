"""Makes `banks_v1.npz`: the frozen integer tables that every Gaussian, Laplace and mixture model shares.

    python -m latentzip.entropy.build_banks OUT.npz

Run once a version, at 60 digits (needs mpmath, a build-time tool only). A stored bank never changes: streams
name it by its fingerprint, and a better table is a new version in a new file. Nothing here is imported when
coding.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np

from .tables import TableBank, normalise

NUM_SCALES = 64
SCALE_MIN, SCALE_MAX = 0.11, 256.0
# precision -> (widest deviation in units of a table entry, most raw bits); wider scales shed low bits until
# they fit
PROFILES = {12: (8.0, 5), 14: (20.0, 4), 16: (32.0, 3)}
PHI_STEPS, PHI_REACH, PHI_BITS = (
    128,
    8,
    30,
)  # the normal CDF of the mixtures: steps a deviation, deviations, bits


def scales() -> np.ndarray:
    """(64,) float64 deviations, evenly spaced in log."""
    return np.exp(np.linspace(np.log(SCALE_MIN), np.log(SCALE_MAX), NUM_SCALES))


def build_bank(family: str, precision: int) -> TableBank:
    """The bank of one family ("gaussian" or "laplace") and precision; table i has deviation `scales()[i]`."""
    import mpmath as mp

    mp.mp.dps = 60
    widest, most = PROFILES[precision]
    freqs, lows, raws = [], [], []
    for sigma in scales():
        k = 0
        while sigma / 2**k > widest and k < most:
            k += 1
        s = mp.mpf(float(sigma))

        def cdf(x: Any, s: Any = s) -> Any:
            if family == "gaussian":
                return mp.ncdf(x / s)
            b = s / mp.sqrt(2)
            return mp.exp(x / b) / 2 if x < 0 else 1 - mp.exp(-x / b) / 2

        reach = int(14 * sigma / 2**k) + 3
        edges = [cdf((i << k) - mp.mpf(1) / 2) for i in range(-reach, reach + 1)]
        p = np.array([float(b - a) for a, b in pairwise(edges)])
        f, first = _fit(p, -reach, precision, k)
        freqs.append(f)
        lows.append(first)
        raws.append(k)
    return TableBank(freqs, lows, raws, precision)


def _fit(p: np.ndarray, first: int, precision: int, raw: int) -> tuple[np.ndarray, int]:
    """The support and frequencies of least expected length, side bytes of escapes included."""
    best: tuple[float, np.ndarray, int] | None = None
    for cut in range(precision - 4, precision + 9):
        worth = np.flatnonzero(p > 2.0**-cut)
        if worth.size == 0 or worth.size + 1 > 1 << (precision - 1):
            continue
        a, b = worth[0], worth[-1] + 1
        escaped = max(0.0, 1.0 - p[a:b].sum())
        f = normalise(np.append(p[a:b], escaped), precision)
        side = 8 * np.ceil((np.log2(max(2, abs(first + a) << raw)) + 2) / 7)
        bits = float((p[a:b] * (precision - np.log2(f[:-1]) + raw)).sum())
        bits += escaped * (precision - np.log2(f[-1]) + side)
        if best is None or bits < best[0]:
            best = (bits, f, first + int(a))
    assert best is not None
    return best[1], best[2]


def phi_table() -> np.ndarray:
    """(2 * 8 * 128 + 1,) uint32: the normal CDF from -8 to 8 deviations in 128 steps each, times 2**30."""
    import mpmath as mp

    mp.mp.dps = 60
    n = PHI_STEPS * PHI_REACH
    t = [int(mp.nint(mp.ncdf(mp.mpf(i) / PHI_STEPS) * 2**PHI_BITS)) for i in range(-n, n + 1)]
    t[0], t[-1] = 0, 1 << PHI_BITS
    return np.array(t, np.uint32)


def main(out: str) -> None:
    """Write every array of version 1."""
    sigma = scales()
    arrays: dict[str, np.ndarray] = {
        "scales": sigma,
        "phi": phi_table(),
        # steps of the CDF table per sixteenth of an integer, times 2**20; and the sixteenths that six
        # deviations span
        "phi_rate": np.round(PHI_STEPS * 2.0**20 / (16 * sigma)).astype(np.int64),
        "phi_reach": np.ceil(16 * (6 * sigma + 1)).astype(np.int32),
    }
    for family in ("gaussian", "laplace"):
        for precision in PROFILES:
            for name, a in build_bank(family, precision).to_arrays().items():
                # frequencies are at most 65535: sixteen bits hold them
                arrays[f"{family}.{precision}.{name}"] = a.astype(np.uint16) if name == "freq" else a
    np.savez_compressed(out, **arrays)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main(sys.argv[1])
