"""The script for a lent GPU, rehearsed on the CPU at a tenth of its times: every part gets its turn, come what may."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_run.py"


def load_script():
    spec = importlib.util.spec_from_file_location("gpu_run_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for kind in ("field", "town"):
        (folder / kind).mkdir()
        for i in range(3):
            noise = np.cumsum(rng.normal(0, 3, (300, 340, 3)), 0) + 128
            Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def packed(photos):
    out = photos.parent / f"{photos.name}.zip"
    command = [sys.executable, str(SCRIPT), "--pack-data", str(photos), "--out", str(out), "--limit", "0.4"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "field: " in text
    assert out.stat().st_size < 400_000
    return out


def test_packed_data_keep_kinds_and_their_limit(packed):
    from latentzip.training.data import CropSampler

    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert {n.split("/")[0] for n in names} == {"field", "town", "manifest.csv"}
    assert len(CropSampler(packed, 2, 256, 0).kinds) == 2


def test_sounds_are_packed_too(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    from latentzip.training.audio_data import MixtureSampler
    from latentzip.training.travel import pack_data

    (tmp_path / "bell").mkdir()
    soundfile.write(tmp_path / "bell" / "a.wav", 0.5 * np.sin(np.arange(20 * 8000) / 5), 8000)
    assert pack_data(tmp_path, tmp_path / "sounds.zip") == {"bell": 1}
    assert MixtureSampler(tmp_path / "sounds.zip", 1, 4096, 0).make().shape == (1, 2, 4096)


def test_rehearsal(packed, tmp_path):
    """The whole of it; the GPU's own parts are skipped or fail for want of one, and say so."""
    out = tmp_path / "results"
    small = ["--set", "batch=1", "--set", "crop=64", "--set", "walloc-rgb-16x.drawn=0", "--time-scale", "0.1"]
    small += ["--floor", "240", "--seconds", "480", "--beside", "walloc-rgb-16x:2"]
    command = [sys.executable, str(SCRIPT), "hyperprior-fast", "--data", str(packed), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--device", "cpu", *small], capture_output=True, text=True, env=environment)
    results = json.loads((out / "results.json").read_text())
    parts = results["parts"]
    assert set(parts) == {"smoke", "train-hyperprior-fast", "train-walloc-rgb-16x", "tests", "bench"}, done.stderr
    assert parts["smoke"]["status"] == 0, parts["smoke"]
    assert "smoke test passed" in parts["smoke"]["last_lines"]
    for name in ("hyperprior-fast", "walloc-rgb-16x"):
        assert parts[f"train-{name}"]["status"] == 0, parts
        assert any("crops/s" in line for line in parts[f"train-{name}"]["last_lines"])
        assert results["checkpoints"][name] == (out / f"{name}.npz").stat().st_size < 16_000_000
    with zipfile.ZipFile(out / "logs.zip") as archive:
        assert "tests.log" in archive.namelist()
    assert parts["tests"]["status"] == 0, parts["tests"]
    assert (parts["bench"]["status"] == 0) == (out / "gpu.json").exists()
    assert done.returncode == (0 if parts["bench"]["status"] == 0 else 1)
    from latentzip.training.checkpoints import read_small

    average, _, about = read_small(out / "hyperprior-fast.npz")
    assert about["origin"].startswith(("from release", "grown from release"))
    assert about["recipe"]["steps"] == about["step"]  # the clock has come to its end
    assert about["step"] >= 1
    assert "model.log_gain.values" in average


def test_a_part_that_fails_or_hangs_does_not_keep_the_next_from_running(tmp_path):
    module = load_script()
    parser_args = module.argparse.Namespace(out=tmp_path, seconds=100.0, time_scale=0.1, floor=0.0, wheels=None)
    run = module.Run(parser_args)
    start = time.monotonic()
    hang = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('in', flush=True)"
    run.part("hangs", [sys.executable, "-c", hang + "; time.sleep(100)"], 2.0)
    run.part("fails", [sys.executable, "-c", "raise SystemExit(3)"], 20.0)
    run.part("absent", [str(tmp_path / "no-such-program")], 20.0)
    run.part("works", [sys.executable, "-c", "print('here')"], 20.0)
    assert time.monotonic() - start < 60
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert [p["status"] for p in parts.values()] == ["over its limit", 3, "failed to start", 0]
    assert parts["works"]["last_lines"] == ["here"]
    assert run.left() < 10


def test_only_wheels_that_are_missing_are_unpacked(tmp_path, monkeypatch):
    module = load_script()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, inside in (("made_up-1-py3-none-any.whl", "made_up.py"), ("numpy-9-py3-none-any.whl", "numpy.py")):
        with zipfile.ZipFile(wheels / name, "w") as archive:
            archive.writestr(inside, "x = 1\n")
    monkeypatch.setattr(module, "WHEELS", {"made-up": "made_up", "numpy": "numpy"})
    assert sorted(p.name for p in module.unpack(wheels, tmp_path / "site").iterdir()) == ["made_up.py"]


def test_wrong_use_is_explained(tmp_path):
    for arguments in (["hyperprior"], ["--out", str(tmp_path)]):
        done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert "name a recipe with --data and --out" in done.stderr
