"""Reading a pack: records, columns, processes, remote paths; `verify` finds all damage; `unpack` goes back."""

import json
import multiprocessing
import os
import pickle
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip import cli
from latentzip.data import Archive, check_pack, pack, unpack
from latentzip.data.archive import INDEX_DTYPE
from latentzip.data.shards import ShardWriter, manifest_bytes, npz_bytes

from .conftest import CODEC
from .packs import manifest


@pytest.fixture
def copy(mirrored_pack, tmp_path):
    """A pack that may be damaged."""
    return shutil.copytree(mirrored_pack, tmp_path / "copy")


def edit_manifest(folder, **fields):
    path = folder / "manifest.json"
    path.write_bytes(manifest_bytes(json.loads(path.read_bytes()) | fields))


# --- reading -----------------------------------------------------------------------------------------------------


def test_records_in_any_order(mirrored_pack):
    archive = Archive(mirrored_pack)
    singles = [archive.read(i) for i in range(18)]
    twins = [archive.read(i, variant=1) for i in range(18)]
    order = [17, 0, 3, 3, -1, 8]
    assert archive.read_many(order, verify=True) == [singles[i] for i in order]
    assert archive.read_many(np.array(order), [0, 1, 0, 1, 1, 0]) == [
        singles[17], twins[0], singles[3], twins[3], twins[17], singles[8],
    ]  # fmt: skip
    assert archive.read_many([]) == []
    assert archive.shard_of([0, 3, 4, 17]).tolist() == [0, 0, 1, 4]
    assert len(archive.offsets) == len(archive) == 18
    for wrong in (18, -19):
        with pytest.raises(IndexError, match="of a pack of 18"):
            archive.read(wrong)
    with pytest.raises(lz.InputError, match="variant is 2"):
        archive.read(0, variant=2)


def test_twins_that_are_not_there(ragged_pack):
    with pytest.raises(lz.InputError, match="--mirror"):
        Archive(ragged_pack).read(0, variant=1)


def test_columns_are_a_mapping(mirrored_pack, ragged_pack):
    columns = Archive(mirrored_pack).columns
    assert list(columns) == ["height", "key", "label", "latent_h", "latent_w", "width"]
    assert all(len(column) == 18 for column in columns.values())
    with pytest.raises(KeyError, match="the pack has the columns"):
        columns["colour"]
    assert "label" not in Archive(ragged_pack).columns


