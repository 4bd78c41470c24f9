"""Effort and targets through the face: `encode`, files, the command line, `pack` and `eval`."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentzip as lz
from latentzip import InputError
from latentzip.cli.app import main
from latentzip.codecs.base import Codec
from latentzip.codecs.contract import QUALITY
from latentzip.entropy.models import Uniform
from latentzip.evaluation.coders import coder, split_effort


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    plain = np.linspace(0, 200, 96)[:, None, None] + np.zeros((96, 128, 3))
    plain[20:60, 30:80] += (40, -50, 20)
    return (plain + rng.normal(0, 8, plain.shape)).clip(0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_effort_makes_another_stream_that_any_decoder_reads(photo):
    plain, searched = (lz.encode(photo, "hyperprior-fast", 60, effort=e) for e in (None, 2))
    assert lz.encode(photo, "hyperprior-fast", 60, effort=0) == plain
    assert searched != plain
    assert lz.decode(searched).shape == photo.shape
    assert lz.inspect(searched).fingerprint == lz.inspect(plain).fingerprint


@pytest.mark.parametrize(("effort", "limit"), [(None, 900), (1, 1300)])
def test_a_size_is_met_from_below(photo, effort, limit):
    blob = lz.encode(photo, "hyperprior-fast", target_size=limit, effort=effort)
    assert 0.98 * limit <= len(blob) <= limit


def test_a_rate_and_a_psnr(photo):
    blob = lz.encode(photo, "hyperprior-fast", target_bpp=0.6)
    assert 0.588 <= 8 * len(blob) / (96 * 128) <= 0.6
    blob = lz.encode(photo, "hyperprior-fast", target_psnr=30)
    assert 30 <= psnr(lz.decode(blob), photo) < 30.5
    quality = lz.inspect(blob).quality
    assert quality is not None
    below = lz.encode(photo, "hyperprior-fast", quality - 1)
    assert psnr(lz.decode(below), photo) < 30


def test_sound():
    rate = 16_000
    tone = np.sin(np.arange(rate // 4) * 0.05) * 0.3 + np.random.default_rng(0).normal(0, 0.02, rate // 4)
    blob = lz.encode((tone.astype(np.float32), rate), target_kbps=48)
    assert 0.9 * 48 < len(blob) * 8 / 250 <= 48
    with pytest.raises(InputError, match="target_psnr is for pictures"):
        lz.encode((tone.astype(np.float32), rate), target_psnr=30)


class Steps(Codec):
    """A plug-in of variable rate that knows nothing of targets or searches: 8 x 8 means, finer with quality."""

    variable_rate, default_quality = True, 50
    stride, latent_channels = 8, 3
    declared = (QUALITY,)
    name = "steps"

    def analysis(self, x, quality=None):
        assert quality is not None
        pad = [-n % 8 for n in x.shape[-2:]]
        x = torch.nn.functional.pad(x, (0, pad[1], 0, pad[0]), mode="replicate")
        return (torch.nn.functional.avg_pool2d(x, 8) * quality).round().to(torch.int16)

    def program(self, coder, latent, shape, quality=None):
        assert quality is not None
        return coder.code(latent, Uniform(0, int(quality), shape))

    def synthesis(self, latent, size, quality=None):
        assert quality is not None
        x = torch.nn.functional.interpolate(latent / quality, scale_factor=8.0)
        return x[..., : size[0], : size[1]]

    def coding_arrays(self):
        return {}


def test_any_codec_of_variable_rate_has_targets(photo):
    codec = Steps()
    sizes = [len(lz.encode(photo, codec, q)) for q in (1, 30, 60, 100)]
    for goal in (sizes[1], sizes[2]):
        assert len(lz.encode(photo, codec, target_size=goal)) <= goal
    with pytest.raises(InputError, match=f"{sizes[0]} bytes at quality 1 to {sizes[-1]} at quality 100"):
        lz.encode(photo, codec, target_size=sizes[0] - 1)
    with pytest.raises(InputError, match="a quality from 1 to 100"):
        lz.encode(photo, codec, effort=3)


@pytest.mark.parametrize(
    ("codec", "options", "message"),
    [
        ("hyperprior-fast", {"target_size": 500, "target_psnr": 30}, "target_size and target_psnr contradict"),
        ("hyperprior-fast", {"target_size": 500, "quality": 3}, "quality and target_size contradict"),
        ("hyperprior-fast", {"target_size": 10}, r"10 bytes lie outside .* at quality 1 to"),
        ("hyperprior-fast", {"target_size": -10}, "target_size is -10"),
        ("hyperprior-fast", {"target_kbps": 10}, "target_kbps is for sound"),
        ("hyperprior-fast", {"effort": 12}, "effort is 12"),
        ("hyperprior-fast", {"effort": 1, "weight": np.ones((5, 5))}, r"\(5, 5\), the picture \(96, 128\)"),
        ("hyperprior-fast", {"effort": 1, "weight": np.zeros((96, 128))}, "zero everywhere"),
        ("hyperprior-fast", {"weight": np.ones((96, 128))}, "give an effort from 1 to 9"),
    ],
)
def test_refusals(photo, codec, options, message):
    with pytest.raises(InputError, match=message):
        lz.encode(photo, codec, **options)


def test_one_rate_has_no_targets(photo, one_rate):
    with pytest.raises(InputError, match="walloc-rgb-16x has no quality to reach a target by"):
        lz.encode(photo, one_rate, target_size=500)


def test_command_line(photo, tmp_path, capsys):
    Image.fromarray(photo).save(tmp_path / "a.png")
    weight = np.zeros((96, 128), np.uint8)
    weight[20:60, 30:80] = 255
    Image.fromarray(weight).save(tmp_path / "w.png")
    source, target = str(tmp_path / "a.png"), str(tmp_path / "a.ltz")
    options = ["-c", "hyperprior-fast", "--target", "0.8KB", "--effort", "1", "--weight", str(tmp_path / "w.png")]
    assert main(["encode", source, "-o", target, *options]) == 0
    assert 0.97 * 800 <= (tmp_path / "a.ltz").stat().st_size <= 800
    small = np.zeros((9, 9), np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    wrong = ["-c", "hyperprior-fast", "--effort", "1", "--weight", str(tmp_path / "small.png")]
    assert main(["encode", source, "-o", str(tmp_path / "b.ltz"), *wrong]) == 1
    assert "(9, 9), the picture (96, 128)" in capsys.readouterr().err
    twice = ["--target", "1KB", "--target", "2KB"]
    for wrong in (twice, ["--target", "1KB", "-q", "5"], ["--target", "1 apple"], ["--effort", "10"]):
        try:
            code = main(["encode", source, "-o", str(tmp_path / "b.ltz"), "-c", "hyperprior-fast", *wrong])
        except SystemExit as stop:
            code = stop.code
        assert code == 2
    assert main(["encode", source, "-o", str(tmp_path / "b.ltz"), "-c", "hyperprior-fast", "--target", "3B"]) == 1
    assert "outside of what hyperprior-fast makes" in capsys.readouterr().err
    assert not (tmp_path / "b.ltz").exists()


def test_packs_and_evaluation_take_an_effort(photo, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo[:64, :64]).save(tmp_path / "in" / "a.png")
    sizes = []
    runs: dict[str, dict[str, Any]] = {"plain": {}, "searched": {"effort": 2}}
    for name, options in runs.items():
        lz.data.pack(tmp_path / "in", tmp_path / name, "walloc-rgb-16x", jobs=1, **options)
        sizes.append(sum(f.stat().st_size for f in (tmp_path / name).rglob("*.tar")))
    assert len(sizes) == 2
    assert coder("walloc-rgb-16x@e3").name == "walloc-rgb-16x@e3"
    assert split_effort("30,50,e7") == ("30,50", 7)
    assert [s.value for s in coder("hyperprior-fast@30,50,e2").settings] == [30, 50]
    with pytest.raises(InputError, match="jpeg has no effort"):
        coder("jpeg@e3")
