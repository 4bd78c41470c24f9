"""Training of the network behind decoded speech: what its losses say of errors, a short run, a release."""

import json
import shutil

import numpy as np
import pytest
import torch

from latentzip import pretrained
from latentzip.codecs.audio.codec import from_bytes
from latentzip.training import postfilter
from latentzip.training.hearing import RATE, Disturbance, mel_distance


def sound(seconds=2):
    t, rng = np.arange(seconds * RATE) / RATE, np.random.default_rng(0)
    pulses = np.diff(np.floor(130 * t + 2 * np.sin(5 * t)), prepend=0)
    ring = np.exp(-250 * t[:600]) * np.cos(2 * np.pi * 700 * t[:600])
    x = np.convolve(pulses, ring)[: t.size] * np.maximum(np.sin(12 * t), 0.02) + rng.normal(0, 1e-3, t.size)
    return torch.from_numpy(x.astype(np.float32) / 2)[None]


def test_losses_know_how_bad_an_error_is():
    x = sound()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for loss in (Disturbance(), mel_distance):
        values = [float(loss(x, x + scale * noise)) for scale in (0, 1e-4, 1e-3, 1e-2)]
        assert values == sorted(values)
        assert values[0] < 0.05 < values[2]
        y = (x + 0.01 * noise).requires_grad_()
        loss(x, y).sum().backward()
        assert y.grad is not None
        assert torch.isfinite(y.grad).all()
        assert y.grad.abs().max() > 0


def test_added_sound_is_worse_than_missing_sound():
    x, heard = sound(), Disturbance()
    tone = 0.05 * torch.sin(2 * torch.pi * 2000 * torch.arange(x.shape[1]) / RATE)
    assert float(heard(x, x + tone)) > float(heard(x + tone, x))


def test_a_short_training_becomes_a_release(tmp_path):
    import soundfile

    (tmp_path / "data" / "speech").mkdir(parents=True)
    soundfile.write(tmp_path / "data" / "speech" / "a.wav", sound()[0].numpy(), RATE)
    folder = tmp_path / "out"
    folder.mkdir()
    shutil.copy(f"{pretrained.__path__[0]}/index.json", folder)
    small = postfilter.Schedule(narrow=4, rounds=2, batch=2, seconds=1.0)
    options = ["--data", str(tmp_path / "data"), "--export", str(folder), "--version", "99", "--steps", "2"]
    assert not postfilter.main(options, small)
    codec = from_bytes((folder / "audio-v99.safetensors").read_bytes())
    base = from_bytes(pretrained.release("audio", "3").read())
    assert codec.config.filter == 4
    assert codec.fingerprint != base.fingerprint
    assert codec.tables is not None
    assert all(np.array_equal(a, base.coding_arrays()[k]) for k, a in codec.coding_arrays().items())
    entry = json.loads((folder / "index.json").read_text())["codecs"][-1]
    assert (entry["version"], entry["fingerprint"], entry["current"]) == ("99", codec.fingerprint.hex(), True)
    assert (folder / "audio-v99.safetensors").stat().st_size < 20_000


def test_without_speech_there_is_nothing_to_train_on(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(b"")
    with pytest.raises(postfilter.InputError, match="no speech"):
        postfilter.excerpts(from_bytes(pretrained.find("audio").read()), str(tmp_path), 1, np.random.default_rng(0))
