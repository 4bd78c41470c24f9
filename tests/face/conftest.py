"""The codec under test, as an installed plug-in would bring it; pictures and streams that several tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latentzip import pretrained
from latentzip.codecs import registry

PLUGIN = Path(__file__).parent / "plugin"
BUNDLED = [e.name for e in pretrained.index() if e.current and e.modality == "image"]
# the face behaves alike for every codec; the one without a network is the fastest
CODEC = next((name for name in ("walloc-rgb-linear",) if name in BUNDLED), "toy")


@pytest.fixture(autouse=True, scope="module")
def plugin() -> Iterator[None]:
    """Put the toy codec's distribution on the path, here and for programs that are started."""
    registry._plugins.cache_clear()
    before = os.environ.get("PYTHONPATH")
    sys.path.insert(0, str(PLUGIN))
    os.environ["PYTHONPATH"] = str(PLUGIN) + (os.pathsep + before if before else "")
    yield
    sys.path.remove(str(PLUGIN))
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
    registry._plugins.cache_clear()


@pytest.fixture(params=list(dict.fromkeys(["toy", *BUNDLED])))
def any_codec(request: pytest.FixtureRequest) -> str:
    """Every codec that is installed, in turn."""
    return request.param


@pytest.fixture
def codec() -> str:
    """The codec that tests use when any will do."""
    return CODEC


def smooth(height: int = 37, width: int = 53) -> np.ndarray:
    """A colourful smooth picture (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [120 + 80 * np.sin(x / (9 + 2 * c) + c) * np.cos(y / (11 - c)) + 0.3 * x for c in range(3)]
    return np.clip(np.stack(waves, -1), 0, 255).round().astype(np.uint8)


@pytest.fixture
def rgb() -> np.ndarray:
    return smooth()


def psnr(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(peak**2 / max(error, 1e-12)))


@pytest.fixture(name="psnr")
def psnr_fixture():
    return psnr
