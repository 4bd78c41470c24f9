"""Sound files and codec-cli: formats, tags, depth, spans, pipes, folders; memory that does not grow with length."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip import cli
from latentzip.entropy import container
from latentzip.signals.sound.objects import quantised

soundfile = pytest.importorskip("soundfile")
CODEC = "toy-sound"


def waves(samples=20_000, channels=2, rate=44100):
    t = np.arange(samples) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 300 * (c + 1) * t) for c in range(channels)], -1).astype(np.float32)


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.flac"
    with soundfile.SoundFile(path, "w", 44100, 2, "PCM_16") as file:
        file.title, file.artist = "Läufe", "Nobody"
        file.write(waves())
    return path


@pytest.fixture
def run(capsysbinary):
    """Run a command: (exit status, stdout bytes, stderr lines)."""

    def call(*arguments):
        capsysbinary.readouterr()
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsysbinary.readouterr()
        return status, out, err.decode().splitlines()

    return call


FORMATS = [
    ("a.wav", "PCM_16", "int16"), ("a.wav", "PCM_24", "int24"), ("a.wav", "PCM_U8", "uint8"),
    ("a.wav", "FLOAT", "float32"), ("a.flac", "PCM_16", "int16"), ("a.flac", "PCM_24", "int24"),
    ("a.aiff", "PCM_16", "int16"), ("a.ogg", "VORBIS", "int16"),
    ("a.opus", "OPUS", "int16"), ("a.mp3", "MPEG_LAYER_III", "int16"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "subtype", "dtype"), FORMATS)
def test_formats_go_there_and_back(tmp_path, name, subtype, dtype):
    source = tmp_path / name
    kind = "OGG" if name.endswith("opus") else None
    soundfile.write(source, waves(rate=48000), 48000, subtype, format=kind)
    packed = lz.encode_file(source, codec=CODEC)
    info = lz.inspect(packed)
    assert (packed.name, info.dtype, info.sample_rate, info.mode) == ("a.ltz", dtype, 48000, "file")
    heard, _ = soundfile.read(source, dtype="float32")
    assert info.shape == (2, len(heard))
    again = lz.decode_file(packed, tmp_path / f"b{source.suffix}")
    assert soundfile.info(str(again)).subtype == subtype
    y, rate = lz.decode(packed)
    assert (y.dtype, y.shape, rate) == (np.float32, heard.shape, 48000)
    assert np.abs(y - heard).max() < 2e-3
    wav, _ = soundfile.read(lz.decode_file(packed, tmp_path / "c.wav"), dtype="float32")
    assert np.abs(wav - y).max() <= (1 / 127 if dtype == "uint8" else 1 / 32000)


def test_depth_is_kept_beyond_16_bits(tmp_path):
    quiet = waves() * 2**-17
    soundfile.write(tmp_path / "q.wav", quiet, 44100, "PCM_24")
    y, clipped = quantised(torch.from_numpy(quiet), "int24")
    assert clipped == 0
    expected, _ = soundfile.read(tmp_path / "q.wav", dtype="int32")
    assert np.abs(y.numpy().astype(np.int64) - expected).max() <= 256  # a step of 24 bits


def test_tags_travel(tmp_path, song):
    packed = lz.encode_file(song, codec=CODEC)
    assert json.loads(container.read(packed.read_bytes()).box(container.TAGS) or b"") == {
        "title": "Läufe",
        "artist": "Nobody",
    }
    for name in ("b.flac", "b.ogg", "b.wav"):
        with soundfile.SoundFile(lz.decode_file(packed, tmp_path / name)) as file:
            assert (file.title, file.artist) == ("Läufe", "Nobody")
    bare = lz.encode_file(song, tmp_path / "bare.ltz", codec=CODEC, metadata="none")
    assert container.read(bare.read_bytes()).boxes == ()


@pytest.mark.parametrize("samples", [0, 1])
def test_tiny_files(tmp_path, samples):
    soundfile.write(tmp_path / "t.wav", np.zeros((samples, 2)), 44100)
    packed = lz.encode_file(tmp_path / "t.wav", codec=CODEC)
    assert soundfile.info(str(lz.decode_file(packed, tmp_path / "u.wav"))).frames == samples
    if samples == 0:
        with pytest.raises(lz.InputError, match="empty signal"):
            lz.decode_file(packed, tmp_path / "u.flac")
        assert not (tmp_path / "u.flac").exists()


def test_files_that_cannot_be_read_or_written(tmp_path, song):
    for name, data, text in (
        ("a.wav", b"", "empty"), ("b.wav", b"RIFF\x10\0\0\0WAVEjunk", "not a sound file"),
        ("c.m4a", b"\0\0\0 ftypM4A ", "ffmpeg"), ("d.mp3", b"nothing", "not a sound file"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        with pytest.raises(lz.InputError, match=text):
            lz.encode_file(tmp_path / name, codec=CODEC)
        assert not (tmp_path / name).with_suffix(".ltz").exists()
    bad = waves()
    bad[17] = np.nan
    soundfile.write(tmp_path / "n.wav", bad, 44100, "FLOAT")
    with pytest.raises(lz.InputError, match="NaN"):
        lz.encode_file(tmp_path / "n.wav", codec=CODEC)
    packed = lz.encode_file(song, codec=CODEC)
    for name, text in (("x.opus", "44100 Hz"), ("x.png", "cannot write sound as .png"), ("x", "without extension")):
        with pytest.raises(lz.InputError, match=text):
            lz.decode_file(packed, tmp_path / name)
    many = lz.encode_file(_write(tmp_path / "many.wav", waves(100, 9)), codec=CODEC)
    for name, text in (("x.flac", "at most 8 channels"), ("x.mp3", "at most 2 channels")):
        with pytest.raises(lz.InputError, match=text):
            lz.decode_file(many, tmp_path / name)
    assert not list(tmp_path.glob(".*part"))


def _write(path, samples, rate=44100, subtype=None):
    soundfile.write(path, samples, rate, subtype)
    return path


def test_clipping_is_reported(tmp_path):
    path = _write(tmp_path / "loud.wav", 2.6 * waves(), subtype="FLOAT")
    packed = lz.encode_file(path, codec=CODEC)
    assert np.abs(soundfile.read(lz.decode_file(packed, tmp_path / "f.wav"))[0]).max() > 1.2
    with pytest.warns(lz.ConversionWarning, match="exceed the range of int24 and were clipped"):
        lz.decode_file(packed, tmp_path / "f.flac")


def test_memory_does_not_grow_with_length(tmp_path):
    """The same peak for one minute as for six, within what allocators keep."""
    for minutes in (1, 6):
        with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 8000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(waves(480_000, 1, 8000))
    code = (
        "import resource, sys, latentzip as lz\n"
        "packed = lz.encode_file(sys.argv[1], codec='toy-sound')\n"
        "lz.decode_file(packed, sys.argv[1] + '.out.wav')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for minutes in (1, 6):
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{minutes}.wav")], capture_output=True, text=True, check=True
        )
        peaks.append(int(result.stdout))
    assert peaks[1] < peaks[0] + 6_000  # kB; five minutes more are 10 MB of float samples


# --- codec-cli ---------------------------------------------------------------------------------------------------


def test_cli_there_and_back(run, tmp_path, song):
    status, _, err = run("encode", song, "-c", CODEC)
    assert status == 0
    assert "kb/s" in err[-1]
    packed = tmp_path / "song.ltz"
    status, out, _ = run("encode", song, "-c", CODEC, "-o", tmp_path / "again.ltz", "--json")
    row = json.loads(out)
    assert (row["sample_rate"], row["shape"], row["num_bytes"]) == (44100, [2, 20_000], packed.stat().st_size)
    assert row["kbps"] == lz.inspect(packed).kbps
    status, _, err = run("decode", packed)
    assert status == 0
    assert "0:00 of 44100 Hz" in err[-1]
    assert soundfile.info(str(tmp_path / "song.wav")).frames == 20_000
    assert run("decode", packed, "-o", tmp_path / "x.ogg")[0] == 0
    assert soundfile.info(str(tmp_path / "x.ogg")).subtype == "VORBIS"
    assert run("decode", packed, "--format", "flac", "-o", f"{tmp_path / 'out'}/")[0] == 0
    assert (tmp_path / "out" / "song.flac").exists()
    status, out, _ = run("info", packed)
    assert "0:00 (20000 samples) at 44100 Hz, 2 channels, file int16" in out.decode()
    assert run("verify", packed)[0] == 0
    damaged = bytearray(packed.read_bytes())
    damaged[-1] ^= 1
    packed.write_bytes(damaged)
    status, _, err = run("verify", packed)
    assert status == 1
    assert "checksum of chunk" in err[-1]


def test_cli_spans(run, tmp_path):
    packed = lz.encode_file(_write(tmp_path / "s.wav", waves(8000 * 100, 1, 8000), 8000), codec=CODEC)
    whole = lz.decode(packed).samples
    assert run("decode", packed, "--span", "1:30-1:31.5", "-o", tmp_path / "part.wav")[0] == 0
    part, rate = soundfile.read(tmp_path / "part.wav", dtype="float32")
    assert rate == 8000
    assert np.abs(part - whole[720_000:732_000]).max() < 1e-4
    assert run("decode", packed, "--span", "10-0:11", "--latent", "-o", tmp_path / "z.npy")[0] == 0
    assert np.load(tmp_path / "z.npy").shape == (64, 125)
    for bad in ("2-1", "1:75-2:00", "a-b", "5"):
        assert run("decode", packed, "--span", bad, "-o", tmp_path / "n.wav")[0] == 2
    status, _, err = run("decode", packed, "--span", "99-200", "-o", tmp_path / "n.wav")
    assert status == 1
    assert "inside the signal of 100.000 s" in err[-1]
    assert not (tmp_path / "n.wav").exists()


def test_cli_pipes(song, tmp_path):
    command = [sys.executable, "-m", "latentzip"]
    packed = subprocess.run(
        [*command, "encode", "-", "-c", CODEC], input=song.read_bytes(), capture_output=True, check=True
    ).stdout
    assert packed == lz.encode_file(song, tmp_path / "p.ltz", codec=CODEC).read_bytes()
    wav = subprocess.run([*command, "decode", "-"], input=packed, capture_output=True, check=True).stdout
    y, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert rate == 44100
    assert np.abs(y - lz.decode(packed).samples).max() < 1e-4


def test_cli_folders(run, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    _write(tmp_path / "in" / "a.wav", waves(500))
    _write(tmp_path / "in" / "deep" / "b.flac", waves(600))
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    assert run("encode", "-r", tmp_path / "in", "-o", tmp_path / "out", "-c", CODEC)[0] == 0
    assert run("decode", "-r", tmp_path / "out", "-o", tmp_path / "back")[0] == 0
    lengths = [soundfile.info(str(tmp_path / "back" / name)).frames for name in ("a.wav", "deep/b.wav")]
    assert lengths == [500, 600]


def test_the_default_codec_follows_the_file(run, tmp_path, song):
    if lz.DEFAULT_SOUND_CODEC not in [i.name for i in lz.list_codecs()]:
        pytest.skip("no codec of sound is released")
    assert run("encode", song)[0] == 0
    assert lz.inspect(tmp_path / "song.ltz").codec == lz.DEFAULT_SOUND_CODEC
    assert lz.inspect(lz.encode(song)).codec == lz.DEFAULT_SOUND_CODEC
    assert lz.inspect(lz.encode((waves(100), 44100))).codec == lz.DEFAULT_SOUND_CODEC


@pytest.mark.parametrize("channels", [1, 2])
def test_cli_targets_of_few_kilobits(run, tmp_path, channels):
    """6 and 8 kb/s of sound that needs more at quality 50, and a rate that is out of reach."""
    rng, t = np.random.default_rng(0), np.arange(5 * 22050) / 22050
    tones = np.sin(2 * np.pi * 170 * np.cumsum(1 + 0.1 * np.sin(5 * t))[:, None] / 22050 * np.arange(1, 9)).sum(1)
    x = (0.05 * tones * (1 + np.sin(9 * t)))[:, None] * np.linspace(1, 0.6, channels)
    soundfile.write(tmp_path / "x.wav", x + 0.01 * rng.normal(size=x.shape), 22050)
    packed = tmp_path / "x.ltz"
    for rate in (6, 8):
        assert (
            run("encode", tmp_path / "x.wav", "-c", "audio", "--target", f"{rate}kbps", "-o", packed, "--force")[0] == 0
        )
        assert 0.85 * rate < lz.inspect(packed).kbps <= rate
    status, _, err = run("encode", tmp_path / "x.wav", "-c", "audio", "--target", "0.5kbps", "-o", packed, "--force")
    assert status != 0
    assert "0.5 kb/s lie outside of what audio makes of this signal" in err[-1]
    assert "kb/s at quality 1 to" in err[-1]
