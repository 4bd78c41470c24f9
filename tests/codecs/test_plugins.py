"""The codec of docs/plugins.md, executed as printed: one file, and everything else works."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import latentzip as lz
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


def test_a_name_can_be_taken_once(monkeypatch):
    taken = [EntryPoint("walloc-rgb-linear", "some.module:f", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: taken)
    registry._plugins.cache_clear()
    with pytest.raises(lz.CodecError, match="taken"):
        registry._plugins()
    registry._plugins.cache_clear()
