"""Compiled loops of fitted codecs against their plain definition: rate, error and every gradient, at odd sizes."""

from typing import Any

import numpy as np
import pytest
import torch

from latentzip.codecs.overfit import reference
from latentzip.codecs.overfit.chain import Chain
from latentzip.codecs.overfit.device import DeviceChain
from latentzip.codecs.overfit.nets import SIZES, initial
from latentzip.codecs.overfit.workers import Workers
from latentzip.kernels.pyramid import context, features, products, quantiser, synthesis, upsample

SHAPES = [(3, (70, 53)), (1, (37, 130)), (3, (5, 3)), (3, (1, 1)), (3, (2, 300))]


def _random(size, channels, shape, threads=1, seed=0):
    rng = np.random.default_rng(seed)
    nets = initial(size, channels)
    nets.flat += rng.normal(0, 0.05, nets.flat.size).astype(np.float32)
    workers = Workers(threads)
    chain = Chain(size, channels, shape, workers)
    chain.values[:] = rng.normal(0, 1.5, chain.count)
    return nets, chain, rng.random((channels, *shape)).astype(np.float32)


def _defined(nets, chain):
    weights = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in nets.items()}
    values = torch.tensor(chain.values, dtype=torch.float64, requires_grad=True)
    return weights, values, [chain.grid(values, k) for k in range(len(chain.shapes))]


def _slope(tensor: torch.Tensor) -> np.ndarray:
    assert tensor.grad is not None
    return tensor.grad.numpy()


def _off(ours, truth):
    return float(np.abs(ours - truth).max() / max(np.abs(truth).max(), 1e-12))


@pytest.mark.parametrize("size", SIZES, ids=lambda s: s.name)
@pytest.mark.parametrize(("channels", "shape"), SHAPES)
def test_gradients_are_those_of_the_definition(size, channels, shape):
    nets, chain, target = _random(size, channels, shape)
    error, bits = chain.gradients(nets, target, 1e-4)
    weights, values, grids = _defined(nets, chain)
    their_bits = reference.bits(grids, weights, size)
    their_error = ((reference.synthesis(grids, weights, size) - torch.tensor(target)) ** 2).mean()
    (their_error + 1e-4 * their_bits).backward()
    assert bits == pytest.approx(float(their_bits.detach()), rel=1e-6)
    assert error == pytest.approx(float(their_error.detach()), rel=1e-5)
    assert _off(chain.grad, _slope(values)) < 1e-5
    for name, weight in weights.items():
        assert _off(chain.nets_grad[name], _slope(weight)) < 1e-4, name


def test_a_map_of_importance_weighs_errors():
    nets, chain, target = _random(SIZES[0], 3, (20, 31))
    weight = np.random.default_rng(1).random((20, 31)).astype(np.float32)
    error, _ = chain.gradients(nets, target, 0.0, weight)
    weights, values, grids = _defined(nets, chain)
    picture = reference.synthesis(grids, weights, SIZES[0])
    theirs = (torch.tensor(weight) * (picture - torch.tensor(target)) ** 2).mean()
    theirs.backward()
    assert error == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert _off(chain.grad, _slope(values)) < 1e-5


def test_any_objective_is_followed():
    nets, chain, target = _random(SIZES[0], 3, (20, 31))

    def absolute(picture):
        d = picture - target
        return float(np.abs(d).mean()), (np.sign(d) / d.size).astype(np.float32)

    error, _ = chain.gradients(nets, target, 0.0, objective=absolute)
    weights, values, grids = _defined(nets, chain)
    theirs = (reference.synthesis(grids, weights, SIZES[0]) - torch.tensor(target)).abs().mean()
    theirs.backward()
    assert error == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert _off(chain.grad, _slope(values)) < 1e-4


def test_results_do_not_depend_on_threads():
    results = []
    for threads in (1, 2, 3):
        nets, chain, target = _random(SIZES[1], 3, (140, 77), threads)
        chain.gradients(nets, target, 1e-5)
        results.append((chain.grad.tobytes(), chain.nets_grad.flat.tobytes()))
    assert results[0] == results[1] == results[2]


def test_soft_rounding_and_its_slope_are_those_of_the_definition():
    chain = Chain(SIZES[0], 3, (9, 11), Workers(1))
    rng = np.random.default_rng(0)
    latent = rng.normal(0, 0.1, chain.count).astype(np.float32)
    noise, slope = rng.standard_normal(chain.count, np.float32), np.empty(chain.count, np.float32)
    chain.soften(latent, noise, 0.2, 0.3, slope)
    theirs = torch.tensor(latent, dtype=torch.float64, requires_grad=True)
    out = reference.soften(theirs, torch.tensor(noise), 0.2, 0.3)
    out.sum().backward()
    assert np.abs(chain.values - out.detach().numpy()).max() < 1e-4
    assert _off(slope, _slope(theirs)) < 1e-3


