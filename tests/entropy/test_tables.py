"""Frequency tables: validation, identity, normalisation, frozen banks."""

import numpy as np
import pytest

from latentzip.entropy import TableBank, frozen_bank, scales
from latentzip.entropy.banks import FAMILIES, PROFILES
from latentzip.entropy.errors import InputError
from latentzip.entropy.tables import normalise

# Frozen for ever: a stream names its tables by these.
FINGERPRINTS = {
    ("gaussian", "default"): "0772c710e0d7a76d",
    ("gaussian", "fine"): "0954db1383b9d2cb",
    ("gaussian", "max"): "d50fd51948f4a3db",
    ("laplace", "default"): "040392dc20a9231a",
    ("laplace", "fine"): "7f12bc0f3353fca0",
    ("laplace", "max"): "a2e18468185bfd69",
}


@pytest.mark.parametrize(("family", "profile"), FINGERPRINTS)
def test_frozen_banks_never_change(family, profile):
    assert frozen_bank(family, profile).fingerprint().hex() == FINGERPRINTS[family, profile]


def test_every_frozen_bank_is_listed():
    assert set(FINGERPRINTS) == {(f, p) for f in FAMILIES for p in PROFILES}


def test_value_identity():
    a = TableBank([np.array([3, 1]), np.array([1, 1, 2])], [0, -1], [0, 2], 2)
    b = TableBank.from_arrays(a.to_arrays())
    assert a == b
    assert hash(a) == hash(b)
    assert a.fingerprint() == b.fingerprint()
    assert a != TableBank([np.array([3, 1]), np.array([1, 1, 2])], [0, -1], [0, 3], 2)
    assert a.take([1, 0, 1]).num_tables == 3
    with pytest.raises(AttributeError, match="frozen"):
        a.precision = 3
    with pytest.raises(ValueError, match="read-only"):
        a.freq[0] = 1


@pytest.mark.parametrize(
    ("freqs", "lo", "raw", "precision", "message"),
    [
        ([[3, 1]], [0], [0], 3, "table 0 must have entries >= 1 that sum to 2"),
        ([[4, 0]], [0], [0], 2, "its minimum is 0"),
        ([[4]], [0], [0], 2, "at least 2 entries"),
        ([[2.0, 2.0]], [0], [0], 2, "integer array"),
        ([[3, 1]], [0, 1], [0], 2, "1 tables need 1 values of lo, not 2"),
        ([[3, 1]], [0], [26], 2, "raw_bits must lie in 0..25"),
        ([[3, 1]], [2**31 - 1], [1], 2, "beyond int32"),
        ([[3, 1]], [0], [0], 17, "outside 1..16"),
        ([], [], [], 2, "needs 1.."),
    ],
)
def test_what_is_refused(freqs, lo, raw, precision, message):
    with pytest.raises(InputError, match=message):
        TableBank([np.array(f) for f in freqs], lo, raw, precision)


def test_arrays_are_validated():
    arrays = frozen_bank().to_arrays()
    with pytest.raises(InputError, match="missing"):
        TableBank.from_arrays({"freq": arrays["freq"]})
    arrays["layout"] = arrays["layout"][:-1]
    with pytest.raises(InputError, match="layout names"):
        TableBank.from_arrays(arrays)


@pytest.mark.parametrize("precision", [1, 4, 8, 12, 16])
def test_normalise_is_close_to_ideal(precision):
    rng = np.random.default_rng(precision)
    for size in (2, 2, 3, 9, 100, 1000):
        if size > 1 << precision:
            with pytest.raises(InputError, match="do not fit"):
                normalise(np.ones(size), precision)
            continue
        w = rng.gamma(0.3, size=size) + 1e-9
        f = normalise(w, precision)
        assert f.min() >= 1
        assert f.sum() == 1 << precision
        if 8 * size <= 1 << precision:
            p = w / w.sum()
            loss = (p * (np.log2(p) - np.log2(f / f.sum()))).sum()
            assert loss < size / 2**precision


def test_normalise_beats_moving_any_count():
    w = np.random.default_rng(0).gamma(0.5, size=12)
    f = normalise(w, 8).astype(float)
    cost = -(w * np.log(f)).sum()
    for i in range(12):
        for j in range(12):
            if i != j and f[i] > 1:
                g = f.copy()
                g[i] -= 1
                g[j] += 1
                assert -(w * np.log(g)).sum() > cost - 0.01 * w.sum() / 256


def test_histograms_keep_what_is_worth_it():
    counts = np.zeros(2001)
    counts[995:1006] = [1, 5, 20, 100, 500, 1000, 500, 100, 20, 5, 1]
    bank = TableBank.from_histograms([counts], lo=-1000)
    assert bank.info[0].tolist()[:3] == [-5, 0, 12]
    assert TableBank.from_histograms([np.zeros(5)], lo=3).info[0, 2] == 2
    with pytest.raises(InputError, match="use raw_bits"):
        TableBank.from_histograms([np.ones(5000)], lo=0)


@pytest.mark.parametrize("profile", PROFILES)
def test_overhead_of_the_gaussian_bank(profile):
    from scipy.stats import norm

    bank = frozen_bank("gaussian", profile)
    ideal = coded = low_ideal = low_coded = 0.0
    for t, sigma in enumerate(scales()):
        r = np.arange(-int(12 * sigma) - 9, int(12 * sigma) + 10)
        p = np.diff(norm.cdf(np.append(r, r[-1] + 1) - 0.5, scale=sigma))
        h = -(p[p > 0] * np.log2(p[p > 0])).sum()
        c = (p * bank.costs(r, t)).sum()
        ideal, coded = ideal + h, coded + c
        low_ideal, low_coded = low_ideal + h * np.exp(-t / 6), low_coded + c * np.exp(-t / 6)
    limit = {"default": 0.0015, "fine": 0.0004, "max": 0.0003}[profile]
    assert coded / ideal - 1 < limit
    assert low_coded / low_ideal - 1 < limit


def test_costs_count_escapes_and_raw_bits():
    bank = TableBank([np.array([8, 4, 2, 2])], [0], [3], 4)
    assert bank.costs([0, 7, 8, 16], 0).tolist() == [4, 4, 5, 6]
    assert bank.costs([24, -1, 1000], 0).tolist() == [3 + 8, 3 + 8, 3 + 16]
    assert bank.costs([2**31 - 1, -(2**31)], 0).tolist() == [3 + 40, 3 + 40]
