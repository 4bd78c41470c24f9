"""Every kind of signal through all that packs promise: the same tests over pictures, sound and tensors."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import latentzip as lz
from latentzip.data import Archive, LatentDataset, LatentStream, build_cache, check_pack, pack, unpack
from latentzip.data.shards import manifest_bytes

from .sets import SETS

HERE = Path(__file__).parent
COUNT, EACH = 10, 3


def packed(kind, source, target, **more):
    options = {"labels": "folders", "shard_samples": EACH, "jobs": 1, "on_error": "fail", **kind.options, **more}
    return pack(source, target, kind.codec, **options)


@pytest.fixture(scope="module", params=SETS)
def kind(request):
    return SETS[request.param]


@pytest.fixture(scope="module")
def source(kind, tmp_path_factory):
    return kind.draw(tmp_path_factory.mktemp(kind.name) / "in", COUNT)


@pytest.fixture(scope="module")
def whole(kind, source, tmp_path_factory):
    """10 samples of one shape in 4 shards. Not to be changed."""
    target = tmp_path_factory.mktemp(kind.name) / "pack"
    packed(kind, source, target)
    return target


@pytest.fixture(scope="module")
def ragged(kind, tmp_path_factory):
    """7 samples of several shapes. Not to be changed."""
    base = tmp_path_factory.mktemp(kind.name)
    packed(kind, kind.draw(base / "in", 7, ragged=True), base / "pack")
    return base / "pack"


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def values(kind, blob):
    """What a stream holds, by the public decoder: latents, or a tensor's values."""
    return torch.as_tensor(lz.decode(blob, "latent" if kind.to == "latent" else "tensor"))


# --- writing -----------------------------------------------------------------------------------------------------


def test_records_are_ordinary_streams(kind, source, whole):
    archive = Archive(whole)
    assert archive.columns["key"].tolist()[:2] == ["ant/00", "ant/03"]
    assert archive.manifest["columns"]["label"]["classes"] == ["ant", "bee", "cat"]
    for i, key in enumerate(archive.columns["key"].tolist()):
        path = source / f"{key}{kind.suffix}"
        said = {name: value for name, value in kind.options.items() if name != "mirror"}
        x = np.load(path) if kind.name == "tensor" else path
        assert archive.read(i) == lz.encode(x, kind.codec, metadata="none", **said)
    assert check_pack(whole, deep=True).problems == []
    assert archive.manifest["modality"] == kind.name
    assert archive.manifest["version"] == (1 if kind.name == "image" else 2)


