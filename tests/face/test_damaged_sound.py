"""Sound files whose length is missing, wrong or several: all of it is coded, or what is not is said."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
import soundfile as sf

import latentzip as lz
from latentzip.signals.sound.files import blocks, check_length, open_sound

RATE = 24000
SOUND = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)  # noise: many pages of Ogg
KINDS = {
    "wav": ("WAV", "PCM_16"), "float wav": ("WAV", "FLOAT"), "adpcm": ("WAV", "IMA_ADPCM"), "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"), "aiff": ("AIFF", "PCM_24"), "caf": ("CAF", "PCM_16"), "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip


def made(kind, samples=SOUND, rate=RATE, tags=()):
    stream = io.BytesIO()
    with sf.SoundFile(stream, "w", rate, 1 if samples.ndim == 1 else samples.shape[1], format=KINDS[kind][0],
                      subtype=KINDS[kind][1]) as file:  # fmt: skip
        for key, value in dict(tags).items():
            setattr(file, key, value)
        file.write(samples)
    return stream.getvalue()


def read(data):
    """(samples, what was said)."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with open_sound(io.BytesIO(data), "x") as sound:
            parts = [block.numpy() for block in blocks(sound, "x")]
            samples = np.concatenate([np.zeros((sound.channels, 0)), *parts], 1)
            check_length(sound, samples.shape[1], "x")
    return samples[0], [str(w.message) for w in said if issubclass(w.category, lz.ConversionWarning)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tags", [(), {"title": "a title" * 40, "artist": "someone"}])
def test_whole_files_are_read_as_they_are(kind, tags):
    data = made(kind, tags=tags if kind not in ("w64", "au") else ())  # those have no place for tags
    samples, said = read(data)
    assert said == []
    assert np.array_equal(samples, sf.read(io.BytesIO(data), dtype="float32")[0])
    assert read(made(kind, SOUND[:0]))[1] == [] if kind not in ("flac", "mp3", "opus") else True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.667, 0.97])
def test_a_cut_file_is_told_or_refused(kind, share):
    data = made(kind)
    try:
        samples, said = read(data[: int(len(data) * share)])
    except lz.InputError:
        return
    assert said
    assert len(samples) < len(SOUND) * (share + 0.15) + 2000
    if kind != "adpcm":
        assert len(samples) > len(SOUND) * (share - 0.25) - 4000  # what is there is coded


@pytest.mark.parametrize("kind", KINDS)
def test_two_files_end_to_end_are_both_coded_or_told(kind):
    data = made(kind)
    try:
        samples, said = read(data + data)
    except lz.InputError:
        return
    if kind in ("ogg", "opus", "mp3"):
        once = sf.read(io.BytesIO(data), dtype="float32")[0]
        assert said == []
        assert np.array_equal(samples, np.concatenate([once, once]))
    else:
        assert said
        assert len(samples) == len(read(data)[0])


@pytest.mark.parametrize("kind", ["ogg", "mp3"])
def test_a_second_stream_of_another_rate_is_told(kind):
    other = made(kind, SOUND[:RATE], 48000)
    samples, said = read(made(kind) + other)
    assert len(said) == 1
    assert "stream 2 of 2 has 1 channels at 48000 Hz" in said[0]
    assert len(samples) == len(read(made(kind))[0])


@pytest.mark.parametrize("kind", ["wav", "float wav"])
def test_a_recording_whose_program_crashed(kind):
    data = made(kind)
    at = data.index(b"data") + 4
    broken = data[:4] + bytes(4) + data[8:at] + bytes(4) + data[at + 4 :]
    samples, said = read(broken)
    assert "no sound" in said[0]
    assert np.array_equal(samples, sf.read(io.BytesIO(data), dtype="float32")[0])


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_lengths_of_pipes_are_no_fault(length):
    data = made("wav")
    at = data.index(b"data") + 4
    samples, said = read(data[:at] + struct.pack("<I", length) + data[at + 4 :])
    assert (len(samples), said) == (len(SOUND), [])


def frames_of(data, layer_three=(0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)):
    """(place, size) of the frames of MPEG-2 layer III at 24 kHz."""
    at, found = 0, []
    while at + 4 <= len(data) and data[at] == 0xFF:
        size = 72 * layer_three[data[at + 2] >> 4] * 1000 // RATE + (data[at + 2] >> 1 & 1)
        found.append((at, size))
        at += size
    return found


def test_an_mp3_without_a_length_is_read_in_full():
    data = made("mp3")
    frames = frames_of(data)
    naked = data[frames[1][0] :]
    samples, said = read(naked)
    assert said == []
    assert 0 <= 576 * (len(frames) - 1) - len(samples) <= 576  # but for the delay of the decoder
    tag = b"ID3\4\0\0" + bytes([0, 0, 2, 0]) + bytes(256)
    assert len(read(tag + naked + b"TAG" + bytes(125))[0]) == len(samples)
    twice, said = read(naked + naked)
    assert said == []
    assert 0 <= len(twice) - 2 * len(samples) <= 576


def test_damage_in_the_middle_is_told():
    data = made("mp3")
    at = frames_of(data)[30][0]
    samples, said = read(data[:at] + bytes(777) + data[at:])
    assert any("777 bytes" in text for text in said)
    assert len(samples) > len(SOUND) - 4000
    data = made("ogg")
    at = data.index(b"OggS", len(data) // 2)
    _, said = read(data[:at] + b"\1" * 100 + data[at:])
    assert any("100 damaged bytes" in text for text in said)


def test_an_ogg_without_its_last_page_is_told():
    data = made("ogg")
    last = data.rindex(b"OggS")
    samples, said = read(data[:last])
    assert any("last page" in text for text in said)
    assert len(samples) > 0


def test_the_command_line_says_it(tmp_path, capsys):
    from latentzip.cli import main

    data = made("wav")
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    assert main(["encode", str(tmp_path / "cut.wav")]) == 0
    assert "warning: the file is cut short" in capsys.readouterr().err
