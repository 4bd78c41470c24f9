"""Every example of the README runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    y, x = np.mgrid[:264, :280]
    pixels = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    Image.fromarray(pixels[:50, :60]).save(tmp_path / "pictures" / "a.png")
    Image.fromarray(pixels[:31, :17]).save(tmp_path / "pictures" / "more" / "b.jpg")
    soundfile.write(tmp_path / "song.flac", np.sin(np.arange(44100) / 20)[:, None].repeat(2, 1) / 2, 44100)
    save_file({"keys": torch.randn(64, 32)}, tmp_path / "keys.safetensors")
    monkeypatch.chdir(tmp_path)


def test_python_blocks():
    height, width = 40, 48
    scope = {
        "torch": torch,
        "batch": torch.rand(2, 3, height, width),
        "keys": torch.randn(64, 32),
        "H": height,
        "W": width,
    }
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec("import latentzip as lz\n" + block, scope)
    assert scope["photo"].size == (280, 264)
    assert scope["latent"].shape == (12, 33, 35)
    assert scope["samples"].shape == (44100, 2)
    assert scope["rate"] == 44100
    assert scope["pixels"].shape == (1, 3, height, width)


def test_shell_block():
    blocks = re.findall(r"```\n(codec-cli .*?)```", README, re.DOTALL)
    for line in "".join(blocks).splitlines():
        command = line.split("#")[0].split()
        assert command[0] == "codec-cli"
        subprocess.run([sys.executable, "-m", "latentzip", *command[1:]], check=True, capture_output=True)
    for name in (
        "photo.ltz",
        "photo.decoded.png",
        "coded/a.ltz",
        "coded/more/b.ltz",
        "corner.png",
        "song.ltz",
        "keys.tar",
        "report.html",
    ):
        assert Path(name).is_file(), name
    assert Image.open("corner.png").size == (256, 256)
