"""A small data set of each kind of signal, and how it is packed: what tests of all kinds are run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def wave(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth picture (H, W, 3) uint8, another one for every seed."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 90 * np.sin(x / (5 + c) + seed) * np.cos(y / (7 - c) + 0.3 * seed) for c in range(3)]
    return np.stack(planes, -1).astype(np.uint8)


def tone(seed: int, samples: int = 2048, channels: int = 2) -> np.ndarray:
    """Tones and some noise (T, C) float64, other ones for every seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples)[:, None]
    return 0.4 * np.sin(t * rng.uniform(0.02, 0.4, channels)) + rng.normal(0, 0.02, (samples, channels))


def rows(seed: int, shape: tuple[int, ...] = (12, 8)) -> np.ndarray:
    """Features with correlated channels, float32."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(shape[-1], shape[-1]))
    return (rng.normal(size=shape) @ mix).astype(np.float32)


@dataclass(frozen=True)
class Set:
    """A kind of signal in tests.

    Attributes:
        codec, options: of `pack`.
        suffix: of its files.
        write: (path, number) -> a file.
        ragged: the same, of another size for each number.
        to: what a loader gives of it.
    """

    name: str
    codec: str
    suffix: str
    write: Callable[[Path, int], Any]
    ragged: Callable[[Path, int], Any]
    to: str
    options: dict[str, Any] = field(default_factory=dict)

    def draw(self, folder: Path, count: int = 10, ragged: bool = False) -> Path:
        """Files ``ant/00.wav``, ``bee/01.wav``, ``cat/02.wav``, ..."""
        for i in range(count):
            path = folder / CLASSES[i % 3] / f"{i:02d}{self.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            (self.ragged if ragged else self.write)(path, i)
        return folder


def _sound(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, 8000)


SETS = {
    "image": Set(
        "image", "walloc-rgb-linear", ".png",
        lambda path, i: Image.fromarray(wave(i)).save(path),
        lambda path, i: Image.fromarray(wave(i, 24 + 8 * i, 64 - 8 * (i % 3))).save(path),
        "latent", {"mirror": True},
    ),
    "audio": Set(
        "audio", "audio", ".wav",
        lambda path, i: _sound(path, tone(i)),
        lambda path, i: _sound(path, tone(i, 1500 + 300 * i, 1 + i % 2)),
        "latent", {"quality": 40},
    ),
    "tensor": Set(
        "tensor", "features", ".npy",
        lambda path, i: np.save(path, rows(i)),
        lambda path, i: np.save(path, rows(i, (5 + i, 8) if i % 2 else (2, 5 + i, 8))),
        "signal", {"nmse": 0.001},
    ),
}  # fmt: skip
