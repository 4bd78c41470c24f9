"""Fitting the codec `audio` to a folder of sounds: what comes out codes them, better than tables of other sounds."""

import json
from typing import Any

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.codecs.audio import codec as audio
from latentzip.training.cli import main
from latentzip.training.recipes import RECIPES, make_trainer

soundfile = pytest.importorskip("soundfile")
RATE = 8000


def sound(seed):
    """Two channels of beeps that come every fifth of a second, over faint noise: (T, 2)."""
    rng = np.random.default_rng(seed)
    t = np.arange(2 * RATE) / RATE
    beeps = np.sin(2 * np.pi * rng.uniform(300, 2000) * t) * np.exp(-20 * (t % 0.2))
    return 0.3 * np.stack([beeps, rng.uniform(-1, 1) * beeps], 1) + 0.001 * rng.normal(size=(t.size, 2))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    for kind in range(2):
        (folder / "data" / str(kind)).mkdir(parents=True)
        for i in range(3):
            soundfile.write(folder / "data" / str(kind) / f"{i}.wav", sound(10 * kind + i), RATE)
    (folder / "out").mkdir()
    code = main([
        "audio", "--data", str(folder / "data"), "--test", str(folder / "data" / "0"), "--run", str(folder / "run"),
        "--export", str(folder / "out"), "--set", "steps=16", "--set", "crop=40",
        "--set", "lowest=58", "--set", "highest=62",
        "--about-data", "Generated beeps.",
    ])  # fmt: skip
    assert code == 0
    return folder / "out"


def test_a_release_is_complete(fitted):
    (entry,) = json.loads((fitted / "index.json").read_text())["codecs"]
    assert entry["name"] == "audio"
    assert entry["loader"] == "latentzip.codecs.audio:load_bundled"
    assert "Generated beeps." in (fitted / "audio-v1.md").read_text()
    assert entry["results"]["q50_kbps"] > 0
    codec = lz.load_codec(fitted / "audio-v1.safetensors")
    assert codec.fingerprint.hex() == entry["fingerprint"]


def test_fitted_tables_suit_what_they_were_fitted_to(fitted):
    own = audio.from_bytes((fitted / "audio-v1.safetensors").read_bytes())
    x = torch.from_numpy(sound(99).T.astype(np.float32).copy())
    sizes = []
    bundled: Any = lz.load_codec("audio")
    for codec in (own, bundled):
        packed = codec.compress(x, RATE, 60)
        y = codec.decompress(packed.params, packed.chunks, (2, x.shape[1]), RATE)
        assert float((x - y).square().sum()) < 1e-3 * float(x.square().sum())
        sizes.append(sum(map(len, packed.chunks)))
    assert sizes[0] < sizes[1]


def test_a_folder_without_sounds_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sound files"):
        make_trainer(RECIPES["audio"], str(tmp_path), tmp_path / "run").train()