def _first_bytes(archive, queue):
    queue.put([len(blob) for blob in archive.read_many(range(18))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_other_processes(mirrored_pack, method):
    archive = Archive(mirrored_pack)
    sizes = [len(blob) for blob in archive.read_many(range(18))]  # files are open by now
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_first_bytes, args=(archive, queue))
    process.start()
    assert queue.get(timeout=60) == sizes
    process.join()


def test_in_threads_and_without_keeping_files_open(mirrored_pack, monkeypatch):
    monkeypatch.setattr("latentzip.data.archive._OPEN_FILES", 2)
    archive = Archive(mirrored_pack)
    expected = Archive(mirrored_pack).read_many(range(18))
    results = []
    threads = [threading.Thread(target=lambda: results.append(archive.read_many(range(18)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    archive.close()
    assert before is None or len(os.listdir("/proc/self/fd")) == before - 2


def test_pickles_notice_a_changed_pack(copy):
    data = pickle.dumps(Archive(copy))
    assert pickle.loads(data).read(0) == Archive(copy).read(0)
    edit_manifest(copy, quality=3)
    with pytest.raises(lz.FormatError, match="changed since"):
        pickle.loads(data)


def test_remote(mirrored_pack, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(f"{mirrored_pack}/", "/packs/one/", recursive=True)
    local, remote = Archive(mirrored_pack), Archive("memory://packs/one", cache_dir=tmp_path)
    assert len(remote) == 18
    assert remote.read_many([5, 1, 17], [0, 1, 0], verify=True) == local.read_many([5, 1, 17], [0, 1, 0])
    assert remote.columns["label"].tolist() == local.columns["label"].tolist()
    cached = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert cached == {f"{n:05d}{m}.idx.npy" for n in range(5) for m in ("", ".mirror")} | {"columns.npz"}
    assert pickle.loads(pickle.dumps(remote)).read(0) == local.read(0)
    with pytest.raises(lz.FormatError, match=r"no manifest\.json"):
        Archive("memory://packs/two")
    with pytest.raises(lz.UnsupportedError, match="nosuch"):
        Archive("nosuch://packs/two")


def test_file_urls_are_local_paths(mirrored_pack):
    archive = Archive(f"file://{mirrored_pack}")
    assert archive.path == str(mirrored_pack)


def test_what_is_no_pack(tmp_path):
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "nothing")
    with pytest.raises(lz.FormatError, match="no packed data set"):
        Archive(tmp_path)
    (tmp_path / "manifest.json").write_text("[1")
    with pytest.raises(lz.FormatError, match="not JSON"):
        Archive(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(lz.FormatError, match="not the manifest"):
        Archive(tmp_path)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"version": 3}, lz.UnsupportedError, "install a newer"),
        ({"samples": 17}, lz.FormatError, "contradict"),
        ({"variants": 3}, lz.FormatError, "variants is 3; 1 or 2"),
        ({"shards": 3}, lz.FormatError, "damaged manifest"),
        (
            {"shards": [{"file": "../../x.tar", "samples": 18, "bytes": 9, "sha256": "ab" * 32}]},
            lz.FormatError,
            r"shards\[0\].file is",
        ),
        ({"shards": [{"samples": 18}]}, lz.FormatError, r"shards\[0\].file is missing"),
    ],
)
def test_hostile_manifests(copy, fields, error, text):
    edit_manifest(copy, **fields)
    with pytest.raises(error, match=text):
        Archive(copy)


def test_shards_hold_twins_of_all_or_none(tmp_path):
    with pytest.raises(lz.InputError, match="either every sample"), ShardWriter(tmp_path, "00000.tar", True) as shard:
        shard.add("a", b"x")
    assert list(tmp_path.iterdir()) == []


# --- verify ------------------------------------------------------------------------------------------------------


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def append(path, data):
    path.write_bytes(path.read_bytes() + data)


def rewrite_index(path, change):
    index = np.load(path)
    change(index)
    np.save(path, index)


def rewrite_columns(folder, **columns):
    with np.load(folder / "columns.npz") as file:
        old = {name: file[name] for name in file.files}
    (folder / "columns.npz").write_bytes(npz_bytes(old | columns))


DAMAGES = {
    "a bit of a stream": (lambda p: flip(p / "00001.tar", 700), "checksum does not match the index"),
    "a tar header": (lambda p: flip(p / "00001.tar", 3), "tar header differs"),
    "a missing shard": (lambda p: (p / "00004.tar").unlink(), "00004.tar: No such file"),
    "a short shard": (lambda p: os.truncate(p / "00002.tar", 2000), "00002.tar"),
    "bytes at the end": (lambda p: append(p / "00002.tar", b"x"), "does not end where it should"),
    "a missing index": (lambda p: (p / "00000.idx.npy").unlink(), "00000.idx.npy is missing"),
    "a foreign index": (lambda p: np.save(p / "00000.idx.npy", np.zeros(4)), "an index of 4 entries"),
    "an index beyond the shard": (
        lambda p: rewrite_index(p / "00000.idx.npy", lambda a: a["offset"].fill(2**63)), "beyond the end"),
    "a shifted index": (
        lambda p: rewrite_index(p / "00003.mirror.idx.npy", lambda a: a["offset"].__iadd__(1)), "the index says"),
    "another shard's checksum": (
        lambda p: rewrite_index(p / "00003.idx.npy", lambda a: a["crc32"].__iadd__(1)), "does not match the index"),
    "a label": (lambda p: rewrite_columns(p, label=np.full(18, 3)), "labels outside the 3 classes"),
    "a key": (lambda p: rewrite_columns(p, key=np.full(18, "a/b")), "a key occurs twice"),
    "a column's length": (lambda p: rewrite_columns(p, label=np.zeros(17, np.int64)), "17 entries for 18"),
    "no columns": (lambda p: (p / "columns.npz").unlink(), "columns.npz"),
    "a foreign codec": (lambda p: edit_manifest(p, fingerprint="00" * 8), "not of the manifest's codec"),
    "wrong shapes": (lambda p: rewrite_columns(p, latent_h=np.full(18, 4, np.int32)), "latent shapes differ"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_finds(copy, damage):
    hurt, text = DAMAGES[damage]
    hurt(copy)
    problems = check_pack(copy).problems
    assert any(text in problem for problem in problems), problems


def test_reading_damage_is_an_error(copy):
    flip(copy / "00001.tar", 700)
    archive = Archive(copy)
    with pytest.raises(lz.FormatError, match="checksum of sample 4"):
        archive.read(4, verify=True)
    os.truncate(copy / "00002.tar", 600)
    with pytest.raises(lz.FormatError, match=r"00002\.tar: truncated"):
        archive.read(8)
    (copy / "00003.tar").unlink()
    with pytest.raises(lz.FormatError, match="is missing"):
        archive.read(12)


def test_deep_verify_decodes(copy):
    """Streams that are whole, and of the right size, but not those of the columns."""
    archive = Archive(copy)
    other = lz.encode(np.zeros((24, 24, 3), np.uint8), CODEC)
    keys = archive.columns["key"].tolist()
    twins = archive.read_many(range(16, 18), 1)
    with ShardWriter(copy, "00004.tar", True) as shard:
        for key, twin in zip(keys[16:], twins):
            shard.add(key, other, twin)
    shards = archive.manifest["shards"]
    assert shard.info is not None
    edit_manifest(copy, shards=[*shards[:4], vars(shard.info)])
    assert check_pack(copy).problems == []
    assert any("the columns say" in p for p in check_pack(copy, deep=True).problems)


def test_verify_command(mirrored_pack, copy, capsys):
    assert cli.main(["verify", str(mirrored_pack), "--deep"]) == 0
    assert "18 samples, 5 shards" in capsys.readouterr().out
    flip(copy / "00001.tar", 700)
    flip(copy / "00002.tar", 700)
    assert cli.main(["verify", str(copy), str(mirrored_pack)]) == 1
    out, err = capsys.readouterr()
    assert "2 problems" in err
    assert "00001.tar: ant" in err
    assert f"{mirrored_pack}: ok" in out


# --- unpack ------------------------------------------------------------------------------------------------------


def test_unpack_and_pack_again(mirrored_pack, pictures, tmp_path):
    archive = Archive(mirrored_pack)
    assert unpack(mirrored_pack, tmp_path / "ltz", "ltz") == 18
    assert (tmp_path / "ltz" / "bee" / "04.ltz").read_bytes() == archive.read(7)
    assert unpack(mirrored_pack, tmp_path / "png") == 18
    decoded = lz.decode(archive.read(0), "numpy")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "png" / "ant" / "00.png")), decoded)
    pack(tmp_path / "png", tmp_path / "again", CODEC, labels=tmp_path / "png" / "labels.csv", jobs=1)
    again = Archive(tmp_path / "again")
    assert again.columns["label"].tolist() == archive.columns["label"].tolist()
    assert again.manifest["columns"]["label"]["classes"] == ["ant", "bee", "cat"]
    with pytest.raises(lz.InputError, match="exists already"):
        unpack(mirrored_pack, tmp_path / "png")
    assert unpack(mirrored_pack, tmp_path / "png", force=True) == 18


def test_unpack_stays_in_its_folder(copy, tmp_path):
    rewrite_columns(copy, key=np.array(["../../evil", *map(str, range(17))]))
    with pytest.raises(lz.FormatError, match="leads out of the folder"):
        unpack(copy, tmp_path / "out", "ltz")
    assert not (tmp_path / "out").exists()


# --- the command -------------------------------------------------------------------------------------------------


def test_pack_command(pictures, tmp_path, capsys):
    out = tmp_path / "out"
    base = ["pack", str(pictures), str(out), "-c", CODEC, "--labels", "folders", "-j", "1", "--shard-size", "16kB"]
    assert cli.main([*base, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["samples"], row["skipped"], row["finished"]) == (18, 0, True)
    assert cli.main([*base, "--size", "16"]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["unpack", str(out), str(tmp_path / "files"), "--as", "ltz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 18
    assert cli.main([*base, "--shard-index", "0"]) == 2
    assert "belong together" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*base, "--shard-size", "many"])
    assert "is no size" in capsys.readouterr().err


def test_index_of_many_shards(tmp_path):
    """Offsets of all shards come as one array, in the order of the samples."""
    shards = []
    for n in range(3):
        with ShardWriter(tmp_path, f"{n:05d}.tar") as shard:
            for i in range(n):  # the first one is empty
                shard.add(f"{n}/{i}", bytes([n, i]))
        assert shard.info is not None
        shards.append(vars(shard.info))
    (tmp_path / "manifest.json").write_bytes(manifest_bytes(manifest(CODEC, "00" * 8, shards)))
    archive = Archive(tmp_path)
    assert archive.offsets.dtype == INDEX_DTYPE
    assert archive.read_many([2, 1, 0], verify=True) == [bytes([2, 1]), bytes([2, 0]), bytes([1, 0])]