def test_killed_at_any_moment_it_goes_on(kind, source, whole, tmp_path):
    options = {"labels": "folders", "shard_samples": EACH, "on_error": "fail", **kind.options}
    run = [sys.executable, str(HERE / "kill_runner.py"), str(source), str(tmp_path / "out"), kind.codec]
    done = subprocess.run([*run, json.dumps(options)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert files_of(tmp_path / "out") == files_of(whole)


def test_parts_are_merged_and_damage_is_mended(kind, source, whole, tmp_path):
    out = tmp_path / "out"
    for part in (2, 0, 1):
        packed(kind, source, out, part=(part, 3))
    damaged = bytearray((out / "00001.tar").read_bytes())
    damaged[600] ^= 1
    (out / "00001.tar").write_bytes(damaged)
    with pytest.raises(lz.InputError, match=r"00001\.tar is missing or damaged"):
        packed(kind, source, out, merge=True)
    assert packed(kind, source, out).made == 1
    assert files_of(out) == files_of(whole)
    with pytest.raises(lz.InputError, match=r"other options.*--force"):
        packed(kind, source, out, shard_samples=5)


def test_two_processes_make_the_same_bytes(kind, source, whole, tmp_path):
    packed(kind, source, tmp_path / "out", jobs=2)
    assert files_of(tmp_path / "out") == files_of(whole)


@pytest.mark.usefixtures("cluster")
def test_ray_makes_the_same_bytes(kind, source, whole, tmp_path):
    packed(kind, source, tmp_path / "out", jobs=2, engine="ray")
    assert files_of(tmp_path / "out") == files_of(whole)


def test_bad_files_are_listed_and_skipped(kind, tmp_path):
    source = kind.draw(tmp_path / "in", 5)
    (source / "ant" / f"00{kind.suffix}").write_bytes(b"nothing of the kind")
    (source / "bee" / f"04{kind.suffix}").write_bytes(b"")
    result = packed(kind, source, tmp_path / "out", on_error="skip")
    assert (result.samples, result.skipped) == (3, 2)
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [e["path"] for e in errors] == [f"ant/00{kind.suffix}", f"bee/04{kind.suffix}"]
    assert check_pack(tmp_path / "out", deep=True).problems == []
    with pytest.raises(lz.InputError, match=rf"ant/00\{kind.suffix}: "):
        packed(kind, source, tmp_path / "strict")
    for path in source.rglob("*.*"):
        path.write_bytes(b"?")
    with pytest.raises(lz.InputError, match="none of 5"):
        packed(kind, source, tmp_path / "none", on_error="skip")


def test_webdataset_with_labels_and_columns(kind, source, tmp_path):
    import tarfile

    (tmp_path / "in").mkdir()
    for i, path in enumerate(sorted(source.rglob("*.*"))[:3]):
        (tmp_path / "in" / f"{i}{kind.suffix}").write_bytes(path.read_bytes())
        (tmp_path / "in" / f"{i}.json").write_text(json.dumps({"label": 5 + i, "score": i / 2}))
        (tmp_path / "in" / f"{i}.txt").write_text(f"text {i}")
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        tar.add(tmp_path / "in", ".")
    packed(kind, tmp_path / "w.tar", tmp_path / "out", labels=None, columns=("text", "score"))
    columns = Archive(tmp_path / "out").columns
    found = sorted(zip(columns["label"].tolist(), columns["text"].tolist(), columns["score"].tolist()))
    assert found == [(5, "text 0", 0.0), (6, "text 1", 0.5), (7, "text 2", 1.0)]
    with pytest.raises(lz.InputError, match="no column 'colour'"):
        packed(kind, tmp_path / "w.tar", tmp_path / "no", labels=None, columns=("colour",))


def test_columns_of_a_table(kind, source, whole, tmp_path):
    names = [p.relative_to(source).as_posix() for p in sorted(source.rglob("*.*"))]
    lines = [f"{name},{'xy'[i % 2]},{i},a word {i}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("path,label,number,words\n" + "\n".join(lines) + "\n")
    packed(kind, source, tmp_path / "out", labels=tmp_path / "t.csv", columns=["words", "number"])
    archive = Archive(tmp_path / "out")
    assert archive.columns["number"].tolist() == list(range(COUNT))
    sample = LatentDataset(tmp_path / "out", to=kind.to, columns=("words", "number", "label"))[4]
    assert (sample["words"], int(sample["number"]), int(sample["label"])) == ("a word 4", 4, 0)
    assert archive.read(4) == Archive(whole).read(4)
    with pytest.raises(lz.InputError, match="cannot be called 'key'"):
        packed(kind, source, tmp_path / "no", labels=tmp_path / "t.csv", columns=["key"])


# --- reading -----------------------------------------------------------------------------------------------------


def test_samples_are_what_the_streams_hold(kind, whole, ragged):
    for path in (whole, ragged):
        data = LatentDataset(path, to=kind.to)
        batch = data.__getitems__([1, 6, 1, 0])
        for row, i in enumerate((1, 6, 1, 0)):
            expected = values(kind, data.archive.read(i))
            assert batch[row][kind.to].dtype == expected.dtype
            assert torch.equal(batch[row][kind.to], expected)
            assert int(batch[row]["index"]) == i
    assert isinstance(LatentDataset(whole, to=kind.to).__getitems__([0, 1]).columns[kind.to], torch.Tensor)
    assert lz.decode(LatentDataset(whole, to="bytes")[3]["bytes"]) is not None


def test_signals_are_the_decoded_signals(kind, ragged):
    data = LatentDataset(ragged, to="signal")
    for i in (0, 5):
        y = lz.decode(data.archive.read(i), to="tensor")
        y = torch.as_tensor(y.samples if kind.name == "audio" else y).float()
        x = data[i]["signal"].float()
        assert x.shape == y.shape
        assert torch.allclose(x, y, atol=1e-4)


def test_what_has_no_such_thing_says_so(kind, source, whole, tmp_path):
    wrong = {"image": ["seconds", "rate"], "audio": ["size", "mirror"], "tensor": ["seconds", "size", "mirror"]}
    value = {"seconds": 1.0, "rate": 8000, "size": 16, "mirror": True}
    for name in wrong[kind.name]:
        with pytest.raises(lz.InputError, match=f"{name} (is|and crop are) for (pictures|sound)"):
            packed(kind, source, tmp_path / "out", **{name: value[name]})
    with pytest.raises(lz.InputError, match="takes no speed"):
        packed(kind, source, tmp_path / "out", speed=3)
    assert not (tmp_path / "out").exists()
    refused: dict[str, Any] = {"mirror": 0.5} if kind.name == "audio" else {"seconds": 1.0}
    with pytest.raises(lz.InputError, match="--mirror" if "mirror" in refused else "seconds is for packs of sound"):
        LatentDataset(whole, to=kind.to, **refused)


def test_the_training_tier_gives_the_same(kind, whole, ragged, tmp_path):
    for number, path in enumerate((whole, ragged)):
        plain = LatentDataset(path, to=kind.to, tier="archive")
        tier = LatentDataset(path, to=kind.to, tier="cache", cache=tmp_path / str(number))
        assert tier.cache is not None
        for a, b in zip(plain.__getitems__([2, 0, 6]), tier.__getitems__([2, 0, 6])):
            assert a[kind.to].dtype == b[kind.to].dtype
            assert torch.equal(a[kind.to], b[kind.to])
        again = pickle.loads(pickle.dumps(tier))
        assert torch.equal(again[3][kind.to], plain[3][kind.to])
    record = tmp_path / "1" / "00001.rec"
    data = bytearray(record.read_bytes())
    data[:8] = b"\xff" * 8
    record.write_bytes(data)
    with pytest.raises(lz.FormatError, match=r"record of sample 3.*delete the cache"):
        LatentDataset(ragged, to=kind.to, cache=tmp_path / "1")[3]


def test_ragged_samples_come_in_buckets(kind, ragged):
    data = LatentDataset(ragged, to=kind.to)
    seen = []
    for batch in LatentStream(data, 2, epochs=1, bucket=True, drop_last=False):
        assert isinstance(batch[kind.to], torch.Tensor)
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(7))
    with pytest.raises(lz.InputError, match="cannot be stacked"):
        lz.data.latent_collate(data.__getitems__(range(7)))


def batches(stream):
    return [b["index"].tolist() for b in stream]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resumed_to_the_batch(kind, whole, prefetch):
    def stream():
        return LatentStream(LatentDataset(whole, to=kind.to), 4, epochs=3, seed=4, prefetch=prefetch)

    everything, first, running = batches(stream()), [], stream()
    for batch in running:
        first.append(batch["index"].tolist())
        if len(first) == 3:
            break
    other = stream()
    other.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert first + batches(other) == everything
    assert len(everything) == 6


def test_ranks_share_the_global_batches(kind, whole):
    data = LatentDataset(whole, to=kind.to)
    one = LatentStream(data, 4, epochs=1, seed=2)
    two = [LatentStream(data, 4, epochs=1, seed=2, rank=r, world=2) for r in range(2)]
    for a, b, c in zip(one, *two):
        assert torch.equal(a[kind.to], torch.cat([b[kind.to], c[kind.to]]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_with_workers(kind, whole, method):
    data = LatentDataset(whole, to=kind.to)
    sampler = data.sampler(5, seed=3)
    loader = DataLoader(
        data, batch_sampler=sampler, num_workers=1, collate_fn=lz.data.latent_collate, multiprocessing_context=method
    )
    got = list(loader)
    assert len(got) == 2
    for a, b in zip(got, LatentStream(data, 5, seed=3, epochs=1)):
        assert torch.equal(a[kind.to], b[kind.to])
        assert torch.equal(a["label"], b["label"])


def test_in_another_process(whole):
    archive = Archive(whole)
    sizes = [len(blob) for blob in archive.read_many(range(COUNT))]
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply(_sizes, (archive,)) == sizes


def _sizes(archive):
    return [len(blob) for blob in archive.read_many(range(len(archive)))]


# --- damage ------------------------------------------------------------------------------------------------------


def test_any_flipped_bit_is_found(kind, copy):
    """Somewhere in every file of a pack: verify names a problem, or says that it is no pack."""
    rng = np.random.default_rng(3)
    for path in sorted(p for p in copy.iterdir() if p.is_file() and p.name != "manifest.json"):
        whole = path.read_bytes()
        for _ in range(4):
            damaged = bytearray(whole)
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            assert check_pack(copy).problems, path.name
        path.write_bytes(whole[: len(whole) // 2])
        assert check_pack(copy).problems, path.name
        path.write_bytes(whole)
    assert check_pack(copy, deep=True).problems == []


def test_hostile_manifests_are_format_errors(kind, copy):
    """A value of the manifest replaced by nonsense: refused, found by verify, or of no consequence; never a crash."""
    path = copy / "manifest.json"
    before = json.loads(path.read_bytes())
    table = "signal" if kind.name == "tensor" else "latent"
    nonsense = [None, -1, 1 << 70, "x", [], {}, 1.5, [1 << 30] * 3]
    for place in [(name,) for name in before] + [(table, name) for name in before[table]]:
        for value in nonsense:
            changed = json.loads(json.dumps(before))
            inner = changed if len(place) == 1 else changed[place[0]]
            inner[place[-1]] = value
            path.write_bytes(manifest_bytes(changed))
            try:
                check_pack(copy, deep=True)
                LatentDataset(copy, to=kind.to)[1]
            except lz.CodecError:
                pass
            else:
                assert place[-1] not in ("codec", "fingerprint", "samples", "variants", "shards", "modality"), place


def test_deep_verify_compares_shapes(kind, copy):
    with np.load(copy / "columns.npz") as file:
        columns = {name: file[name] for name in file.files}
    name = {"image": "latent_w", "audio": "latent_frames", "tensor": "shape"}[kind.name]
    columns[name] = columns[name].copy()
    columns[name][4] = "12x9" if kind.name == "tensor" else columns[name][4] + 1
    from latentzip.data.shards import npz_bytes

    (copy / "columns.npz").write_bytes(npz_bytes(columns))
    assert any("shapes differ" in p for p in check_pack(copy).problems)


def test_a_stream_of_another_codec_is_refused(kind, copy):
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["fingerprint"] = "00" * 8
    (copy / "manifest.json").write_bytes(manifest_bytes(manifest))
    assert any("not of the manifest's codec" in p for p in check_pack(copy).problems)
    with pytest.raises(lz.CodecError):
        LatentDataset(copy, to=kind.to)[0]


# --- back --------------------------------------------------------------------------------------------------------


def test_unpacked_and_packed_again(kind, whole, tmp_path):
    archive = Archive(whole)
    assert unpack(whole, tmp_path / "files") == COUNT
    assert unpack(whole, tmp_path / "streams", "ltz") == COUNT
    assert (tmp_path / "streams" / "bee" / "04.ltz").read_bytes() == archive.read(5)
    expected = lz.decode(archive.read(5), to="numpy")
    path = tmp_path / "files" / "bee" / f"04{kind.suffix}"
    if kind.name == "tensor":
        assert np.array_equal(np.load(path), expected)
    elif kind.name == "audio":
        import soundfile

        y, rate = soundfile.read(path)
        assert rate == expected.rate
        assert np.abs(y - expected.samples).max() < 1e-4
    packed(kind, tmp_path / "files", tmp_path / "again", labels=tmp_path / "files" / "labels.csv")
    again = Archive(tmp_path / "again")
    assert again.columns["label"].tolist() == archive.columns["label"].tolist()
    other = {"image": "wav", "audio": "npy", "tensor": "png"}[kind.name]
    with pytest.raises(lz.InputError, match=f"not {other}"):
        unpack(whole, tmp_path / "other", other)


def test_by_command(kind, source, whole, tmp_path, capsys):
    from latentzip import cli

    said = {"image": ["--mirror"], "audio": ["-q", "40"], "tensor": ["--nmse", "0.001"]}[kind.name]
    base = ["pack", str(source), str(tmp_path / "out"), "-c", kind.codec, "--labels", "folders", "-j", "1", *said]
    assert cli.main([*base, "--shard-samples", str(EACH), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == COUNT
    assert files_of(tmp_path / "out") == files_of(whole)
    assert cli.main(["verify", str(tmp_path / "out"), "--deep"]) == 0
    assert cli.main(["cache", str(tmp_path / "out"), "-j", "1", "--json"]) == 0
    assert cli.main(["unpack", str(tmp_path / "out"), str(tmp_path / "files")]) == 0
    assert len(list((tmp_path / "files").rglob(f"*{kind.suffix}"))) == COUNT


# --- remote ------------------------------------------------------------------------------------------------------


def test_written_resumed_verified_and_read_through_fsspec(kind, source, whole, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("LATENTZIP_CACHE", str(tmp_path / "cache"))
    url = f"memory://packs-{kind.name}/{os.getpid()}"
    seen = []

    def stop(done, total):
        seen.append(done)
        if done >= EACH + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(kind, source, url, progress=stop)
    with pytest.raises(lz.FormatError, match="no packed data set"):
        Archive(url)
    with pytest.raises(lz.InputError, match="unfinished pack with another"):
        packed(kind, source, url, shard_samples=5)
    assert packed(kind, source, url, jobs=2).made == 3  # the first shard was there; memory is no place for two
    assert packed(kind, source, url).made == 0
    memory = fsspec.filesystem("memory")
    root = url.removeprefix("memory:/")
    assert {name[len(root) + 1 :]: memory.cat_file(name) for name in memory.find(root)} == files_of(whole)
    assert check_pack(url, deep=True).problems == []
    local, remote = LatentDataset(whole, to=kind.to), LatentDataset(url, to=kind.to)
    for a, b in zip(local.__getitems__([3, 9, 0]), remote.__getitems__([3, 9, 0])):
        assert torch.equal(a[kind.to], b[kind.to])
    assert build_cache(url, tmp_path / "tier", threads=1).read(0) is not None
    damaged = bytearray(memory.cat_file(f"{root}/00001.tar"))
    damaged[700] ^= 1
    memory.pipe_file(f"{root}/00001.tar", bytes(damaged))
    assert check_pack(url).problems
    assert packed(kind, source, url, force=True).made == 4


def test_urls_that_cannot_be_written(tmp_path):
    fsspec = pytest.importorskip("fsspec")

    class Locked(fsspec.AbstractFileSystem):
        protocol, error = "latentzip-locked", RuntimeError("Unable to locate credentials")

        def ls(self, path, detail=True, **options):
            raise self.error

        def info(self, path, **options):
            raise self.error

    fsspec.register_implementation(Locked.protocol, Locked, clobber=True)
    one = SETS["image"]
    made = one.draw(tmp_path / "in", COUNT)
    for error, kind, text in (
        (Locked.error, lz.CodecError, "latentzip-locked://a.*RuntimeError: Unable to locate credentials"),
        (NotImplementedError(), lz.UnsupportedError, "cannot be written"),
    ):
        Locked.error = error
        with pytest.raises(kind, match=text):
            packed(one, made, "latentzip-locked://a/b")
    with pytest.raises(lz.CodecError, match="cannot be written, or read"):
        Archive("latentzip-locked://a/b")
    with pytest.raises(lz.InputError, match="memory of one process"):
        packed(one, made, "memory://x", part=(0, 2))
    packed(one, made, tmp_path / "out")
    for write in (unpack, build_cache):
        with pytest.raises(lz.InputError, match=r"s3://x is a URL, and .* on this machine alone"):
            write(tmp_path / "out", "s3://x")


def test_fsspec_that_is_missing(kind, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(lz.UnsupportedError, match=r"latentzip\[remote\]"):
        packed(kind, source, "memory://nowhere/pack")
