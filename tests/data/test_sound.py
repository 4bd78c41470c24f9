"""Packs of sound: excerpts on the grid of frames, policies of channels and rates, spans that decode only their part."""

from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import latentzip as lz
from latentzip.data import Archive, LatentDataset, LatentStream, check_pack, pack

from .sets import tone

RATE = 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings of 1.1, 0.5 and 0.05 s."""
    base = tmp_path_factory.mktemp("sounds") / "in"
    base.mkdir()
    for name, samples, channels in (("long", 8800, 2), ("middle", 4000, 1), ("short", 400, 2)):
        soundfile.write(base / f"{name}.wav", tone(samples, samples, channels), RATE)
    return base


@pytest.fixture(scope="module")
def recordings(folder, tmp_path_factory):
    """Long enough for several chunks; whole."""
    base = tmp_path_factory.mktemp("recordings")
    (base / "in").mkdir()
    for i in range(3):
        soundfile.write(base / "in" / f"{i}.flac", tone(i, 130000 + 1000 * i, 1), RATE)
    pack(base / "in", base / "pack", "audio", quality=30, jobs=1)
    return base / "pack"


def samples_of(archive, i):
    return lz.decode(archive.read(i), to="numpy").samples


def test_excerpts_are_the_recording_cut(folder, tmp_path):
    """Streams of whole frames, one shape, silence after the end; each is what `encode` makes of that part."""
    pack(folder, tmp_path / "out", "audio", seconds=0.3, channels="mono", jobs=1)
    archive = Archive(tmp_path / "out")
    codec: Any = lz.load_codec("audio")
    hop = codec.hop(RATE)
    size = round(0.3 * RATE / hop) * hop
    columns = archive.columns
    assert columns["key"].tolist()[:2] == ["long@0000", "long@0001"]
    assert archive.manifest["latent"]["fixed_shape"] is not None
    assert archive.manifest["signal"] == {"rate": RATE, "channels": "mono", "seconds": 0.3, "short": "pad"}
    whole = soundfile.read(folder / "long.wav", dtype="float32")[0].mean(1)
    for i, (key, begin, samples) in enumerate(zip(columns["key"], columns["begin"], columns["samples"])):
        assert lz.inspect(archive.read(i)).shape == (1, size)
        if key.startswith("long"):
            part = np.zeros(size, np.float32)
            part[:samples] = whole[begin : begin + samples]
            error = samples_of(archive, i).reshape(-1) - part
            assert np.abs(error).mean() < 0.1 * np.abs(part).mean()
    assert sum(columns["samples"].tolist()) == 8800 + 4000 + 400
    assert check_pack(tmp_path / "out", deep=True).problems == []


def test_what_is_too_short(folder, tmp_path):
    result = pack(folder, tmp_path / "out", "audio", seconds=0.3, short="drop", channels="mono", jobs=1)
    assert (result.samples, result.skipped) == (4, 1)
    assert "too short" in (tmp_path / "out" / "errors.jsonl").read_text()
    wrongs: list[dict[str, Any]] = [{"seconds": 0}, {"seconds": float("nan")}, {"channels": "left"}, {"rate": -5}]
    for wrong in [*wrongs, {"short": "drop"}]:
        with pytest.raises(lz.InputError):
            pack(folder, tmp_path / "no", "audio", **wrong)


def test_channels_and_rates(folder, tmp_path):
    pack(folder, tmp_path / "mono", "audio", channels="mono", rate=16000, jobs=1)
    pack(folder, tmp_path / "stereo", "audio", channels="stereo", jobs=1)
    mono, stereo = Archive(tmp_path / "mono"), Archive(tmp_path / "stereo")
    assert set(mono.columns["rate"].tolist()) == {16000}
    assert mono.columns["samples"].tolist() == [17600, 8000, 800]
    assert set(mono.columns["channels"].tolist()) == {1}
    assert [lz.inspect(blob).shape for blob in stereo.read_many(range(3))] == [(2, 8800), (2, 4000), (2, 400)]
    soundfile.write(folder.parent / "six.wav", np.zeros((100, 6)), RATE)
    (tmp_path / "six").mkdir()
    (folder.parent / "six.wav").rename(tmp_path / "six" / "a.wav")
    with pytest.raises(lz.InputError, match="6 channels are not made stereo"):
        pack(tmp_path / "six", tmp_path / "no", "audio", channels="stereo", jobs=1)


def test_spans_are_parts_of_the_whole(recordings):
    whole = LatentDataset(recordings)
    hop = whole.codec.hop(RATE)
    frames = round(0.4 * RATE / hop)
    latents = LatentDataset(recordings, seconds=0.4, seed=3)
    signals = LatentDataset(recordings, seconds=0.4, seed=3, to="signal")
    batch, sound = latents.__getitems__([0, 1, 2]), signals.__getitems__([0, 1, 2])
    assert batch.columns["latent"].shape[2] == frames
    assert sound.columns["signal"].shape == (3, 1, frames * hop)
    starts = []
    for i in range(3):
        z, y = whole[i]["latent"], LatentDataset(recordings, to="signal")[i]["signal"]
        found = [f for f in range(z.shape[1] - frames + 1) if torch.equal(z[:, f : f + frames], batch[i]["latent"])]
        assert len(found) == 1
        assert torch.equal(y[:, found[0] * hop : (found[0] + frames) * hop], sound[i]["signal"])
        starts.append(found[0])
    assert len(set(starts)) > 1
    latents.set_epoch(1)
    assert not torch.equal(latents[0]["latent"], batch[0]["latent"])
    middle = LatentDataset(recordings, seconds=0.4, place="start")[1]["latent"]
    assert torch.equal(middle, whole[1]["latent"][:, :frames])
    with pytest.raises(lz.InputError, match="shorter than 90 s"):
        LatentDataset(recordings, seconds=90)[0]


def test_spans_decode_only_their_chunks(recordings, monkeypatch):
    data = LatentDataset(recordings, seconds=0.1, place="center", threads=1)
    codec, seen = data.codec, []
    whole = len(lz.decode(data.archive.read(0), "latent")[0])
    plain = type(codec).program

    def counting(self, coder, latent, shape, setting):
        seen.append(shape[1])
        return plain(self, coder, latent, shape, setting)

    monkeypatch.setattr(type(codec), "program", counting)
    data[0]
    assert whole > 2 * codec.chunk
    assert sum(seen) <= 2 * codec.chunk


def test_spans_follow_the_sample_and_not_the_process(recordings):
    def stream(**more):
        return LatentStream(LatentDataset(recordings, seconds=0.2), 2, epochs=3, seed=5, drop_last=False, **more)

    for whole, left, right in zip(stream(), stream(rank=0, world=2), stream(rank=1, world=2)):
        parts = [part["latent"] for part in (left, right) if len(part["index"])]
        assert torch.equal(whole["latent"], torch.cat(parts))


def test_spans_from_the_training_tier(recordings, tmp_path):
    plain = LatentDataset(recordings, seconds=0.3, tier="archive")
    tier = LatentDataset(recordings, seconds=0.3, tier="cache", cache=tmp_path / "tier")
    assert torch.equal(plain.__getitems__([2, 0]).columns["latent"], tier.__getitems__([2, 0]).columns["latent"])


def test_codecs_that_resample(folder, tmp_path):
    """walloc-audio codes 8 kHz at 48 kHz: excerpts and spans still have one length."""
    pack(folder, tmp_path / "out", "walloc-audio-20x", seconds=0.2, channels="stereo", jobs=1)
    archive = Archive(tmp_path / "out")
    assert archive.manifest["latent"]["fixed_shape"] is not None
    latents, signals = (LatentDataset(tmp_path / "out", seconds=0.1, to=to) for to in ("latent", "signal"))
    assert latents.__getitems__([0, 1, 2]).columns["latent"].ndim == 3
    assert signals.__getitems__([0, 1, 2]).columns["signal"].ndim == 3


def test_hugging_face(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = [{"path": None, "bytes": (folder / f"{name}.wav").read_bytes()} for name in ("long", "middle")]
    table = datasets.Dataset.from_dict({"sound": files, "label": [4, 2], "text": ["one", "two"]})
    table.cast_column("sound", datasets.Audio()).save_to_disk(str(tmp_path / "hf"))
    pack(tmp_path / "hf", tmp_path / "out", "audio", columns=["text"], jobs=1)
    archive = Archive(tmp_path / "out")
    assert archive.columns["label"].tolist() == [4, 2]
    assert archive.columns["text"].tolist() == ["one", "two"]
    assert archive.read(1) == lz.encode(folder / "middle.wav", "audio", metadata="none")


def test_recordings_to_the_last_bit(folder, tmp_path):
    """A codec of several kinds packs what the folder has; excerpts without loss are the samples themselves."""
    pack(folder, tmp_path / "out", "lossless", jobs=1, on_error="fail")
    archive = Archive(tmp_path / "out")
    assert archive.manifest["modality"] == "audio"
    assert check_pack(tmp_path / "out", deep=True).problems == []
    lz.data.unpack(tmp_path / "out", tmp_path / "files")
    for path in folder.glob("*.wav"):
        expected = soundfile.read(path, dtype="int16")[0]
        assert np.array_equal(soundfile.read(tmp_path / "files" / path.name, dtype="int16")[0], expected)
    with pytest.raises(lz.InputError, match="no latents"):
        LatentDataset(tmp_path / "out")
