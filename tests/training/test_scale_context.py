"""Networks that refine scales: what is fitted costs fewer bits, in real files."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from latentzip import pretrained
from latentzip.codecs.hyperprior import HyperpriorConfig, from_bytes
from latentzip.codecs.hyperprior.context import REACH, ScaleContext
from latentzip.entropy import Gaussian, exact, scales
from latentzip.entropy.errors import InputError
from latentzip.training.data import CropSampler
from latentzip.training.recipes import RECIPES, make_trainer
from latentzip.training.restore import trainable_hyperprior
from latentzip.training.scale_context import DEFAULT, Pool, bits, fit, main, with_context

TINY = replace(DEFAULT, width=8, steps=60, batch=4, crop=64, pool=12, lr=4e-3, drawn=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of a picture that is calm here and busy there."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    busy = np.kron(rng.random((16, 16)) < 0.4, np.ones((16, 16)))[..., None]
    noise = rng.normal(0, 40, (256, 256, 3)) * busy
    Image.fromarray((128 + noise).clip(0, 255).astype(np.uint8)).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module")
def plain():
    """A release whose scales are half as wide again as they should be: something that a short fit finds."""
    codec = from_bytes(pretrained.release("hyperprior-fast", "1").read())
    last: Any = codec.scale_net[2]
    last.bias += 28 << last.shift
    return codec


@pytest.fixture(scope="module")
def fitted(plain, pictures):
    sampler = CropSampler(str(pictures), TINY.batch, TINY.crop, 1)
    said: list[str] = []
    return with_context(plain, fit(plain, sampler, replace(TINY, steps=50, pool=16), said.append)), said


def test_scores_are_zero_on_average_where_tables_are_right():
    context = ScaleContext(4, 4)
    context.fill_scores()
    symbols = torch.arange(-REACH, REACH + 1, dtype=torch.int32)
    for number in (10, 20, 30, 40):
        p = torch.exp(-(symbols.double() ** 2) / (2 * float(scales()[number]) ** 2 + 1 / 6))
        score = context.score(torch.full_like(symbols, number), symbols).double()
        assert abs(float((p * score).sum() / p.sum())) < 6
        assert score[REACH] < 0 < score[-1] or number == 40
    nine = torch.full((1,), 9, dtype=torch.int32)
    assert torch.equal(context.score(nine, 100 * nine), context.score(nine, symbols[-1:]))
    assert context.score(nine, torch.full_like(nine, -(2**31))).abs() <= 127  # a damaged stream may say anything


def test_files_shrink_and_decode_to_the_same_pixels(plain, fitted, pictures):
    codec, said = fitted
    assert said[0].startswith("symbols of 16 crops")
    x = torch.tensor(np.asarray(Image.open(pictures / "a.png"))).permute(2, 0, 1)[None].float() / 255
    sizes = []
    for quality in (20, 70, 95):
        before, after = plain.encode(x, quality)[0], codec.encode(x, quality)[0]
        assert torch.equal(codec.decode([after])[0], plain.decode([before])[0])
        sizes.append((len(before), len(after)))
    before, after = map(sum, zip(*sizes))
    assert after < 0.99 * before
    assert codec.fingerprint != plain.fingerprint


def test_training_counts_the_bits_that_coding_spends(plain, fitted, pictures):
    """The float twin says what real chunks cost, before and after refinement, to a few parts in a thousand."""
    codec, _ = fitted
    pool = Pool(plain, CropSampler(str(pictures), 1, 64, 3), 3, 0)
    trainable: Any = ScaleContext(codec.config.latent, codec.config.context)
    trainable.scores.copy_(codec.scale_context.scores)
    for net, given in zip(trainable.nets, codec.scale_context.nets):
        exact.restore(net, given)
    exact.set_quantised(trainable, True)
    with torch.no_grad():
        found = bits(plain, trainable, pool.code, pool.symbols, pool.quality)
    for i in range(3):
        spent = []
        for c in (plain, codec):
            spent.append(coded_bits(c, pool.code[i : i + 1].int(), pool.symbols[i : i + 1].int(), int(pool.quality[i])))
        # the twin does not round scale numbers to whole ones
        assert found[i].tolist() == pytest.approx(spent, rel=0.01, abs=5)


def coded_bits(codec, code, symbols, quality):
    """What the tables say that a chunk's symbols cost whose scale numbers in eighths are given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "scale_code", lambda z, q: code)
        steps, part, total = codec.coding_steps(torch.zeros(1), quality), None, 0.0
        with suppress(StopIteration):
            while True:
                step = steps.send(part)
                part = step.elements.take(symbols)
                total += Gaussian(step.number[step.coded]).bits(part[step.coded])
    return total


def test_from_a_release_to_a_release(pictures, tmp_path, capsys):
    command = ["hyperprior-fast", "--data", str(pictures), "--steps", "3", "--width", "8", "--export", str(tmp_path)]
    assert main([*command, "--version", "7", "--test", str(pictures)], TINY) == 0
    entry = json.loads((tmp_path / "index.json").read_text())["codecs"][0]
    assert entry["version"] == "7"
    assert entry["results"]["kodak_q50_bpp"] > 0
    file = tmp_path / entry["file"]
    assert file.stat().st_size < 200_000  # all but the networks lies in the release
    codec = from_bytes(file.read_bytes())
    assert codec.config.context == 8
    assert codec.fingerprint.hex() == entry["fingerprint"]
    assert "three exact networks of width 8" in (tmp_path / "hyperprior-fast-v7.md").read_text()
    assert str(file) in capsys.readouterr().out
    again = [*command[:-1], str(tmp_path / "on"), "--steps", "0", "--init", str(file)]
    assert main(again, TINY) == 0
    (on,) = (tmp_path / "on").glob("*.safetensors")
    assert from_bytes(on.read_bytes()).fingerprint == codec.fingerprint  # no step, no change
    weights = tmp_path / "plain.safetensors"
    weights.write_bytes(pretrained.release("hyperprior-fast", "1").read())
    with pytest.raises(InputError, match="holds no networks"):
        main([*again[:-1], str(weights)], TINY)


def test_a_run_exports_what_its_recipe_says(pictures, tmp_path):
    model = HyperpriorConfig(width=16, latent=16, hyper=16, features=16, scale_width=16, context=8)
    recipe = replace(RECIPES["hyperprior-fast"], model=model, steps=1, batch=2, crop=64)
    trainer = make_trainer(recipe, str(pictures), tmp_path / "run")
    said: list[str] = []
    tensors, metadata = trainer.release(
        [torch.rand(3, 64, 64)], said.append, calibration=1, refinement=replace(TINY, steps=2)
    )
    codec = trainer.from_bytes(save(tensors, metadata))
    assert codec.config == model
    assert "refine the scales" in trainer.describe(codec)
    x = torch.rand(1, 3, 64, 64)
    assert torch.isfinite(codec.decode(codec.encode(x, 60))[0]).all()
    again = trainable_hyperprior(codec)["model"]
    assert again.config == replace(model, context=0)


@pytest.mark.parametrize("name", ["gmm", "walloc-rgb-16x"])
def test_what_cannot_be_refined_is_refused(name, pictures):
    with pytest.raises(InputError, match=f"{name}"):
        main([name, "--data", str(pictures)])
