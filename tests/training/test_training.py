"""The shipped script trains, resumes exactly, and exports a model that codes real files."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentzip.codecs.hyperprior.codec import HyperpriorConfig
from latentzip.codecs.vq.codec import VqConfig
from latentzip.codecs.walloc.codec import WallocConfig
from latentzip.training import hyperprior, vq_trainer, walloc
from latentzip.training.data import CropSampler
from latentzip.training.device_data import DeviceCropSampler, draw_stock
from latentzip.training.export import export
from latentzip.training.rate import CausalRate
from latentzip.training.recipes import RECIPES, make_trainer

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(
    walloc.Recipe(),
    name="tiny",
    model=WallocConfig(latent_channels=6, width=8, depth=1),
    steps=6,
    batch=2,
    crop=64,
    warmup=2,
)
TINY_HYPERPRIOR = replace(
    hyperprior.Recipe(),
    name="tiny",
    model=HyperpriorConfig(
        width=16, analysis_depth=1, synthesis_depth=1, latent=16, hyper=16, features=16, scale_width=16
    ),
    steps=6,
    batch=2,
    crop=64,
    warmup=2,
)
TINY_VQ = replace(
    vq_trainer.Recipe(),
    name="tiny",
    model=VqConfig(latent=288, levels=2, entries=16, components=8),
    steps=6,
    batch=2,
    crop=64,
    warmup=2,
    prior_steps=5,
)
FAST_FIT = {"steps": 20, "samples": 2000, "deep": 1, "middle": 1, "hidden": 8, "checker_hidden": 8}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with five generated pictures."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128] / 30
    for i in range(5):
        a, b, c = rng.uniform(-2, 2, (3, 3))
        waves = np.stack([np.sin(a[k] * x + b[k] * y + c[k]) for k in range(3)], -1)
        noise = rng.normal(0, 6, waves.shape)
        Image.fromarray(np.clip(128 + 100 * waves + noise, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def train(recipe, photos, run, steps=None):
    trainer = make_trainer(recipe, str(photos), run)
    trainer.train(None, log=lambda _: None, until_step=steps)
    trainer.save()
    return trainer


TINY_RATES = replace(TINY, model=replace(TINY.model, variable_rate=True))


@pytest.mark.parametrize(
    "recipe", [TINY, TINY_RATES, TINY_HYPERPRIOR, TINY_VQ], ids=["walloc", "walloc-rates", "hyperprior", "vq"]
)
def test_resumed_run_equals_an_uninterrupted_one(recipe, photos, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = train(recipe, photos, tmp_path / "one")
        assert train(recipe, photos, tmp_path / "two", steps=3).step == 3
        two = train(recipe, photos, tmp_path / "two")
    finally:
        torch.set_num_threads(threads)
    assert one.step == two.step == 6
    for key, value in one.modules.state_dict().items():
        assert torch.equal(value, two.modules.state_dict()[key]), key


def test_a_decoder_of_all_qualities_begins_as_that_of_one(photos, tmp_path):
    one = train(TINY, photos, tmp_path / "one")
    rates = replace(TINY_RATES, decoder_only=True, lr=1e-3)
    trainer = make_trainer(rates, str(photos), tmp_path / "rates", init=one.small)
    trainer.averaged().load_state_dict(trainer.modules.state_dict())
    before = {k: v.clone() for k, v in trainer.averaged()["model"].state_dict().items()}
    y = torch.randn(2, 6, 8, 8)
    with torch.no_grad():
        found = [trainer.averaged()["model"].decoder(y, fineness) for fineness in (-2.0, 0.0, 1.0)]
        expected = one.averaged()["model"].decoder(y)
    for got in found:
        torch.testing.assert_close(got, expected, atol=5e-3, rtol=2e-3)  # small checkpoints keep nine bits
    trainer.train(None, log=lambda _: None)
    changed = {k for k, v in trainer.averaged()["model"].state_dict().items() if not torch.equal(v, before[k])}
    assert "decoder.conv_in.weight" in changed
    assert all(key.startswith("decoder.") for key in changed)
    assert trainer.modules["model"].decoder.conv_in.weight[:, -1].abs().max() > 0


def test_an_encoder_learns_from_the_neutral_quality_alone(photos, tmp_path):
    trainer = make_trainer(replace(TINY_RATES, batch=6), str(photos), tmp_path / "run")
    model = trainer.modules["model"]
    torch.nn.init.normal_(model.decoder.conv_out.weight, 0, 0.1)
    x = trainer.sampler.make().float() / 255
    slopes = []
    for quality in (20.0, 75.0):
        x_hat, _ = model(x, None, None, torch.full((6,), quality))
        trainer.optimizer.zero_grad()
        (x_hat - x).square().mean().backward()
        slopes.append([0.0 if p.grad is None else float(p.grad.abs().max())
                       for p in (model.encoder.weight, model.log_gain, model.decoder.conv_in.weight)])  # fmt: skip
    assert slopes[0][:2] == [0, 0]
    assert min(slopes[0][2], *slopes[1]) > 0


def test_batches_depend_on_seed_and_step_only(photos):
    first = CropSampler(photos, 3, 48, seed=5)
    batches = [first.make() for _ in range(3)]
    assert torch.equal(CropSampler(photos, 3, 48, seed=5, start=2).make(), batches[2])
    assert not torch.equal(CropSampler(photos, 3, 48, seed=6).make(), batches[0])
    assert batches[0].shape == (3, 3, 48, 48)
    assert batches[0].dtype == torch.uint8


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        CropSampler(tmp_path, 1, 64, 0)


def test_rate_estimate_is_causal():
    """Bits of a position do not change when a later channel or a later position changes."""
    torch.manual_seed(0)
    rate = CausalRate(4, hidden=3)
    for p in rate.parameters():
        torch.nn.init.normal_(p, std=0.3)
    z = torch.randn(1, 4, 8, 8).mul(5).round()
    base = rate(z)
    changed = z.clone()
    changed[0, 2, 4, 4] += 7
    moved = (rate(changed) != base)[0]
    assert moved[2, 4, 4]
    assert not moved[:2].any()
    assert not moved[2, :4].any()
    assert not moved[2, 4, :4].any()


@pytest.mark.parametrize(
    ("recipe", "options"),
    [(TINY, FAST_FIT), (TINY_HYPERPRIOR, {"calibration": 3}), (TINY_VQ, {})],
    ids=["walloc", "hyperprior", "vq"],
)
def test_export_writes_a_codec_that_codes_files(recipe, options, photos, tmp_path):
    trainer = train(recipe, photos, tmp_path / "run")
    out = tmp_path / "release"
    out.mkdir()
    common = {
        "data": str(photos),
        "val": str(photos),
        "test": None,
        "log": lambda _: None,
        "qualities": (50,),
        **options,
    }
    file = export(trainer, out, version="1", **common)
    codec = trainer.from_bytes(file.read_bytes())
    x = torch.rand(1, 3, 50, 70)
    assert codec.decode(codec.encode(x))[0].shape == (3, 50, 70)
    export(trainer, out, version="2", **common)
    entries = json.loads((out / "index.json").read_text())["codecs"]
    assert [(e["version"], e["current"]) for e in entries] == [("1", False), ("2", True)]
    assert entries[0]["fingerprint"] == entries[1]["fingerprint"] == codec.fingerprint.hex()
    assert entries[0]["results"]["val_q50_bpp" if codec.variable_rate else "val_bpp"] > 0
    assert "6 steps" in (out / "tiny-v1.md").read_text()


def test_new_run_starts_from_another_ones_weights(photos, tmp_path):
    train(TINY_HYPERPRIOR, photos, tmp_path / "run")
    region = replace(TINY_HYPERPRIOR, name="other", model=replace(TINY_HYPERPRIOR.model, region=True), masked=1.0)
    trainer = make_trainer(region, str(photos), tmp_path / "new", init=tmp_path / "run" / "checkpoint.pt")
    average = make_trainer(TINY_HYPERPRIOR, str(photos), tmp_path / "run").averaged().state_dict()
    own = trainer.modules.state_dict()
    assert average.keys() < own.keys()
    assert all(torch.equal(own[key], value) for key, value in average.items())
    trainer.train(None, log=lambda _: None, until_step=2)
    assert trainer.origin == "from tiny after 6 steps"
    trainer.save()
    assert make_trainer(region, str(photos), tmp_path / "new").origin == trainer.origin


def test_other_metric_trains(photos, tmp_path):
    recipe = replace(TINY_HYPERPRIOR, metric="ms-ssim", crop=192)
    large = tmp_path / "large"
    large.mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((256, 256)).save(large / path.name)
    first = make_trainer(recipe, str(large), tmp_path / "run")
    loss, report = first.loss(first.sampler.make())
    loss.backward()
    assert torch.isfinite(loss)
    assert report["psnr"] > 10
    gradient = first.modules.get_parameter("model.synthesis_transform.tail.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_every_recipe_has_a_trainer(photos, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(photos / "noise.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2)), 44100)
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        if name == "bottleneck":  # wants labelled pictures, and has tests of its own
            continue
        small = replace(recipe, batch=1, crop=64)
        assert make_trainer(small, str(photos), tmp_path / name).step == 0


@pytest.mark.parametrize("name", ["audio", "bottleneck"])
def test_recipes_with_a_schedule_of_their_own_go_by_no_clock(name, capsys):
    from latentzip.training import cli

    assert cli.main([name, "--data", "x", "--minutes", "1", "--by-clock"]) == 2
    assert f"--by-clock: the schedule of {name} is its own" in capsys.readouterr().err


def test_script_reports_wrong_use():
    script = [sys.executable, str(ROOT / "scripts" / "train.py")]
    result = subprocess.run([*script, "nonsense", "--data", "x"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "walloc-rgb-16x" in result.stdout + result.stderr


def test_crops_made_on_a_device_are_those_of_the_host(photos):
    """The same pictures, places and symmetries; only the filter that shrinks is another."""
    host, device = CropSampler(photos, 16, 48, seed=5), DeviceCropSampler(photos, 16, 48, seed=5, device="cpu")
    for _ in range(2):
        a, b = host.make().int(), device.make().int()
        assert b.shape == a.shape
        equal = (a - b).abs().flatten(1).amax(1) == 0
        assert 2 <= int(equal.sum()) < 16
        assert (a - b).abs().float().mean() < 2
    assert torch.equal(
        next(iter(DeviceCropSampler(photos, 2, 48, 5, 1, "cpu"))), DeviceCropSampler(photos, 2, 48, 5, 1, "cpu").make()
    )


def test_drawn_pictures_of_a_stock(photos):
    """The same whoever draws them; turned at random."""
    alone, together = draw_stock(3, 256, 24, workers=1), draw_stock(3, 256, 24, workers=2)
    assert torch.equal(alone, together)
    sampler = DeviceCropSampler(photos, 64, 48, seed=5, device="cpu", drawn=1.0, stock=3)
    assert sampler.stock is not None
    stock = [p.transpose(1, 2) if t else p for p in sampler.stock for t in (False, True)]
    turned = [p.flip(axes) for p in stock for axes in ([], [1], [2], [1, 2])]
    for crop in sampler.make():
        assert any(torch.equal(crop, p) for p in turned)


def test_a_run_by_the_clock_ends_in_time_with_its_rate_at_zero(photos, tmp_path):
    trainer = make_trainer(replace(TINY, steps=3), photos, tmp_path / "clock")
    lines = []
    trainer.train(str(photos), log=lines.append, until=4.0, by_clock=True)
    assert trainer.step > 3
    assert trainer.optimizer.param_groups[0]["lr"] < 0.05 * trainer.base_lrs[0]
    assert 1 <= sum("validation" in line for line in lines) <= 5
    trainer.save()
    again = make_trainer(replace(TINY, steps=3), photos, tmp_path / "clock")
    assert again.steps_at_start() == again.step == trainer.step  # nothing is left to do


def test_a_batch_that_overflows_changes_nothing_on_either_kind_of_optimiser():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer: Any = torch.optim.AdamW([p], lr=torch.tensor(0.1), fused=True, capturable=False)
    p.grad = torch.full((3,), float("nan"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(p, torch.ones(3))
    p.grad, optimizer.found_inf = torch.ones(3), torch.zeros(())
    optimizer.step()
    assert (p < 1).all()


def test_several_recipes_share_the_time(photos, tmp_path, monkeypatch, capsys):
    from latentzip.training import cli, recipes

    tiny = {"one": replace(TINY, name="one"), "two": replace(TINY_HYPERPRIOR, name="two")}
    monkeypatch.setattr(recipes, "RECIPES", tiny)
    common = ["--data", str(photos), "--run", str(tmp_path), "--minutes", "0.1"]
    assert cli.main(["one", "two", *common, "--set", "steps=1000000"]) == 0
    steps = {name: torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["step"] for name in tiny}
    assert all(0 < n < 1000000 for n in steps.values())
    assert (
        cli.main(
            ["one", *common[:2], "--run", str(tmp_path / "fit"), "--minutes", "0.1", "--fit", "--set", "steps=1000000"]
        )
        == 0
    )
    state = torch.load(tmp_path / "fit" / "checkpoint.pt", weights_only=True)
    planned = json.loads(state["recipe"])["steps"]
    assert 1 <= planned < 1000000
    assert f"{planned} steps" in capsys.readouterr().out
    assert make_trainer(tiny["one"], str(photos), tmp_path / "fit").steps_at_start() == planned


def test_wrong_options_are_explained(photos, capsys):
    from latentzip.training import cli

    for options, text in (
        (["--fit"], "--fit needs --minutes"),
        (["--set", "nonsense=1"], "no recipe field 'nonsense'"),
        (["--device", "cuda"], "no CUDA device"),
    ):
        if options[-1] == "cuda" and torch.cuda.is_available():
            continue
        assert cli.main(["walloc-rgb-16x", "--data", str(photos), *options]) == 2
        assert text in capsys.readouterr().err
