"""Small signals of each modality, and one evaluation of them that several tests look at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from latentzip.evaluation import Evaluation, Signal, evaluate


def make_picture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(H, W, 3) uint8: soft waves, an edge and a little noise."""
    y, x = np.mgrid[:height, :width]
    waves = [120 + 60 * np.sin(x / (9 + seed + c)) * np.cos(y / (11 - c)) + 40 * (x > y + 10 * seed) for c in range(3)]
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return np.clip(np.stack(waves, -1) + noise, 0, 255).round().astype(np.uint8)


def make_sound(seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """(T, C) float32: a chord that dies away, over a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) * 0.15 * np.exp(-2 * t)
    noise = np.random.default_rng(0).normal(0, 0.003, (len(t), channels))
    return (chord[:, None] + noise).astype(np.float32)


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """`make_picture`."""
    return make_picture


@pytest.fixture(scope="session")
def sound() -> Callable[..., np.ndarray]:
    """`make_sound`."""
    return make_sound


@pytest.fixture(scope="session")
def result() -> Evaluation:
    """Two pictures through conventional codecs and one of ours."""
    pytest.importorskip("scipy")
    inputs = [Signal(f"<b>{n}</b>.png", "image", make_picture(n)) for n in range(2)]  # a name that HTML could trip over
    codecs = ["jpeg@20,50,90", "webp@30,80", "png", "walloc-rgb-linear@20,50,80"]
    return evaluate(inputs, codecs, metrics=["psnr"], threads=1)
