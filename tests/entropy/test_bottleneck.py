"""Tables of the deep factorised density: exactly defined arithmetic, and compressai's own density as oracle."""

import hashlib

import numpy as np
import pytest

from latentzip.entropy import InputError, bottleneck


def weights(channels, seed=0, filters=(3, 3, 3, 3)):
    rng = np.random.default_rng(seed)
    sizes = (1, *filters, 1)
    matrices = [rng.uniform(-0.5, 1, (channels, o, i)) for i, o in zip(sizes, sizes[1:])]
    biases = [rng.uniform(-0.9, 0.9, (channels, o, 1)) for o in sizes[1:]]
    factors = [rng.uniform(-0.9, 0.9, (channels, o, 1)) for o in sizes[1:-1]]
    return matrices, biases, factors, rng.uniform(-0.5, 0.5, channels)


def test_functions_are_those_of_the_library():
    x = np.concatenate([np.linspace(-60, 60, 20001), [-1e-300, 0.0, 1e-300, -1e3, 1e3]])
    low = np.minimum(x, 0)[x > -700]
    assert np.abs(bottleneck.exp(low) / np.exp(low) - 1).max() < 1e-15
    assert np.abs(bottleneck.softplus(x) - np.logaddexp(0, x)).max() < 1e-14
    assert np.abs(bottleneck.tanh(x) - np.tanh(x)).max() < 1e-15
    assert np.abs(bottleneck.sigmoid(x) - 1 / (1 + np.exp(-np.maximum(x, -690)))).max() < 1e-15


def test_tables_never_change():
    # the integers decide what streams mean: on every machine, in every version
    arrays = bottleneck.bottleneck_bank(*weights(6)).to_arrays()
    digest = hashlib.sha256(b"".join(arrays[k].astype("<i4").tobytes() for k in ("freq", "layout", "precision")))
    assert digest.hexdigest()[:16] == "1ab11b6edc6f0a5a"


def test_same_density_as_compressai():
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("compressai.entropy_models")
    torch.manual_seed(0)
    layer = models.EntropyBottleneck(12, init_scale=6).eval().requires_grad_(False)
    for p in layer.parameters():
        p.add_(torch.randn_like(p) * 0.2)
    layer._update_quantiles()
    matrices, biases, factors = ([p.numpy() for p in g] for g in (layer.matrices, layer.biases, layer.factors))
    medians = layer.quantiles[:, 0, 1].numpy()
    bank = bottleneck.bottleneck_bank(matrices, biases, factors, medians)
    k = np.arange(-25, 26)
    z = torch.from_numpy(medians[:, None] + k)[None].float()
    expected = -torch.log2(layer(z)[1])[0].numpy()
    got = bank.costs(np.broadcast_to(k, (12, k.size)), np.arange(12)[:, None])
    share = 2.0**-expected
    assert (share * (got - expected)).sum(1).max() < 1e-3  # bits a symbol lost to rounding
    assert np.abs(got - expected)[expected < 10].max() < 0.02


def test_wide_densities_get_long_tables():
    matrices, biases, factors, medians = weights(2)
    matrices[0] = np.full_like(matrices[0], -8.0)
    bank = bottleneck.bottleneck_bank(matrices, biases, factors, medians)
    assert bank.info[:, 2].max() > 500


def test_damaged_weights():
    matrices, biases, factors, _ = weights(2)
    for bad, match in ((np.nan, "NaN"), (1e9, "damaged")):
        with pytest.raises(InputError, match=match):
            bottleneck.bottleneck_bank(matrices, biases, factors, np.array([0.0, bad]))
