"""Distortion as a search counts it: one scale for all measures, maps of importance, clear refusals."""

import pytest
import torch

from latentzip import InputError
from latentzip.codecs.search.measures import Objective, weight_map
from latentzip.codecs.search.msssim import ms_ssim

WHOLE = (0, 0, 176, 192)


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, 176, 192, generator=g)
    return x, (x + 0.05 * torch.randn(x.shape, generator=g)).clamp(0, 1)


def test_squared_error_is_that_of_8_bits_summed_over_pixels(pair):
    x, y = pair
    found = Objective(x).piece(WHOLE)(y[None])
    assert found == pytest.approx(255**2 * float((x - y).square().mean()) * 176 * 192, rel=1e-4)


def test_ms_ssim_is_that_of_the_usual_package(pair):
    package = pytest.importorskip("pytorch_msssim")
    x, y = (p[None] for p in pair)
    for cut in (192, 187):  # even and odd sides
        a, b = x[..., :cut], y[..., :cut]
        assert float(ms_ssim(a, b)) == pytest.approx(float(package.ms_ssim(a, b, data_range=1.0)), abs=1e-5)
    assert float(ms_ssim(x, y, torch.ones(176, 192))) == pytest.approx(float(ms_ssim(x, y)), abs=1e-6)


@pytest.mark.parametrize("objective", ["mse", "ms-ssim"])
def test_weights_say_what_counts(pair, objective):
    x, y = pair
    half = torch.zeros(176, 192)
    half[:, :96] = 7
    better_left, better_right = y.clone(), y.clone()
    better_left[..., :96], better_right[..., 96:] = x[..., :96], x[..., 96:]
    measure = Objective(x, objective, half).piece(WHOLE)
    plain = Objective(x, objective).piece(WHOLE)
    assert measure(better_left[None]) < 0.1 * measure(y[None])
    assert measure(better_right[None]) > 0.9 * measure(y[None])
    even = Objective(x, objective, torch.full((176, 192), 3.0)).piece(WHOLE)
    assert float(even(y[None])) == pytest.approx(float(plain(y[None])), rel=1e-4)


def test_a_function_is_brought_to_the_scale_of_the_squared_error(pair):
    x, y = pair
    plain = Objective(x).piece(WHOLE)
    own = Objective(x, lambda a, b: 1e-6 * (a - b).abs().mean((1, 2, 3))).piece(WHOLE)
    own.settle(y[None])
    assert float(own(y[None])) == pytest.approx(float(plain(y[None])), rel=1e-4)
    assert float(own(x[None])) == 0


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(9, 8), r"\(9, 8\), the picture \(8, 8\)"), (torch.zeros(8, 8), "zero everywhere"),
        (-torch.ones(8, 8), "not negative"), (torch.full((8, 8), torch.nan), "finite"), ("all", "array of numbers"),
    ],
)  # fmt: skip
def test_weight_maps_that_do_not_serve(weight, message):
    with pytest.raises(InputError, match=message):
        weight_map(weight, (8, 8))


def test_objectives_that_do_not_serve(pair):
    x, y = pair
    with pytest.raises(InputError, match="'mse', 'ms-ssim', or a differentiable function"):
        Objective(x, "vmaf")
    with pytest.raises(InputError, match="weighs by itself"):
        Objective(x, lambda a, b: (a - b).mean(), torch.ones(176, 192))
    with pytest.raises(InputError, match="161 a side"):
        Objective(x[:, :160], "ms-ssim")
    with pytest.raises(InputError, match="must be finite"):
        Objective(x, lambda a, b: (a - b).mean() * torch.nan).piece(WHOLE).settle(y[None])
