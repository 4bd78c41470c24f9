"""Metrics and rate-distortion summaries against independent implementations and arithmetic."""

import math

import numpy as np
import pytest

from latentzip.evaluation.metrics.bdrate import bd_rate, overlap, quality_at_rate
from latentzip.evaluation.metrics.pictures import ms_ssim, psnr


def test_psnr_equals_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 40, 50, 3)).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(skimage.peak_signal_noise_ratio(a, b))
    assert psnr(a, a) == math.inf


def test_ms_ssim_orders_distortions():
    pytest.importorskip("pytorch_msssim")
    y, x = np.mgrid[:200, :220]
    a = np.stack([(x * (c + 1) + y) % 256 for c in range(3)], -1).astype(np.uint8)
    rng = np.random.default_rng(0)
    values = [ms_ssim(a, np.clip(a + rng.normal(0, s, a.shape), 0, 255).astype(np.uint8)) for s in (0, 5, 40)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]
    assert math.isnan(ms_ssim(a[:100], a[:100]))


CURVE = [(0.1, 28.0), (0.3, 32.0), (0.9, 37.0), (2.0, 41.0)]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.25])
def test_bd_rate_of_a_scaled_curve_is_the_scale(factor):
    pytest.importorskip("scipy")
    assert bd_rate(CURVE, [(r * factor, q) for r, q in CURVE]) == pytest.approx((factor - 1) * 100, abs=1e-6)


def test_bd_rate_without_common_quality_is_nan():
    pytest.importorskip("scipy")
    assert math.isnan(bd_rate(CURVE, [(r, q + 20) for r, q in CURVE]))


def test_overlap_is_the_shared_part_of_the_shorter_curve():
    assert overlap(CURVE, CURVE) == 1
    assert overlap(CURVE, [(r, q + 9) for r, q in CURVE]) == pytest.approx(4 / 13)
    assert overlap(CURVE, [(0.2, 30.0), (0.3, 31.0)]) == 1
    assert overlap(CURVE, [(r, q + 20) for r, q in CURVE]) == 0


def test_quality_at_rate_interpolates_and_never_extrapolates():
    pytest.importorskip("scipy")
    assert quality_at_rate(CURVE, 0.3) == pytest.approx(32)
    assert 32 < quality_at_rate(CURVE, 0.5) < 37
    assert math.isnan(quality_at_rate(CURVE, 0.05))
