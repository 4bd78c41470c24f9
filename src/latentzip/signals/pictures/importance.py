"""Maps of importance from files: what `encode(weight=...)` takes, for the command line."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...entropy.errors import InputError


def load(path: str | os.PathLike[str]) -> np.ndarray:
    """A map (H, W) float32: an array of a ``.npy`` file, or the lightness of a picture, turned as its EXIF data says.

    Raises:
        InputError: no map.
        OSError: the file cannot be read.
    """
    name = os.fspath(path)
    if name.lower().endswith(".npy"):
        try:
            return np.load(name, allow_pickle=False).astype(np.float32)
        except ValueError as error:
            raise InputError(f"{name} is no array of weights: {error}") from error
    from .files import upright

    try:
        with Image.open(name) as picture:
            return np.asarray(upright(picture, name).convert("L"), np.float32)
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is neither a picture nor a .npy array: {error}") from error
