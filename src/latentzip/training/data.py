"""Random crops of pictures, prepared by a background thread."""

from __future__ import annotations

import io
import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..warn import ConversionWarning
from . import synthetic
from .sources import Folders, Source, by_kind, list_sources

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}


def list_images(folder: Folders) -> list[Path]:
    """Images below a folder or several, sorted, so that a seed means the same everywhere."""
    return [source.root / source.name for source in list_sources(folder, EXTENSIONS)]


def load_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    with Image.open(path) as im:
        return np.asarray(im.convert("RGB"))


def load_all(folder: Folders) -> list[np.ndarray]:
    """All pictures of a folder or several that can be read, (H, W, 3) uint8; a warning names the others."""
    return [image for _, image in read_all(list_sources(folder, EXTENSIONS))]


def read_all(sources: Sequence[Source]) -> Iterator[tuple[Source, np.ndarray]]:
    """Those of the files that can be read, each with its picture; a warning names the others."""
    for source in sources:
        try:
            yield source, read_rgb(source)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            warnings.warn(f"{source.root / source.name} is left out: {error}", ConversionWarning, stacklevel=3)


def read_rgb(source: Source) -> np.ndarray:
    """(H, W, 3) uint8 of a file of a folder or a zip file."""
    with Image.open(io.BytesIO(source.read())) as im:
        return np.asarray(im.convert("RGB"))


class Draw(NamedTuple):
    """What is random about a crop: picture, corner, side before it is brought to size, symmetries, and colours."""

    number: int
    y: int
    x: int
    side: int
    mirror: bool
    flip: bool
    transpose: bool
    levels: np.ndarray | None  # (3, 256) uint8: what becomes of each level of a channel


def draw_levels(rng: np.random.Generator) -> np.ndarray:
    """A table (3, 256) uint8 of other exposure, contrast and tint; contrast is lowered more than raised, which would
    raise a source's own artefacts."""
    level = np.arange(256) / 255
    contrast, gamma = rng.uniform(0.5, 1.1), np.exp(rng.uniform(-0.4, 0.4))
    tint = rng.uniform(0.85, 1.1, (3, 1))
    offset = rng.uniform(0, max(0.0, 1 - contrast))
    return np.round(255 * np.clip(tint * (offset + contrast * level**gamma), 0, 1)).astype(np.uint8)


class CropSampler:
    """Endless batches (B, 3, size, size) uint8: a kind of picture is drawn per crop, then a picture of it (not a
    pixel), so that neither large pictures nor frequent kinds dominate. Half of the crops are shrunk by up to 2 (which
    also removes JPEG artefacts), one in sixteen is enlarged, all are flipped and transposed at random, and some get
    other levels and colours.

    Args:
        data: folders or zip files of images, decoded once and kept in memory.
        batch, size: crops a batch and their side in pixels.
        seed: with ``start`` it fixes every batch, so that a resumed run goes on where it stopped.
        start: number of batches already drawn.
        drawn: share of crops that are synthetic pictures.
        recoloured: share of the others that get other levels and colours.

    Raises:
        FileNotFoundError: no image of the size.
    """

    def __init__(
        self,
        data: Folders,
        batch: int,
        size: int,
        seed: int,
        start: int = 0,
        drawn: float = 0.0,
        recoloured: float = 0.0,
    ) -> None:
        found = list(read_all(list_sources(data, EXTENSIONS)))
        large = [(source.kind, image) for source, image in found if min(image.shape[:2]) >= size]
        if not large:
            what = f"{len(found)} pictures, all smaller" if found else "no pictures"
            raise FileNotFoundError(
                f"no image of at least {size} pixels a side in {data} ({what}); crops are {size} pixels: "
                f"use larger pictures or a smaller crop"
            )
        self.images = [image for _, image in large]
        self.sizes = [image.shape[:2] for image in self.images]
        self.kinds = by_kind([kind for kind, _ in large])
        # a kind of many pictures is seen more often, but not in proportion
        weights = np.sqrt([len(numbers) for numbers in self.kinds])
        self.weights = weights / weights.sum()
        self.batch, self.size, self.seed, self.step = batch, size, seed, start
        self.drawn, self.recoloured = drawn, recoloured

    def draw(self, rng: np.random.Generator) -> Draw:
        kind = self.kinds[int(rng.choice(len(self.kinds), p=self.weights))]
        number = kind[int(rng.integers(len(kind)))]
        h, w = self.sizes[number]
        side, scale = self.size, rng.random()
        if scale < 0.5:
            side = min(int(self.size * rng.uniform(1, 2)), h, w)
        elif scale < 0.5625:
            side = int(self.size * rng.uniform(0.6, 1))
        y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        mirror, flip, transpose = (bool(rng.random() < 0.5) for _ in range(3))
        levels = draw_levels(rng) if rng.random() < self.recoloured else None
        return Draw(number, y, x, side, mirror, flip, transpose, levels)

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < self.drawn:
            return synthetic.picture(rng, self.size)
        d = self.draw(rng)
        part = self.images[d.number][d.y : d.y + d.side, d.x : d.x + d.side]
        if d.side != self.size:
            part = np.asarray(Image.fromarray(part).resize((self.size, self.size), Image.Resampling.LANCZOS))
        if d.levels is not None:
            part = np.stack([d.levels[c][part[..., c]] for c in range(3)], -1)
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
