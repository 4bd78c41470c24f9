"""Snippets of the pages that are no quick start: each page a script of its own, in the order of the page, with what the
text around them speaks of."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn

import latentzip as lz
from latentzip import cli
from latentzip.evaluation.metrics import registry

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# what takes a GPU, hours or a download: their own tests have the same calls on small things
ELSEWHERE = {
    "trainer.train(": "tests/training/test_bottleneck.py",
    "ResNet50_Weights": "tests/evaluation/test_perception.py",
    "compressai:mbt2018-mean": "tests/codecs/test_compressai.py",
    'device="cuda"': "tests/gpu/test_hyperprior_batch.py",
    "BatchEncoder(": "tests/gpu/test_coder.py",
    "class BlockMeans": "tests/codecs/test_plugins.py",
    "codec-cli bench ": "tests/face/test_every_command.py",
    "ffmpeg ": "tests/face/test_audio_files.py",
}
QUICK = ("quickstart-", "effort")  # test_pages.py


def blocks(page: str) -> list[tuple[str, str]]:
    return [b for b in BLOCK.findall((DOCS / page).read_text()) if b[0] == "python" or b[1].startswith("codec-cli")]


PAGES = [p.name for p in sorted(DOCS.glob("*.md")) if not p.name.startswith(QUICK) and blocks(p.name)]


class Teacher(nn.Module):
    """Layers under the names of torchvision's ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        self.maxpool, self.layer1 = nn.MaxPool2d(2), nn.Conv2d(8, 256, 1)
        self.layer2, self.layer3, self.layer4 = (nn.Conv2d(n, 8, 1) for n in (256, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.conv1, self.bn1, self.relu, self.maxpool, self.layer1, self.layer2, self.layer3):
            x = layer(x)
        return self.layer4(x).mean((2, 3))


def scope_of(page: str) -> dict[str, Any]:
    """What the text of a page presumes."""
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "Path": Path, "F": nn.functional}
    if page == "audio.md":
        scope |= {"a": np.zeros(900, np.float32), "b": np.zeros((700, 2), np.float32)}
        scope["blocks"] = [torch.zeros(2, 5000), torch.zeros(2, 3000)]
    if page == "audio-codec.md":
        scope["blocks"] = [torch.zeros(1, 900), torch.zeros(1, 300)]
    if page == "bottleneck.md":
        scope |= {"x": torch.rand(2, 3, 32, 48), "quality": 40.0, "teacher": Teacher().eval(), "lmbda": 0.1}
        scope |= {"labels": torch.tensor([1, 2]), "pixels": 2 * 32 * 48}
    if page == "datasets.md":
        scope |= {"device": "cpu", "step": lambda y, label: (y.sum() + label.sum()).item()}
        scope["DataLoader"] = lambda *args, num_workers, **more: torch.utils.data.DataLoader(*args, **more)
    if page == "perception.md":
        from latentzip.evaluation.perception import LogMel, Network

        def pixels(x: Any) -> torch.Tensor:
            return torch.from_numpy(np.array(x)).permute(2, 0, 1).float() / 255

        task = Network("means", nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), pixels, answers="none")
        scope |= {"Network": Network, "LogMel": LogMel, "task": task}
    return scope


@pytest.fixture
def folder(page, tmp_path, monkeypatch):
    y, x = np.mgrid[:64, :72]
    pixels = np.stack([90 + 80 * np.sin(x / 9), 90 + 80 * np.cos(y / 7), x + y], -1).astype(np.uint8)
    for name in ("photo.png", "scan.png", "photo.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    for i in range(20 if page == "datasets.md" else 2):
        place = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, 3 * i, 0)).save(place)
    wave = 0.4 * np.sin(np.arange(125 * 2000) * 0.1)
    soundfile.write(tmp_path / "song.flac", wave, 2000)
    if page == "datasets.md":
        for i in range(2):
            (tmp_path / "clips" / str(i)).mkdir(parents=True)
            soundfile.write(tmp_path / "clips" / str(i) / "one.wav", wave[:9000], 2000)
        (tmp_path / "acts").mkdir()
        np.save(tmp_path / "acts" / "a.npy", np.outer(wave[:64], wave[:16]).astype(np.float32))
    (tmp_path / "album").mkdir()
    soundfile.write(tmp_path / "album" / "one.flac", wave[:5000], 2000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))  # pages add some
    monkeypatch.setenv("I", "0")


def command(line: str) -> None:
    words = shlex.split(line.replace("$I", "0").replace("--num-shards 8", "--num-shards 1"), comments=True)
    if not words:
        return
    assert words[0] == "codec-cli", line
    if words[1:3] == ["pack", "photos/"]:
        if "--merge" not in words:
            shutil.rmtree("packed", ignore_errors=True)
        # smaller, with the labels and the twins that the page reads
        words += ["-j", "1", "--coding", "fast", "--mirror", "--labels", "folders", "--size", "64"]
    assert cli.main(words[1:]) == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_snippets(page, folder):
    scope = scope_of(page)
    for language, text in blocks(page):
        Path("report.html").unlink(missing_ok=True)  # two ways to write it stand on a page
        if language == "python":
            if any(mark in text for mark in ELSEWHERE):
                continue
            if "config" in scope:  # a page goes back from coding to training
                scope["bottleneck"] = lz.EntropicBottleneck(scope["config"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = text.replace("256", "8") if page == "datasets.md" else text  # 20 samples make no batch of 256
                exec(compile(text, page, "exec"), scope)
            continue
        for line in text.splitlines():
            if not any(mark in line + " " for mark in ELSEWHERE):
                command(line)


def test_what_is_tested_elsewhere_is_there():
    for file in ELSEWHERE.values():
        assert (DOCS.parent / file).is_file(), file
