"""Colour of more than 8 bits a channel from picture files, of which Pillow hands over the high bytes.

PNG, TIFF, SGI and PPM are read in full through Pillow's own decoders: once for the high bytes and, told that bytes lie
in the other order, once for the low ones. Other layouts of TIFF need tifffile, JPEG 2000 and AVIF imagecodecs.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

_OTHER = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
_HEAD = 1 << 16  # bytes of a file in which its depth is looked for


def key_of(image: Image.Image) -> Any:
    """The transparent colour of a file that is not loaded yet, in the samples that Pillow will give; None without one.

    Pillow scales grey of 2 and 4 bits to 8, but not the colour.
    """
    key = image.info.get("transparency")
    raw = _raw_mode(image)
    return key * {"L;2": 85, "L;4": 17}.get(raw, 1) if isinstance(key, int) and image.mode == "L" else key


def depth(image: Image.Image) -> int:
    """Bits a channel of the file behind a colour picture that is not loaded yet; 8 where nothing says more."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return 8
    if ";16" in _raw_mode(image):
        return 16
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        bits = tags.get(258, 8)
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "PPM":
        maximum = next((a for a in _arguments(image) if isinstance(a, int)), 255)
        return maximum.bit_length()
    return _declared(_bytes(image, _HEAD)) if image.format in ("JPEG2000", "AVIF", "HEIF") else 8


def read(image: Image.Image) -> np.ndarray | None:
    """All 16 bits of a colour file that is not loaded yet: (H, W, 2, 3 or 4) uint16; None where nothing here reads it.

    A transparent colour becomes a fourth channel. The picture itself stays as it is.
    """
    with suppress(Exception):  # whatever a reader says of a damaged file, Pillow says again, and is heard
        array = _ppm(image) if image.format == "PPM" else _twice(image)
        if array is None:
            array = _by_tifffile(image) if hasattr(image, "tag_v2") else _by_imagecodecs(image)
        if array is not None and array.shape[:2] == image.size[::-1]:
            return _with_key(array, image.info.get("transparency"))
    return None


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rows and columns turned as an EXIF orientation from 1 to 8 says."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def _arguments(image: Image.Image) -> tuple[Any, ...]:
    tiles = getattr(image, "tile", ())
    if not tiles:
        return ()
    return tiles[0][3] if isinstance(tiles[0][3], (tuple, list)) else (tiles[0][3],)


def _raw_mode(image: Image.Image) -> str:
    return next((a for a in _arguments(image) if isinstance(a, str)), "")


def _bytes(image: Any, count: int = -1) -> bytes:
    """The file from its beginning; where it is read stays the same."""
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read(count)
    image.fp.seek(place)
    return data


def _declared(head: bytes) -> int:
    """Bits a channel that a JPEG 2000 codestream or an AVIF or HEIF file declares."""
    at = head.find(b"\xff\x4f\xff\x51")
    if at >= 0 and len(head) > at + 42:
        return (head[at + 42] & 0x7F) + 1
    at = head.find(b"pixi")
    return max(head[at + 9 : at + 9 + head[at + 8]], default=8) if at >= 0 and len(head) > at + 8 else 8


def _twice(image: Image.Image) -> np.ndarray | None:
    raw = _raw_mode(image)
    base, mark, end = raw.partition(";16")
    if base not in ("RGB", "RGBA", "RGBX", "LA") or mark + end not in _OTHER:
        return None
    data, frame = _bytes(image), image.tell()
    if base == "LA":
        parts = np.asarray(_decoded(data, frame, raw, "RGBA"), np.uint16)
        high, low = (parts[..., 0::2], parts[..., 1::2]) if end == "B" else (parts[..., 1::2], parts[..., 0::2])
    else:
        high = np.asarray(_decoded(data, frame, raw, raw), np.uint16)
        low = np.asarray(_decoded(data, frame, raw, base + _OTHER[mark + end]), np.uint16)
    return high << 8 | low


def _decoded(data: bytes, frame: int, old: str, new: str) -> Image.Image:
    """A frame with another raw mode."""
    image: Any = Image.open(io.BytesIO(data))
    image.seek(frame)
    tiles = []
    for tile in image.tile:
        arguments = tuple(new if a == old else a for a in tile[3]) if isinstance(tile[3], (tuple, list)) else new
        tiles.append(tile._replace(args=arguments))
    image.tile = tiles
    image.load()
    return image


def _ppm(image: Any) -> np.ndarray | None:
    maximum = next(a for a in _arguments(image) if isinstance(a, int))
    size = (image.size[1], image.size[0], 3)
    data = _bytes(image)[image.tile[0][2] :]
    if image.tile[0][0] == "ppm_plain":
        array = np.array(data.split(), np.uint16)[: np.prod(size)].reshape(size)
    else:
        array = np.frombuffer(data, ">u2", int(np.prod(size))).reshape(size)
    return np.rint(np.minimum(array, maximum) * (65535 / maximum)).astype(np.uint16)


def _by_tifffile(image: Image.Image) -> np.ndarray | None:
    import tifffile  # type: ignore[import-untyped]

    with tifffile.TiffFile(io.BytesIO(_bytes(image))) as file:
        page: Any = file.pages[image.tell()]
        array = page.asarray()
        if page.planarconfig == 2:
            array = np.moveaxis(array, 0, -1)
        extra = tuple(getattr(page, "extrasamples", ()))
    if array.dtype != np.uint16 or array.ndim != 3:
        return None
    colours = array.shape[2] - len(extra)
    if colours not in (1, 3):
        return None
    if not extra or extra[0] not in (1, 2):
        return array[..., :colours] if colours == 3 else None
    array = array[..., : colours + 1]
    if extra[0] == 1:  # colour times alpha
        alpha = array[..., -1:].astype(np.float64)
        colour = np.divide(array[..., :-1] * 65535.0, alpha, out=np.zeros(array[..., :-1].shape), where=alpha > 0)
        array = np.concatenate([np.rint(colour.clip(0, 65535)).astype(np.uint16), array[..., -1:]], -1)
    return array


def _by_imagecodecs(image: Image.Image) -> np.ndarray | None:
    import imagecodecs  # type: ignore[import-untyped]

    if image.format not in ("JPEG2000", "AVIF"):
        return None
    data = _bytes(image)
    array = imagecodecs.jpeg2k_decode(data) if image.format == "JPEG2000" else imagecodecs.avif_decode(data)
    if array.dtype != np.uint16 or array.ndim != 3 or array.shape[2] not in (3, 4):
        return None
    top = (1 << _declared(data[:_HEAD])) - 1
    return np.rint(array * (65535 / top)).astype(np.uint16)


def _with_key(array: np.ndarray, key: Any) -> np.ndarray:
    if array.shape[2] != 3 or not isinstance(key, tuple):
        return array
    alpha = np.where((array == np.array(key, np.uint16)).all(-1), np.uint16(0), np.uint16(65535))
    return np.concatenate([array, alpha[..., None]], -1)
