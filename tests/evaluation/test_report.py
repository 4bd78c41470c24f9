"""The HTML report as a file: well-formed, self-contained, complete; what it does in a browser is in test_browser."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from latentzip import InputError
from latentzip.evaluation import Signal, evaluate
from latentzip.evaluation.report import maps

VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and collects attributes and the embedded data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.name = ""
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.name = dict(attrs).get("id") or tag
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[self.name] = self.texts.get(self.name, "") + data


@pytest.fixture(scope="module")
def text(result, tmp_path_factory):
    path = result.write_report(tmp_path_factory.mktemp("report") / "report.html")
    return path.read_text("utf-8")


def test_page_is_well_formed_and_needs_no_network(text):
    page = Page(text)
    for _, name, value in page.attributes:
        assert name not in ("src", "href", "srcset", "action")
        assert name != "content" or "://" not in (value or "")
    assert "{{" not in text
    assert "default-src 'none'" in text
    code = page.texts["style"] + page.texts["script"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|XMLHttpRequest|import\(", code)


def test_names_that_look_like_places_of_the_template(tmp_path, picture):
    names = ["{{script}}.png", "{{data}}", "</script><script>x()</script>.png", "{{title}}\\u0000'\"&.png"]
    inputs = [Signal(name, "image", picture(0, 32, 32)) for name in names]
    text = evaluate(inputs, ["png"], metrics=["psnr"], threads=1).write_report(tmp_path / "r.html").read_text("utf-8")
    page = Page(text)
    rows = json.loads(page.texts["data"])["modalities"]["image"]["rows"]
    assert [row["input"] for row in rows] == names
    assert text.count("<script") == 2
    assert "x()</script>" not in text


def test_page_holds_every_number(text, result):
    data = json.loads(Page(text).texts["data"])
    part = data["modalities"]["image"]
    assert len(part["rows"]) == len(result.rows) == 18
    assert [r["psnr"] for r in part["rows"]] == [r["psnr"] for r in result.rows]
    assert part["averages"] == result.averages("image")
    assert part["anchor"] == "jpeg"
    assert part["comparisons"]["jpeg"]["psnr"]["webp"] == result.comparisons("image")["psnr"]["webp"]
    assert "<b>" not in text[text.index('id="data"') :].split("</script>")[0]  # names cannot end the script


def test_embedded_pictures_are_the_decoded_ones(text, result, picture):
    samples = json.loads(Page(text).texts["data"])["modalities"]["image"]["samples"]
    assert [s["input"] for s in samples] == ["<b>0</b>.png", "<b>1</b>.png"]

    def pixels(uri):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))

    for seed, sample in enumerate(samples):
        np.testing.assert_array_equal(pixels(sample["original"]), picture(seed))
        assert len(sample["decoded"]) == 8  # all but png, which is the original
        for entry in sample["decoded"]:
            row = next(
                r for r in result.rows if (r["input_id"], r["codec"], r["setting"])
                == (sample["id"], entry["codec"], entry["setting"])
            )  # fmt: skip
            np.testing.assert_array_equal(pixels(entry["uri"]), result.decoded(row)[1])
            assert ("rate" in entry) == (entry["codec"] == "walloc-rgb-linear")


def test_bound_on_size_leaves_out_pictures_and_says_so(result, tmp_path):
    path = result.write_report(tmp_path / "small.html", megabytes=0.05)
    data = json.loads(Page(path.read_text("utf-8")).texts["data"])
    assert data["leftOut"] > 0
    embedded = sum(len(e["uri"]) for s in data["modalities"]["image"]["samples"] for e in s["decoded"])
    assert embedded < 50_000


def test_nothing_is_overwritten(result, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists"):
        result.write_report(path)
    assert path.read_text() == "mine"
    assert result.write_report(path, force=True).stat().st_size > 10_000


def test_error_blocks_are_root_mean_squares(picture):
    a, b = picture(0, 19, 21), picture(1, 19, 21)
    blocks = maps.error_blocks(a, b, 8)
    assert blocks.shape == (3, 3)
    part = a[8:16, 16:21].astype(float) - b[8:16, 16:21]
    assert blocks[1, 2] == pytest.approx(np.sqrt(np.mean(part**2)))
    assert maps.error_blocks(a, a).max() == 0


def test_rate_tiles_add_up_to_the_file(result):
    row = next(r for r in result.rows if r["codec"] == "walloc-rgb-linear")
    data, _ = result.decoded(row)
    signal = result.signal(row["input_id"])
    tiles = maps.rate_tiles(result.coder("walloc-rgb-linear"), data, _setting(row), signal)
    assert tiles is not None
    rates, side = tiles
    assert side == 64
    assert rates.shape == (2, 2)
    areas = np.outer([64, 32], [64, 64])
    assert (rates * areas).sum() == pytest.approx(8 * len(data))
    assert maps.rate_tiles(result.coder("jpeg"), b"", _setting(row), signal) is None


def test_rate_tiles_see_where_detail_is():
    from latentzip.evaluation import Signal, coders

    flat = np.full((128, 128, 3), 128, np.uint8)
    flat[:64, :64] = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    made = coders.coder("walloc-rgb-linear@50")
    signal = Signal("half", "image", flat)
    rates, _ = maps.rate_tiles(made, made.encode(signal, made.settings[0]), made.settings[0], signal) or (None, 0)
    assert rates is not None
    assert rates[0, 0] > 5 * rates[1, 1]


def test_spectrogram_shows_a_tone_where_it_is():
    rate = 16000
    t = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 1000 * t)[:, None].astype(np.float32)
    image = maps.spectrogram(tone, rate, float(maps.mel_power(tone, rate, 96).max()), width=50)
    assert image.dtype == np.uint8
    assert image.shape[0] == 96
    assert image.shape[1] <= 50
    # the 1 kHz of mel(1000) / mel(8000) of the height from below, high bands first
    band = 95 - round(96 * 1000 / 2840)
    assert abs(int(image.mean(1).argmax()) - band) <= 2


def _setting(row):
    from latentzip.evaluation.coders import Setting

    return Setting(row["setting"], row["value"])
