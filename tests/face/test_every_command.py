"""Commands over data sets, measuring and training: every option once, in lines as users type them."""

from __future__ import annotations

import argparse
import shlex

import numpy as np
import pytest
import soundfile
from PIL import Image

import latentzip as lz
from latentzip.cli import main
from latentzip.cli.app import _parser

TINY = "--set steps=2 --set batch=1 --set crop=64 --set warmup=0"
LINES = {
    "pack": [
        "in out -c walloc-rgb-linear -q 30 --coding fast --labels folders --mirror --shuffle 3 -j 1 --quiet",
        "in squares --size 32 --crop center --shard-samples 2 --on-error fail --jobs 1 --json --effort 1",
        "in tokens -c vq --levels 2 --size 32 --crop center -j 1",
        "in out --size 32 --crop none --shard-size 1MB --on-error skip --engine local -j 1 --force",
        "in parts --shard-index 0 --num-shards 2 -j 1 --shard-samples 2",
        "in parts --shard-index 1 --num-shards 2 -j 1 --shard-samples 2",
        "in parts --merge --shard-samples 2",
        "in paired -c walloc-rgb-linear --pair whole=in,lossless --modality image --labels t.csv --columns words -j 1",
        "sounds cut -c audio --seconds 0.1 --short drop --rate 8000 --channels mono -j 1 --quiet",
        "tensors close -c features --max-error 0.1 --nan keep --transform identity --axis -1 -j 1",
        "tensors near -c features --relative-error 0.1 -j 1",
        "tensors mean -c features --nmse 0.1 -j 1",
        "tensors few -c features --bits 4 -j 1",
        "tensors all -c features --lossless -j 1",
    ],
    "unpack": ["made out --as ltz -j 1", "made out --as ltz -f --json", "made out3 --as png --quiet"],
    "cache": ["made --out tier -j 1 --json", "made --quiet"],
    "eval": [
        "p.png -c jpeg@50 -c walloc-rgb-linear -q 30 --metrics psnr --anchor jpeg --report r.html --report-size 2 "
        "--samples 1 -j 1 --device cpu --quiet",
        "p.png -c jpeg@50 --rows rows.jsonl --json",
        "p.png -c jpeg@50 --rows rows.jsonl --resume --csv",
        "p.png -c jpeg@50 --report r.html --force",
    ],
    "bench": ["p.png -c jpeg@50 --threads 1 --seconds 0.01 --json --quiet"],
    "train": [
        f"walloc-rgb-linear --data in --val in --run runs --device cpu --threads 1 --minutes 0.05 --report {TINY}",
        f"walloc-rgb-linear --data in --run again --from release {TINY} --minutes 0.03 --fit",
        "walloc-rgb-16x --data in --run clock --set batch=1 --set crop=64 --set drawn=0 --minutes 0.03 --by-clock",
    ],
}  # fmt: skip
ELSEWHERE = {
    "pack": {"--address"},  # of a cluster: tests of Ray
    "eval": {"--weights"},  # tests of CompressAI
    # a compiler, a GPU; releases are made by tests of training
    "train": {"--compile", "--probe-batch", "--export", "--about-data", "--version", "--test"},
}


def options_of(command):
    root = _parser(command)
    groups = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    for action in groups.choices[command]._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            yield action


@pytest.mark.parametrize("command", LINES)
def test_every_option_stands_in_a_line(command):
    typed = {word for line in LINES[command] for word in shlex.split(line) if word.startswith("-")}
    for action in options_of(command):
        names = set(action.option_strings)
        assert names & (typed | ELSEWHERE.get(command, set())), f"{command}: {action.option_strings[-1]}"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:80, :96]
    for i in range(4):
        folder = tmp_path / "in" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([x * 2, y * 2, (x + y + 9 * i) % 256], -1).astype(np.uint8)).save(folder / f"{i}.png")
    Image.open(tmp_path / "in" / "a" / "0.png").save(tmp_path / "p.png")
    (tmp_path / "t.csv").write_text("path,words\n" + "".join(f"{'ab'[i % 2]}/{i}.png,number {i}\n" for i in range(4)))
    for name in ("sounds", "tensors"):
        (tmp_path / name).mkdir()
    soundfile.write(tmp_path / "sounds" / "s.wav", np.sin(np.arange(2000) / 9), 8000)
    np.save(tmp_path / "tensors" / "x.npy", np.sin(np.arange(600, dtype=np.float32)).reshape(60, 10))


@pytest.mark.parametrize("command", LINES)
@pytest.mark.usefixtures("place")
def test_lines_as_they_are_typed(command, capsys):
    if command in ("unpack", "cache"):
        lz.data.pack("in", "made", "walloc-rgb-linear", jobs=1, coding="fast")
    for line in LINES[command]:
        status = main([command, *shlex.split(line)])
        assert status == 0, (line, capsys.readouterr().err)
