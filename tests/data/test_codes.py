"""Stores of product codes: what is written comes back, is searched without being decoded, and takes few bytes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz
from latentzip.codecs.vq import product
from latentzip.codecs.vq.residual import Schedule, fit_level
from latentzip.data import CodeStore
from latentzip.kernels import table_sums
from latentzip.kernels.table_levels import table_rows

from . import damage


def vectors(count=1500, dim=45, seed=0):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((12, dim))
    x = rng.standard_normal((count, 12)) @ mix + 0.2 * rng.standard_normal((count, dim)) + 0.5
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return CodeStore.write(tmp_path_factory.mktemp("codes") / "x.ltz", vectors(), size=10, group=400)


def test_sizes_and_error(store):
    x = vectors()
    assert (store.shape, store.dtype, store.codes.shape, store.codes.dtype) == (
        x.shape,
        np.float32,
        (1500, 10),
        np.uint8,
    )
    assert ((x - store[:]) ** 2).sum() < 0.2 * ((x - x.mean(0)) ** 2).sum()
    assert (store.num_bytes - store.once) / len(x) < 9.85  # fewer than the codes, a byte each
    finer = CodeStore.write(store.path + "2", x, size=20)
    assert ((x - finer[:]) ** 2).sum() < 0.5 * ((x - store[:]) ** 2).sum()
    assert lz.inspect(store.path).shape == x.shape


def test_rows_by_number(store):
    whole = store[:]
    again = pickle.loads(pickle.dumps(store))
    some = [1499, 0, 399, 400, 0, -1500, 700]
    np.testing.assert_allclose(again[some], whole[some], atol=1e-5)
    assert np.array_equal(again.codes_of(some), store.codes[some])
    np.testing.assert_allclose(again[-1], whole[1499], atol=1e-5)
    assert store[[]].shape == store[5:5].shape == (0, 45)
    assert np.allclose(store.product.rows(torch.from_numpy(store.codes)).numpy(), whole, atol=1e-5)
    books, codes = store.codebooks, torch.from_numpy(store.codes).long()
    added = sum(books[i, codes[:, i]] for i in range(codes.shape[1])) + store.product.mean
    np.testing.assert_allclose(added.numpy(), whole, atol=1e-4)
    for wrong in (1500, -1501, [0, 1500]):
        with pytest.raises(IndexError):
            store[wrong]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_search_is_that_of_the_decoded_rows(store, metric):
    rows, queries = store[:], vectors(90, seed=3)
    scores, numbers = store.search(queries, k=7, metric=metric)
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True) if metric == "cosine" else queries
    x = rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows
    wanted = np.sort(q @ x.T, 1)[:, ::-1][:, :7]
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(q @ x.T, numbers, 1), scores, rtol=1e-4, atol=1e-4)


def test_iterables_dtypes_and_quantisers_of_ones_own(store, tmp_path):
    x = vectors().astype(np.float16)
    parts = CodeStore.write(tmp_path / "a.ltz", (part for part in np.array_split(x, 7)), product=store.product)
    whole = CodeStore.write(tmp_path / "b.ltz", x, product=store.product)
    assert parts.dtype == np.float16
    assert np.array_equal(parts[:], whole[:])
    assert (tmp_path / "a.ltz").read_bytes() == (tmp_path / "b.ltz").read_bytes()


def test_prices_trade_error_for_bytes(tmp_path):
    x = vectors(4000)
    plain, priced = (CodeStore.write(tmp_path / f"{p}.ltz", x, size=9, price=p) for p in (0.0, 2.0))
    assert priced.num_bytes < plain.num_bytes
    assert ((x - priced[:]) ** 2).sum() > ((x - plain[:]) ** 2).sum()


@pytest.mark.parametrize(("options", "words"), [
    ({"size": 46}, "cannot be dealt out to 46"), ({"size": 0}, "size is 0"), ({"group": 0}, "group is 0"),
    ({"price": -1.0}, "price is -1"),
])  # fmt: skip
def test_arguments(options, words, tmp_path):
    with pytest.raises(lz.InputError, match=words):
        CodeStore.write(tmp_path / "x.ltz", vectors(), **options)
    assert not list(tmp_path.iterdir())


def test_bad_rows_and_queries(store, tmp_path):
    x = vectors()
    x[7, 3] = np.nan
    with pytest.raises(lz.InputError, match="row 7 holds NaN"):
        CodeStore.write(tmp_path / "x.ltz", x, size=9)
    with pytest.raises(lz.InputError, match="100 rows are too few"):
        CodeStore.write(tmp_path / "x.ltz", x[100:200], size=9)
    with pytest.raises(lz.InputError, match="channels"):
        CodeStore.write(tmp_path / "x.ltz", x[:, :40], product=store.product)
    for queries, k in ((x[:9], 3), (vectors(2, 44), 3), (vectors(2), 1501), (vectors(2), 0)):
        with pytest.raises(lz.InputError):
            store.search(queries, k=k)
    with pytest.raises(lz.InputError, match="metric"):
        store.search(vectors(2), metric="l2")
    with pytest.raises(lz.UnsupportedError, match="CodeStore"):
        lz.decode(store.path)


def test_damage_is_an_error(store, tmp_path):
    damage.check(Path(store.path), tmp_path, lambda path: CodeStore(path).codes)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(2, 256), st.integers(1, 40), st.integers(0, 99))
def test_sums_agree(q, m, n, rows, seed):
    rng = np.random.default_rng(seed)
    tables = rng.standard_normal((q, m, n)).astype(np.float32)
    codes = rng.integers(0, n, (rows, m)).astype(np.uint8)
    plain = table_sums.plain(tables, codes)
    assert np.array_equal(table_sums.table_sums(tables, codes), plain)
    np.testing.assert_allclose(plain[0, 0], sum(tables[0, j, codes[0, j]] for j in range(m)), rtol=1e-4, atol=1e-4)


def test_the_fit_turns_and_orders():
    x = torch.from_numpy(vectors(3000, 30))
    found = product.fit(x, 5, 32, rank=30)
    identity = found.rotation @ found.rotation.T
    torch.testing.assert_close(identity, torch.eye(30), atol=1e-4, rtol=0)
    error = (x - found.rows(found.codes(x))).square().sum()
    start = product.fit(x[:, torch.randperm(30)], 5, 32, rank=30)
    assert start.codewords.shape == (5, 32, 6)
    # fixed axes, the same number of codewords
    groups = x.reshape(-1, 5, 6).transpose(0, 1)
    fixed = 0.0
    for part in groups:
        centred = part - part.mean(0)
        books, _ = fit_level(centred, 32, torch.Generator().manual_seed(0), Schedule(price=0.0))
        fixed += float(torch.cdist(centred, books).square().amin(1).sum())
    assert error < 0.9 * fixed


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 77), st.integers(1, 12), st.integers(2, 256), st.integers(1, 40), st.integers(0, 99))
def test_rows_agree(d, m, n, rows, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((m, n, d)).astype(np.float32)
    codes = rng.integers(0, n, (rows, m)).astype(np.uint8)
    numbers, first = rng.integers(0, rows, 7), rng.standard_normal(d).astype(np.float32)
    right = np.repeat(first[None], 7, 0)
    for j in range(m):
        right += vectors[j, codes[numbers, j]]
    assert np.array_equal(table_rows(vectors, codes, numbers, first), right)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_are_the_same_with_codes_in_memory(tmp_path, dtype):
    x = vectors(700, 20).astype(dtype)
    store = CodeStore.write(tmp_path / "x.ltz", x, size=5, group=100)
    ids = np.array([3, 699, 3, -1, 250])
    before = store[ids]
    right = store.product.rows(torch.from_numpy(store.codes[ids].astype(np.int64))).numpy()
    assert before.dtype == dtype
    assert np.array_equal(store[ids], before)
    np.testing.assert_allclose(before.astype(np.float32), right, rtol=2e-3, atol=2e-3)
