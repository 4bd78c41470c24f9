"""The Pillow plug-in, through the real Pillow: files and streams, modes, metadata, errors."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

import latentzip as lz
import latentzip.pillow
from latentzip.entropy import container

GREY_ALPHA = {"LA", "RGBA"}


def picture(mode: str, rgb: np.ndarray) -> Image.Image:
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    image = Image.fromarray(rgb).convert(mode)
    if mode in GREY_ALPHA:
        image.putalpha(Image.fromarray(grey))
    return image


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "I", "F"])
def test_modes_through_a_file(mode, rgb, codec, tmp_path):
    path = tmp_path / "a.ltz"
    picture(mode, rgb).save(path, codec=codec)
    assert path.read_bytes() == lz.encode(picture(mode, rgb), codec)
    with Image.open(path) as opened:
        assert (opened.format, opened.mode, opened.size) == ("LTZ", mode, (53, 37))
        assert np.array_equal(np.asarray(opened), np.asarray(lz.decode(path)))
    assert opened.get_format_mimetype() == "image/x-ltz"


def test_streams_and_quality(rgb):
    sizes = {}
    for quality in (10, 90):
        stream = io.BytesIO()
        Image.fromarray(rgb).save(stream, "LTZ", codec="walloc-rgb-linear", quality=quality)
        sizes[quality] = len(stream.getvalue())
        opened = Image.open(io.BytesIO(stream.getvalue()), formats=["LTZ"])
        assert opened.info == {"codec": "walloc-rgb-linear", "quality": quality}
        assert np.array_equal(np.asarray(opened), np.asarray(lz.decode(stream.getvalue())))
    assert sizes[10] < sizes[90]


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.full((9, 11, 3), 40000, np.uint16), "RGB"),
        (np.full((9, 11, 3), 0.5, np.float32), "RGB"),
        (np.full((9, 11), 40000, np.uint16), "I;16"),
        (np.full((9, 11), 0.5, np.float32), "L"),
        (np.full((9, 11, 1), 99, np.uint8), "L"),
        (np.full((9, 11, 4), 40000, np.uint16), "RGBA"),
    ],
)
def test_streams_of_arrays_open_as_decode_says(array, mode, codec):
    blob = lz.encode(array, codec)
    opened = Image.open(io.BytesIO(blob))
    assert opened.mode == mode
    assert np.array_equal(np.asarray(opened), np.asarray(lz.decode(blob, "pil")))


def test_registration():
    assert Image.registered_extensions()[".ltz"] == "LTZ"
    assert Image.MIME["LTZ"] == "image/x-ltz"
    assert "LTZ" in Image.SAVE


def test_opening_is_lazy(rgb, codec, tmp_path):
    """Size, mode and metadata come without torch; pixels when they are asked for."""
    path = tmp_path / "a.ltz"
    Image.fromarray(rgb).save(path, codec=codec)
    code = (
        "import sys, latentzip.pillow\nfrom PIL import Image\n"
        f"with Image.open({str(path)!r}) as im:\n    assert im.size == (53, 37) and im.info['codec'] == {codec!r}\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    opened = Image.open(path)
    path.unlink()
    opened.load()  # the file was open, as with Pillow's own formats
    assert opened.crop((1, 2, 3, 4)).size == (2, 2)


def test_metadata(rgb, codec):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description", 6
    source = Image.fromarray(rgb)
    source.info["icc_profile"] = icc

    def info(**options):
        stream = io.BytesIO()
        source.save(stream, "LTZ", codec=codec, **options)
        return Image.open(stream)

    assert set(info().info) - {"quality"} == {"codec", "icc_profile"}
    named = info(exif=exif, xmp=b"<x/>")
    assert named.info["icc_profile"] == icc
    assert named.info["xmp"] == b"<x/>"
    assert dict(named.getexif()) == {0x010E: "a description"}
    assert named.size == (37, 53)  # the orientation is applied to the pixels
    assert "icc_profile" not in info(icc_profile=None).info
    assert "icc_profile" not in info(metadata="none").info
    source.info["exif"] = exif.tobytes()
    assert "exif" not in info().info
    assert info(metadata="all").getexif()[0x010E] == "a description"
    with pytest.raises(ValueError, match="contradict"):
        info(metadata="none", exif=exif)
    stream = io.BytesIO()
    named.save(stream, "PNG")  # Pillow carries what it knows into other formats
    assert Image.open(stream).info["icc_profile"] == icc


def blob(codec, rgb) -> bytearray:
    return bytearray(lz.encode(Image.fromarray(rgb), codec))


def test_foreign_and_damaged(rgb, codec):
    with pytest.raises(UnidentifiedImageError, match="cannot identify"):
        Image.open(io.BytesIO(b"no picture at all, but long enough"))
    good = blob(codec, rgb)
    with pytest.raises(UnidentifiedImageError, match="truncated"):
        Image.open(io.BytesIO(good[:-1]))
    with pytest.raises(UnidentifiedImageError, match="checksum"):
        Image.open(io.BytesIO(good[:20] + bytes([good[20] ^ 1]) + good[21:]))
    good[-9] ^= 1  # in the last chunk
    opened = Image.open(io.BytesIO(good))
    with pytest.raises(OSError, match="checksum"):
        opened.load()
    with pytest.raises(OSError, match="checksum"):
        Image.open(io.BytesIO(good)).verify()
    Image.open(io.BytesIO(blob(codec, rgb))).verify()


def test_damaged_metadata(rgb, codec):
    source = Image.fromarray(rgb)
    source.info["xmp"] = b"<x:xmpmeta/>"
    data = bytearray(lz.encode(source, codec, metadata="all"))
    data[data.index(b"xmpmeta")] ^= 1
    with pytest.raises(UnidentifiedImageError, match="checksum of box XMP"):
        Image.open(io.BytesIO(data))


def test_streams_that_are_no_picture():
    tensor = lz.encode(np.zeros((4, 5), np.float32), codec="features")
    with pytest.raises(UnidentifiedImageError, match=r"modality tensor: latentzip\.decode"):
        Image.open(io.BytesIO(tensor))


def test_codec_that_is_not_installed(rgb, codec):
    index = container.read(bytes(blob(codec, rgb)))
    foreign = replace(index.header, codec="nobody-has-it")
    opened = Image.open(io.BytesIO(container.write(foreign, list(index.chunks))))
    assert opened.size == (53, 37)
    with pytest.raises(OSError, match=r"nobody-has-it.*not installed"):
        opened.load()


def test_saving_what_cannot_be_coded(rgb, tmp_path, one_rate):
    path = tmp_path / "a.ltz"
    with pytest.raises(ValueError, match="walloc-rgb-16x has one fixed rate"):
        Image.fromarray(rgb).save(path, codec=one_rate, quality=50)
    with pytest.raises(ValueError, match="unknown codec"):
        Image.fromarray(rgb).save(path, codec="walloc")
    assert not path.exists()


def test_encode_still_refuses_streams(rgb, codec, tmp_path):
    """What `encode` takes does not depend on whether the plug-in is imported."""
    path = tmp_path / "a.ltz"
    Image.fromarray(rgb).save(path, codec=codec)
    with pytest.raises(lz.InputError, match="already; decode it"):
        lz.encode(path, codec)
