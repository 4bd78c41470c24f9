"""A Pillow plug-in: ``import latentzip.pillow`` makes `.ltz` a format like any other.

    import latentzip.pillow
    from PIL import Image

    with Image.open("photo.ltz") as picture:        # size, mode and metadata from the header; no weights, no torch
        picture.resize((320, 240)).save("small.ltz", codec="hyperprior-fast", quality=60)

Pixels are decoded when they are first asked for. Errors are Pillow's: `PIL.UnidentifiedImageError` where a file is no
picture of this format, `OSError` where its pixels cannot be decoded; the text is latentzip's.
"""

from __future__ import annotations

from typing import IO, Any, cast

from PIL import Image, ImageFile, ImagePalette, UnidentifiedImageError

from .defaults import DEFAULT_CODEC
from .entropy import container
from .entropy.container import Header
from .entropy.errors import CodecError, FormatError, InputError
from .signals.pictures import PICTURES
from .signals.pictures.metadata import Metadata

FORMAT = "LTZ"
MIME = "image/x-ltz"  # not registered with IANA

_OPTIONS = ("coding", "device", "effort", "verify")  # of `encode`, beside those that `save` documents


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.SIGNATURE)


def _mode(header: Header) -> str:
    """The Pillow mode that `decode(to="pil")` gives; FormatError for signals that are no picture."""
    if header.modality != PICTURES.name:
        raise FormatError(f"a .ltz stream, but of modality {header.modality}: latentzip.decode reads it")
    if not header.mode:
        raise FormatError(f"a .ltz stream of {header.shape[0]} channels, no picture: latentzip.decode reads it")
    if header.mode in ("L", "L;1"):
        return "I;16" if header.dtype == "uint16" else "L"
    return header.mode


class LtzImageFile(ImageFile.ImageFile):
    """A `.ltz` file as Pillow sees it.

    ``info`` holds ``codec``, ``quality`` (where the codec has one), and the metadata that the stream carries under
    Pillow's names: ``icc_profile``, ``exif``, ``xmp``.
    """

    format = FORMAT
    format_description = "latentzip neural codec"

    def _open(self) -> None:
        assert self.fp is not None
        name = self.filename or "stream"
        start = self.fp.tell()
        try:
            index = container.read_header(cast(Any, self.fp))
            self._mode = _mode(index.header)
            metadata = Metadata.from_boxes(container.read_metadata(cast(Any, self.fp), index, start))
        except CodecError as error:
            raise UnidentifiedImageError(f"{name!r}: {error}") from error
        if self._mode == "P":
            self._set_palette(start)
        self._size = index.header.shape[-1], index.header.shape[-2]
        self.info["codec"] = index.header.codec
        quality = PICTURES.quality(index.header.params)
        if quality is not None:
            self.info["quality"] = quality
        self.info.update(metadata.info())
        self.tile = [ImageFile._Tile("ltz", (0, 0, *self._size), start, None)]

    def _set_palette(self, start: int) -> None:
        assert self.fp is not None
        self.fp.seek(start)
        data = container.read_file(cast(Any, self.fp)).box(container.PALETTE)
        if data is None:
            raise UnidentifiedImageError(f"{self.filename or 'stream'!r}: a palette is missing")
        self.palette = ImagePalette.raw("RGB" if data[:1] == b"\3" else "RGBA", data[1:])

    def verify(self) -> None:
        """Check every checksum without decoding; raises `OSError` where one does not hold."""
        if self.fp is not None and self.tile:
            self.fp.seek(self.tile[0].offset)
            try:
                container.verify(self.fp.read())
            except CodecError as error:
                raise OSError(f"{self.filename or 'stream'!r}: {error}") from error
        super().verify()


class LtzDecoder(ImageFile.PyDecoder):
    """What `Image.load` calls for the pixels."""

    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Read the rest of the file and set the pixels; `OSError` where the stream cannot be decoded."""
        from .api import decode

        assert self.fd is not None
        try:
            picture = decode(self.fd.read(), "pil")
        except CodecError as error:
            raise OSError(str(error)) from error
        self.set_as_raw(picture.tobytes())
        return -1, 0


def _with_metadata(picture: Image.Image, options: dict[str, Any]) -> tuple[Image.Image, str]:
    """The picture with what ``exif=``, ``icc_profile=`` and ``xmp=`` say, and which metadata to keep of it."""
    choice = options.get("metadata", "auto")
    given = {key: options[key] for key in ("icc_profile", "exif", "xmp") if key in options}
    if not given:
        return picture, choice
    if choice == "none":
        raise InputError(f"metadata='none' and {', '.join(given)} contradict each other; leave one out")
    exif = given.get("exif")
    if isinstance(exif, Image.Exif):
        given["exif"] = exif.tobytes()
    named = picture.copy()
    kept = picture.info if choice == "all" else {"icc_profile": picture.info.get("icc_profile")}
    for key in ("icc_profile", "exif", "xmp"):
        named.info.pop(key, None)
        value = given.get(key, kept.get(key))
        if value:
            named.info[key] = value
    return named, "all"


def _save(picture: Image.Image, stream: IO[bytes], filename: str | bytes) -> None:
    """``Image.save(..., codec=, quality=, metadata=, exif=, icc_profile=, xmp=, coding=, device=)``.

    Arguments mean what they mean to `latentzip.encode`; ``exif``, ``icc_profile`` and ``xmp`` are written whatever
    ``metadata`` says, as in Pillow's own formats. Nothing is written when encoding fails.

    Raises:
        InputError: a picture or an argument that cannot be coded; it is a `ValueError`.
    """
    from .api import encode

    options: dict[str, Any] = getattr(picture, "encoderinfo", {})
    named, metadata = _with_metadata(picture, options)
    more = {key: options[key] for key in _OPTIONS if key in options}
    codec = options.get("codec") or DEFAULT_CODEC
    stream.write(encode(named, codec, options.get("quality"), metadata=metadata, **more))


def register() -> None:
    """Tell Pillow about the format; importing this module does so."""
    Image.register_open(FORMAT, cast(Any, LtzImageFile), _accept)
    Image.register_save(FORMAT, _save)
    Image.register_decoder("ltz", LtzDecoder)
    Image.register_extension(FORMAT, container.EXTENSION)
    Image.register_mime(FORMAT, MIME)


register()
