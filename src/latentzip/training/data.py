"""Random crops from a folder of images, prepared by a background thread."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..warn import ConversionWarning

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}


def list_images(folder: str | Path) -> list[Path]:
    """Images below a folder, sorted, so that a seed means the same everywhere."""
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in EXTENSIONS)


def load_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    with Image.open(path) as im:
        return np.asarray(im.convert("RGB"))


def load_all(folder: str | Path, paths: Sequence[Path] | None = None) -> list[np.ndarray]:
    """All pictures of a folder (or those paths in it) that can be read, as `load_rgb`; a warning names the others."""
    out = []
    for path in list_images(folder) if paths is None else paths:
        try:
            out.append(load_rgb(path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            warnings.warn(f"{path} is left out: {error}", ConversionWarning, stacklevel=2)
    return out


class Draw(NamedTuple):
    """What is random about a crop: picture, corner, side before shrinking, and the symmetries."""

    number: int
    y: int
    x: int
    side: int
    mirror: bool
    flip: bool
    transpose: bool


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
        found = load_all(folder)
        self.images = [im for im in found if min(im.shape[:2]) >= size]
        if not self.images:
            what = f"{len(found)} pictures, all smaller" if found else "no pictures"
            raise FileNotFoundError(
                f"no image of at least {size} pixels a side in {folder} ({what}); crops are {size} pixels: "
                f"use larger pictures or a smaller crop"
            )
        self.batch, self.size, self.seed, self.step = batch, size, seed, start

    def draw(self, rng: np.random.Generator) -> Draw:
        number = int(rng.integers(len(self.images)))
        h, w = self.images[number].shape[:2]
        side = self.size
        if rng.random() < 0.5:
            side = min(int(self.size * rng.uniform(1, 2)), h, w)
        y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        mirror, flip, transpose = (bool(rng.random() < 0.5) for _ in range(3))
        return Draw(number, y, x, side, mirror, flip, transpose)

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        d = self.draw(rng)
        part = self.images[d.number][d.y : d.y + d.side, d.x : d.x + d.side]
        if d.side != self.size:
            part = np.asarray(Image.fromarray(part).resize((self.size, self.size), Image.Resampling.LANCZOS))
        if d.mirror:
            part = part[:, ::-1]
        if d.flip:
            part = part[::-1]
        return part.transpose(1, 0, 2) if d.transpose else part

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


class DeviceCropSampler(CropSampler):
    """The same crops, made where the training runs: the pictures lie in the device's memory (3 bytes a pixel), so that
    no batch waits for the host.

    Shrinking filters with an antialiased bicubic instead of Lanczos; all else is drawn as in `CropSampler`.

    Args:
        device: where pictures and batches lie.
    """

    def __init__(
        self, folder: str | Path, batch: int, size: int, seed: int, start: int = 0, device: torch.device | str = "cuda"
    ) -> None:
        super().__init__(folder, batch, size, seed, start)
        self.pictures = [torch.tensor(im, device=device).permute(2, 0, 1) for im in self.images]

    def make(self) -> Tensor:
        rng = np.random.default_rng([self.seed, self.step])
        self.step += 1
        return torch.stack([self._part(self.draw(rng)) for _ in range(self.batch)])

    def _part(self, d: Draw) -> Tensor:
        part = self.pictures[d.number][:, d.y : d.y + d.side, d.x : d.x + d.side]
        if d.side != self.size:
            size = (self.size, self.size)
            small = F.interpolate(part[None].float(), size, mode="bicubic", antialias=True, align_corners=False)
            part = small[0].round().clamp(0, 255).to(torch.uint8)
        axes = [2] * d.mirror + [1] * d.flip
        part = part.flip(axes) if axes else part
        return part.transpose(1, 2) if d.transpose else part

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.make()
