"""Pictures: from a file or a Pillow image to an array that can be coded, and back to a Pillow image and a file.

Every conversion that changes what the user handed in is announced by a `ConversionWarning`; docs/inputs.md lists them.
"""

from __future__ import annotations

import importlib
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...entropy.container import SIGNATURE
from ...entropy.errors import InputError, UnsupportedError
from ...warn import converted
from ..npy import read_npy
from . import deep
from .metadata import Metadata, collect

Path_ = str | os.PathLike[str]

# formats that Pillow reads only with the help of a plug-in: extension -> (module, what to do after installing it)
_PLUGINS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), ("pillow_heif", "register_heif_opener", "pip install pillow-heif")),
    ".jxl": ("pillow_jxl", "", "pip install pillow-jxl-plugin"),
}
_RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
_VECTOR = (".svg", ".pdf", ".ai")

_STRIP = 1 << 22  # pixels that are taken from Pillow at once
_SPACES = {"CMYK": "CMYK", "LAB": "LAB", "YCbCr": "YCBR", "HSV": "HSV"}  # Pillow mode -> ICC colour space


@dataclass(frozen=True)
class Picture:
    """A picture ready to code.

    Attributes:
        array: (H, W) or (H, W, C): uint8, uint16, or float32 in [0, 1].
        mode: L, LA, RGB, RGBA, I;16, I or F: the mode that decoding restores.
    """

    array: np.ndarray
    mode: str
    metadata: Metadata


# --- files -> Pillow ---------------------------------------------------------------------------------------------


def _try_plugin(suffix: str) -> bool:
    """Register the Pillow plug-in of this file type where it is installed."""
    module, register, _ = _PLUGINS.get(suffix, ("", "", ""))
    if not module:
        return False
    try:
        plugin = importlib.import_module(module)
    except ImportError:
        return False
    if register:
        getattr(plugin, register)()
    return True


def _unreadable(name: str) -> InputError:
    suffix = Path(name).suffix.lower()
    if suffix in _PLUGINS:
        return InputError(f"{name}: Pillow needs a plug-in to read {suffix} files: {_PLUGINS[suffix][2]}")
    if suffix in _RAW:
        return InputError(f"{name}: camera raw files have to be developed first, for example to a TIFF file")
    if suffix in _VECTOR:
        return InputError(f"{name}: vector graphics have to be rendered first, for example to a PNG file")
    return InputError(f"{name}: not a picture that Pillow can read")


