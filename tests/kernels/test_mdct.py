"""The lapped transform against its textbook definition, and against itself backwards."""

import numpy as np
import pytest
import torch

from latentzip.kernels.mdct import dct4, lapped, unlapped

SIZES = [
    [64],
    [64, 64, 64],
    [96, 48, 24, 24, 48, 96, 192],
    [16, 128, 16, 2, 2, 4, 256],
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "-".join(map(str, s)))
def test_reconstruction_is_perfect_and_energy_is_kept(sizes, dtype):
    x = torch.randn(2, 3, sum(sizes), dtype=dtype, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    y = lapped(x, sizes)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert torch.equal(x, before)
    assert torch.allclose(unlapped(y, sizes), x, atol=tolerance)
    assert torch.allclose(y.square().sum(), x.square().sum(), rtol=tolerance)


@pytest.mark.parametrize("n", [2, 24, 64])
def test_dct4_is_its_definition(n):
    k = np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi / n * (k[:, None] + 0.5) * (k + 0.5))
    x = np.random.default_rng(0).normal(size=(3, n))
    np.testing.assert_allclose(dct4(torch.from_numpy(x)).numpy(), x @ matrix, atol=1e-12)


def test_blocks_of_one_size_are_the_mdct():
    n = 32
    x = torch.randn(4 * n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = lapped(x, [n] * 4).numpy()
    t, k = np.arange(2 * n), np.arange(n)
    window = np.sin(np.pi * (t + 0.5) / (2 * n))
    basis = np.sqrt(2 / n) * np.cos(np.pi / n * (t[:, None] + 0.5 - n / 2) * (k + 0.5))
    for block in (1, 2):
        part = x.numpy()[block * n - n // 2 : (block + 1) * n + n // 2]
        np.testing.assert_allclose(y[block * n : (block + 1) * n], (part * window) @ basis, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "-".join(map(str, s)))
def test_compiled_loops_agree_with_the_definition(sizes, monkeypatch):
    x = torch.randn(2, sum(sizes), generator=torch.Generator().manual_seed(3))
    fast = lapped(x, sizes), unlapped(x, sizes)
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    plain = lapped(x, sizes), unlapped(x, sizes)
    for a, b in zip(fast, plain):
        assert torch.allclose(a, b, atol=1e-5)


def test_gradients_flow():
    with torch.inference_mode():  # what is kept from here must not be in the way
        lapped(torch.randn(1, 96, dtype=torch.float64), [32, 16, 16, 32])
    x = torch.randn(1, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: unlapped(lapped(v, [32, 16, 16, 32]).sin(), [32, 16, 16, 32]), x)


@pytest.mark.parametrize("sizes", [[64, 63], [65, 63], [64], []])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match="add up to 128"):
        lapped(torch.zeros(128), sizes)
