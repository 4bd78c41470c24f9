"""Packs of tokens: what loaders yield, and a model that is trained on it."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.cli.app import main

sys.path.insert(0, str(Path(__file__).resolve().parent))
from packs import make_pack, picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("tokens"), [(96, 96)] * 6, codec="vq", levels=2)


@pytest.mark.parametrize("tier", ["archive", "cache"])
def test_loaders_yield_tokens(pack, tier, tmp_path):
    data = lz.data.LatentDataset(pack, to="tokens", tier=tier, cache=tmp_path / "c" if tier == "cache" else None)
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=data.sampler(3, shuffle=False), collate_fn=lz.data.latent_collate
    )
    batches = list(loader)
    assert [b["tokens"].shape for b in batches] == [(3, 2, 6, 6)] * 2
    assert batches[0]["tokens"].dtype == torch.uint16
    codec = data.codec
    first = torch.tensor(np.asarray(picture(0, (96, 96)))).permute(2, 0, 1)
    number = [int(i) for b in batches for i in b["index"]].index(0)
    key = lz.data.Archive(pack).columns["key"][0]
    assert "000" in str(key)
    assert torch.equal(torch.cat([b["tokens"] for b in batches])[number].long(), codec.tokens(first, 2))
    assert data.quality == codec.quality_of(2)
    latents = lz.data.LatentDataset(pack, tier="archive")
    assert latents[0]["latent"].shape == (codec.config.levels, 6, 6)
    assert lz.data.LatentDataset(pack, to="tokens")[1]["label"] in (0, 1)


def test_the_command_takes_levels(tmp_path):
    (tmp_path / "in").mkdir()
    picture(0, (40, 64)).save(tmp_path / "in" / "0.png")
    command = ["pack", str(tmp_path / "in"), str(tmp_path / "out"), "-c", "vq", "--size", "32", "--levels", "3"]
    assert main([*command, "--jobs", "1", "--quiet"]) == 0
    assert lz.data.LatentDataset(tmp_path / "out", to="tokens")[0]["tokens"].shape == (3, 2, 2)


def test_other_packs_have_none(tmp_path):
    other = make_pack(tmp_path, [(32, 32)], codec="walloc-rgb-16x")
    with pytest.raises(lz.InputError, match="latents of walloc-rgb-16x, which are no tokens"):
        lz.data.LatentDataset(other, to="tokens")
    with pytest.raises(lz.InputError, match="one of latent, signal, bytes"):
        lz.data.LatentDataset(other, streams={"mask": "tokens"})


def test_a_model_learns_tokens(pack, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    example: Any = importlib.import_module("examples.tokens")
    model, plain = example.train(str(pack), steps=60, batch=6, width=32)
    assert model < 6.5  # 9 before it has learned anything
    assert 1 < plain < 8


def test_packs_of_sound(tmp_path):
    import soundfile

    (tmp_path / "in").mkdir()
    for i in range(3):
        x = 0.5 * np.sin(np.arange(60_000) * (0.02 + 0.01 * i))
        soundfile.write(tmp_path / "in" / f"{i}.wav", np.stack([x, -x], 1), 44100)
    lz.data.pack(tmp_path / "in", tmp_path / "out", codec="vq-audio", seconds=0.5, levels=3, jobs=1)
    data = lz.data.LatentDataset(tmp_path / "out", to="tokens")
    assert (data[0]["tokens"].dtype, data[0]["tokens"].shape) == (torch.uint16, (3, 22))
    assert data.quality == data.codec.quality_of(3)
    batch = data.__getitems__([0, 1])
    blob = lz.data.LatentDataset(tmp_path / "out", to="bytes")[1]["bytes"]
    assert torch.equal(batch[1]["tokens"].long(), lz.decode(blob, to="tokens"))
    short = lz.data.LatentDataset(tmp_path / "out", to="tokens", seconds=0.2, place="start")
    assert torch.equal(short[1]["tokens"], batch[1]["tokens"][:, : short[1]["tokens"].shape[1]])
