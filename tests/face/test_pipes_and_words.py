"""Inputs that can be read once only, two names in a row, closed streams, and what is printed of parts."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.cli import main

CODEC = ["-c", "walloc-rgb-16x"]


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.full((32, 48, 3), 80, np.uint8)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def piped(folder, data):
    """A named pipe that somebody writes to."""
    fifo = folder / "pipe"
    if fifo.exists():
        fifo.unlink()
    os.mkfifo(fifo)

    def feed():
        with open(fifo, "wb") as pipe:
            pipe.write(data)

    threading.Thread(target=feed, daemon=True).start()
    return fifo


def test_pipes_are_inputs_of_every_command(tmp_path, picture, capsys):
    out = tmp_path / "o.ltz"
    assert main(["encode", str(piped(tmp_path, picture.read_bytes())), "-o", str(out), *CODEC]) == 0
    data = out.read_bytes()
    assert main(["decode", str(piped(tmp_path, data)), "-o", str(tmp_path / "back.png")]) == 0
    assert Image.open(tmp_path / "back.png").size == (48, 32)
    (tmp_path / "folder").mkdir()
    assert main(["decode", str(piped(tmp_path, data)), "-o", str(tmp_path / "folder")]) == 0
    assert os.listdir(tmp_path / "folder") == ["pipe.png"]
    assert main(["info", str(piped(tmp_path, data))]) == 0
    assert main(["verify", str(piped(tmp_path, data))]) == 0
    capsys.readouterr()
    assert main(["encode", str(tmp_path / "pipe")]) == 2
    assert "name its output with -o" in capsys.readouterr().err


def test_pipes_are_inputs_of_the_functions(tmp_path, picture):
    blob = lz.encode(piped(tmp_path, picture.read_bytes()), CODEC[1])
    assert blob == lz.encode(picture, CODEC[1])
    assert lz.decode(piped(tmp_path, blob)).size == (48, 32)
    assert lz.inspect(piped(tmp_path, blob)).shape == (3, 32, 48)
    assert lz.encode_file(piped(tmp_path, picture.read_bytes()), tmp_path / "a.ltz", CODEC[1]).read_bytes() == blob
    assert Image.open(lz.decode_file(piped(tmp_path, blob), tmp_path / "a.png")).size == (48, 32)
    with open(picture, "rb") as file:
        assert lz.encode(file, CODEC[1]) == blob


def test_two_names_in_a_row(tmp_path, picture, capsys):
    coded, back = tmp_path / "b.ltz", tmp_path / "c.png"
    assert main(["encode", str(picture), str(coded), *CODEC]) == 0
    assert main(["decode", str(coded), str(back)]) == 0
    assert Image.open(back).size == (48, 32)
    capsys.readouterr()
    assert main(["encode", str(picture), str(coded), *CODEC]) == 2
    assert "-o" in capsys.readouterr().err
    assert main(["encode", str(picture), str(picture), str(tmp_path / "d.ltz"), *CODEC]) == 2
    assert "name outputs with -o" in capsys.readouterr().err


def test_parts_are_printed_in_their_size(tmp_path, picture, capsys):
    (tmp_path / "p.ltz").write_bytes(lz.encode(picture, CODEC[1]))
    assert main(["decode", str(tmp_path / "p.ltz"), "-o", str(tmp_path / "x.png"), "--region", "0,8,10,28"]) == 0
    assert "20 x 10," in capsys.readouterr().err
    (tmp_path / "s.ltz").write_bytes(lz.encode((np.zeros(48000, np.float32), 16000)))
    arguments = ["decode", str(tmp_path / "s.ltz"), "-o", str(tmp_path / "x.wav"), "--span", "1-2", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [1, 16000]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["decode", "a.ltz", "--region", "1,2,x"], "'1,2,x' is not TOP,LEFT,BOTTOM,RIGHT"),
        (["decode", "a.ltz", "-j", "none"], "'none' is no whole number from 1"),
        (["encode", "a.png", "-q", "high"], "high"),
        (["encode", "a.png", "--value-range", "1"], "neither auto nor LOW,HIGH"),
        (["bench", "-j", "1,x"], "'x' is no whole number from 1"),
    ],
)
def test_wrong_values_are_named(arguments, text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    said = capsys.readouterr().err
    assert text in said
    assert "invalid _" not in said


def test_closed_streams_are_one_line(tmp_path, picture, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["encode", "-", "-o", str(tmp_path / "x.ltz")]) == 1
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.parametrize("codec", ["audio", "walloc-audio-5x"])
def test_amplitudes_that_no_level_holds_are_refused(codec):
    wave = np.sin(np.arange(4000) / 9).astype(np.float32)
    with pytest.raises(lz.InputError, match="scale it first"):
        lz.encode((wave * np.float32(1e12), 16000), codec)
    loud = lz.decode(lz.encode((wave * np.float32(1e9), 16000), codec))[0]
    assert np.abs(loud / 1e9 - wave).max() < 0.1
