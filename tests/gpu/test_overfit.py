"""The fit of `overfit` on a GPU: a file that any machine decodes, about as good as one fitted on processors."""

import numpy as np
import pytest

import latentzip as lz

pytestmark = pytest.mark.hardware


def test_a_fit_on_the_gpu_decodes_anywhere():
    y, x = np.mgrid[:96, :128] / 96
    rng = np.random.default_rng(0)
    planes = [127 + 80 * np.sin(6 * (c + 1) * x + 4 * y) + rng.normal(0, 4, x.shape) for c in range(3)]
    picture = np.stack(planes, 2).clip(0, 255).astype(np.uint8)
    found = {}
    for device in ("cpu", "cuda"):
        blob = lz.encode(picture, codec="overfit", quality=60, effort=1, device=device)
        out = np.asarray(lz.decode(blob, device="cpu")).astype(float)
        found[device] = len(blob), float(np.square(out - picture).mean())
    assert found["cuda"][0] < 1.1 * found["cpu"][0]
    assert found["cuda"][1] < 1.25 * found["cpu"][1]


def test_pixels_are_the_same_on_both():
    picture = np.random.default_rng(1).integers(0, 256, (32, 40, 3), np.uint8)
    blob = lz.encode(picture, codec="overfit", quality=30, effort=1)
    cpu, gpu = (np.asarray(lz.decode(blob, device=d)) for d in ("cpu", "cuda"))
    assert (cpu == gpu).all()
