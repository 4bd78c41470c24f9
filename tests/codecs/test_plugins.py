"""The codec of docs/plugins.md, executed as printed: one file, and everything else works."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import latentzip as lz
from latentzip import cli
from latentzip.codecs import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"


class Plugin(EntryPoint):
    """An entry point whose distribution is this page."""

    def load(self):
        scope = {}
        (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        exec(code, scope)
        return scope["BlockMeans"]


@pytest.fixture
def plugin(monkeypatch):
    points = {"block-means": Plugin("block-means", "page:BlockMeans", registry.GROUP)}
    monkeypatch.setattr(registry, "_plugins", lambda: points)
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_documented_plugin_encodes_and_decodes():
    x = np.random.default_rng(0).integers(0, 256, (45, 70, 3)).astype(np.uint8)
    blob = lz.encode(x, codec="block-means")
    y = lz.decode(blob)
    assert y.shape == x.shape
    assert lz.inspect(blob).codec == "block-means"
    means = x[:40, :64].reshape(5, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(y[4:40:8, 4:64:8] - means).max() <= 255 / 128 + 1
    assert "block-means" in [info.name for info in lz.list_codecs()]


def test_stream_of_a_missing_plugin_says_so(plugin, monkeypatch):
    blob = lz.encode(np.zeros((8, 8, 3), np.uint8), codec="block-means")
    monkeypatch.setattr(registry, "_plugins", dict)
    with pytest.raises(lz.CodecError, match="block-means"):
        lz.decode(blob)


def test_a_taken_name_harms_nobody_else(monkeypatch, capsys):
    """One distribution's mistake is told by `codec-cli list`; everything else works."""
    points = [
        EntryPoint("walloc-rgb-linear", "some.module:f", registry.GROUP),
        EntryPoint("own", "some.module:f", registry.GROUP),
        EntryPoint("own", "other.module:f", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    registry._plugins.cache_clear()
    x = np.zeros((16, 16, 3), np.uint8)
    assert lz.decode(lz.encode(x, codec="walloc-rgb-linear")).shape == x.shape
    assert [info.name for info in lz.list_codecs()].count("own") == 1
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().err.count("is taken") == 2
    registry._plugins.cache_clear()


@pytest.mark.parametrize("failure", [ValueError("odd"), SystemExit(3), RecursionError()])
def test_a_plugin_that_fails_to_load_is_one_error(monkeypatch, failure):
    class Broken(EntryPoint):
        def load(self):
            raise failure

    monkeypatch.setattr(registry, "_plugins", lambda: {"broken": Broken("broken", "m:f", registry.GROUP)})
    with pytest.raises(lz.CodecError, match=r"broken.*failed to load"):
        lz.encode(np.zeros((8, 8, 3), np.uint8), codec="broken")


def test_metadata_that_cannot_be_read_harm_nobody(monkeypatch):
    def broken(group):
        raise ValueError("a distribution without a name")

    monkeypatch.setattr(registry, "entry_points", broken)
    registry._plugins.cache_clear()
    assert len(lz.list_codecs()) > 5
    assert "a distribution without a name" in registry.plugin_problems[0]
    registry._plugins.cache_clear()


def test_a_plugin_that_raises_ends_no_batch(monkeypatch, tmp_path, capsys):
    """What a codec raises is a line for its file; the other files are done."""
    from PIL import Image

    from latentzip.codecs.walloc.codec import Walloc

    for name, value in (("a", 0), ("b", 255)):
        Image.new("RGB", (16, 16), (value,) * 3).save(tmp_path / f"{name}.png")
    before = Walloc.analysis

    def picky(self, x, quality=None):
        if float(x.max()) == 0:
            raise KeyError("no such thing")
        return before(self, x, quality)

    monkeypatch.setattr(Walloc, "analysis", picky)
    command = ["encode", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "-c", "walloc-rgb-linear"]
    assert cli.main(command) == 1
    assert "a.png: unexpected KeyError: 'no such thing'" in capsys.readouterr().err
    assert (tmp_path / "b.ltz").exists()
    assert not (tmp_path / "a.ltz").exists()
