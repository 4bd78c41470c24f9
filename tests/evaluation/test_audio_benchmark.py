"""The benchmark of sound: rows beside their peers, long runs in pieces, the instruments that stand in."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
audio: Any = importlib.import_module("bench.audio")
made: Any = importlib.import_module("bench.instruments")

LADDER = {"music": {"opus": (32, 64)}}


def test_rows_that_an_earlier_run_has_stand(tmp_path, monkeypatch):
    clips = [("music", "flute", made.instruments(0.5)["flute"], made.RATE)]
    before = audio.rows_of(clips, {"music": {"opus": (32,)}})
    assert [r["codec"] for r in before] == ["opus", "audio"]
    assert before[1]["kbps"] <= before[0]["kbps"]
    assert before[1]["snr"] > 10
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps({"rows": before}))
    measured = []
    for name in ("of_peer", "of_audio"):
        body = getattr(audio, name)
        monkeypatch.setattr(audio, name, lambda *a, name=name, body=body: measured.append(name) or body(*a))
    after = audio.rows_of(clips, LADDER, earlier)
    assert after[:2] == before
    assert measured == ["of_peer", "of_audio"]  # of the other rate
    before[0].pop("log_mel")
    before[1]["weights"] = "of another release"
    earlier.write_text(json.dumps({"rows": before}))
    measured.clear()
    audio.rows_of(clips, {"music": {"opus": (32,)}}, earlier)
    assert measured == ["of_peer", "of_audio"]


@pytest.mark.parametrize("name", ["castanets", "glockenspiel", "piano", "guitar", "soprano", "flute"])
def test_instruments_are_what_they_are_called(name):
    x = made.instruments(1.0)[name]
    assert x.shape == (made.RATE, 2)
    assert x.dtype == np.float32
    assert np.abs(x).max() == pytest.approx(0.5)
    assert not np.array_equal(x[:, 0], x[:, 1])
    mono, frame = x.sum(1), 441
    power = np.square(mono[: mono.size // frame * frame].reshape(-1, frame)).mean(1)
    spectrum = np.abs(np.fft.rfft(mono * np.hanning(mono.size))) ** 2
    share = np.sort(spectrum)[::-1][:200].sum() / spectrum.sum()  # of the strongest 200 Hz
    assert (np.median(power) < 0.02 * power.max()) == (name == "castanets")
    assert (share > 0.5) == (name != "castanets")
