"""Test pictures of the benchmarks: a folder, or the photographs that scikit-image and scikit-learn bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentzip.training.data import list_images, load_rgb


def load(folder: Path | None, quick: bool) -> list[tuple[str, np.ndarray]]:
    """(name, (H, W, 3) uint8); with ``quick`` four of them."""
    if folder is not None:
        paths = list_images(folder)
        if not paths:
            raise SystemExit(f"no pictures in {folder}")
        if quick:
            paths = paths[:: max(1, len(paths) // 4)][:4]
        return [(p.stem, load_rgb(p)) for p in paths]
    from skimage import data
    from sklearn.datasets import load_sample_images

    pictures = [("astronaut", data.astronaut()), ("coffee", data.coffee()), ("chelsea", data.chelsea())]
    flowers = load_sample_images()
    pictures += [(Path(n).stem, i) for n, i in zip(flowers.filenames, flowers.images)]
    return pictures[:4] if quick else pictures
