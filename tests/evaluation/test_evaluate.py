"""`lz.evaluate`: what it measures, how it goes on after an interruption, and what it does with what fails."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.evaluation import Metric, Signal, coders, evaluate, register
from latentzip.evaluation.coders import coder, parse_settings
from latentzip.evaluation.metrics import registry

pytest.importorskip("scipy")


def test_rows_hold_real_files(result, picture):
    row = next(r for r in result.rows if (r["codec"], r["setting"]) == ("jpeg", "q50"))
    buffer = io.BytesIO()
    Image.fromarray(picture(0)).save(buffer, "JPEG", quality=50, optimize=True, subsampling="4:2:0")
    decoded = np.asarray(Image.open(buffer).convert("RGB"))
    assert row["num_bytes"] == len(buffer.getvalue())
    assert row["bpp"] == pytest.approx(8 * len(buffer.getvalue()) / (96 * 128))
    mse = np.mean((decoded.astype(float) - picture(0)) ** 2)
    assert row["psnr"] == pytest.approx(10 * math.log10(255**2 / mse))
    assert row["encode_speed"] == pytest.approx(96 * 128 / 1e6 / row["encode_s"], rel=0.05)
    assert result.decoded(row)[0] == buffer.getvalue()


def test_ours_equal_encode_and_decode(result, picture):
    row = next(r for r in result.rows if (r["codec"], r["setting"]) == ("walloc-rgb-linear", "q50"))
    assert row["num_bytes"] == len(lz.encode(picture(0), codec="walloc-rgb-linear", quality=50))
    assert row["latent_ratio"] == pytest.approx(1 / 4)
    assert row["weights"] == lz.load_codec("walloc-rgb-linear").fingerprint.hex()


def test_averages_and_comparisons(result):
    table = result.averages("image")
    assert [(r["codec"], r["setting"]) for r in table][:4] == [
        ("jpeg", "q20"), ("jpeg", "q50"), ("jpeg", "q90"), ("webp", "q30"),
    ]  # fmt: skip
    pair = [r for r in result.rows if (r["codec"], r["setting"]) == ("jpeg", "q90")]
    mean = next(r for r in table if (r["codec"], r["setting"]) == ("jpeg", "q90"))
    assert mean["psnr"] == pytest.approx(np.mean([r["psnr"] for r in pair]))
    assert mean["bpp"] == pytest.approx(np.mean([r["bpp"] for r in pair]))
    total = sum(96 * 128 / 1e6 for _ in pair) / sum(r["encode_s"] for r in pair)
    assert mean["encode_speed"] == pytest.approx(total, rel=0.05)
    png = next(r for r in table if r["codec"] == "png")
    assert png["lossless"]
    assert png["psnr"] is None
    saved = result.comparisons("image")["psnr"]
    assert set(saved) == {"webp", "walloc-rgb-linear"}
    assert saved["webp"]["bd_rate_pct"] < 0
    assert "lossless" in result.markdown()


def test_json_and_csv_hold_the_rows(result):
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain["rows"] == result.rows
    lines = result.csv().splitlines()
    assert len(lines) == 1 + len(result.rows)
    assert "96x128x3" in lines[1]


def test_one_rate_is_compared_at_equal_rate(picture, one_rate):
    result = evaluate(picture(0, 256, 256), ["jpeg@2,10,30,90", str(one_rate)], metrics=["psnr"], threads=1)
    (gain,) = result.comparisons("image")["psnr"].values()
    assert set(gain) == {"gain"}


@pytest.mark.parametrize("tail", ["", '{"input": "broken'])
def test_an_interrupted_run_goes_on(tmp_path, picture, monkeypatch, tail):
    rows = tmp_path / "rows.jsonl"
    inputs = [picture(0), picture(1)]
    calls = []
    plain = coders.Picture.encode

    def encode(self, signal, setting):
        if signal.data.shape[0] == 96 and signal.data.shape[1] == 128:  # not the warm-up
            calls.append(setting.value)
            if len(calls) == 3:
                raise KeyboardInterrupt
        return plain(self, signal, setting)

    monkeypatch.setattr(coders.Picture, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        evaluate(inputs, ["jpeg@20,60"], metrics=["psnr"], rows=rows)
    assert len(rows.read_text().splitlines()) == 2
    rows.write_text(rows.read_text() + tail)
    with pytest.raises(lz.InputError, match="--resume"):
        evaluate(inputs, ["jpeg@20,60"], metrics=["psnr"], rows=rows)
    calls[:] = [0] * 3
    done = []
    result = evaluate(
        inputs, ["jpeg@20,60"], metrics=["psnr"], rows=rows, resume=True, progress=lambda *a: done.append(a)
    )
    assert calls[3:] == [60, 60]
    assert [json.loads(line) for line in rows.read_text().splitlines()] == result.rows
    assert [r["setting"] for r in result.rows] == ["q20", "q20", "q60", "q60"]
    assert done[-1] == (4, 4)


def test_rows_lacking_a_metric_are_measured_again(tmp_path, picture):
    rows = tmp_path / "rows.jsonl"
    evaluate(picture(0, 180, 180), ["jpeg@20"], metrics=["psnr"], rows=rows)
    pytest.importorskip("pytorch_msssim")
    result = evaluate(picture(0, 180, 180), ["jpeg@20"], metrics=["psnr", "ms_ssim"], rows=rows, resume=True)
    assert 0.5 < result.rows[0]["ms_ssim"] < 1


def test_a_codec_that_fails_costs_its_rows_only(picture, monkeypatch):
    def fail(self, signal, setting):
        raise RuntimeError("the  disk\nis full")

    monkeypatch.setattr(coders.Plain, "encode", fail)
    tensor = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    result = evaluate(tensor, ["int8", "features@0.1,0.01"], threads=1)
    assert [r["error"] for r in result.failed] == ["the disk is full"]
    assert len(result.rows) == 3
    assert all(r["sqnr"] > 9 for r in result.rows[1:])


def test_a_wrong_shape_is_an_error(picture, monkeypatch):
    monkeypatch.setattr(coders.Picture, "decode", lambda self, data, signal, setting: signal.data[1:])
    result = evaluate(picture(0), ["jpeg@20"], metrics=["psnr"])
    assert "decoded (95, 128, 3)" in result.failed[0]["error"]


def test_tensors(tmp_path):
    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    result = evaluate(tmp_path / "x.npy", ["features@0.01", "float16", "int8", "deflate"], threads=1)
    by = {r["codec"]: r for r in result.rows}
    assert by["features"]["sqnr"] >= 20
    assert by["float16"]["bits"] == 16
    assert 8 < by["int8"]["bits"] < 8.1
    assert by["deflate"]["lossless"]
    assert by["deflate"]["sqnr"] is None
    assert by["int8"]["mse"] == pytest.approx(np.var(x) / 10 ** (by["int8"]["sqnr"] / 10), rel=1e-3)


def test_metrics_can_be_added(picture, monkeypatch):
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))
    register(Metric("darker", "image", lambda s, y: float(y.mean() < s.data.mean()), label="Darker"))
    with pytest.raises(lz.InputError, match="taken"):
        register(Metric("psnr", "image", lambda s, y: 0.0))
    result = evaluate([picture(0) // 2 * 2, picture(1)], ["png", "jpeg@50"], metrics=["psnr", "darker"])
    assert result.rows[0]["darker"] == 0
    assert {r["darker"] for r in result.rows} <= {0, 1}
    assert "Darker" in result.markdown()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"codecs": ["jpegg"]}, "did you mean 'jpeg'"),
        ({"codecs": ["jpeg@fast"]}, "numbers like 10,50,90"),
        ({"codecs": ["png@20"]}, "nothing to set"),
        ({"codecs": ["jpeg@0"]}, "1 to 100"),
        ({"codecs": ["opus"]}, "codes audio signals"),
        ({"codecs": ["jpeg@20", "jpeg@50"]}, "named twice"),
        ({"codecs": ["jpeg"], "metrics": ["psnrr"]}, "unknown metric 'psnrr'"),
        ({"codecs": ["compressai:mbt2018-mean@200"]}, "1 to 100"),
        ({"codecs": ["compressai:vgg"], "quality": (3,)}, "no model 'vgg'"),
    ],
)
def test_what_cannot_be_measured_is_said(options, text, picture):
    if "compressai:vgg" in options["codecs"]:
        pytest.importorskip("compressai")
        assert text in evaluate(picture(0), **options).failed[0]["error"]
        return
    with pytest.raises(lz.InputError, match=text):
        evaluate(picture(0), **options)


def test_inputs_that_are_none(tmp_path):
    with pytest.raises(lz.InputError, match="no pictures"):
        evaluate(tmp_path, ["jpeg"])
    with pytest.raises(lz.InputError, match="not a picture"):
        evaluate(np.zeros((4, 4), np.int32), ["jpeg"])
    with pytest.raises(lz.InputError, match="no input"):
        evaluate([], ["jpeg"])


def test_deep_grey_and_transparent_pictures_are_measured_as_8_bit_rgb(tmp_path):
    grey = (np.arange(24 * 24).reshape(24, 24) * 113 % 65536).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([np.full((24, 24, 3), 90, np.uint8), np.full((24, 24), 7, np.uint8)])).save(
        tmp_path / "see.png"
    )
    result = evaluate(tmp_path, ["png"], metrics=["psnr"])
    assert [r["lossless"] for r in result.rows] == [True, True]
    deep = result.signal(result.rows[0]["input_id"]).data
    np.testing.assert_array_equal(deep, np.repeat(np.round(grey / 257).astype(np.uint8)[..., None], 3, 2))
    assert result.signal(result.rows[1]["input_id"]).data.max() == 90


def test_compressai_models_through_their_checkpoint(picture, tmp_path):
    zoo = pytest.importorskip("compressai.zoo")
    import torch

    torch.manual_seed(0)
    path = tmp_path / "model.pth.tar"
    torch.save(zoo.models["bmshj2018-factorized"](quality=1).state_dict(), path)
    name = "compressai:bmshj2018-factorized"
    result = evaluate(picture(0), [name, f"{name}@e1"], weights={name: path}, metrics=["psnr"], threads=1)
    assert result.failed == []
    assert [row["codec"] for row in result.rows] == [name, f"{name}@e1"]
    assert result.rows[0]["kind"] == "compressai"
    assert result.rows[0]["psnr"] > 3


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10,50,90", (10, 50, 90)), ("1..100:33", (1, 34, 67, 100)), ("5", (5,)), ("1..3", (1, 2, 3)),
        ("1e-2,0.5", (0.01, 0.5)), ("10,5..7,10", (10, 5, 6, 7)),
    ],
)  # fmt: skip
def test_settings_are_parsed(text, values):
    assert parse_settings(text) == values


@pytest.mark.parametrize("text", ["", "a", "9..1", "1..5:0", "1,,2", "1..999999999:1"])
def test_settings_that_are_none(text):
    with pytest.raises(lz.InputError):
        parse_settings(text)


def test_loaded_codecs_are_coders():
    made = coder(lz.load_codec("walloc-rgb-linear"), quality=(20, 80))
    assert [s.label for s in made.settings] == ["q20", "q80"]
    profile = coder(lz.FeatureCodec())
    assert profile.modalities == ("tensor",)


def test_pairs_are_sounds_and_tuples_are_lists(picture, sound):
    assert len(evaluate((picture(0), picture(1)), ["png"], metrics=["psnr"]).rows) == 2
    pytest.importorskip("soundfile")
    assert evaluate((sound(), 16000), ["flac"], metrics=["snr"]).rows[0]["modality"] == "audio"


def test_same_names_are_told_apart(picture):
    signals = [Signal("a.png", "image", picture(n)) for n in range(2)]
    assert [r["input"] for r in evaluate(signals, ["png"], metrics=["psnr"]).rows] == ["a.png", "a.png (2)"]
