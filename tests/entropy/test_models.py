"""Models: what the float rate promises is what the coder writes."""

import numpy as np
import oracle
import pytest
import torch

from latentzip.entropy import (
    Decoder,
    Encoder,
    Factorized,
    FactorizedPrior,
    Gaussian,
    Laplace,
    Mixture,
    RateMeter,
    TableBank,
    TableModel,
    Uniform,
    scale_index,
    scales,
)
from latentzip.entropy.errors import InputError


def coded_bits(symbols, model) -> int:
    encoder = Encoder()
    encoder.code(symbols, model)
    blob = encoder.finish()
    decoder = Decoder(blob)
    np.testing.assert_array_equal(np.asarray(decoder.code(None, model)), np.asarray(symbols))
    decoder.finish()
    return 8 * len(blob)


def latents(n=40_000, seed=0):
    """Residuals whose deviation varies from place to place, as a hyperprior's do; ideally modelled."""
    g = torch.Generator().manual_seed(seed)
    sigma = torch.exp(torch.randn(n, generator=g) * 1.3 - 0.3).clamp(0.12, 200)
    return sigma, g


@pytest.mark.parametrize("profile", ["default", "max"])
def test_training_rate_of_gaussians_is_the_coded_rate(profile):
    sigma, g = latents()
    symbols = torch.round(torch.randn(sigma.shape, generator=g) * sigma)
    rate = Gaussian(scale=sigma, profile=profile).bits(symbols)
    coded = coded_bits(symbols.int(), Gaussian(scale_index(sigma), profile=profile))
    assert coded == pytest.approx(rate.item(), rel=0.005)


def test_training_rate_of_laplacians_is_the_coded_rate():
    sigma, g = latents()
    u = torch.rand(sigma.shape, generator=g) - 0.5
    symbols = torch.round(-sigma / 2**0.5 * u.sign() * torch.log1p(-2 * u.abs()))
    rate = Laplace(scale=sigma).bits(symbols)
    assert coded_bits(symbols.int(), Laplace(scale_index(sigma))) == pytest.approx(rate.item(), rel=0.005)


def test_training_rate_of_mixtures_is_the_coded_rate():
    rng = np.random.default_rng(0)
    n = 20_000
    w = rng.dirichlet([2, 1, 1], n)
    mu = rng.normal(size=(n, 3)) * 4
    sigma = np.exp(rng.normal(size=(n, 3)) * 0.6)
    pick = (rng.random(n)[:, None] > w.cumsum(1)).sum(1).clip(0, 2)
    at = np.arange(n)
    symbols = np.round(mu[at, pick] + sigma[at, pick] * rng.normal(size=n)).astype(np.int32)
    model = Mixture.from_float(*(torch.from_numpy(a) for a in (w, mu, sigma)))
    rate = model.bits(torch.from_numpy(symbols).double()).item()
    coded = coded_bits(symbols, model)
    assert coded == pytest.approx(rate, rel=0.005)
    assert model.bits(symbols) == pytest.approx(rate, rel=0.003)


@pytest.mark.parametrize("family", [Gaussian, Laplace])
def test_gradients_reach_symbols_and_scales(family):
    x = torch.tensor([0.0, 0.3, -2.0, 7.0, 90.0, -1e4], requires_grad=True)
    sigma = torch.tensor([0.05, 0.2, 1.0, 3.0, 1.0, 0.5], requires_grad=True)
    bits = family(scale=sigma).bits(x)
    bits.backward()
    assert x.grad is not None
    assert sigma.grad is not None
    assert bits.isfinite()
    assert x.grad.isfinite().all()
    assert sigma.grad.isfinite().all()
    assert (x.grad[1:] * x[1:].sign() > 0).all()  # smaller symbols are cheaper
    assert sigma.grad[2] < 0 < sigma.grad[1]  # a wider table would suit -2, a narrower one 0.3


@pytest.mark.parametrize("family", [Gaussian, Laplace])
def test_gradient_is_the_slope(family):
    x = torch.linspace(-6, 6, 41, dtype=torch.float64, requires_grad=True)
    sigma = torch.full((41,), 1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, s: family(scale=s).bits(a), (x, sigma))


