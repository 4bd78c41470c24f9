"""Stores of embeddings: what is written comes back, by number, in parts, and is searched."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.data import CodeStore, EmbeddingStore, EmbeddingTable
from latentzip.entropy import container


def vectors(count=900, dim=48, seed=0):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((12, dim))
    x = rng.standard_normal((count, 12)) @ mix + 0.2 * rng.standard_normal((count, dim)) + 0.5
    return x.astype(np.float32)


def nmse(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return EmbeddingStore.write(tmp_path_factory.mktemp("store") / "x.ltz", vectors(), nmse=0.02, group=128)


def test_error_and_size(store):
    x = vectors()
    assert (store.shape, store.dtype, len(store)) == (x.shape, np.float32, 900)
    assert 0.012 < nmse(x, store[:]) < 0.021
    once = len(store.profile.to_bytes())
    assert 8 * (store.num_bytes - once) / x.size < 2.2
    assert store.num_bytes == os.path.getsize(store.path)
    assert lz.inspect(store.path).shape == x.shape


def test_rows_by_number(store):
    whole = store[:]
    assert np.array_equal(store[-1], whole[899])
    assert np.array_equal(store[130:390:7], whole[130:390:7])
    some = [899, 0, 127, 128, 0, -900, 500]
    assert np.array_equal(store[some], whole[some])
    assert np.array_equal(store[np.array(some)], whole[some])
    assert store[[]].shape == store[5:5].shape == (0, 48)
    coarse = store.read(range(900), components=6)
    assert 0.1 < nmse(vectors(), coarse) < 0.6
    for wrong in (900, -901, [0, 900]):
        with pytest.raises(IndexError):
            store[wrong]
    for wrong in ([True] * 900, [0.5]):
        with pytest.raises(lz.InputError, match="whole numbers"):
            store[wrong]
    with pytest.raises(lz.InputError, match="components is 49"):
        store.read([0], components=49)


def test_only_the_groups_of_a_batch_are_decoded(store, monkeypatch):
    fresh = EmbeddingStore(store.path)
    seen = []
    decode = fresh._decode
    monkeypatch.setattr(
        fresh, "_decode", lambda group, components=None: seen.append(group) or decode(group, components)
    )
    fresh[[5, 700, 130, 6, 131]]
    assert sorted(seen) == [0, 1, 5]


def test_iterables_are_written_in_groups(tmp_path):
    x = vectors(700)
    codec = lz.FeatureCodec.fit(x, nmse=0.02)
    one = EmbeddingStore.write(tmp_path / "one.ltz", x, codec=codec, group=64)
    parts = (torch.from_numpy(p) for p in np.split(x, [1, 63, 64, 300]))
    many = EmbeddingStore.write(tmp_path / "many.ltz", parts, codec=codec, group=64)
    assert Path(one.path).read_bytes() == Path(many.path).read_bytes()
    fitted = EmbeddingStore.write(tmp_path / "fitted.ltz", iter(np.split(x, 7)), nmse=0.02)
    assert nmse(x, fitted[:]) < 0.021
    finer = EmbeddingStore.write(tmp_path / "finer.ltz", x, codec=codec, nmse=0.005)
    assert 0.003 < nmse(x, finer[:]) < 0.0053
    half = EmbeddingStore.write(tmp_path / "half.ltz", x.astype(np.float16), codec=codec)
    assert half[:3].dtype == np.float16
    last = EmbeddingStore.write(tmp_path / "last.ltz", x[:1], codec=codec)
    assert last.shape == (1, 48)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_search_is_that_of_the_decoded_rows(store, metric, monkeypatch):
    from latentzip.data.embeddings import store as embeddings

    monkeypatch.setattr(embeddings, "_BLOCK", 256)
    x, queries = store[:], vectors(5, seed=3)
    scores, numbers = store.search(queries, 7, metric)
    a, b = (t / np.linalg.norm(t, axis=1, keepdims=True) if metric == "cosine" else t for t in (queries, x))
    expected = a @ b.T
    assert np.array_equal(numbers, np.argsort(-expected, axis=1)[:, :7])
    np.testing.assert_allclose(scores, np.sort(expected, axis=1)[:, ::-1][:, :7], rtol=1e-4)
    # and nearly that of what was written
    right = np.argsort(-(a @ (vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)).T), axis=1)[:, :7]
    if metric == "cosine":
        assert np.mean([len(np.intersect1d(p, q)) for p, q in zip(numbers, right)]) > 4
    for wrong in ({"k": 0}, {"k": 901}, {"metric": "l2"}):
        with pytest.raises(lz.InputError):
            store.search(queries, **wrong)
    with pytest.raises(lz.InputError, match="queries have 9"):
        store.search(np.zeros((1, 9), np.float32))


def test_stores_travel_to_other_processes(store):
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again[77], store[77])


def test_what_cannot_be_written(tmp_path):
    x, path = vectors(50), tmp_path / "x.ltz"
    bad = x.copy()
    bad[33, 2] = np.nan
    wrong = [
        (x.astype(np.float64), {}, "float64"), (x[0], {}, "rows"), (x[:1], {}, "two rows"), ([], {}, "two rows"),
        ([x, x[:, :5]], {}, "5 channels"), (x, {"group": 0}, "group"), (x, {"nmse": 3}, "nmse"),
        (bad, {"codec": lz.FeatureCodec.fit(x)}, "row 33"), (x, {"codec": lz.FeatureCodec()}, "no profile"),
        (x, {"codec": lz.FeatureCodec.fit(x[:, :9])}, "9 channels"), (["text"], {}, "str"),
    ]  # fmt: skip
    for vectors_, options, text in wrong:
        with pytest.raises(lz.InputError, match=text):
            EmbeddingStore.write(path, vectors_, **options)
        assert os.listdir(tmp_path) == []
    EmbeddingStore.write(path, x)
    with pytest.raises(lz.InputError, match="exists already"):
        EmbeddingStore.write(path, x)
    EmbeddingStore.write(path, x[:20], force=True)
    assert len(EmbeddingStore(path)) == 20


def test_damaged_and_foreign_files(store, tmp_path):
    path = tmp_path / "x.ltz"
    store_bytes = Path(store.path).read_bytes()
    data = bytearray(store_bytes)
    data[-40] ^= 1  # in the last group
    path.write_bytes(data)
    damaged = EmbeddingStore(path)
    assert np.array_equal(damaged[0], store[0])
    with pytest.raises(lz.FormatError, match="checksum"):
        damaged[899]
    for cut in (0, 10, 100, len(store_bytes) - 1):
        path.write_bytes(store_bytes[:cut])
        with pytest.raises(lz.FormatError):
            EmbeddingStore(path)
    path.write_bytes(lz.encode(vectors(5), codec="features"))
    with pytest.raises(lz.FormatError, match="not a store"):
        EmbeddingStore(path)
    with pytest.raises(lz.UnsupportedError, match="EmbeddingStore"):
        lz.decode(store.path)
    box = container.read(store_bytes)
    header = box.header
    for change in ({"shape": (900, 47)}, {"shape": (9000, 48)}, {"params": b"\1" + bytes(8)}, {"dtype": "bfloat16"}):
        path.write_bytes(container.write(replace(header, **change), list(box.chunks)))
        with pytest.raises(lz.FormatError):
            EmbeddingStore(path)[-1]


@pytest.mark.parametrize(("name", "kind"), [("rows", EmbeddingStore), ("codes", CodeStore), ("table", EmbeddingTable)])
def test_golden_files(name, kind):
    folder = Path(__file__).resolve().parents[1] / "golden" / "kv"
    np.testing.assert_allclose(kind(folder / f"{name}.ltz")[:], np.load(folder / f"{name}.npy"), atol=1e-4)
