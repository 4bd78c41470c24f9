"""What writers do to things that lie outside: special files, links, modes, folders."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.codecs.features import FeatureCodec
from latentzip.codecs.outputs import atomic_writer, write_file
from latentzip.evaluation import evaluate

DATA = b"x" * 100_000


def drained(path, got):
    """A thread that reads a pipe to its end into ``got``."""

    def read():
        with open(path, "rb") as pipe:
            got.append(pipe.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def write_with(kind, target):
    """Write a file with each of the package's writers."""
    if kind == "atomic_writer":
        with atomic_writer(target, force=True) as file:
            file.write(DATA)
            file.seek(3)
            file.write(b"abc")  # writers may seek, pipes may not
    elif kind == "write_file":
        write_file(target, DATA)
    elif kind == "encode_file":
        source = target.parent / "in.npy"
        np.save(source, np.full((20, 20, 3), 99, np.uint8))
        lz.encode_file(source, target, "walloc-rgb-16x", force=True)
    elif kind == "decode_file":
        source = target.parent / "in.ltz"
        source.write_bytes(lz.encode(np.full((20, 20, 3), 99, np.uint8), "walloc-rgb-16x"))
        lz.decode_file(source, target, force=True)
    elif kind == "decode sound":
        source = target.parent / "in.ltz"
        source.write_bytes(lz.encode((np.zeros(400, np.float32), 16000)))
        lz.decode_file(source, target, force=True)
    elif kind == "profile":
        x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
        FeatureCodec.fit([x], nmse=0.1).save(target)
    else:
        evaluate([np.zeros((16, 16, 3), np.uint8)], ["jpeg@50"]).write_report(target, force=True)


KINDS = {
    "atomic_writer": "", "write_file": "", "encode_file": ".ltz", "decode_file": ".png", "decode sound": ".wav",
    "profile": ".safetensors", "report": ".html",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pipes_are_written_into(kind, tmp_path):
    fifo, got = tmp_path / f"pipe{KINDS[kind]}", []
    os.mkfifo(fifo)
    thread = drained(fifo, got)
    write_with(kind, fifo)
    thread.join(10)
    assert stat.S_ISFIFO(os.lstat(fifo).st_mode)
    assert len(got) == 1
    assert len(got[0]) > 60
    assert not [p for p in os.listdir(tmp_path) if p.endswith(".part")]


@pytest.mark.parametrize("kind", KINDS)
def test_links_are_followed_and_modes_kept(kind, tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / f"real{KINDS[kind]}", tmp_path / f"link{KINDS[kind]}"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(os.path.join("far", real.name))
    write_with(kind, link)
    assert link.is_symlink()
    assert real.stat().st_size > 60
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert os.listdir(tmp_path / "far") == [real.name]


def test_a_link_to_nothing_makes_what_it_names(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("new")
    with atomic_writer(link) as file:
        file.write(b"1")
    assert (link.is_symlink(), (tmp_path / "new").read_bytes()) == (True, b"1")
    link.unlink()
    link.symlink_to("gone/new")
    with pytest.raises(lz.InputError, match="gone does not exist"), atomic_writer(link):
        pass


def test_devices_and_open_files_need_no_force(tmp_path):
    before = os.lstat("/dev/null")
    with atomic_writer("/dev/null") as file:
        file.write(b"gone")
    assert os.lstat("/dev/null") == before
    with open(tmp_path / "kept", "w+b") as kept, atomic_writer(f"/dev/fd/{kept.fileno()}") as file:
        file.write(b"through a handle")
    assert (tmp_path / "kept").read_bytes() == b"through a handle"


def test_folders_and_sockets_are_refused(tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(lz.InputError, match="is a socket"), atomic_writer(tmp_path / "socket", force=True):
            pass
    with pytest.raises(lz.InputError, match="is a folder"), atomic_writer(tmp_path, force=True):
        pass


def test_a_failure_leaves_pipes_and_files_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # nobody reads it: opening it would hang
    (tmp_path / "file").write_bytes(b"old")
    for name in ("pipe", "file"):
        with pytest.raises(TypeError), atomic_writer(tmp_path / name, force=True) as file:
            file.writelines([b"half", None])  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


def test_a_file_that_is_a_mount_of_its_own(tmp_path, monkeypatch):
    target = tmp_path / "mounted"
    target.write_bytes(b"a long old content")
    number = target.stat().st_ino

    def busy(source, destination):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    with atomic_writer(target, force=True) as file:
        file.write(b"new")
    assert (target.read_bytes(), target.stat().st_ino) == (b"new", number)
    assert os.listdir(tmp_path) == ["mounted"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    target = tmp_path / "open"
    target.write_bytes(b"a long old content")
    real = os.open

    def refuse(path, flags, *rest, **more):
        if str(path).endswith(".part"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with atomic_writer(target, force=True) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(PermissionError), atomic_writer(tmp_path / "fresh"):
        pass


@pytest.fixture
def little_room():
    """A block in which no file becomes longer than a kilobyte, as on a full disk."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def room():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return room


@pytest.mark.parametrize("suffix", [".png", ".tif", ".wav", ".flac", ".npy"])
def test_a_full_disk_is_said_with_the_file_and_leaves_nothing(suffix, tmp_path, little_room):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    x, codec = noise, "lossless"
    if suffix in (".wav", ".flac"):
        x, codec = (noise.reshape(-1).astype(np.int16) * 99, 44100), "toy-sound"
    (tmp_path / "in.ltz").write_bytes(lz.encode(x, codec))
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / f"x{suffix}"
    with little_room(), pytest.raises(OSError, match="too large") as caught:
        lz.decode_file(tmp_path / "in.ltz", target)
    assert caught.value.filename == str(target)
    assert not list(target.parent.iterdir())


def test_a_full_disk_while_packing(tmp_path, little_room):
    (tmp_path / "in").mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32), np.uint8)).save(
            tmp_path / "in" / f"{i}.png"
        )
    with little_room(), pytest.raises(OSError, match="too large") as caught:
        lz.data.pack(tmp_path / "in", tmp_path / "out", "lossless", jobs=1)
    assert caught.value.filename == str(tmp_path / "out" / "00000.tar")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".pack"]
    assert lz.data.pack(tmp_path / "in", tmp_path / "out", "lossless", jobs=1).samples == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_reads_that_fail_are_no_end_of_a_sound(error, tmp_path):
    """libsndfile, which calls the file from C, takes them for one."""
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros((1 << 18, 2), np.int16), 44100)

    class Failing(io.FileIO):
        def readinto(self, buffer):
            return fail(self.tell()) or super().readinto(buffer)

        def read(self, size: int | None = -1):
            return fail(self.tell()) or super().read(size)

    def fail(place):
        if place > 1 << 19:
            raise error

    with Failing(tmp_path / "a.wav") as file, pytest.raises(type(error)):
        lz.encode(file, "toy-sound")
