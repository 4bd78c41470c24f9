"""Odd and hostile data sets: nothing is lost without a word, names lead nowhere, numbers are bounded."""

import io
import json
import os
import subprocess
import sys
import tarfile
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.data import Archive, EmbeddingStore, LatentDataset, LatentStream, build_cache, check_pack, pack
from latentzip.data.cache import Cache

from .conftest import CODEC
from .packs import make_pack, picture


def png(value=90):
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (value,) * 3).save(out, "PNG")
    return out.getvalue()


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


ORDERS = [
    ("1.png", "2.png", "1.cls", "2.cls"),
    ("2.cls", "1.png", "1.cls", "2.png"),
    ("./1.png", "./1.cls", "./2.png", "2.cls"),
]


@pytest.mark.parametrize("names", ORDERS)
def test_members_of_a_webdataset_apart(tmp_path, names):
    data = {"1.png": png(), "2.png": png(9), "1.cls": b"5", "2.cls": b"6"}
    tar_of(tmp_path / "w.tar", [(n, data[n.removeprefix("./")]) for n in names])
    pack(tmp_path / "w.tar", tmp_path / "p", CODEC, jobs=1)
    columns = Archive(tmp_path / "p").columns
    assert dict(zip(columns["key"].tolist(), columns["label"].tolist())) == {"1": 5, "2": 6}


def test_labels_without_a_picture_are_told(tmp_path):
    tar_of(tmp_path / "w.tar", [("1.png", png()), ("1.cls", b"5"), ("3.cls", b"7")])
    with pytest.warns(lz.ConversionWarning, match="1 labels have no picture"):
        pack(tmp_path / "w.tar", tmp_path / "p", CODEC, jobs=1)


def latent(**fields):
    return lambda m: m["latent"].update(fields)


@pytest.mark.parametrize("change", [
    latent(fixed_shape=1), latent(fixed_shape=[-1, 4, 4]), latent(fixed_shape=[12, 1 << 16, 1 << 16]),
    latent(fixed_shape=[12, 4000, 4000]), latent(dtype="int9"), latent(dtype="int16"),
    lambda m: m["latent"].pop("dtype"),
    lambda m: m.pop("modality"), lambda m: m["shards"][0].update(bytes=10**30),
    lambda m: m["shards"][0].update(file="../x.tar"), lambda m: m.update(fingerprint="zz"),
    lambda m: m["columns"]["label"].update(classes=3), lambda m: m["columns"]["label"].update(classes=["a"]),
], ids=range(13))  # fmt: skip
def test_hostile_manifests_are_format_errors(tmp_path, change):
    made = make_pack(tmp_path, [(32, 32)] * 2, codec=CODEC)
    path = made / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    for use in (
        lambda: LatentDataset(made, tier="archive")[1],
        lambda: build_cache(made, tmp_path / "tier", threads=1) and Archive(made).columns["label"],
    ):
        with pytest.raises(lz.FormatError):
            use()
    with suppress(lz.FormatError):
        assert check_pack(made, deep=True).problems


@pytest.mark.parametrize(("name", "data"), [
    ("l.json", b"["), ("l.json", b"[" * 100_000), ("l.json", b'{"a": NaN}'), ("l.json", b'{"a": 1e999}'),
    ("l.json", b'{"a": 99999999999999999999}'), ("l.json", b'{"a": [1]}'), ("l.json", b'[{"path": "a", "label": {}}]'),
    ("l.json", b"7"), ("l.json", b"[]"), ("l.json", b"\xff\xfe{}"), ("l.csv", b"\xff\xff\xff"), ("l.csv", b""),
    ("l.csv", b"path,label\na,b\n" + b"x" * 200_000 + b",b"), ("l.csv", b"path,label\na," + b"y" * 100_000),
    ("l.csv", b"path\na"), ("l.csv", b"path,label\na"),
], ids=range(16))  # fmt: skip
def test_hostile_files_of_labels(tmp_path, name, data):
    (tmp_path / "src").mkdir()
    picture(0, (16, 16)).save(tmp_path / "src" / "a.png")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(lz.CodecError, match=r"l\.(json|csv)"):
        pack(tmp_path / "src", tmp_path / "out", CODEC, labels=str(tmp_path / name), jobs=1)


def test_a_pipe_of_labels_is_refused(tmp_path):
    os.mkfifo(tmp_path / "l.csv")
    (tmp_path / "src").mkdir()
    picture(0, (16, 16)).save(tmp_path / "src" / "a.png")
    with pytest.raises(lz.FormatError, match="not a regular file"):
        pack(tmp_path / "src", tmp_path / "out", CODEC, labels=str(tmp_path / "l.csv"), jobs=1)


@pytest.mark.parametrize("name", ["00000.npy", "cache.json"])
@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_cut_training_tier(tmp_path, name, left):
    made = make_pack(tmp_path, [(32, 32)] * 2, codec=CODEC)
    folder = build_cache(made, tmp_path / "tier", threads=1).path
    path = tmp_path / "tier" / name
    path.write_bytes(path.read_bytes().rstrip(b"\n")[:left])
    with pytest.raises(lz.FormatError, match=name.replace(".", r"\.")):
        Cache(folder).gather(range(2))


@pytest.mark.parametrize("change", [
    {"files": ["../../../elsewhere.npy"]}, {"files": [5]}, {"samples": None}, {"samples": 10**30}, {"samples": 3},
], ids=range(5))  # fmt: skip
def test_hostile_descriptions_of_a_training_tier(tmp_path, change):
    made = make_pack(tmp_path, [(32, 32)] * 2, codec=CODEC)
    folder = build_cache(made, tmp_path / "tier", threads=1).path
    path = tmp_path / "tier" / "cache.json"
    facts = json.loads(path.read_text())
    facts["shards"][0].update(change)
    path.write_text(json.dumps(facts))
    with pytest.raises(lz.FormatError):
        Cache(folder)


def test_states_that_make_no_sense(mirrored_pack):
    stream = LatentStream(mirrored_pack, 6, epochs=2, seed=1)
    good = stream.state_dict()
    wrongs: list[dict[str, Any]] = [{"step": 10**9}, {"step": -1}, {"epoch": "1"}, {"seed": None}]
    for wrong in wrongs:
        with pytest.raises(lz.InputError):
            stream.load_state_dict(good | wrong)
    assert sum(1 for _ in stream) == 6
    again = LatentStream(mirrored_pack, 6, epochs=2, seed=1)
    again.load_state_dict(stream.state_dict())
    assert sum(1 for _ in again) == 0  # it was all done
    assert sum(1 for _ in again) == 6
    with pytest.raises(IndexError):
        LatentDataset(mirrored_pack)[-19]


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e12])
def test_a_store_keeps_its_error_at_any_scale(tmp_path, scale):
    rng = np.random.default_rng(0)
    x = ((rng.standard_normal((700, 6)) @ rng.standard_normal((6, 20))) * scale).astype(np.float32)
    for nmse in (0.01, 0.2):
        y = EmbeddingStore.write(tmp_path / "s.ltz", x, nmse=nmse, force=True)[:]
        wide = x.astype(np.float64)
        assert ((y - wide) ** 2).sum() <= 1.001 * nmse * ((wide - wide.mean(0)) ** 2).sum()


SCRIPT = """
import latentzip as lz
lz.data.pack("in", "out", "walloc-rgb-linear", size=16, coding="fast", jobs=2, shard_samples=2)
print("packed", len(lz.data.Archive("out")))
"""


def test_pack_in_a_script_without_a_main_guard(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.png").write_bytes(png(i))
    (tmp_path / "train.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["packed", "4"], done.stderr
