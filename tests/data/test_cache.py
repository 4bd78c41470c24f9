"""The training tier: the same latents as the streams hold, whole or not there, never stale."""

import json
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import latentzip as lz
from latentzip import cli
from latentzip.data import Archive, Cache, build_cache
from latentzip.data.reading.cache import default_folder, find_cache


def latents(archive, variant=0):
    return [np.asarray(lz.decode(blob, "latent")) for blob in archive.read_many(range(len(archive)), variant)]


@pytest.fixture(scope="module")
def fixed(mirrored_pack, tmp_path_factory):
    return build_cache(mirrored_pack, tmp_path_factory.mktemp("cache") / "fixed", threads=1)


def test_latents_of_one_shape(mirrored_pack, fixed):
    archive = Archive(mirrored_pack)
    plain, twins = np.stack(latents(archive)), np.stack(latents(archive, 1))
    assert (len(fixed), fixed.shape, fixed.dtype, fixed.variants) == (18, plain.shape[1:], np.int8, 2)
    order = np.array([17, 0, 4, 4, -1])
    assert np.array_equal(fixed.gather(order), plain[order])
    assert np.array_equal(fixed.gather(order, 1), twins[order])
    mixed = fixed.gather(order, [0, 1, 0, 1, 0])
    assert np.array_equal(mixed, np.stack([plain[17], twins[0], plain[4], twins[4], plain[-1]]))
    assert np.array_equal(fixed.read(5), plain[5])
    out = np.empty((5, *fixed.shape), np.int8)
    assert fixed.gather(order, out=out) is out
    assert np.array_equal(out, plain[order])
    assert fixed.gather([]).shape == (0, *fixed.shape)
    assert np.array_equal(pickle.loads(pickle.dumps(fixed)).gather(order), plain[order])


def test_what_gather_refuses(fixed):
    with pytest.raises(IndexError, match="of a cache of 18"):
        fixed.gather([18])
    with pytest.raises(lz.InputError, match="variant 2"):
        fixed.gather([0], 2)
    for out in (np.empty((1, *fixed.shape), np.int16), np.empty((2, *fixed.shape), np.int8)):
        with pytest.raises(lz.InputError, match="C-contiguous"):
            fixed.gather([0], out=out)


@pytest.mark.parametrize("compression", ["zstd", "zlib"])
def test_ragged_latents(ragged_pack, tmp_path, compression, monkeypatch):
    if compression == "zlib":
        monkeypatch.setitem(sys.modules, "zstandard", None)
    else:
        pytest.importorskip("zstandard")
    cache = build_cache(ragged_pack, tmp_path / "out", threads=2)
    assert json.loads((tmp_path / "out" / "cache.json").read_bytes())["compression"] == compression
    expected = latents(Archive(ragged_pack))
    assert len({z.shape for z in expected}) > 1
    assert cache.shape is None
    for got, want in zip(cache.gather([6, 0, 3, -1]), [expected[i] for i in (6, 0, 3, 6)]):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)
    record = tmp_path / "out" / "00001.rec"
    data = bytearray(record.read_bytes())
    data[:8] = b"\xff" * 8
    record.write_bytes(data)
    with pytest.raises(lz.FormatError, match=r"record of sample 3.*delete the cache"):
        Cache(tmp_path / "out").read(3)


def test_in_its_default_place_it_is_found_and_never_stale(mirrored_pack, tmp_path, capsys):
    folder = shutil.copytree(mirrored_pack, tmp_path / "pack")
    assert find_cache(Archive(folder)) is None
    assert cli.main(["cache", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 18
    archive = Archive(folder)
    found = find_cache(archive)
    assert found is not None
    assert found == default_folder(archive)
    assert found.parent == folder / ".cache"
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"quality": ', b'"quality":  '))
    changed = Archive(folder)
    assert find_cache(changed) is None
    with pytest.raises(lz.FormatError, match="the cache of another pack"):
        Cache(found, changed)
    with pytest.raises(lz.FormatError, match="the cache of another pack"):
        build_cache(folder, found)


def test_an_unfinished_one_is_gone_on_with(mirrored_pack, tmp_path, fixed, monkeypatch):
    out = tmp_path / "out"
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(mirrored_pack, out, threads=1, progress=stop)
    assert not (out / "cache.json").exists()
    with pytest.raises(lz.FormatError, match=r"cache\.json"):
        Cache(out)
    (out / ".00002.npy.77.part").write_bytes(b"left by a killed process")
    times = {p.name: p.stat().st_mtime_ns for p in out.glob("*.npy")}
    cache = build_cache(mirrored_pack, out, threads=1)
    assert len(times) == 4
    assert all((out / name).stat().st_mtime_ns == time for name, time in times.items())
    assert np.array_equal(cache.gather(range(18), 1), fixed.gather(range(18), 1))
    assert not list(out.glob(".*.part"))


def test_those_who_ask_at_once_share_one(ragged_pack, tmp_path):
    """Locks belong to open files, so threads stand for processes here."""
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: build_cache(ragged_pack, tmp_path / "out", threads=1), range(4)))
    first = caches[0].gather(range(7))
    for cache in caches[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(first, cache.gather(range(7))))
    assert not list((tmp_path / "out").glob(".*.part"))


def test_one_that_another_begins_meanwhile_is_shared(ragged_pack, tmp_path, monkeypatch):
    out, look = tmp_path / "out", Path.iterdir
    out.mkdir()

    def begun_meanwhile(folder):
        if folder == out and not list(look(out)):
            monkeypatch.undo()
            build_cache(ragged_pack, out, threads=1)
            (out / "cache.json").rename(tmp_path / "later.json")
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", begun_meanwhile)
    assert len(build_cache(ragged_pack, out, threads=1)) == 7


def test_foreign_folders_are_left_alone(mirrored_pack, ragged_pack, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(lz.InputError, match="no cache of this pack"):
        build_cache(mirrored_pack, tmp_path)
    build_cache(ragged_pack, tmp_path / "ragged", threads=1)
    with pytest.raises(lz.FormatError, match="the cache of another pack"):
        build_cache(mirrored_pack, tmp_path / "ragged")


def test_damage_is_an_error(mirrored_pack, tmp_path):
    out = tmp_path / "out"
    build_cache(mirrored_pack, out, threads=1)
    np.save(out / "00000.npy", np.zeros((4, 1, 1, 1), np.int8))
    with pytest.raises(lz.FormatError, match=r"00000\.npy.*delete the cache"):
        Cache(out)
    (out / "00000.npy").unlink()
    with pytest.raises(lz.FormatError, match=r"00000\.npy.*delete the cache"):
        Cache(out)
