"""Random crops from a folder of images, prepared by a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}


def list_images(folder: str | Path) -> list[Path]:
    """Images below a folder, sorted, so that a seed means the same everywhere."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in EXTENSIONS)


def load_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    with Image.open(path) as im:
        return np.asarray(im.convert("RGB"))


class CropSampler:
    """Endless batches (B, 3, size, size) uint8: one picture drawn per crop (not per pixel), so that large pictures do
    not dominate; half of the crops are shrunk by up to 2 (which also removes JPEG artefacts), all are flipped and
    transposed at random.

    Args:
        folder: images, decoded once and kept in memory.
        batch, size: crops a batch and their side in pixels.
        seed: with ``start`` it fixes every batch, so that a resumed run goes on where it stopped.
        start: number of batches already drawn.
    """

    def __init__(self, folder: str | Path, batch: int, size: int, seed: int, start: int = 0) -> None:
        self.images = [im for im in map(load_rgb, list_images(folder)) if min(im.shape[:2]) >= size]
        if not self.images:
            raise FileNotFoundError(f"no image of at least {size} pixels a side in {folder}")
        self.batch, self.size, self.seed, self.step = batch, size, seed, start

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        im = self.images[rng.integers(len(self.images))]
        h, w = im.shape[:2]
        side = self.size
        if rng.random() < 0.5:
            side = min(int(self.size * rng.uniform(1, 2)), h, w)
        y, x = rng.integers(h - side + 1), rng.integers(w - side + 1)
        part = im[y : y + side, x : x + side]
        if side != self.size:
            part = np.asarray(Image.fromarray(part).resize((self.size, self.size), Image.Resampling.LANCZOS))
        if rng.random() < 0.5:
            part = part[:, ::-1]
        if rng.random() < 0.5:
            part = part[::-1]
        if rng.random() < 0.5:
            part = part.transpose(1, 0, 2)
        return part

    def make(self) -> Tensor:
        rng = np.random.default_rng([self.seed, self.step])
        self.step += 1
        crops = np.stack([self.crop(rng) for _ in range(self.batch)])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()

    def __iter__(self) -> Iterator[Tensor]:
        batches: queue.Queue[Tensor] = queue.Queue(maxsize=4)

        def work() -> None:
            while True:
                batches.put(self.make())

        threading.Thread(target=work, daemon=True).start()
        while True:
            yield batches.get()
