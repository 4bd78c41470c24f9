"""What training sees: kinds in balance, drawn pictures and sounds, one file instead of folders."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from latentzip.training import synthetic, synthetic_sounds
from latentzip.training.audio_data import MixtureSampler
from latentzip.training.data import CropSampler, draw_levels
from latentzip.training.device_data import DeviceCropSampler
from latentzip.training.export import pick_pictures
from latentzip.training.sources import list_sources


def save(path, level, count):
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (48, 40), (level, level, level)).save(path / f"{i}.png")


@pytest.fixture
def tree(tmp_path):
    """24 bright pictures, and one dark one that a manifest calls another kind."""
    root = tmp_path / "tree"
    save(root, 200, 24)
    Image.new("RGB", (48, 40), (20, 20, 20)).save(root / "odd.png")
    lines = ["file,kind", "odd.png,night", *(f"{i}.png,photo" for i in range(24))]
    (root / "manifest.csv").write_text("\n".join(lines))
    return root


def zipped(root, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root).as_posix())
    return path


def test_rare_kinds_are_seen_more_often_than_their_share(tree):
    sampler = CropSampler(tree, 4, 32, seed=0)
    means = torch.cat([sampler.make() for _ in range(150)]).float().mean((1, 2, 3))
    dark = (means < 100).float().mean().item()
    assert 0.11 < dark < 0.23  # a sixth by the roots of 1 and 24, not a twenty-fifth


def test_kinds_are_folders_where_no_manifest_says(tmp_path):
    save(tmp_path / "a", 10, 2)
    save(tmp_path / "b", 240, 1)
    assert [s.kind for s in list_sources(tmp_path, {".png"})] == ["a", "a", "b"]
    both = [tmp_path / "a", tmp_path / "b"]
    assert [s.kind for s in list_sources(both, {".png"})] == ["a", "a", "b"]


def test_a_zip_file_is_as_good_as_the_folder(tree, tmp_path):
    one = zipped(tree, tmp_path / "one.zip")
    a, b = CropSampler(tree, 3, 32, seed=1), CropSampler(one, 3, 32, seed=1)
    for _ in range(3):
        assert torch.equal(a.make(), b.make())
    assert len(pick_pictures(one, 5)) == 5


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        list_sources(tmp_path / "nothing-here", {".png"})


@pytest.mark.parametrize("kind", synthetic.KINDS, ids=lambda f: f.__name__)
def test_drawn_pictures(kind):
    for seed in range(6):
        a, b = (kind(np.random.default_rng(seed), 64) for _ in range(2))
        assert a.shape == (64, 64, 3)
        assert a.dtype == np.uint8
        assert np.array_equal(a, b)
    assert len({kind(np.random.default_rng(seed), 64).tobytes() for seed in range(8)}) > 4


@pytest.mark.parametrize("kind", synthetic_sounds.KINDS, ids=lambda f: f.__name__)
def test_drawn_sounds(kind):
    for seed in range(6):
        x = kind(np.random.default_rng(seed), 5000)
        assert x.shape == (5000,)
        assert np.isfinite(x).all()
        assert np.abs(x).max() > 0


def test_pure_tones_are_pure():
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(20):
        spectrum = np.abs(np.fft.rfft(synthetic_sounds.tone(rng, 16384) * np.hanning(16384))) ** 2
        at = int(spectrum.argmax())
        shares.append(spectrum[max(0, at - 4) : at + 5].sum() / spectrum.sum())
    assert max(shares) > 0.999
    assert min(shares) < 0.9  # others have harmonics


def test_share_of_drawn_crops(tree):
    sampler = CropSampler(tree, 4, 32, seed=0, drawn=0.25)
    crops = torch.cat([sampler.make() for _ in range(100)])
    plain = (crops.flatten(1).float().var(1) == 0) & torch.isin(crops[:, 0, 0, 0], torch.tensor([20, 200]).byte())
    assert 0.6 < plain.float().mean() < 0.87
    device = DeviceCropSampler(tree, 4, 32, seed=0, drawn=0.25, recoloured=0.5, device="cpu")
    host = CropSampler(tree, 4, 32, seed=0, drawn=0.25, recoloured=0.5)
    for _ in range(4):
        assert torch.equal(device.make(), host.make())  # of one level each, so that filters do not differ


def test_levels_keep_their_order():
    for seed in range(20):
        levels = draw_levels(np.random.default_rng(seed)).astype(int)
        assert levels.shape == (3, 256)
        assert (np.diff(levels, axis=1) >= 0).all()
        assert np.ptp(levels) > 60


def test_sounds_come_from_several_places_and_drawings(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", np.sin(np.arange(9000) / 9), 44100)
    one = zipped(tmp_path / "b", tmp_path / "b.zip")
    sampler = MixtureSampler([tmp_path / "a", one], 2, 4096, seed=0, drawn=0.3)
    assert len(sampler.clips) == 2
    batch = sampler.make()
    assert batch.shape == (2, 2, 4096)
    assert 0 < batch.abs().max() <= 1
