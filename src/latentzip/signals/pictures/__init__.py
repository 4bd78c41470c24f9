"""Pictures: files, Pillow images, arrays and tensors become (C, H, W) floats in [0, 1], and come back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...defaults import DEFAULT_CODEC
from ...entropy.container import Header
from ..kind import Kind

# files that Pillow reads, with its plug-ins
SUFFIXES = frozenset({
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm"),
    *(".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".tga", ".qoi", ".ico", ".heic", ".heif", ".hif", ".jxl"),
})  # fmt: skip


# modes of Pillow that PNG does not hold; HSV has no plain format at all
_OTHER = {"F": ".tif", "CMYK": ".tif", "YCbCr": ".tif", "LAB": ".tif", "HSV": ".npy"}


class Pictures(Kind):
    name, noun, one = "image", "pictures", "picture"
    suffixes = SUFFIXES | {".npy"}
    codec = DEFAULT_CODEC
    rate, rate_label, speed_unit = "bpp", "bits per pixel", "MP/s"
    module = ".pictures.coding"

    def suffix(self, header: Header) -> str:
        """Extension of the plainest format that holds a picture in full."""
        if header.mode in _OTHER:
            return _OTHER[header.mode]
        deep = header.dtype != "uint8" and header.kind != "pil"
        if not header.mode or (deep and header.mode not in ("L", "L;1")):
            return ".npy"
        return ".npy" if deep and header.dtype != "uint16" else ".png"

    def shape(self, header: Header, region: Sequence[int] | None, span: Sequence[float] | None) -> list[int]:
        """(C, H, W), or of a region (top, left, bottom, right)."""
        if region is None or len(region) != 4:
            return list(header.shape)
        return [header.shape[0], region[2] - region[0], region[3] - region[1]]

    def extent(self, header: Header) -> dict[str, Any]:
        """Pixels."""
        return {"pixels": math.prod(header.shape[-2:])}

    def units(self, shape: Sequence[int], rate: int) -> float:
        """Pixels of (H, W, C)."""
        return shape[0] * shape[1]

    def amount(self, units: float, num_bytes: int) -> float:
        """Megapixels."""
        return units / 1e6

    def words(self, shape: Sequence[int], rate: int) -> str:
        """Width x height."""
        return " x ".join(map(str, shape[:0:-1]))


PICTURES = Pictures()