def test_the_adam_step_is_torchs():
    chain = Chain(SIZES[0], 3, (9, 11), Workers(1))
    rng = np.random.default_rng(0)
    latent = rng.normal(0, 0.1, chain.count).astype(np.float32)
    slope = rng.random(chain.count, np.float32)
    theirs = torch.tensor(latent, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=1e-2, betas=(0.5, 0.97))
    m, v = np.zeros_like(latent), np.zeros_like(latent)
    for step in range(1, 4):
        chain.grad[:] = rng.normal(0, 1e-3, chain.count)
        theirs.grad = torch.tensor(chain.grad * slope)
        optimizer.step()
        chain.adam(latent, slope, m, v, 1e-2, (0.5, 0.97), step)
    assert np.abs(latent - theirs.detach().numpy()).max() < 1e-6


@pytest.mark.parametrize("gap", [0, 16, 4096])
def test_numbers_do_not_depend_on_where_arrays_lie(gap):
    """Arrays side by side in memory make compilers fall back to loops that are not vectorised."""
    n, f = 1003, np.float32
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(n).astype(f) for _ in range(4)]
    apart = [a.copy() for a in given]
    flat = np.zeros(4 * (n + gap), f)
    near = [flat[i * (n + gap) : i * (n + gap) + n] for i in range(4)]
    for a, b in zip(near, given):
        a[:] = b
    for latent, noise, out, slope in (apart, near):
        quantiser.soften(latent, noise, f(0.2), f(0.3), out, slope)
        quantiser.adam(latent, noise, slope, out, np.abs(noise), f(0.01), f(0.5), f(0.97), f(2), f(33))
    for a, b in zip(apart, near):
        assert (a == b).all()


def test_the_chain_of_a_device_gives_the_same_numbers():
    nets, chain, target = _random(SIZES[0], 3, (33, 40))
    other = DeviceChain(SIZES[0], 3, (33, 40), torch.device("cpu"))
    rng = np.random.default_rng(2)
    weight = rng.random((33, 40), np.float32)
    latent = rng.normal(0, 0.1, chain.count).astype(np.float32)
    noise = rng.standard_normal(chain.count, np.float32)
    ours: list[Any] = []
    theirs: list[Any] = []
    pairs: list[tuple[Any, list[Any]]] = [(chain, ours), (other, theirs)]
    for c, out in pairs:
        x, m, v, slope = (c.place(a.copy()) for a in (latent, *[np.zeros_like(latent)] * 3))
        c.soften(x, c.place(noise), 0.2, 0.3, slope)
        error, bits = c.gradients(nets, target, 1e-5, weight)
        out += [error, bits, np.array(c.grad), c.nets_grad.flat.copy()]
        c.adam(x, slope, m, v, 1e-2, (0.5, 0.97), 1)
        c.harden(x)
        out += [np.array(x), c.rate(nets), c.error(nets, target), c.synthesise(nets).copy(), c.integers(x)]
    for a, b in zip(ours, theirs):
        assert np.abs(a - b).max() < 2e-3 * np.abs(a).max()
    assert (ours[-1] == theirs[-1]).mean() > 0.999


def test_the_chain_of_a_device_follows_any_objective():
    nets, chain, target = _random(SIZES[0], 3, (20, 31))
    other = DeviceChain(SIZES[0], 3, (20, 31), torch.device("cpu"))
    other.values.copy_(torch.from_numpy(chain.values))

    def absolute(picture):
        d = picture - target
        return float(np.abs(d).mean()), (np.sign(d) / d.size).astype(np.float32)

    errors = [c.gradients(nets, target, 1e-5, objective=absolute) for c in (chain, other)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert _off(chain.grad, other.grad.numpy()) < 1e-4


def test_loops_within_loops_have_no_body_of_their_own():
    """Else numbers would hang on whether a loop was compiled just now or comes from the cache on disk."""
    for module in (context, features, products, quantiser, synthesis, upsample):
        loops = {n: f for n, f in vars(module).items() if hasattr(f, "targetoptions")}
        for loop in loops.values():
            for name in loop.py_func.__code__.co_names:
                if name in loops:
                    options = loops[name].targetoptions
                    assert options.get("forceinline") or options.get("inline") == "always", (module.__name__, name)
