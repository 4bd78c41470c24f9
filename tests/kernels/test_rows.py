"""Rotation and predictive quantisation of rows: what they promise, and that compiled and plain bodies agree."""

import numpy as np
import pytest
import torch

from latentzip.kernels import row_quantiser as rq
from latentzip.kernels.hadamard import block_size, hadamard


@pytest.mark.parametrize("channels", [1, 2, 3, 12, 64, 96, 384])
def test_hadamard_is_its_own_inverse_and_keeps_lengths(channels):
    x = torch.randn(5, channels, generator=torch.Generator().manual_seed(0))
    y = hadamard(x)
    torch.testing.assert_close(hadamard(y), x)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))


def test_hadamard_spreads_an_outlier():
    x = torch.zeros(1, 192)
    x[0, 70] = 8
    y = hadamard(x)
    side = block_size(192)
    assert side == 64
    torch.testing.assert_close(y[0, 64:128].abs(), torch.ones(64))
    assert not y[0, :64].any()


def block(seed=0, n=37, k=11):
    rng = np.random.default_rng(seed)
    y = (rng.standard_normal((n, k)) * np.geomspace(20, 0.1, k)).astype(np.float32)
    ref = np.array([rng.integers(-1, i) if i else -1 for i in range(n)], np.int32)
    alpha = rng.random(k).astype(np.float32)
    shift = rng.random((128, 2)).astype(np.float32) / 4
    level, family = rng.integers(0, 64, (2, k)).astype(np.uint8), rng.integers(0, 2, k).astype(np.uint8)
    gain = rng.integers(-31, 32, n).astype(np.int8)
    return y, ref, alpha, shift, (level, family, (ref >= 0).astype(np.uint8), gain)


@pytest.mark.parametrize("shifted", [False, True])
def test_reconstruction_is_what_the_encoder_saw(shifted):
    y, ref, alpha, shift, tables = block()
    index = rq.spread_tables(*tables) if shifted else None
    symbols, recon, residual = rq.quantise_rows(y, ref, alpha, 0.5, 0.1, shift, index)
    again = rq.dequantise_rows(symbols, ref, alpha, 0.5, shift, index)
    np.testing.assert_array_equal(again, recon)
    largest = np.abs(residual.T - symbols).max()
    assert largest <= 0.6 + 1e-4  # the zero cell is wider by 0.1
    if not shifted:
        assert np.abs(recon - y).max() <= 0.3 + 1e-3


@pytest.mark.parametrize("shifted", [False, True])
def test_plain_body_gives_the_same(monkeypatch, shifted):
    y, ref, alpha, shift, tables = block(1)

    def everything():
        index = rq.spread_tables(*tables)
        first = rq.quantise_rows(y, ref, alpha, 0.3, 0.05, shift, index if shifted else None)
        back = rq.dequantise_rows(first[0], ref, alpha, 0.3, shift, index if shifted else None)
        columns = np.array([0, 3, 4, 10])
        part = np.ascontiguousarray(index[columns]) if shifted else None
        some = rq.quantise_rows(y, ref, alpha[columns], 0.3, 0.05, shift, part, columns=columns, residual=False)
        return [index, *first, back, rq.magnitudes(first[0], np.arange(0, 37, 2), 5), *some[:2]]

    fast = everything()
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    for a, b in zip(fast, everything()):
        np.testing.assert_array_equal(a, b)


def test_components_may_be_shared_among_threads():
    y, ref, _, shift, _ = block(2, n=4500, k=128)
    alpha = np.full(128, 0.5, np.float32)
    one = rq.quantise_rows(y, ref, alpha, 0.3, 0.05, shift, None)
    for a, b in zip(one, rq.quantise_rows(y, ref, alpha, 0.3, 0.05, shift, None, workers=2)):
        np.testing.assert_array_equal(a, b)
    back = rq.dequantise_rows(one[0], ref, alpha, 0.3, shift, None, workers=2)
    np.testing.assert_array_equal(back, one[1])


@pytest.mark.parametrize("plain", [False, True])
def test_sums_and_searches_of_the_encoder(monkeypatch, plain):
    if plain:
        monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    y, ref, _, _, _ = block(3, n=200, k=19)
    weight = np.linspace(0, 1, 19).astype(np.float32)
    np.testing.assert_allclose(rq.powers(y, weight), (y.astype(np.float64) ** 2 * weight).sum(1), rtol=1e-5)
    rows = np.flatnonzero(ref >= 0)
    cross, norm, own = rq.products(y, rows, ref)
    np.testing.assert_allclose(cross, (y[rows].astype(np.float64) * y[ref[rows]]).sum(0), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(norm, (y[ref[rows]].astype(np.float64) ** 2).sum(0), rtol=1e-5)
    np.testing.assert_allclose(own, (y[rows].astype(np.float64) ** 2).sum(0), rtol=1e-5)
    far = np.random.default_rng(0).integers(-50, 50, (30, 130)).astype(np.float32)  # with ties
    best, at = rq.nearest(far, 100)
    for r in range(30):
        assert best[r] == far[r, : 100 + r].min()
        assert at[r] == far[r, : 100 + r].argmin()
    assert np.isinf(rq.nearest(far[:1, :1], 0)[0][0])
    counts = np.array([[3, 0, 2], [0, 1, 0]], np.float32)
    costs = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(rq.table_bits(counts, costs), counts @ costs)


def test_symbols_stay_in_range():
    y = np.array([[3e38, -3e38]], np.float32)
    symbols, _, _ = rq.quantise_rows(
        y, np.array([-1], np.int32), np.zeros(2, np.float32), 1e-3, 0.0, np.zeros((128, 2), np.float32), None
    )
    assert symbols.tolist() == [[2**30], [-(2**30)]]
