"""From an encoded picture file to the picture that is packed: size, crop, mirrored twin."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from ...entropy.errors import InputError, UnsupportedError
from ...signals.pictures.files import from_pillow, open_picture, to_pillow, upright
from ...signals.pictures.metadata import Metadata
from ...warn import ConversionWarning

CROPS = ("center", "none")


def load_picture(data: bytes, name: str, size: int | None, crop: str) -> tuple[Image.Image, tuple[int, int]]:
    """Decode, turn upright and resize one picture.

    Args:
        size: length of the shorter side afterwards, in pixels; None leaves the picture as it is.
        crop: ``"center"`` cuts the middle square out of the resized picture, ``"none"`` does not.

    Returns:
        The picture, and (width, height) of the original.

    Raises:
        InputError: not a picture, or a damaged one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)  # a line for each of a million samples helps nobody
        image = open_picture(io.BytesIO(data), name)
        if isinstance(image, np.ndarray):
            raise UnsupportedError(f"{name}: an array under the name of a picture; save it as a picture first")
        return prepared(image, name, size, crop)


def prepared(image: Image.Image, name: str, size: int | None, crop: str) -> tuple[Image.Image, tuple[int, int]]:
    """As `load_picture`, of an open picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        picture = from_pillow(image, "none", name)
    image = to_pillow(picture.array, picture.mode, Metadata())
    original = image.size
    if size is not None:
        image = _resized(image, size)
        if crop == "center":
            left, top = (image.width - size) // 2, (image.height - size) // 2
            image = image.crop((left, top, left + size, top + size))
    return image, original


def exact_picture(data: bytes, name: str, size: int | None, crop: str) -> tuple[Image.Image, tuple[int, int]]:
    """As `load_picture` without a size, in the mode and with the samples of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        image = open_picture(io.BytesIO(data), name)
        if isinstance(image, np.ndarray):
            raise UnsupportedError(f"{name}: an array under the name of a picture; save it as a picture first")
        image.load()
        return image, upright(image, name).size


def _resized(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if image.mode in ("I;16", "I"):  # Pillow filters 16 bits as floats only
        values = np.asarray(image).astype(np.float32)
        resized = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
        return Image.fromarray(np.rint(np.asarray(resized)).clip(0, 65535).astype(np.uint16))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    if resized.mode == "F":
        return Image.fromarray(np.asarray(resized).clip(0, 1))
    return resized


def mirrored(image: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(image)


def check_options(size: int | None, crop: str) -> None:
    """Raises InputError when these arguments of `load_picture` make no sense."""
    if crop not in CROPS:
        raise InputError(f"crop is {crop!r}; one of {', '.join(CROPS)}")
    if size is not None and not 1 <= size <= 16384:
        raise InputError(f"size is {size}; 1 to 16384 pixels")
    if crop == "center" and size is None:
        raise InputError("crop 'center' needs a size")
