"""Sounds: metrics against arithmetic, conventional codecs against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

import latentzip as lz
from latentzip.evaluation import evaluate
from latentzip.evaluation.metrics import sound as metrics_audio
from latentzip.evaluation.peers.sound import CONVENTIONAL_AUDIO
from latentzip.evaluation.report import maps


def test_snr_and_si_sdr(sound):
    x = sound(0.5)
    noise = np.random.default_rng(1).normal(0, 0.01, x.shape)
    expected = 10 * math.log10(np.sum(x.astype(float) ** 2) / np.sum(noise**2))
    assert metrics_audio.snr(x, x + noise) == pytest.approx(expected, abs=1e-3)
    assert metrics_audio.snr(x, x) == math.inf
    assert metrics_audio.si_sdr(x, 0.3 * (x + noise)) == pytest.approx(metrics_audio.si_sdr(x, x + noise))
    assert metrics_audio.si_sdr(x, x + noise) == pytest.approx(expected, abs=0.2)
    assert math.isnan(metrics_audio.si_sdr(np.zeros_like(x), x))


def test_log_mel_distance_measures_level_in_db(sound):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.1, (16000, 2)).astype(np.float32)
    assert metrics_audio.log_mel_distance(x, x, 16000) == 0
    # white noise lies above the floor everywhere, so 6 dB less are 6 dB
    assert metrics_audio.log_mel_distance(x, x / 2, 16000) == pytest.approx(20 * math.log10(2), abs=0.01)
    silent = np.zeros_like(x)
    assert metrics_audio.log_mel_distance(silent, silent, 16000) == 0
    assert 40 < metrics_audio.log_mel_distance(x, silent, 16000) <= 80


def test_mel_filters_cover_every_frequency():
    filters = metrics_audio.mel_filters(48000, 1536)
    assert filters.shape == (80, 769)
    assert (filters.sum(0)[1:-1] > 0).all()
    assert filters.max() <= 1


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("name", ["opus", "mp3", "vorbis", "flac"])
def test_conventional_sounds_come_back_in_place(name, rate):
    pytest.importorskip("soundfile")
    pytest.importorskip("scipy")
    codec = CONVENTIONAL_AUDIO[name]
    x = np.random.default_rng(0).normal(0, 0.05, (rate // 2, 2)).astype(np.float32)
    x[1:] += 0.9 * x[:-1]
    for setting in codec.ladder or (0,):
        y = codec.decode(codec.encode(x, rate, setting), rate, len(x))
        assert y.shape == x.shape
        reach = range(-1200, 1201)
        fits = [float(np.dot(x[2000:6000, 0], y[2000 + lag : 6000 + lag, 0])) for lag in reach]
        assert abs(reach[int(np.argmax(fits))]) <= 8  # low rates blur; a codec's delay would be hundreds


def test_low_rate_mp3_is_not_shifted():
    """Frames of few bits have no room for the note about LAME's delay."""
    pytest.importorskip("soundfile")
    x = np.random.default_rng(0).normal(0, 0.1, (44100, 2)).astype(np.float32)
    from scipy.signal import lfilter

    x = np.asarray(lfilter([1], [1, -0.98], x, axis=0), np.float32) * np.float32(0.1)
    mp3 = CONVENTIONAL_AUDIO["mp3"]
    assert metrics_audio.snr(x, mp3.decode(mp3.encode(x, 44100, 48), 44100, len(x))) > 6


def test_opus_and_mp3_keep_their_rates():
    pytest.importorskip("soundfile")
    x = np.random.default_rng(0).normal(0, 0.1, (48000 * 2, 2)).astype(np.float32)
    for name in ("opus", "mp3"):
        for kbps in (48, 96):
            spent = 8 * len(CONVENTIONAL_AUDIO[name].encode(x, 48000, kbps)) / 2000
            assert spent == pytest.approx(kbps, rel=0.2)


def test_evaluation_of_sounds(tmp_path, sound):
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("scipy")
    soundfile.write(tmp_path / "chord.wav", sound(), 16000)
    result = evaluate(
        [tmp_path / "chord.wav", (sound(0.5, 8000, 2), 8000)], ["opus@16,48", "flac"], metrics=["snr", "log_mel"]
    )
    assert result.failed == []
    by = {(r["input"], r["setting"]): r for r in result.rows}
    assert by["chord.wav", "48 kbit/s"]["snr"] > by["chord.wav", "16 kbit/s"]["snr"]
    assert by["chord.wav", "48 kbit/s"]["log_mel"] < by["chord.wav", "16 kbit/s"]["log_mel"]
    assert by["chord.wav", ""]["lossless"]
    assert by["chord.wav", "48 kbit/s"]["kbps"] == pytest.approx(by["chord.wav", "48 kbit/s"]["num_bytes"] * 8 / 1000)
    text = result.write_report(tmp_path / "report.html").read_text("utf-8")
    assert text.count("data:audio/flac;base64,") == 2 + 5  # one of the two is kept by flac to the last bit


def test_sounds_that_are_none(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(lz.InputError, match="libsndfile"):
        evaluate(tmp_path / "a.wav", ["flac"])
    soundfile.write(tmp_path / "b.wav", np.zeros((0, 1)), 16000)
    with pytest.raises(lz.InputError, match="empty"):
        evaluate(tmp_path / "b.wav", ["flac"])
    with pytest.raises(OSError, match="missing"):
        evaluate(tmp_path / "missing.wav", ["flac"])


OURS = [i.name for i in lz.list_codecs() if i.modality == "audio"]


@pytest.mark.parametrize("name", OURS)
def test_our_sounds(tmp_path, sound, name):
    pytest.importorskip("scipy")
    x = sound(3.0, 44100, 2)
    result = evaluate((x, 44100), [name, "flac"], quality=(50,), metrics=["snr", "log_mel"], threads=1)
    assert result.failed == []
    row = next(r for r in result.rows if r["codec"] == name)
    made = result.coder(name)
    data, decoded = result.decoded(row)
    assert decoded.shape == x.shape
    assert row["num_bytes"] == len(data) == len(lz.encode((x, 44100), codec=name, quality=row["value"]))
    assert 0 < row["latent_ratio"] <= 1.1
    rates, step = maps.rate_over_time(made, data, result.signal(row["input_id"])) or ([], 0)
    assert 0.5 <= step <= 6
    assert len(rates) == math.ceil(3.0 / step)
    assert maps.rate_over_time(result.coder("flac"), b"", result.signal(row["input_id"])) is None
