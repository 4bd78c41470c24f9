"""Training of WaLLoC for sound, on generated recordings: mixtures, losses, a run, and the release that it makes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from latentzip.codecs.walloc.audio import WallocAudioConfig, from_bytes
from latentzip.kernels.wavelet import wavelet_packet1d
from latentzip.training.audio_data import MixtureSampler
from latentzip.training.recipes import make_trainer
from latentzip.training.spectral import FrameRate, MelLoss, mel_filters
from latentzip.training.walloc_audio import RECIPES, fit_linear

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    t = np.arange(16000) / 16000
    for kind, pitch, rate in (("low", 90, 44100), ("high", 700, 44100), ("speech", 200, 16000)):
        (folder / kind).mkdir()
        x = 0.4 * np.sin(2 * np.pi * pitch * t * (1 + 0.2 * t)) + 0.05 * np.random.default_rng(pitch).standard_normal(
            16000
        )
        soundfile.write(folder / kind / "a.wav", x if kind == "speech" else np.stack([x, 0.5 * x], 1), rate)
    return folder


def test_mixtures_are_repeatable_and_bounded(recordings):
    a, b = MixtureSampler(recordings, 6, 4096, seed=3), MixtureSampler(recordings, 6, 4096, seed=3, start=1)
    first, second = a.make(), a.make()
    assert first.shape == (6, 2, 4096)
    assert torch.equal(second, b.make())
    assert not torch.equal(first, second)
    assert float(first.abs().max()) <= 1 + 1e-6
    assert float(first.abs().amax((1, 2)).min()) > 0.05


def test_mel_filters_cover_the_spectrum_once():
    bank = mel_filters(20, 2048, 44100)
    assert bank.shape == (20, 1025)
    inside = bank.sum(0)[int(bank[0].argmax()) + 1 : int(bank[-1].argmax())]
    torch.testing.assert_close(inside, torch.ones_like(inside), atol=1e-4, rtol=0)


def test_mel_loss_is_a_distance_in_db():
    x = torch.randn(1, 2, 8192, generator=torch.Generator().manual_seed(0))
    assert float(MelLoss()(x, x)) == 0
    assert float(MelLoss()(x, 10 * x)) == pytest.approx(20, abs=0.2)


def test_frame_rate_learns_the_scale():
    z = (5 * torch.randn(4, 3, 200, generator=torch.Generator().manual_seed(0))).round()
    rate = FrameRate(3)
    optimizer = torch.optim.Adam(rate.parameters(), 0.05)
    loss = rate(z).mean()
    for _ in range(60):
        loss = rate(z).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ideal = 0.5 * np.log2(2 * np.pi * np.e * 25)  # of a Gaussian in unit steps
    assert ideal - 0.05 < loss.item() < ideal + 0.2


def test_a_run_and_its_release(recordings, tmp_path):
    model = WallocAudioConfig(levels=5, latent_channels=9, width=8, depth=1)
    recipe = replace(RECIPES["walloc-audio-20x"], model=model, steps=3, batch=2, crop=4096, warmup=1)
    trainer = make_trainer(recipe, str(recordings), tmp_path / "run")
    bands = wavelet_packet1d(trainer.sampler.make(), 5)
    before = trainer.model.decoder.linear(trainer.model.encoder(bands)).detach()
    # nine of 64 components hold most of what such mixtures are
    assert float((before - bands).square().sum() / bands.square().sum()) < 0.5
    lines = []
    trainer.train(str(recordings), log=lines.append, every=3)
    assert any("validation snr" in line for line in lines)
    options = {"steps": 5, "samples": 500, "value_taps": 2, "magnitude_taps": 2, "hidden": 2}
    file = trainer.export(
        tmp_path, data=str(recordings), val=str(recordings), test=None, version="7", log=lines.append, **options
    )
    codec = from_bytes(file.read_bytes())
    entry = json.loads((tmp_path / "index.json").read_text())["codecs"][0]
    assert (entry["name"], entry["modality"], entry["fingerprint"]) == (codec.name, "audio", codec.fingerprint.hex())
    assert set(entry["results"]) == {"val_kbps", "val_snr_db", "val_mel_db"}
    assert "3 recordings" in file.with_suffix(".md").read_text()
    x = torch.randn(1, 1, 3000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert codec.decode(codec.encode(x, 44100))[0].shape == (1, 3000)


def test_linear_fit_is_orthonormal():
    from latentzip.codecs.walloc.audio import WallocAudio

    model = WallocAudio(WallocAudioConfig(levels=4, latent_channels=6, width=4, depth=0))
    fit_linear(model, torch.randn(4, 2, 2048, generator=torch.Generator().manual_seed(0)), gain=10)
    rows = model.encoder.weight[..., 0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-4, rtol=0)
