"""Training on a GPU: a step as a CUDA graph learns as one that is not, and its data are those of the host."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from latentzip.codecs.hyperprior.codec import HyperpriorConfig
from latentzip.codecs.walloc.codec import WallocConfig
from latentzip.training import hyperprior, walloc
from latentzip.training.device_data import DeviceCropSampler
from latentzip.training.recipes import make_trainer

SMALL = {
    "hyperprior": replace(
        hyperprior.Recipe(),
        name="tiny",
        model=HyperpriorConfig(
            width=32, analysis_depth=1, synthesis_depth=2, latent=32, hyper=16, features=32, scale_width=16
        ),
    ),
    "walloc": replace(walloc.Recipe(), name="tiny", model=WallocConfig(latent_channels=6, width=16, depth=1)),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128] / 30
    for i in range(5):
        a, b, c = rng.uniform(-2, 2, (3, 3))
        waves = np.stack([np.sin(a[k] * x + b[k] * y + c[k]) for k in range(3)], -1)
        Image.fromarray(np.clip(128 + 100 * waves, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.hardware
@pytest.mark.parametrize("kind", SMALL)
def test_a_graphed_run_learns_as_a_plain_one(photos, tmp_path, kind):
    recipe = replace(SMALL[kind], steps=60, batch=4, crop=64, warmup=2, drawn=0.0)
    figures = {}
    for graphed in (True, False):
        trainer = make_trainer(recipe, photos, tmp_path / f"{kind}{graphed}", device="cuda")
        assert trainer.graphed is not None
        step = trainer.graphed
        if not graphed:
            trainer.graphed = None
        lines = []
        trainer.train(None, log=lines.append)
        assert not step.failed
        figures[graphed] = float(lines[-1].split("loss ")[1].split()[0])
        assert all(torch.isfinite(p).all() for p in trainer.modules.parameters())
        assert not all(torch.equal(a, b) for a, b in zip(trainer.modules.parameters(), trainer.averaged().parameters()))
    assert figures[True] == pytest.approx(figures[False], rel=0.1)


@pytest.mark.hardware
def test_crops_of_the_device_are_those_of_the_host(photos):
    here, there = (DeviceCropSampler(photos, 16, 48, seed=5, device=d, drawn=0.2) for d in ("cpu", "cuda"))
    for _ in range(3):
        assert (here.make().int() - there.make().cpu().int()).abs().max() <= 2  # products in TF32
