"""The gate lets better weights through and no others; what it measures are files."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import latentzip as lz
from latentzip import pretrained
from latentzip.evaluation.metrics.bdrate import bd_psnr
from latentzip.training import gate, odd

ROOT = Path(__file__).resolve().parents[2]
CURVE = [(0.1, 28.0), (0.3, 32.0), (0.9, 36.0)]


def script():
    spec = importlib.util.spec_from_file_location("release_script", ROOT / "scripts" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bd_psnr_is_the_distance_of_two_curves():
    assert bd_psnr(CURVE, [(r, q + 0.4) for r, q in CURVE]) == pytest.approx(0.4)
    assert bd_psnr(CURVE, CURVE) == pytest.approx(0)
    assert bd_psnr(CURVE, [(r * 2, q) for r, q in CURVE]) < -2  # 3.6 dB a doubling
    assert math.isnan(bd_psnr(CURVE, [(r * 100, q) for r, q in CURVE]))


def test_one_point_is_compared_along_a_peer():
    peer = [(0.2, 30.0), (0.4, 33.0), (0.8, 36.0)]
    assert gate.gain([(0.4, 31.0)], [(0.4, 31.5)], peer) == pytest.approx(0.5)
    assert gate.gain([(0.4, 31.0)], [(0.8, 34.0)], peer) == pytest.approx(0.0)
    assert gate.gain([(0.4, 31.0)], [(0.2, 31.0)], peer) == pytest.approx(3.0)


def result(gain_db):
    return gate.SetResult("set", 3, CURVE, CURVE, gain_db)


@pytest.mark.parametrize(
    ("gains", "ratio", "passed"),
    [
        ([0.2, -0.04], 1.0, True),
        ([0.2, -0.06], 1.0, False),
        ([0.2, 0.3], 1.2, False),
        ([0.2, math.nan], 1.0, False),
        ([0.2], math.nan, False),
    ],
)
def test_verdicts(gains, ratio, passed):
    verdict = gate.Verdict([result(g) for g in gains], ratio)
    assert verdict.passed is passed
    assert bool(verdict.reasons()) is not passed
    assert verdict.table().count("| set |") == len(gains) + 1


def test_time_is_that_of_the_processor():
    def work(n):
        sum(range(n))

    assert gate.time_ratio(lambda: work(10**6), lambda: work(3 * 10**6)) > 1.7
    start = time.time()
    assert gate.time_ratio(lambda: work(10**6), lambda: (work(10**6), time.sleep(0.02))[0]) < 1.6
    assert time.time() - start > 0.05


def test_odd_signals_are_the_same_every_time():
    one, two = odd.pictures(), odd.pictures()
    assert {"text-0", "screen-1", "sixteen-bits"} <= one.keys()
    for name, x in one.items():
        assert torch.equal(x, two[name])
        assert x.ndim == 3
        assert 0 <= x.min() <= x.max() <= 1
    assert len(torch.unique(one["sixteen-bits"][0])) > 20_000
    for x in odd.sounds().values():
        assert x.shape == (2, 2 * 44100)
        assert x.abs().max() == pytest.approx(0.7, rel=1e-3)


def candidate(folder, name, change):
    """A folder as an export leaves it, holding the shipped weights or changed ones."""
    folder.mkdir()
    entry = pretrained.find(name)
    module = importlib.import_module(entry.loader.partition(":")[0])
    blob = entry.read()
    if change:
        head = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
        tensors = load(blob)
        change(tensors)
        blob = save(tensors, head)
    file = entry.file.removesuffix(pretrained.PACKED)
    (folder / file).write_bytes(blob)
    (folder / Path(file).with_suffix(".md").name).write_text(f"# {name}\n\nSome card.\n")
    fields = {k: v for k, v in vars(entry).items() if k not in ("sha256", "fingerprint")}
    fingerprint = module.from_bytes(blob).fingerprint.hex()
    item = {**fields, "file": file, "sha256": "0" * 64, "fingerprint": fingerprint, "results": {"val_bpp": 1.0}}
    (folder / "index.json").write_text(json.dumps({"codecs": [item]}))
    return folder


def blur(tensors):
    tensors["model.decoder.linear.weight"] *= 0.98


def pictures(folder):
    from PIL import Image

    folder.mkdir()
    y, x = np.mgrid[:96, :112] / 9
    for i in range(2):
        rgb = 128 + 90 * np.stack([np.sin(x + i), np.cos(y - x), np.sin(y * i)], -1)
        Image.fromarray(rgb.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_worse_weights_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(odd, "pictures", lambda: {"one": torch.rand(3, 64, 64)})
    worse = candidate(tmp_path / "worse", "walloc-rgb-linear", blur)
    home = tmp_path / "home"
    arguments = ["walloc-rgb-linear", "--candidate", str(worse), "--set", f"waves={pictures(tmp_path / 'p')}"]
    assert script().main([*arguments, "--qualities", "30", "60", "--install", "--home", str(home)]) == 1
    assert "not released: waves" in capsys.readouterr().out
    assert not home.exists()


def test_good_weights_are_installed_with_their_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(odd, "pictures", lambda: {"one": torch.rand(3, 64, 64)})
    monkeypatch.setattr(gate, "time_ratio", lambda *_: 1.0)
    same = candidate(tmp_path / "same", "walloc-rgb-linear", None)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(ROOT / "pretrained" / "index.json", home)
    report = tmp_path / "report.json"
    arguments = ["walloc-rgb-linear", "--candidate", str(same), "--set", f"waves={pictures(tmp_path / 'p')}"]
    options = ["--qualities", "30", "60", "--install", "--home", str(home), "--json", str(report)]
    for _ in range(2):  # the second time it replaces itself
        assert script().main([*arguments, *options]) == 0
    assert "installed walloc-rgb-linear 1, fingerprint" in capsys.readouterr().out
    assert json.loads(report.read_text())["passed"] is True
    card = (home / "walloc-rgb-linear-v1.md").read_text()
    assert card.count("## Against the weights before") == 1
    assert "| waves | 2 |" in card
    entries = json.loads((home / "index.json").read_text())["codecs"]
    own = [e for e in entries if e["name"] == "walloc-rgb-linear"]
    assert len(own) == 1
    assert own[0]["results"]["val_bpp"] == 1.0
    assert own[0]["results"]["encode_mp_s"] > 0  # speeds stay until they are measured again
    assert len(entries) == len(pretrained.index())


def test_an_older_release_is_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(odd, "pictures", lambda: {"one": torch.rand(3, 64, 64)})
    monkeypatch.setattr(gate, "time_ratio", lambda *_: 1.0)
    new = candidate(tmp_path / "new", "walloc-rgb-linear", None)
    shipped = pretrained.find("walloc-rgb-linear")
    index = json.loads((new / "index.json").read_text())
    index["codecs"][0] |= {"version": "2", "file": "walloc-rgb-linear-v2.safetensors", "fingerprint": "0" * 16}
    (new / "index.json").write_text(json.dumps(index))
    for file in list(new.glob("*v1*")):
        file.rename(new / file.name.replace("v1", "v2"))
    home = tmp_path / "home"
    home.mkdir()
    plain = shipped.file.removesuffix(pretrained.PACKED)
    (home / plain).write_bytes(shipped.read())
    (home / "index.json").write_text((ROOT / "pretrained" / "index.json").read_text().replace(shipped.file, plain))
    options = ["--qualities", "30", "60", "--install", "--home", str(home)]
    assert script().main(["walloc-rgb-linear", "--candidate", str(new), *options]) == 0
    first, second = (e for e in pretrained.read_index((home / "index.json").read_bytes()) if e.name == shipped.name)
    assert (first.current, first.file) == (False, f"{plain}.gz")
    assert (second.current, second.file) == (True, "walloc-rgb-linear-v2.safetensors")
    assert not (home / plain).exists()
    monkeypatch.setattr(pretrained, "files", lambda _: home)
    assert first.read() == shipped.read()
    (home / first.file).write_bytes((home / first.file).read_bytes()[:-9])
    with pytest.raises(lz.CodecError, match="damaged"):
        first.read()


def test_codecs_of_one_rate_and_of_sound_are_compared():
    codec, peer = lz.load_codec("walloc-audio-20x"), lz.load_codec("audio")
    sounds = {"bells": [odd.sounds()["bell-0"][:, 40000:70000]]}
    verdict = gate.compare(codec, codec, sounds, peer, peer_qualities=(20, 40), log=lambda _: None)
    assert verdict.sets[0].gain_db == pytest.approx(0)
    assert verdict.unit == "kb/s"
    assert verdict.sets[0].shipped[0][0] > 1
