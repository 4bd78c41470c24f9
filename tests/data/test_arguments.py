"""Arguments of packing and loading: numpy's numbers are numbers, everything else is one clear error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import latentzip as lz
from latentzip import CodecError, InputError
from latentzip.data.reading import transforms

from .packs import make_pack

data: Any = lz.data  # what is handed in here is wrong on purpose


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("arguments"), [(32, 32)] * 6, mirror=True, shard_samples=2)


@pytest.mark.parametrize(
    "options",
    [
        {"window": -1},  # cut no shard out of an epoch, and looped for ever
        {"batch_size": "4"}, {"batch_size": 2.0}, {"batch_size": True}, {"batch_size": None}, {"epochs": 1.5},
        {"epochs": "1"}, {"seed": 1.5}, {"seed": 1 << 64}, {"prefetch": None}, {"shuffle": "no"}, {"drop_last": 1},
        {"bucket": "x"}, {"rank": "0", "world": "1"}, {"device": "tpu"}, {"device": "cuda:99"},
    ],
    ids=str,
)  # fmt: skip
def test_streams_refuse(made, options):
    with pytest.raises(CodecError, match=r" is |device|window"):
        data.LatentStream(made, **({"batch_size": 2, "epochs": 1} | options))


@pytest.mark.parametrize(
    "options",
    [
        {"mirror": True}, {"mirror": "0.5"}, {"mirror": float("nan")}, {"seed": -1}, {"seed": None}, {"threads": 0},
        {"threads": "2"}, {"streams": ["mask"]}, {"streams": "mask"}, {"columns": 3}, {"transform": "crop"},
        {"transform": transforms.RandomCrop}, {"device": "tpu", "to": "signal"},
    ],
    ids=str,
)  # fmt: skip
def test_data_sets_refuse(made, options):
    with pytest.raises(InputError, match=r" is |device"):
        data.LatentDataset(made, **options)


def test_numbers_of_numpy_are_numbers(made):
    plain = data.LatentDataset(made, mirror=0.5, seed=3, threads=1, transform=transforms.RandomCrop(2))
    crop: Any = np.int64(2)
    own = data.LatentDataset(
        made, mirror=np.float32(0.5), seed=np.int64(3), threads=np.int32(1), transform=transforms.RandomCrop(crop)
    )
    plain.set_epoch(4)
    own.set_epoch(np.int64(4))
    assert torch.equal(plain.__getitems__([0, 1, 2]).columns["latent"], own.__getitems__([0, 1, 2]).columns["latent"])
    state = data.LatentStream(own, np.int64(2), seed=np.uint8(7)).state_dict()
    assert state == data.LatentStream(plain, 2, seed=7).state_dict()
    assert all(type(v) is int for v in state.values())


@pytest.mark.parametrize("wrong", [[1.5], ["1"], [True], np.array([True, False]), [None], [[0, 1]]], ids=repr)
def test_samples_are_asked_for_by_integers(made, tmp_path, wrong):
    read_by = data.LatentDataset(made)
    for read in (read_by.__getitems__, read_by.archive.read_many, data.build_cache(made, tmp_path / "tier").gather):
        with pytest.raises(InputError, match=r"integer|list of numbers"):
            read(wrong)
    numbers = [torch.tensor(1), np.uint64(0), -1]
    assert read_by.__getitems__(numbers).columns["index"].tolist() == [1, 0, 5]


@pytest.mark.parametrize("size", ["x", None, 1.5, (2,), 0, True])
def test_crops_refuse(size: Any):
    with pytest.raises(InputError, match="size is"):
        transforms.RandomCrop(size)


@pytest.mark.parametrize(
    "options",
    [
        {"size": "16"}, {"size": 16.0}, {"mirror": "no"}, {"shuffle": "1"}, {"shuffle": 1 << 70},
        {"shard_size": "1MB"}, {"shard_samples": 1.5}, {"jobs": True}, {"part": 3}, {"part": (2, 2)},
        {"pairs": ["mask"]}, {"pairs": {"mask": 3}}, {"pairs": {"mask": ("x",)}}, {"columns": "text"}, {"columns": [3]},
        {"codec": "walloc-audio-5x", "rate": 10**12}, {"codec": "walloc-audio-5x", "seconds": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_packing_refuses(made, tmp_path, options):
    with pytest.raises(InputError, match=r"part|pair| is "):
        data.pack(made.parent / "src", tmp_path / "pack", **options)
    assert not list(tmp_path.iterdir())


def test_options_of_numpy_make_the_same_pack(made, tmp_path):
    asked = {"size": 24, "shuffle": 5, "shard_samples": 4, "mirror": False}
    own = {name: np.asarray(value)[()] for name, value in asked.items()}
    for name, options in (("plain", asked), ("own", own)):
        data.pack(made.parent / "src", tmp_path / name, jobs=1, **options)
    assert (tmp_path / "own/manifest.json").read_bytes() == (tmp_path / "plain/manifest.json").read_bytes()


def test_a_writer_refuses_at_once_what_would_spoil_the_pack(tmp_path):
    x = torch.randn(3, 4)

    def begun():
        return data.PackWriter(tmp_path / "pack", "features", shard_samples=np.int64(1), nmse=np.float64(0.1))

    writer = begun()
    writer.add(x, 1, key="a")
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with begun() as writer:
        assert writer.done == 1
        for arguments, message in (((x, 2, "a"), "occurs twice"), ((x,), "no label"), ((x, 1 << 70), "64 bits")):
            with pytest.raises(InputError, match=message):
                writer.add(*arguments)
        writer.add(x, 2)
    assert data.Archive(tmp_path / "pack").columns["label"].tolist() == [1, 2]


STORES: Any = {"EmbeddingStore": {"nmse": 0.1}, "CodeStore": {"size": 2}, "EmbeddingTable": {"size": 2}}


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)


@pytest.mark.parametrize("name", STORES)
def test_stores_refuse(tmp_path, rows, name):
    store = getattr(data, name)
    wrong = {
        "EmbeddingStore": [{"nmse": "a"}, {"nmse": True}, {"group": 1.5}],
        "CodeStore": [{"size": "a"}, {"size": True}, {"price": "a"}, {"price": float("nan")}, {"group": None}],
        "EmbeddingTable": [{"size": None}, {"size": float("inf")}, {"levels": "a"}, {"width": 1.5}],
    }[name]
    for options in wrong:
        with pytest.raises(InputError, match=r" is .*needed"):
            store.write(tmp_path / "store", rows, **(STORES[name] | options))
    with pytest.raises(InputError, match="two rows or more"):
        store.write(tmp_path / "store", rows[:0], **STORES[name])
    with pytest.raises(TypeError):  # not the file that has this number here
        store(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [1e25, 1e-30])
@pytest.mark.parametrize("name", ["CodeStore", "EmbeddingTable"])
def test_codebooks_refuse_what_their_squares_do_not_hold(tmp_path, rows, name, scale):
    with pytest.raises(InputError, match="power of two"):  # was lost, all of it, or an error of linear algebra
        getattr(data, name).write(tmp_path / "store", rows * np.float32(scale), **STORES[name])


def test_a_store_of_parts_that_differ_is_refused(tmp_path, rows):
    for store, options in ((data.CodeStore, {"size": 2}), (data.EmbeddingStore, {"nmse": 0.1})):
        with pytest.raises(InputError, match="of 2 channels"):
            store.write(tmp_path / "store", [rows, rows[:, :2]], **options)
    product = data.CodeStore.write(tmp_path / "store", rows, size=2).product
    with pytest.raises(InputError, match="row 300 "):
        data.CodeStore.write(tmp_path / "other", iter([rows, rows * np.float32(1e20)]), product=product)


@pytest.mark.parametrize("name", STORES)
def test_what_stores_are_asked_for(tmp_path, rows, name):
    store = getattr(data, name).write(tmp_path / "store", rows, **STORES[name])
    for wrong in (True, [True, False], [1.5], None):
        with pytest.raises(InputError, match="rows"):
            store[wrong]
    if name == "EmbeddingTable":
        return
    scores, numbers = store.search(rows[:0], k=np.int64(3))
    assert scores.shape == numbers.shape == (0, 3)
    for k in (0, 301, "a", 1.5, None, True):
        with pytest.raises(InputError, match="k is "):
            store.search(rows[:1], k=k)
    with pytest.raises(InputError, match="row 0 holds NaN"):
        store.search(rows[:1] * np.float32("nan"))


def test_a_tensor_that_cannot_be_packed_is_named(tmp_path):
    np.savez(tmp_path / "acts.npz", hidden=np.zeros((3, 4), np.float32), ids=np.arange(3))
    nan = {"x": torch.ones(3), "bad": torch.full((3,), torch.nan), "n": torch.arange(3)}
    safetensors.torch.save_file(nan, tmp_path / "more.safetensors")
    np.savez(tmp_path / "none.npz", ids=np.arange(3))
    out = tmp_path.parent / "packed-tensors"
    result = data.pack(tmp_path, out, "features", nmse=0.1, nan="refuse", jobs=1)
    assert (result.samples, result.skipped) == (2, 4)
    assert data.Archive(out).columns["key"].tolist() == ["acts@hidden", "more@x"]
    lines = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["acts.npz", "more.safetensors", "more.safetensors", "none.npz"]
    for line, start in zip(lines, ("tensor 'ids': features", "bad: ", "tensor 'n': ", "tensor 'ids': ")):
        assert line["reason"].startswith(start)
    with pytest.raises(InputError, match=r"acts\.npz: tensor 'ids': features takes float16"):
        data.pack(tmp_path, tmp_path.parent / "no-tensors", "features", jobs=1, on_error="fail")
