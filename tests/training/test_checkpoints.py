"""A run stops at any moment and goes on anywhere: exact checkpoints here, small ones elsewhere."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentzip.codecs.hyperprior.codec import HyperpriorConfig
from latentzip.entropy.errors import FormatError, InputError
from latentzip.training import cli, hyperprior, recipes
from latentzip.training.checkpoints import read_small, write_small
from latentzip.training.probe import best_batch
from latentzip.training.recipes import make_trainer
from latentzip.training.report import Parts

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(
    hyperprior.Recipe(),
    name="tiny",
    model=HyperpriorConfig(
        width=16, analysis_depth=1, synthesis_depth=1, latent=16, hyper=16, features=16, scale_width=16
    ),
    steps=8,
    batch=2,
    crop=64,
    warmup=4,
)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.cumsum(np.random.default_rng(0).normal(0, 4, (96, 96, 3)), 0) + 128
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / "a.png")
    return folder


def states(count=40_000):
    torch.manual_seed(0)
    average = {"a.weight": torch.randn(count // 100, 100) * 0.05, "b": torch.zeros(7), "n": torch.tensor([3, 4])}
    weights = {k: v + 0.003 * torch.randn_like(v) if v.is_floating_point() else v for k, v in average.items()}
    return average, weights


def test_small_checkpoints_are_small_and_near(tmp_path):
    average, weights = states()
    size = write_small(tmp_path / "c.npz", average, weights, {"step": 5})
    assert size == (tmp_path / "c.npz").stat().st_size
    assert size < 2.3 * 40_000  # bytes a parameter, of both
    one, two, about = read_small(tmp_path / "c.npz")
    assert about == {"step": 5}
    torch.testing.assert_close(one["a.weight"], average["a.weight"], rtol=1e-3, atol=1e-6)
    error = (two["a.weight"] - weights["a.weight"]).square().mean().sqrt()
    assert error < 0.12 * (average["a.weight"] - weights["a.weight"]).square().mean().sqrt()
    assert torch.equal(one["n"], average["n"])
    assert one["b"].shape == (7,)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "c.npz").write_bytes(b"PK nonsense")
    with pytest.raises(FormatError, match=r"c\.npz is no small checkpoint"):
        read_small(tmp_path / "c.npz")


def test_a_run_goes_on_elsewhere_from_the_small_checkpoint(photos, tmp_path):
    here = make_trainer(TINY, str(photos), tmp_path / "here")
    here.train(None, log=lambda _: None, until_step=5)
    here.save()
    (tmp_path / "there").mkdir()
    shutil.copy(tmp_path / "here" / "checkpoint.npz", tmp_path / "there")
    there = make_trainer(TINY, str(photos), tmp_path / "there")
    assert (there.step, there.steps_at_start()) == (5, 8)
    assert there.lr_factor() < here.lr_factor()  # its optimiser knows nothing yet
    for key, value in here.averaged().state_dict().items():
        torch.testing.assert_close(there.averaged().state_dict()[key], value, rtol=1e-3, atol=1e-4)
    there.train(None, log=lambda _: None)
    assert there.step == 8
    other = make_trainer(TINY, str(photos), tmp_path / "other", init=str(tmp_path / "here" / "checkpoint.npz"))
    assert other.origin == "from tiny after 5 steps"


def test_soap_trains_and_resumes(photos, tmp_path):
    recipe = replace(TINY, optimizer="soap")
    for run, stops in (("one", (8,)), ("two", (3, 8))):
        for stop in stops:
            trainer = make_trainer(recipe, str(photos), tmp_path / run)
            trainer.train(None, log=lambda _: None, until_step=stop)
            trainer.save()
    one, two = (make_trainer(recipe, str(photos), tmp_path / run).modules.state_dict() for run in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="'lion' is unknown: adamw or soap"):
        make_trainer(replace(TINY, optimizer="lion"), str(photos), tmp_path / "three")


def test_a_signal_ends_the_run_with_a_checkpoint(photos, tmp_path):
    code = (
        "import sys; from dataclasses import replace\n"
        "from latentzip.training import cli, recipes\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_checkpoints import TINY\n"
        "recipes.RECIPES['tiny'] = replace(TINY, steps=100000)\n"
        f"sys.exit(cli.main(['tiny', '--data', {str(photos)!r}, '--run', {str(tmp_path / 'run')!r}, '--report']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    first = process.stdout.readline()  # after 50 steps
    assert re.match(r" *50/100000 loss", first)
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(60) == 0
    assert "stopping after this step" in rest
    assert "crops/s" in rest
    assert re.search(r"backward +\d", rest)
    assert read_small(tmp_path / "run" / "checkpoint.npz")[2]["step"] >= 50


def test_parts_add_up():
    parts = Parts()
    parts.begin()
    with parts.part("sleep"):
        time.sleep(0.05)
    parts.crops = 10
    lines = parts.lines()
    shares = [float(line.split()[1]) for line in lines[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert lines[1].split()[0] == "sleep"
    assert float(lines[0].split()[0]) < 200


def test_the_probe_picks_a_batch_and_scales_with_it(photos):
    lines = []
    recipe = best_batch(TINY, str(photos), "cpu", log=lines.append, seconds=4)
    factor = recipe.batch / TINY.batch
    assert factor in (1, 2, 4, 8, 16, 32, 64, 128)
    assert recipe.lr == pytest.approx(TINY.lr * factor**0.5)
    assert all("crops/s" in line for line in lines)


def test_several_folders_are_one_option(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": TINY})
    assert cli.main(["tiny", "--data", str(photos), str(photos), "--run", str(tmp_path / "r"), "--report"]) == 0
    assert "crops/s" in capsys.readouterr().out
