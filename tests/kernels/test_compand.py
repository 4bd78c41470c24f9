"""Companding: range, monotony, inverse."""

import torch

from latentzip.kernels.compand import compand, expand, expand_table


def test_latents_stay_in_range_and_round_trip():
    for bits in (2, 4, 8, 10):
        m = (1 << (bits - 1)) - 1
        z = compand(torch.linspace(-1e4, 1e4, 10_001), bits).round()
        assert z.min() == -m
        assert z.max() == m
        table = expand_table(bits)
        assert table.shape == (2 * m + 1,)
        assert (table.diff() > 0).all()
        grid = torch.arange(-m, m + 1)
        inner = grid.abs() < 0.9 * m
        assert torch.equal(compand(table, bits).round()[inner], grid[inner].float())


def test_published_constants():
    # slope at zero 1.482 and largest value 198.05 at 8 bits
    y = torch.tensor([1e-3])
    torch.testing.assert_close(compand(y) / y, torch.tensor([1.482]), atol=1e-3, rtol=0)
    torch.testing.assert_close(expand_table()[-1], torch.tensor(198.05), atol=0.01, rtol=0)


def test_expand_is_differentiable():
    z = torch.linspace(-100, 100, 21, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(expand(z.float()).sum(), z)
    assert (grad > 0).all()
