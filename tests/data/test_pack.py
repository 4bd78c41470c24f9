"""Packing: what lies on disk, options, sources, labels, bad pictures, resuming after a kill."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.data import Archive, check_pack, pack
from latentzip.data.writing.packing import Options, samples_a_shard
from latentzip.data.writing.sources import Sample, expand_braces, key_of, open_source, with_unique_keys

from .conftest import CODEC, draw_pictures, wave


def files_of(folder):
    """Every file of a pack with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what lies on disk -------------------------------------------------------------------------------------------


def test_any_tar_reader_finds_ordinary_streams(mirrored_pack, pictures):
    with tarfile.open(mirrored_pack / "00000.tar") as tar:
        members = tar.getmembers()
        names = [m.name for m in members]
        streams = [tar.extractfile(m).read() for m in members]  # type: ignore[union-attr]
    assert names[:4] == ["ant/00.ltz", "ant/00.mirror.ltz", "ant/03.ltz", "ant/03.mirror.ltz"]
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
    picture = np.asarray(Image.open(pictures / "ant" / "00.png"))
    assert streams[0] == lz.encode(Image.fromarray(picture), CODEC)
    assert streams[1] == lz.encode(Image.fromarray(np.ascontiguousarray(picture[:, ::-1])), CODEC)


def test_manifest_columns_and_index(mirrored_pack):
    m = json.loads((mirrored_pack / "manifest.json").read_bytes())
    assert (m["format"], m["version"], m["codec"], m["samples"], m["skipped"]) == ("latentzip-pack", 1, CODEC, 18, 0)
    assert (m["variants"], m["quality"], m["modality"]) == (2, lz.load_codec(CODEC).default_quality, "image")
    assert m["fingerprint"] == lz.load_codec(CODEC).fingerprint.hex()
    shape = lz.decode(Archive(mirrored_pack).read(0), "latent").shape
    assert m["latent"]["fixed_shape"] == list(shape)
    assert m["latent"]["shapes"] == {f"{shape[1]}x{shape[2]}": 18}
    assert m["columns"]["label"] == {"dtype": "int64", "classes": ["ant", "bee", "cat"]}
    assert [s["samples"] for s in m["shards"]] == [4, 4, 4, 4, 2]
    archive = Archive(mirrored_pack)
    assert archive.columns["key"][0] == "ant/00"
    assert archive.columns["label"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert set(archive.columns["width"].tolist()) == {56}
    assert set(archive.columns["height"].tolist()) == {40}
    index = np.load(mirrored_pack / "00001.idx.npy")
    assert index.dtype == np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4")])
    assert check_pack(mirrored_pack, deep=True).problems == []


def test_shard_size_is_kept_roughly(tmp_path, pictures):
    result = pack(pictures, tmp_path / "small", CODEC, shard_size=8000, jobs=1)
    sizes = [s["bytes"] for s in Archive(tmp_path / "small").manifest["shards"]]
    assert result.shards > 1
    assert max(sizes) < 3 * 8000


def test_small_sets_are_still_split():
    """So that every process has something to do; large ones are split by bytes."""
    samples = [Sample(str(i), f"{i}.jpg", 40_000) for i in range(3000)]
    options = Options(CODEC, "", None, "default", None, "none", False)
    assert samples_a_shard(samples, options, 256_000_000) == 3000 // 16 + 1
    assert 10 < samples_a_shard(samples, options, 1_000_000) < 100
    assert samples_a_shard(samples, options, 1) == 1


# --- options -----------------------------------------------------------------------------------------------------


def test_size_crop_and_quality(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(wave(1, 60, 100)).save(source / "wide.png")
    Image.fromarray(wave(2, 50, 30)).save(source / "tall.png")
    pack(source, tmp_path / "square", CODEC, size=32, quality=20, jobs=1)
    archive = Archive(tmp_path / "square")
    assert archive.manifest["signal"] == {"channels": 3, "size": 32, "crop": "center", "mirror": False}
    assert archive.manifest["quality"] == 20
    expected = Image.fromarray(wave(1, 60, 100)).resize((53, 32), Image.Resampling.BICUBIC).crop((10, 0, 42, 32))
    assert archive.read(1) == lz.encode(expected, CODEC, quality=20)
    assert archive.columns["width"].tolist() == [30, 100]
    pack(source, tmp_path / "whole", CODEC, size=32, crop="none", jobs=1)
    sizes = [lz.inspect(blob).shape for blob in Archive(tmp_path / "whole").read_many([0, 1])]
    assert sizes == [(3, 53, 32), (3, 32, 53)]
    assert Archive(tmp_path / "whole").manifest["latent"]["fixed_shape"] is None


def test_shuffled_packs_mix_the_classes(pictures, tmp_path):
    plain, mixed, again = (tmp_path / name for name in ("plain", "mixed", "again"))
    pack(pictures, plain, CODEC, labels="folders", shard_samples=6, jobs=1)
    for folder in (mixed, again):
        pack(pictures, folder, CODEC, labels="folders", shard_samples=6, jobs=1, shuffle=3)
    first, second = Archive(plain), Archive(mixed)
    keys = second.columns["key"].tolist()
    assert keys != first.columns["key"].tolist()
    assert sorted(keys) == sorted(first.columns["key"].tolist())
    assert len(set(second.columns["label"][:6].tolist())) > 1
    at = keys.index(first.columns["key"][4])
    assert second.read(at) == first.read(4)
    assert second.columns["label"][at] == first.columns["label"][4]
    assert (mixed / "00000.tar").read_bytes() == (again / "00000.tar").read_bytes()
    with pytest.raises(lz.InputError, match="other options"):
        pack(pictures, plain, CODEC, labels="folders", shard_samples=6, jobs=1, shuffle=3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shuffle": -1}, "not negative"),
        ({"crop": "center"}, "needs a size"),
        ({"size": 0}, "1 to 16384"),
        ({"crop": "left", "size": 8}, "one of center, none"),
        ({"on_error": "ignore"}, "one of skip, fail"),
        ({"engine": "dask"}, "one of local, ray"),
        ({"address": "host:1"}, "engine 'ray'"),
        ({"part": (3, 3)}, "from 0 to the number"),
        ({"jobs": 0}, "from 1 on"),
        ({"quality": 500}, "1 "),
        ({"labels": "classes.txt"}, "'folders', a .csv or a .json"),
        ({"codec": "wallock"}, "unknown codec"),
    ],
)
def test_arguments_that_make_no_sense(pictures, tmp_path, change, text):
    with pytest.raises(lz.InputError, match=text):
        pack(pictures, tmp_path / "out", **({"codec": CODEC} | change))
    assert not (tmp_path / "out").exists()


def test_picture_modes(tmp_path):
    """What a resized picture decodes to is what `encode` makes of it: grey stays grey, 16 bits stay 16 bits."""
    source = tmp_path / "in"
    source.mkdir()
    grey = wave(3)[..., 0]
    Image.fromarray(grey).save(source / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(source / "b.png")
    Image.fromarray(np.dstack([wave(4), grey])).save(source / "c.png")
    Image.fromarray(wave(5)).quantize(16).save(source / "d.gif")
    Image.fromarray(grey.astype(np.float32) / 255).save(source / "e.tif")
    pack(source, tmp_path / "out", CODEC, size=24, jobs=1, on_error="fail")
    modes = [lz.inspect(blob).mode for blob in Archive(tmp_path / "out").read_many(range(5))]
    assert modes == ["L", "I;16", "RGBA", "RGB", "F"]


# --- resuming ----------------------------------------------------------------------------------------------------


def kill_midway(command, out):
    """Run ``command`` and kill it once it has made a shard; how many shards were there then.

    Its workers live on for a moment and may finish theirs, even all of them: what they do is not waited for.
    """
    for _ in range(10):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and not list(out.glob(".pack/0*.json")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if not (out / "manifest.json").exists():
            return len(list(out.glob(".pack/0*.json")))
        shutil.rmtree(out)  # it was over before it could be killed: this process had to wait for a processor
    pytest.fail("ten packs were over before they could be killed")


def test_killed_with_its_workers_running_it_goes_on_with_two(mirrored_pack, pictures, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "latentzip", "pack", str(pictures), str(out), "-c", CODEC, "--labels", "folders",
               "--shard-samples", "4", "--mirror", "-j", "2"]  # fmt: skip
    there = kill_midway(command, out)
    result = pack(pictures, out, CODEC, labels="folders", shard_samples=4, jobs=2, mirror=True)
    assert (result.samples, result.shards, result.finished) == (18, 5, True)
    assert there > 0
    assert result.made <= 5 - there
    assert files_of(out) == files_of(mirrored_pack)


def test_an_interrupt_of_a_terminal_reaches_workers_too(pictures, tmp_path):
    """Also those that are still loading torch: they go without a word, and nothing waits for a second interrupt."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "latentzip", "pack", str(pictures), str(out), "--shard-samples", "4", "-j", "2"]
    back: dict[str, Any] = {
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    }  # shells ignore it in the background
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, **back)
    while process.poll() is None and not (out / ".pack" / "lock").exists():
        time.sleep(0.005)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b"interrupted\n"
    assert process.returncode == 130
    assert not (out / "manifest.json").exists()


def unfinished(pictures, out):
    """Shard 0 of 5 made; the others not."""
    return pack(pictures, out, CODEC, labels="folders", shard_samples=4, jobs=1, mirror=True, part=(0, 5))


def test_only_damaged_and_missing_shards_are_made_again(mirrored_pack, pictures, tmp_path):
    out = tmp_path / "out"
    for part in range(4):
        pack(pictures, out, CODEC, labels="folders", shard_samples=4, jobs=1, mirror=True, part=(part, 5))
    damaged = bytearray((out / "00001.tar").read_bytes())
    damaged[600] ^= 1
    (out / "00001.tar").write_bytes(damaged)
    (out / "00002.mirror.idx.npy").unlink()
    (out / ".00003.tar.123.part").write_bytes(b"left by a killed worker")
    result = pack(pictures, out, CODEC, labels="folders", shard_samples=4, jobs=1, mirror=True)
    assert result.made == 3
    assert files_of(out) == files_of(mirrored_pack)


def test_parts_are_merged(mirrored_pack, pictures, tmp_path):
    out = tmp_path / "out"
    common = {"labels": "folders", "shard_samples": 4, "jobs": 1, "mirror": True}
    for part in (1, 0):
        assert not pack(pictures, out, CODEC, **common, part=(part, 3)).finished
    with pytest.raises(lz.InputError, match=r"shard 00002\.tar is missing"):
        pack(pictures, out, CODEC, **common, merge=True)
    assert not (out / "manifest.json").exists()
    pack(pictures, out, CODEC, **common, part=(2, 3))
    result = pack(pictures, out, CODEC, **common, merge=True)
    assert (result.made, result.finished) == (0, True)
    assert files_of(out) == files_of(mirrored_pack)


def test_other_options_are_refused(pictures, tmp_path):
    out = tmp_path / "out"
    unfinished(pictures, out)
    with pytest.raises(lz.InputError, match=r"another mirror.*--force"):
        pack(pictures, out, CODEC, labels="folders", shard_samples=4, jobs=1)
    with pytest.raises(lz.InputError, match="another source"):
        pack(pictures / "ant", out, CODEC, shard_samples=4, jobs=1, mirror=True)


def test_a_finished_pack_is_left_alone_and_force_begins_anew(mirrored_pack, pictures, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(mirrored_pack, out)
    before = files_of(out)
    again = pack(pictures, out, CODEC, labels="folders", shard_samples=4, jobs=1, mirror=True)
    assert (again.samples, again.made) == (18, 0)
    with pytest.raises(lz.InputError, match=r"other options.*--force"):
        pack(pictures, out, CODEC, shard_samples=9, jobs=1)
    assert files_of(out) == before
    (out / "notes.txt").write_text("mine")
    pack(pictures, out, CODEC, shard_samples=9, jobs=1, force=True)
    names = {"00000.tar", "00000.idx.npy", "00001.tar", "00001.idx.npy", "columns.npz", "manifest.json", "notes.txt"}
    assert set(files_of(out)) == names


def test_two_runs_do_not_meet(pictures, tmp_path):
    """The second one is refused while the first is at work; parts may run side by side."""
    seen = []

    def second(done, total):
        if not seen:
            seen.append(done)
            with pytest.raises(lz.InputError, match="by another process"):
                pack(pictures, tmp_path / "out", CODEC, jobs=1)
            with pytest.raises(lz.InputError, match="by another process"):
                pack(pictures, tmp_path / "out", CODEC, jobs=1, part=(0, 2))

    assert pack(pictures, tmp_path / "out", CODEC, jobs=1, progress=second).finished
    assert seen


def test_remote_sources_are_refused(pictures, tmp_path):
    with pytest.raises(lz.InputError, match="copy or mount"):
        pack("s3://bucket/pictures", tmp_path / "out", CODEC)


def test_foreign_folders_are_left_alone(pictures, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for force in (False, True):
        with pytest.raises(lz.InputError, match="not empty and holds no pack"):
            pack(pictures, tmp_path, CODEC, force=force)
    with pytest.raises(lz.InputError, match="inside the source"):
        pack(pictures, pictures / "packed", CODEC)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


# --- bad pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def with_bad_ones(tmp_path):
    source = draw_pictures(tmp_path / "in", 6)
    (source / "ant" / "00.png").write_bytes(b"no picture")
    whole = (source / "bee" / "04.png").read_bytes()
    (source / "bee" / "04.png").write_bytes(whole[: len(whole) // 2])
    return source


def test_bad_pictures_are_listed_and_skipped(with_bad_ones, tmp_path):
    result = pack(with_bad_ones, tmp_path / "out", CODEC, labels="folders", shard_samples=2, jobs=1)
    assert (result.samples, result.skipped) == (4, 2)
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [e["path"] for e in errors] == ["ant/00.png", "bee/04.png"]
    assert "not a picture" in errors[0]["reason"]
    archive = Archive(tmp_path / "out")
    assert archive.columns["key"].tolist() == ["ant/03", "bee/01", "cat/02", "cat/05"]
    assert archive.columns["label"].tolist() == [0, 1, 2, 2]
    assert check_pack(tmp_path / "out", deep=True).problems == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_pictures_are_fatal_on_demand(with_bad_ones, tmp_path, jobs):
    out = tmp_path / "out"
    with pytest.raises(lz.InputError, match=r"ant/00\.png: not a picture|bee/04\.png: damaged"):
        pack(with_bad_ones, out, CODEC, shard_samples=2, jobs=jobs, on_error="fail")
    assert not list(out.glob(".*.part"))
    result = pack(with_bad_ones, out, CODEC, shard_samples=2, jobs=1)  # what was made is kept
    assert result.skipped == 2


def test_nothing_but_bad_pictures(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"?")
    with pytest.raises(lz.InputError, match=r"none of 1 pictures.*a\.png: not a picture"):
        pack(tmp_path / "in", tmp_path / "out", CODEC, jobs=1)
    assert not (tmp_path / "out" / "manifest.json").exists()


# --- sources and labels ------------------------------------------------------------------------------------------


def webdataset(path, samples):
    """A tar of (name, bytes) members, as WebDataset's writer leaves them."""
    with tarfile.open(path, "w") as tar:
        for name, data in samples:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def png(seed):
    stream = io.BytesIO()
    Image.fromarray(wave(seed)).save(stream, "PNG")
    return stream.getvalue()


def test_webdataset(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    webdataset(source / "x-00.tar", [("a/1.png", png(1)), ("a/1.cls", b"7"), ("a/2.json", b'{"label": 3}'),
                                       ("a/2.seg.png", png(2))])  # fmt: skip
    webdataset(source / "x-01.tar", [("a/3.cls", b"0\n"), ("a/3.png", png(3))])
    for name, path in (("folder", source), ("braces", source / "x-{00..01}.tar")):
        out = tmp_path / name
        pack(path, out, CODEC, jobs=1)
        archive = Archive(out)
        assert archive.columns["key"].tolist() == ["a/1", "a/2_seg", "a/3"]
        assert archive.columns["label"].tolist() == [7, 3, 0]
        assert archive.read(2) == lz.encode(Image.fromarray(wave(3)), CODEC)
    with pytest.raises(lz.InputError, match="1 of 3 shards are missing"):
        open_source(source / "x-{00..02}.tar")


def test_broken_webdatasets(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(lz.InputError, match="not a plain tar file"):
        pack(tmp_path / "a.tar", tmp_path / "out", CODEC)
    webdataset(tmp_path / "a.tar", [("1.png", png(1)), ("1.jpg", png(2))])
    with pytest.raises(lz.InputError, match="two pictures"):
        pack(tmp_path / "a.tar", tmp_path / "out", CODEC)


def test_hugging_face_needs_its_package(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    try:
        import datasets  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(lz.UnsupportedError, match=r"latentzip\[hf\]"):
            pack(tmp_path, tmp_path.parent / "out", CODEC)


def test_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    rows = {"picture": [Image.fromarray(wave(i)) for i in range(3)], "label": [1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hf"))
    pack(tmp_path / "hf", tmp_path / "out", CODEC, jobs=1)
    archive = Archive(tmp_path / "out")
    assert archive.columns["label"].tolist() == [1, 0, 1]
    assert archive.manifest["columns"]["label"]["classes"] == ["x", "y"]
    assert archive.read(2) == lz.encode(Image.fromarray(wave(2)), CODEC)


def test_hugging_face_sets_that_changed_or_lack_a_picture(tmp_path):
    """A set saved anew under its path is read anew; a missing picture is listed, the others are packed."""
    datasets = pytest.importorskip("datasets")
    counts = []
    for number, pictures in enumerate(([0, 1], [2, None])):
        rows = {"picture": [None if i is None else Image.fromarray(wave(i)) for i in pictures]}
        features = datasets.Features({"picture": datasets.Image()})
        shutil.rmtree(tmp_path / "hf", ignore_errors=True)
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hf"))
        pack(tmp_path / "hf", tmp_path / f"out{number}", CODEC, jobs=1)
        archive = Archive(tmp_path / f"out{number}")
        assert archive.read(0) == lz.encode(Image.fromarray(wave(2 * number)), CODEC)
        counts.append(len(archive))
    assert counts == [2, 1]


@pytest.mark.parametrize(
    ("name", "text", "labels", "classes"),
    [
        ("l.csv", "file,split,label\na.png,train,4\nb.png,train,2\n", [4, 2], None),
        ("l.csv", "path,class\nin/a.png,zebra\nin/b.png,ant\n", [1, 0], ["ant", "zebra"]),
        ("l.json", '{"a.png": "u", "b": "u"}', [0, 0], ["u"]),
        ("l.json", '[{"path": "a.png", "label": 9}, {"path": "b.png", "label": 8}]', [9, 8], None),
    ],
)
def test_labels_from_files(tmp_path, name, text, labels, classes):
    (tmp_path / "in").mkdir()
    for i, stem in enumerate("ab"):
        Image.fromarray(wave(i)).save(tmp_path / "in" / f"{stem}.png")
    (tmp_path / name).write_text(text)
    pack(tmp_path / "in", tmp_path / "out", CODEC, labels=tmp_path / name, jobs=1)
    archive = Archive(tmp_path / "out")
    assert archive.columns["label"].tolist() == labels
    assert archive.manifest["columns"]["label"]["classes"] == classes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,label\nother.png,1\n", r"no label for a\.png"),
        ("l.csv", "a,b\n1,2\n", "needs a column of paths"),
        ("l.csv", "", "header line"),
        ("l.json", "{", "l.json: "),
        ("l.json", '{"a.png": 1.5}', "1.5 is no label"),
        ("l.json", "[3]", "a list of objects is needed"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / "in").mkdir()
    Image.fromarray(wave(0)).save(tmp_path / "in" / "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(lz.InputError, match=message):
        pack(tmp_path / "in", tmp_path / "out", CODEC, labels=tmp_path / name)


def test_pictures_outside_class_folders(tmp_path):
    source = draw_pictures(tmp_path / "in", 3)
    Image.fromarray(wave(0)).save(source / "stray.png")
    with pytest.raises(lz.InputError, match=r"stray\.png lies in no class folder"):
        pack(source, tmp_path / "out", CODEC, labels="folders")


@pytest.mark.parametrize(
    ("name", "key"),
    [("a/b.c.d.jpg", "a/b_c_d"), ("v1.2/x.png", "v1.2/x"), ("plain.JPG", "plain"), ("größe/ß.png", "größe/ß")],
)
def test_keys(name, key):
    assert key_of(name) == key


@pytest.mark.parametrize("name", ["../x.png", "a//x.png", "/abs/x.png", "a\\b.png", "x\n.png", f"{'y' * 150}.png",
                                  f"{'d' * 180}/x.png"])  # fmt: skip
def test_keys_that_would_not_do_are_hashed(name):
    assert len(key_of(name)) == 32
    assert key_of(name) != key_of(name + "x.png")


def test_keys_are_unique():
    names = ["a.jpg", "a.png", "a_png.gif", "a.png.gif"]
    keys = [s.key for s in with_unique_keys([Sample(key_of(n), n, 1) for n in names])]
    assert keys[:2] == ["a", "a_png"]
    assert len(set(keys)) == 4


def test_braces():
    assert list(expand_braces("a-{08..10}-{x,y}.tar")) == [f"a-{n}-{c}.tar" for n in ("08", "09", "10") for c in "xy"]


# --- Ray ---------------------------------------------------------------------------------------------------------


def test_ray_of_its_own_makes_the_same_bytes(mirrored_pack, pictures, tmp_path):
    pytest.importorskip("ray")
    make = (
        "import sys; from latentzip.data import pack; "
        "pack(*sys.argv[1:4], labels='folders', shard_samples=4, mirror=True, engine='ray', jobs=1)"
    )
    run = [sys.executable, "-c", make, str(pictures), str(tmp_path / "out"), CODEC]
    env = os.environ | {"RAY_worker_niceness": "0"}  # else its workers wait for all other tests
    done = subprocess.run(run, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "out") == files_of(mirrored_pack)


@pytest.mark.usefixtures("cluster")
def test_ray_replaces_a_lost_worker(mirrored_pack, pictures, tmp_path):
    out, killed = tmp_path / "out", []

    def kill_the_first_at_work():
        limit = time.monotonic() + 120
        while not killed and time.monotonic() < limit:
            for part in out.glob(".*.tar.*.part"):
                killed.append(int(part.name.split(".")[-2]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.001)

    killer = threading.Thread(target=kill_the_first_at_work)
    killer.start()
    pack(pictures, out, CODEC, labels="folders", shard_samples=4, mirror=True, engine="ray")
    killer.join()
    assert killed
    assert files_of(out) == files_of(mirrored_pack)


def test_ray_needs_its_package(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(lz.UnsupportedError, match=r"latentzip\[ray\]"):
        pack(pictures, tmp_path / "out", CODEC, engine="ray")
