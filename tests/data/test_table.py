"""Tables of embeddings: rows by number, more codes for rows that are read often, from few bytes in memory."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz
from latentzip.data import EmbeddingTable
from latentzip.kernels import table_levels

from . import damage


def vectors(count=600, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((dim, dim)) * 0.85 ** np.arange(dim)[:, None]
    return (rng.standard_normal((count, dim)) @ mix + 0.5).astype(np.float32)


def reads(count=600, seed=0):
    return np.random.default_rng(seed).permutation(1e5 / np.arange(1, count + 1))


def off(table, x, weights):
    wrong = ((x - table[:]) ** 2).sum(1)
    return float((wrong * weights).sum() / (((x - x.mean(0)) ** 2).sum(1) * weights).sum())


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return EmbeddingTable.write(tmp_path_factory.mktemp("table") / "x.ltz", vectors(), counts=reads(), size=4)


def test_rows_that_are_read_often_have_more_codes(table, tmp_path):
    x, often = vectors(), reads()
    assert (table.shape, table.dtype, len(table)) == (x.shape, np.float32, 600)
    assert table.sizes[0] == 600
    assert table.sizes == sorted(table.sizes, reverse=True)
    assert 0.98 * 4 * 600 < 2 * sum(table.sizes) <= 4 * 600 + 2
    assert table.memory - table.once < 600 * 4.7
    flat = EmbeddingTable.write(tmp_path / "flat.ltz", x, counts=often, size=4, width=4, levels=1)
    assert flat.memory - flat.once == 600 * 4
    assert off(table, x, often) < 0.7 * off(flat, x, often)
    alike = EmbeddingTable.write(tmp_path / "alike.ltz", x, size=4)
    assert off(alike, x, np.ones(600)) < off(table, x, np.ones(600))
    assert lz.inspect(table.path).shape == x.shape


def test_rows_by_number(table):
    whole = table[:]
    again = pickle.loads(pickle.dumps(table))
    some = [599, 0, 63, 64, 0, -600, 300]
    assert np.array_equal(again[some], whole[some])
    assert np.array_equal(again[-1], whole[599])
    assert table[[]].shape == table[5:5].shape == (0, 12)
    for wrong in (600, -1501, [0, 600]):
        with pytest.raises(IndexError):
            table[wrong]


def test_half_precision(tmp_path):
    x = vectors(300).astype(np.float16)
    table = EmbeddingTable.write(tmp_path / "x.ltz", x, size=4, width=2, levels=2)
    assert table[[5]].dtype == np.float16
    assert off(table, x.astype(np.float32), np.ones(300)) < 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size is 0"), ({"width": 13, "size": 20}, "width 13"), ({"size": 30, "width": 5}, "levels 4"),
        ({"levels": 0}, "levels is 0"), ({"counts": np.ones(9)}, "counts have shape"),
        ({"counts": -np.ones(600)}, "from 0"), ({"counts": np.zeros(600)}, "not all of them 0"),
    ],
)  # fmt: skip
def test_arguments(options, words, tmp_path):
    with pytest.raises(lz.InputError, match=words):
        EmbeddingTable.write(tmp_path / "x.ltz", vectors(), **options)
    assert not list(tmp_path.iterdir())


def test_bad_rows_and_files(table, tmp_path):
    x = vectors()
    x[7, 3] = np.nan
    with pytest.raises(lz.InputError, match="NaN"):
        EmbeddingTable.write(tmp_path / "x.ltz", x, size=4, levels=2)
    with pytest.raises(lz.UnsupportedError, match="EmbeddingTable"):
        lz.decode(table.path)
    damage.check(Path(table.path), tmp_path, EmbeddingTable)


def test_damage_under_checksums_that_fit(table, tmp_path):
    stream, rng = lz.entropy.container.read(Path(table.path).read_bytes()), np.random.default_rng(0)
    path = tmp_path / "x.ltz"
    for _ in range(60):
        chunks = [bytearray(c) for c in stream.chunks]
        part = chunks[rng.integers(1, len(chunks))]
        part[rng.integers(len(part))] ^= 1 << int(rng.integers(8))
        path.write_bytes(lz.entropy.container.write(stream.header, [bytes(c) for c in chunks]))
        try:
            found = EmbeddingTable(path)[:]
        except lz.CodecError:
            continue
        assert found.shape == (600, 12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 77), st.integers(1, 4), st.integers(1, 4), st.integers(1, 300), st.integers(0, 99))
def test_loops_agree(d, groups, levels, rows, seed):
    rng = np.random.default_rng(seed)
    books = rng.standard_normal((levels, groups, 7, d)).astype(np.float32)
    given = rng.integers(1, levels + 1, rows)
    sizes = np.array([(given > level).sum() for level in range(levels)])
    codes = rng.integers(0, 7, (int(sizes.sum()), groups)).astype(np.uint8)
    words, rank = table_levels.index([(given > k)[given >= k] for k in range(1, levels)], rows)
    numbers, first = rng.integers(0, rows, 40), rng.standard_normal(d).astype(np.float32)
    parts = books, codes, sizes, words, rank, numbers, first
    found = table_levels.table_levels(*parts)
    assert np.array_equal(found, table_levels.plain(*parts))
    blocks = np.split(codes, np.cumsum(sizes)[:-1])
    r, right = numbers[0], first.astype(np.float64)
    for level in range(given[r]):
        block = blocks[level][(given[:r] > level).sum()]
        right = right + sum(books[level, j, block[j]] for j in range(groups))
    np.testing.assert_allclose(found[0], right, rtol=1e-4, atol=1e-4)
