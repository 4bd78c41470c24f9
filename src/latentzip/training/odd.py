"""Signals that training sees little of, for judging a release: generated, or brought by scikit-image where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import synthetic, synthetic_sounds

_BROUGHT = ("page", "text", "coins", "cell", "ihc", "retina", "microaneurysms", "phantom", "logo", "moon")
_SIDE = 384
_RATE = 44100


def pictures() -> dict[str, Tensor]:
    """Name -> (3, H, W) float32 in [0, 1]: documents, screens, graphics, 16 bits, medical pictures."""
    found = {}
    for kind in (synthetic.text, synthetic.screen, synthetic.flat, synthetic.gradient, synthetic.noise):
        for seed in range(2):
            found[f"{kind.__name__}-{seed}"] = _tensor(kind(np.random.default_rng(1000 + seed), _SIDE))
    found["sixteen-bits"] = _sixteen_bits()
    return found | {name: _tensor(image) for name, image in _brought().items()}


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def _sixteen_bits() -> Tensor:
    """A soft field of 65536 levels with small dark spots, as detectors see it."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    field = 0.35 + 0.3 * np.sin(3 * x + 2 * y) * np.cos(4 * y)
    for cy, cx, r in rng.uniform((0, 0, 0.005), (1, 1, 0.03), (40, 3)):
        field -= 0.15 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)
    levels = np.round(65535 * np.clip(field + rng.normal(0, 0.002, field.shape), 0, 1)) / 65535
    return torch.from_numpy(levels).float().expand(3, -1, -1).contiguous()


def _brought() -> dict[str, np.ndarray]:
    """What lies in scikit-image's own folder, without asking it to download anything; cut to a moderate size."""
    try:
        import skimage.data
        from PIL import Image
    except ImportError:
        return {}
    images = {}
    for path in sorted(Path(skimage.data.__file__).parent.iterdir()):
        if path.stem in _BROUGHT and path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                images[path.stem] = np.asarray(image.convert("RGB"))[:512, :512]
    return images


def sounds() -> dict[str, Tensor]:
    """Name -> (2, T) float32 at 44.1 kHz: single notes, bells, clicks, sweeps."""
    found = {}
    for kind in synthetic_sounds.KINDS:
        for seed in range(2):
            x = kind(np.random.default_rng(1000 + seed), 2 * _RATE)
            x = 0.7 * x / np.abs(x).max()
            found[f"{kind.__name__}-{seed}"] = torch.from_numpy(x).float().repeat(2, 1)
    return found
