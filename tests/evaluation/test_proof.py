"""The measurement of latents as the input of classifiers: forms of a sample, budgets, choices, errors, going on."""

import argparse
import importlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
proof: Any = importlib.import_module("bench.proof")
forms: Any = importlib.import_module("bench.proof_inputs")
nets: Any = importlib.import_module("bench.proof_nets")
sounds: Any = importlib.import_module("bench.proof_sounds")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two kinds of stripes, 64 x 64, ten to train with and four to test with."""
    root = tmp_path_factory.mktemp("proof") / "stripes"
    y, x = np.mgrid[:64, :64]
    for split, count in (("train", 10), ("test", 4)):
        for i in range(count):
            place = root / split / ("down", "across")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            wave = np.sin((x if i % 2 else y) / (3 + i / 8) + i) * 90 + 128
            Image.fromarray(np.stack([wave, wave[::-1], wave * 0.5], -1).astype(np.uint8)).save(place / f"{i}.png")
    return root


def asked(data: Path | None, work: Path | None = None, **given: Any) -> argparse.Namespace:
    known = dict.fromkeys(("data", "work", "inputs", "seeds", "steps", "mmac", "limit"))
    return argparse.Namespace(**known | {"quick": False, "data": data, "work": work} | given)


def test_a_set_from_folders_to_a_table_and_on(pictures, tmp_path, capsys):
    options: dict[str, Any] = {"steps": 2, "seeds": 2, "mmac": 0.5, "inputs": ["shrunk", "latents", "full", "jpeg"]}
    result = proof.run(asked(pictures, tmp_path, **options))
    table = {r["input"]: r for r in result["rows"]["stripes"]["averages"]}
    assert list(table) == ["shrunk", "latents", "full", "jpeg"]
    assert table["shrunk"]["values"] == table["latents"]["values"] == 12 * 64  # as many numbers, whatever they mean
    assert table["full"]["values"] == 3 * 64 * 64
    assert all(0 < r["mmac"] <= 0.5 and r["seeds"] == 2 for r in table.values())
    assert (table["jpeg"]["stem"], table["jpeg"]["rate"]) == (table["full"]["stem"], table["full"]["rate"])
    assert table["jpeg"]["bytes"] <= max(table["latents"]["bytes"], 700)  # headers of JPEG alone take some 600
    assert result["summary"]["stripes"]["latents"]["input"] == "shrunk"
    assert result["markdown"].count("| latents |") == 1
    assert capsys.readouterr().out.count("final") == 8
    again = proof.run(asked(pictures, tmp_path, **options))
    assert capsys.readouterr().out == ""  # every run was there
    assert again == result
    proof.run(asked(pictures, tmp_path, **options | {"seeds": 3}))
    assert capsys.readouterr().out.count("\n") == 4  # one more of each


def test_sounds(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    t = np.arange(16384) / 44100
    for split in ("train", "test"):
        for i in range(4):
            place = tmp_path / "tones" / split / ("low", "high")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            soundfile.write(place / f"{i}.wav", 0.5 * np.sin(2 * np.pi * (300, 3000)[i % 2] * t + i), 44100)
    found = sounds.Sounds(tmp_path / "tones")
    assert (found.rate, found.frames, found.classes) == (44100, 64, ["high", "low"])
    made = dict(sounds.inputs(found, proof.SOUNDS + proof.SOUNDS_WIDE))
    for suffix, rows in (("", 27), (", 108", 108)):
        kinds = [made[f"{kind}{suffix}"] for kind in ("shrunk", "log-mel", "latents")]
        assert {source.values for source in kinds} == {64 * rows}
    mel = made["log-mel"].train[:, 0, 0].float().mean(1)
    assert (mel.argmax(1)[:2] > mel.argmax(1)[2:]).all()  # high tones in higher bands
    error = made["latents"].train.float() - made["latents, not rounded"].train.float()
    assert 0 < float(error.abs().mean()) < float(made["latents"].train.float().abs().mean())
    result = proof.run(asked(tmp_path, steps=2, seeds=1, mmac=0.5, inputs=["log-mel", "latents"]))
    assert [r["input"] for r in result["rows"]["tones"]["averages"]] == ["log-mel", "latents"]


def test_forms_of_a_picture(pictures):
    data = forms.Pictures(pictures)
    assert (data.grey, data.side, data.positions, data.classes) == (False, 64, 8, ["across", "down"])
    x = data.pixels()[0][0]
    blocks = forms.to_depth(x, 8)
    assert np.array_equal(blocks[1, 2].reshape(8, 8, 3), x[8:16, 16:24])
    cosines = forms.cosines(12, False)(x)
    luma = np.asarray(Image.fromarray(x).convert("YCbCr"), np.float32)[..., 0] - 128
    means = luma.reshape(8, 8, 8, 8).mean((1, 3))
    assert cosines.shape == (8, 8, 12)
    assert np.allclose(cosines[..., 0], 8 * means, atol=0.5)
    quality, files = data.jpeg(900)
    assert np.mean([len(f) for f in files]) <= 900
    assert np.mean([len(forms.jpeg(p, quality + 1)) for p in data.pixels()[0]]) > 900
    assert data.picture(io.BytesIO(files[0])).shape == (64, 64, 3)
    made = dict(forms.inputs(data, 900, (*proof.PICTURES, *proof.WHY, *proof.WIDE)))
    twelve = [n for n, source in made.items() if source.values == 12 * 64]
    assert {"shrunk", "latents", "cosines", "shrunk, as channels", "latents, integers"} <= set(twelve)
    assert made["latents, 48"].values == made["shrunk, 48"].values == 48 * 64
    twin = made["shrunk, as channels"].train[0]
    assert not torch.equal(twin[0], twin[1])


def test_windows_lie_on_the_grid_and_twins_are_mirrored():
    x = torch.arange(16 * 16).reshape(1, 1, 16, 16, 1).to(torch.int16)
    source = nets.Input(x, x, ("3/2",), (8, 8), 4, flips=True)
    seen = set()
    for (batch, label), _ in zip(nets.batches(source, torch.tensor([7]), 1, np.random.default_rng(0)), range(200)):
        assert batch.shape == (1, 1, 8, 8)
        assert label.tolist() == [7]
        row = batch[0, 0, 0].tolist()
        assert row in (sorted(row), sorted(row, reverse=True))
        seen.add((min(row) // 16, min(row) % 16, row[0] > row[-1]))
    assert seen == {(top, left, flip) for top in (0, 4, 8) for left in (0, 4, 8) for flip in (False, True)}


def test_scale():
    torch.manual_seed(0)
    mixed = torch.randn(8, 1, 16, 16, 3) @ torch.tensor([[2.0, 1, 0], [0, 1, 1], [0, 0, 0.5]]) + 5
    rows = mixed[:, 0].permute(0, 3, 1, 2)
    plain = nets.Scale(mixed)(rows).transpose(0, 1).flatten(1)
    assert torch.allclose(plain.mean(1), torch.zeros(3), atol=1e-4)
    assert torch.allclose(plain.std(1), torch.ones(3), atol=1e-3)
    rotated = nets.Scale(mixed, True)(rows).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(rotated), torch.eye(3), atol=0.15)


@pytest.mark.parametrize("text", ["1/1", "4/4:8 3/2", "3/1:8 3/2"])
def test_the_widest_network_keeps_within_its_budget(text):
    x = torch.zeros(1, 1, 32, 32, 3)
    source = nets.Input(x, x, (text,), (32, 32))
    width, cost = nets.widest(text, source, 5, 2_000_000)
    wider = nets.multiply_adds(nets.network(text, 3, 5, width + 2, False), (3, 32, 32))
    assert 0 < cost <= 2_000_000 < wider
    with pytest.raises(SystemExit, match="more --mmac"):
        nets.widest(text, source, 5, 100)


def test_multiply_adds_of_a_known_network():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Flatten(), torch.nn.Linear(4 * 16, 5))
    assert nets.multiply_adds(model, (3, 8, 8)) == 16 * 4 * 27 + 64 * 5


def row(right: list[int], seed: int = 0) -> dict[str, Any]:
    return {"right": np.packbits(np.array(right, bool)).tobytes().hex(), "tests": len(right), "seed": seed}


def test_errors_of_a_difference_count_only_what_is_answered_differently():
    same = [1, 0] * 50
    a, b = [row(same), row(same)], [row(same), row(same)]
    found = proof.difference("latents", a, b)
    assert (found["points"], found["standard_error"], found["errors_of_it"]) == (0, 0, None)
    better = [1, 0, 1, 1] * 25
    found = proof.difference("latents", [row(better), row(better)], b)
    assert found["points"] == 25
    assert found["standard_error"] == pytest.approx(100 * (0.25 * 0.75 / 99) ** 0.5, abs=0.01)
    mean, error = proof.spread(proof.answers([row(same), row([1] * 100)]))
    assert mean == 0.75
    assert error > 0.25  # seeds that differ by a half


def test_the_choice_and_its_held_back_part():
    tries = [
        {"stem": s, "rate": r, "accuracy": a, "final_loss": 1 - a}
        for s, r, a in (("1/1", 0.1, 0.5), ("1/1", 0.1, 0.7), ("3/1", 0.1, 0.65), ("3/1", 0.2, 0.1))
    ]
    assert proof.best(tries) == ("3/1", 0.1)
    labels = torch.tensor([0] * 10 + [1] * 5)
    x = torch.arange(15).reshape(15, 1, 1, 1, 1)
    part, (kept, held) = proof.validation(nets.Input(x, x[:2], ("1/1",), (1, 1)), labels)
    assert (len(kept), held.tolist()) == (12, [0, 0, 1])
    assert not set(part.train.flatten().tolist()) & set(part.test.flatten().tolist())


def test_without_data():
    with pytest.raises(SystemExit, match="needs --data"):
        proof.run(asked(None))