def test_meter_is_differentiable():
    meter = RateMeter()
    x = torch.randn(10, requires_grad=True)
    meter.code(x, Gaussian(torch.full((10,), 20, dtype=torch.uint8)))
    meter.code(x * 3, Uniform(0, 9, (10,)))
    meter.bits.backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_factorized_is_a_table_a_channel():
    rng = np.random.default_rng(0)
    spread = np.array([0.4, 2.0, 9.0])
    y = np.round(rng.normal(size=(2, 3, 40, 50)) * spread[:, None, None]).astype(np.int32)
    counts = [np.bincount((y[:, c] + 60).ravel(), minlength=121) for c in range(3)]
    bank = TableBank.from_histograms(counts, lo=-60)
    model = Factorized(bank, y.shape, axis=1)
    p = [c[c > 0] / c.sum() for c in counts]
    entropy = sum(-(q * np.log2(q)).sum() * y[:, 0].size for q in p)
    assert coded_bits(y, model) == pytest.approx(entropy, rel=0.006)
    x = torch.from_numpy(y).double().requires_grad_()
    bits = model.bits(x)
    assert bits.item() == pytest.approx(model.bits(y))
    bits.backward()
    assert x.grad is not None
    assert (x.grad * x.detach().sign()).sum() > 0
    with pytest.raises(InputError, match="more than 3 tables"):
        Factorized(bank, (4, 4))
    tensor = Factorized(bank, y.shape, axis=1, tensor=True)
    encoder = Encoder()
    encoder.code(y, tensor)
    assert torch.equal(Decoder(encoder.finish()).code(None, tensor), torch.from_numpy(y))


def test_offsets_move_symbols_not_tables():
    bank = TableBank.from_histograms([[1, 8, 1]], lo=-1)
    mean = np.array([[100, -7], [2**31 - 1, -(2**31)]])
    model = TableModel(bank, np.zeros((2, 1), np.uint8), mean)
    assert model.shape == (2, 2)
    assert coded_bits(mean.astype(np.int32), model) <= 32
    assert model.bits(mean) == pytest.approx(4 * -np.log2(bank.table(0)[1] / 4096))


@pytest.mark.parametrize(
    ("lo", "hi"), [(0, 0), (-5, 2), (0, 4), (0, 254), (0, 999), (-(2**31), 2**31 - 1), (-3, 2**31 - 1)]
)
def test_uniform_costs_its_logarithm(lo, hi):
    rng = np.random.default_rng(1)
    symbols = rng.integers(lo, hi + 1, 3000)
    symbols[:2] = lo, hi
    model = Uniform(lo, hi, (3000,))
    assert coded_bits(symbols, model) <= 1.004 * model.bits(symbols) + 64
    assert model.bits(symbols) == pytest.approx(3000 * np.log2(hi - lo + 1))


def test_scale_index_takes_the_nearest():
    s = scales()
    np.testing.assert_array_equal(scale_index(s), np.arange(64))
    np.testing.assert_array_equal(scale_index(s * 1.05), np.arange(64))
    assert scale_index(np.array([0.0, 1e9])).tolist() == [0, 63]


def test_mixture_intervals_rise_for_any_parameters():

    rng = np.random.default_rng(0)
    n, k = 300, 3
    w = rng.multinomial(256, [0.98, 0.01, 0.01], n).astype(np.int64)
    mu = rng.integers(-3000, 3000, (n, k))
    scale = rng.integers(0, 64, (n, k))
    for _, freq in oracle.mixture_rows((w, mu, scale)):
        assert freq.min() >= 1
        assert freq.sum() == 1 << 24


def test_a_trained_prior_promises_what_its_tables_cost():
    g = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.3, 1.5, 12.0])[:, None]
    z = torch.round(torch.randn(3, 6000, generator=g) * spread)[None]
    prior = FactorizedPrior(3, reach=40)
    optimiser = torch.optim.Adam(prior.parameters(), 0.2)
    for _ in range(60):
        noisy = z + torch.rand(z.shape, generator=g) - 0.5 if _ < 20 else z
        loss = prior.bits(noisy)
        optimiser.zero_grad()
        (loss / z.numel()).backward()
        optimiser.step()
    promised = prior.bits(z).item()
    assert coded_bits(z.int(), prior.model(z.shape)) == pytest.approx(promised, rel=0.006)
    counts = [np.unique(c, return_counts=True)[1] / c.size for c in z[0].numpy()]
    entropy = sum(-(p * np.log2(p)).sum() * 6000 for p in counts)
    assert promised < 1.03 * entropy
    assert prior.bank().num_tables == 3


def test_a_prior_pulls_far_symbols_back():
    x = torch.tensor([[[0.4, -900.0, 63.0, -63.2]]], requires_grad=True)
    FactorizedPrior(1).bits(x).backward()
    assert x.grad is not None
    assert (x.grad * x.detach().sign() > 0).all()
    with pytest.raises(InputError, match=r"reach of 1\.\.1000"):
        FactorizedPrior(3, reach=0)
