"""Training of the codec of tokens: it begins at a fit or a release, gets better, and keeps codewords alive."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs.vq.codec import VqConfig, from_bytes
from latentzip.training import vq_trainer
from latentzip.training.recipes import make_trainer

TINY = replace(
    vq_trainer.Recipe(), model=VqConfig(latent=288, levels=2, entries=16, components=8), steps=30, batch=4, crop=64,
    warmup=2, lr=1e-3, drawn=0.0, recoloured=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with four generated pictures."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] / 30
    for i in range(4):
        waves = np.stack([np.sin(a * x + b * y) for a, b in rng.uniform(-4, 4, (3, 2))], -1)
        Image.fromarray(np.clip(128 + 100 * waves, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_run_is_better_than_the_fit_it_begins_with(photos, tmp_path):
    trainer = make_trainer(TINY, str(photos), tmp_path / "run")
    images = trainer.load_validation(str(photos))
    analysis = {k: v.clone() for k, v in trainer.model.analysis_transform.state_dict().items()}
    before = trainer.validate(images)
    lines = []
    trainer.train(None, log=lines.append)
    after = trainer.validate(images)
    assert set(before) == {"1_bpp", "1_psnr", "2_bpp", "2_psnr"}
    assert after["1_psnr"] > before["1_psnr"] + 0.2
    assert after["2_psnr"] > before["2_psnr"] + 0.2
    assert all(torch.equal(v, analysis[k]) for k, v in trainer.model.analysis_transform.state_dict().items())
    assert not trainer.books.words(0)[0].any()
    assert trainer.origin.startswith("on release 2 of hyperprior-fast")


def test_a_run_begins_at_the_release(photos, tmp_path):
    recipe = replace(vq_trainer.Recipe(), batch=2, crop=64)
    trainer = make_trainer(recipe, str(photos), tmp_path / "run", init="release")
    entry = pretrained.release("vq", "1")
    codec = from_bytes(entry.read())
    assert trainer.origin == "from release 1 of vq"
    words = torch.stack([trainer.books.words(i) for i in range(codec.depth)]).detach()
    torch.testing.assert_close(words, codec.codewords)
    x = torch.rand(1, 3, 64, 64)
    own = trainer._codec(trainer.averaged())
    assert torch.equal(own.trunk_features(x), codec.trunk_features(x))
    # what it leaves is less with each level
    left = trainer.books.left
    assert bool((left[1:] < left[:-1]).all())


def test_dead_codewords_move():
    torch.manual_seed(0)
    books = vq_trainer.Books(2, 8, 3)
    books.take(torch.randn(2, 8, 3))
    before = books.values.detach().clone()
    books.shares[1, [0, 4]] = 0
    rest = torch.randn(20, 3)
    books.revive(1, rest)
    moved = (books.values != before).any(2)
    assert moved.nonzero().tolist() == [[1, 4]]
    assert (torch.cdist(books.words(1)[4:5], rest).min() < 1e-5).item()
    assert books.shares[1, 4] == 1 / 8


def test_trunks_that_do_not_fit(photos, tmp_path):
    with pytest.raises(lz.InputError, match="walloc-rgb-16x is no hyperprior codec"):
        make_trainer(replace(TINY, trunk="walloc-rgb-16x"), str(photos), tmp_path / "a")
    coarse = replace(TINY, model=replace(TINY.model, coarse=1))
    with pytest.raises(lz.InputError, match="coarse=0"):
        make_trainer(coarse, str(photos), tmp_path / "b")
    with pytest.raises(lz.InputError, match="other sizes than the recipe's model"):
        make_trainer(replace(TINY, model=replace(TINY.model, width=64)), str(photos), tmp_path / "b")
    with pytest.raises(lz.InputError, match="other sizes than the recipe's model"):
        make_trainer(TINY, str(photos), tmp_path / "c", init="release")