def open_picture(source: Path_ | BinaryIO, name: str | None = None) -> Image.Image | np.ndarray:
    """Open a picture file (by content, not by name), or an array from a ``.npy`` file.

    Raises:
        InputError: not a picture, damaged, or of a type that needs a plug-in (the text names it).
        OSError: the file itself cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        stream = io.BytesIO(Path(source).read_bytes())
    else:
        stream, name = source, name or "stream"
    try:
        head = stream.read(len(SIGNATURE))
        if head == SIGNATURE:  # whether Pillow has learned to read it or not (latentzip.pillow)
            raise InputError(f"{name}: this is a .ltz stream already; decode it")
        if head.startswith(b"\x93NUMPY"):
            stream.seek(0)
            return read_npy(stream, name)
        stream.seek(0)
        return Image.open(stream)
    except InputError:
        raise
    except UnidentifiedImageError:
        if _try_plugin(Path(name).suffix.lower()):
            stream.seek(0)
            with suppress(UnidentifiedImageError):
                return Image.open(stream)
        raise _unreadable(name) from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error} (raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file)") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{name}: damaged picture: {error}") from error


def _deep(image: Image.Image, name: str) -> np.ndarray | None:
    """All bits of colour deeper than 8 bits a channel, where they can be read; said so where they cannot."""
    bits = deep.depth(image)
    if bits <= 8:
        return None
    array = deep.read(image)
    if array is not None:
        if image.mode == "RGBA" and array.shape[2] == 2:  # grey and alpha of a PNG file
            array = array[..., [0, 0, 0, 1]]
        return array
    tags = getattr(image, "tag_v2", {})
    if tags.get(284) == 2:  # planes one after the other: Pillow takes each half of a sample for one
        raise InputError(
            f"{name}: TIFF with {bits} bits a channel in planes needs tifffile: pip install latentzip[deep]"
        )
    remedy = "pip install latentzip[deep], or hand in a uint16 array, to keep them"
    converted(f"{name}: colour of {bits} bits a channel is read as 8 bits; {remedy}")
    return None


# --- Pillow -> array ---------------------------------------------------------------------------------------------


def _to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """CMYK, LAB, YCbCr or HSV -> RGB; through the embedded profile where it is one of that colour space."""
    mode = image.mode
    if icc:
        from PIL import ImageCms

        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = str(getattr(profile.profile, "xcolor_space", "")).strip().upper()
            if space == _SPACES[mode]:
                target = ImageCms.createProfile("sRGB")
                rgb = ImageCms.profileToProfile(image, profile, target, outputMode="RGB")
                assert rgb is not None
                converted(f"{mode} is converted to sRGB through its ICC profile")
                return rgb, None
        except (ImageCms.PyCMSError, OSError) as error:
            converted(f"the ICC profile of a {mode} picture cannot be used and is dropped: {error}")
            icc, space = None, ""
        if space != "RGB":
            icc = None
    shift = " without a CMYK profile" if mode == "CMYK" else ""
    converted(f"{mode}{shift} is converted to RGB by Pillow's formula: colours may shift")
    return image.convert("RGB"), icc


def _convert(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """To one of the modes that are coded: L, LA, RGB, RGBA, I;16, I, F."""
    mode, keyed = image.mode, "transparency" in image.info
    if keyed and mode in ("1", "L", "RGB"):
        target = "RGBA" if mode == "RGB" else "LA"
        converted(f"a transparent colour of a {mode} picture becomes an alpha channel ({target})")
        return image.convert(target), icc
    if keyed and mode.startswith("I"):
        converted(f"the transparent colour of a {mode} picture is dropped")
    if mode in ("L", "LA", "RGB", "RGBA", "I", "F") or mode.startswith("I;16"):
        return image, icc
    if mode == "1":
        converted("black-and-white (mode 1) is coded as grey: it decodes as mode L")
        return image.convert("L"), icc
    if mode == "P":
        target = "RGBA" if image.has_transparency_data else "RGB"  # by a colour, or by a palette with alpha
        converted(f"a palette (mode P) is coded as {target} and decodes so")
        return image.convert(target), icc
    if mode in ("PA", "RGBa", "RGBX", "La"):
        target = {"PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "La": "LA"}[mode]
        converted(f"mode {mode} is coded as {target} and decodes so")
        return image.convert(target), icc
    if mode in _SPACES:
        return _to_srgb(image, icc)
    raise InputError(f"Pillow mode {mode} is not supported; convert the picture to RGB, RGBA, L or I;16 first")


def from_pillow(image: Image.Image, metadata: str = "auto", name: str = "picture") -> Picture:
    """Take a Pillow image apart: upright pixels, a mode that is coded, the metadata to keep.

    Args:
        metadata: ``"auto"`` (ICC profile), ``"all"`` (ICC, EXIF, XMP) or ``"none"``. Orientation is applied always.

    Raises:
        InputError: empty, damaged, or of a mode or range that cannot be coded.
    """
    if 0 in image.size:
        raise InputError(f"{name}: the picture is empty ({image.size[0]} x {image.size[1]})")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        place = image.tell()
        which = "the first" if place == 0 else f"the current (number {place + 1})"
        converted(f"{name}: only {which} of {frames} frames is coded")
    full, key = _deep(image, name), deep.key_of(image)
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{name}: damaged picture: {error}") from error
    if key != image.info.get("transparency"):
        image = image.copy()
        image.info["transparency"] = key
    turn = _orientation(image)
    image = upright(image, name)
    kept = collect(image, metadata)
    if full is not None:
        return Picture(deep.upright(full, turn), {2: "LA", 3: "RGB", 4: "RGBA"}[full.shape[2]], kept)
    image, icc = _convert(image, image.info.get("icc_profile"))
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    array = _array(image)
    if mode == "I;16":
        array = array.astype(np.uint16)
    elif mode == "I":
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 65535:
            raise InputError(f"{name}: mode I with values {low}..{high}; only 0..65535 can be coded: scale it first")
        array = array.astype(np.uint16)
    return Picture(array, mode, kept.with_icc(icc if metadata != "none" else None))


def _array(image: Image.Image) -> np.ndarray:
    """Pixels, copied in strips: Pillow makes two copies of what it is asked for at once."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return np.asarray(image)
    first = np.asarray(image.crop((0, 0, width, rows)))
    array = np.empty((height, *first.shape[1:]), first.dtype)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # `upright` says so
        return int(image.getexif().get(0x0112, 1))
    return 1


