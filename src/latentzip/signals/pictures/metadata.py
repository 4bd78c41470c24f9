"""Metadata of pictures: which of it is kept, how it lies in boxes, and how it returns into files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image

from ...entropy.container import EXIF, ICC, XMP, Box
from ...entropy.errors import InputError
from ..coding import METADATA

# TIFF tags that describe how a file lays out its pixels, not the picture
_LAYOUT = {
    254,
    255,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    277,
    278,
    279,
    284,
    297,
    317,
    320,
    322,
    323,
    324,
    325,
    330,
}
_LAYOUT |= {332, 338, 339, 347, 512, 513, 514, 529, 530, 532, 700, 33723, 34377, 34675}


@dataclass(frozen=True)
class Metadata:
    """What travels beside the pixels; None where there is none."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def with_icc(self, icc: bytes | None) -> Metadata:
        return replace(self, icc=icc)

    def boxes(self) -> list[Box]:
        """Boxes of the container."""
        pairs = ((ICC, self.icc), (EXIF, self.exif), (XMP, self.xmp))
        return [Box(number, data) for number, data in pairs if data]

    @classmethod
    def from_boxes(cls, boxes: Sequence[Box]) -> Metadata:
        found = {box.type: box.data for box in boxes}
        return cls(found.get(ICC), found.get(EXIF), found.get(XMP))

    @classmethod
    def of(cls, image: Image.Image) -> Metadata:
        """What `to_pillow` left in ``info``."""
        return cls(image.info.get("icc_profile"), image.info.get("exif"), image.info.get("xmp"))

    def info(self) -> dict[str, bytes]:
        """Entries of a Pillow image's ``info``."""
        pairs = (("icc_profile", self.icc), ("exif", self.exif), ("xmp", self.xmp))
        return {key: data for key, data in pairs if data}

    def save_options(self, file_format: str) -> dict[str, Any]:
        """Arguments of ``Image.save`` that write it; formats that cannot hold it get less."""
        options: dict[str, Any] = {}
        if self.icc:
            options["icc_profile"] = self.icc
        if self.exif:
            options["exif"] = self.exif
        if self.xmp and file_format == "PNG":
            from PIL.PngImagePlugin import PngInfo

            text = PngInfo()
            text.add_itxt("XML:com.adobe.xmp", self.xmp.decode("utf-8", "replace"))
            options["pnginfo"] = text
        elif self.xmp and file_format in ("JPEG", "WEBP", "AVIF"):
            options["xmp"] = self.xmp
        return options


def _exif(image: Image.Image) -> bytes | None:
    raw = image.info.get("exif")
    if isinstance(raw, bytes):
        return raw
    exif = image.getexif()
    for tag in _LAYOUT & set(exif):
        del exif[tag]
    exif.pop(ExifTags.Base.Orientation, None)
    return exif.tobytes() if len(exif) else None


def _xmp(image: Image.Image) -> bytes | None:
    value = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return value.encode() if isinstance(value, str) else value or None


def collect(image: Image.Image, choice: str) -> Metadata:
    """Metadata to keep of an upright Pillow image: ``"auto"`` ICC, ``"all"`` ICC, EXIF and XMP, ``"none"`` nothing.

    Raises:
        InputError: another choice.
    """
    if choice not in METADATA:
        raise InputError(f"metadata is {choice!r}; one of {', '.join(METADATA)}")
    if choice == "none":
        return Metadata()
    icc = image.info.get("icc_profile") or None
    return Metadata(icc, _exif(image), _xmp(image)) if choice == "all" else Metadata(icc)
