"""Small packs for the tests of this folder, made of generated pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from latentzip.data import pack


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """A smooth colour picture with edges and some noise."""
    rng = np.random.default_rng(seed)
    h, w = size
    y, x = np.mgrid[:h, :w] / 10
    base = np.stack([np.sin(x * rng.uniform(0.2, 2) + k) + np.cos(y * rng.uniform(0.2, 2)) for k in range(3)], -1)
    base[h // 3 : h // 2, w // 4 : w // 2] += 1.5
    return Image.fromarray(np.clip(base * 60 + 128 + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8))


def manifest(codec, fingerprint, shards, **fields):
    """A manifest of shards that were not made by `pack`."""
    latent = {"channels": 12, "dtype": "int8", "fixed_shape": [12, 8, 8], "shapes": {}}
    made = {
        "format": "latentzip-pack", "version": 1, "codec": codec, "fingerprint": fingerprint, "modality": "image",
        "samples": sum(s["samples"] for s in shards), "variants": 1, "latent": latent,
        "columns": {"key": {"dtype": "str"}}, "shards": shards,
    }  # fmt: skip
    return made | fields


def make_pack(folder, sizes, classes=("a", "b"), **options):
    """A pack of one picture a size, dealt out over classes in turn; returns its path."""
    for i, size in enumerate(sizes):
        place = folder / "src" / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        picture(i, size).save(place / f"{i:03d}.png")
    pack(folder / "src", folder / "pack", labels="folders", jobs=1, **options)
    return folder / "pack"