def upright(image: Image.Image, name: str = "picture") -> Image.Image:
    """Turn the pixels as the EXIF orientation says and drop the tag, so that every reader shows the same picture."""
    try:
        turned = image.getexif().get(0x0112, 1) not in (0, 1)
    except Exception as error:  # whatever a damaged EXIF block makes Pillow raise
        converted(f"{name}: unreadable EXIF data is ignored: {error}")
        image.info.pop("exif", None)
        return image
    return ImageOps.exif_transpose(image) if turned else image


# --- array -> Pillow -> file -------------------------------------------------------------------------------------


def to_pillow(array: np.ndarray, mode: str, metadata: Metadata) -> Image.Image:
    """An array (H, W) or (H, W, C) as decoded -> Pillow image with its metadata in ``info``.

    Colour deeper than 8 bits, which Pillow has no mode for, is rounded to 8 bits.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if mode not in ("F", "I", "I;16"):
        if array.dtype == np.uint16 and array.ndim == 3:
            array = np.rint(array.astype(np.float32) * (255 / 65535)).astype(np.uint8)
        elif array.dtype.kind == "f":
            array = np.rint(array.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
    if array.ndim == 3 and array.shape[2] not in (2, 3, 4):
        raise InputError(f"a signal of {array.shape[2]} channels is no picture: decode to numpy or tensor")
    image = Image.fromarray(np.ascontiguousarray(array.astype(np.int32) if mode == "I" else array))
    image.info.update(metadata.info())
    return image


class _ByPython:
    """A stream without a descriptor: Pillow, writing to one itself, takes the part that a full disk took for all."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "fileno":
            raise AttributeError(name)
        return getattr(self._stream, name)


def check_suffix(suffix: str) -> str:
    """Pillow's name of the format that a file name's suffix asks for; InputError when it writes none."""
    Image.init()
    name = Image.EXTENSION.get(suffix.lower())
    if name is None or name not in Image.SAVE:
        raise InputError(f"cannot write {suffix or 'a name without extension'} files; use .png, .tif or .npy")
    return name


def save_picture(image: Image.Image, stream: BinaryIO, suffix: str) -> None:
    """Write a picture in the format that a file name's suffix asks for, with its metadata.

    Raises:
        InputError: unknown suffix.
        UnsupportedError: a format that cannot hold the picture; the text says which does.
        OSError: the file cannot be written.
    """
    name = check_suffix(suffix)
    options = Metadata.of(image).save_options(name)
    if name in ("JPEG", "WEBP"):
        options["quality"] = 95
    if name == "PNG":
        if image.mode == "I":  # 16 bits in 32
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        options["compress_level"] = 4  # a third of the time of the default for 2 % more bytes
    try:
        image.save(cast(BinaryIO, _ByPython(stream)), name, **options)
    except (OSError, ValueError, KeyError) as error:
        if getattr(error, "errno", None) is not None:  # of the file, not of the format
            raise
        other = ".tif" if name == "PNG" or image.mode == "F" else ".png"
        raise UnsupportedError(f"{name} cannot hold this picture of mode {image.mode}: {error}; use {other}") from error
