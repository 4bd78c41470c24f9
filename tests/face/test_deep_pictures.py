"""Depth, transparency and range of picture files: what a file holds is what is coded."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import latentzip as lz
from latentzip.codecs.samples import Samples
from latentzip.signals.pictures import deep
from latentzip.signals.pictures.files import from_pillow
from latentzip.signals.pictures.objects import stored_range

RNG = np.random.default_rng(7)
RGB, RGBA = (RNG.integers(0, 65536, (9, 13, n)).astype(np.uint16) for n in (3, 4))
LA = RGBA[..., 2:]
CODEC = "walloc-rgb-linear"


def png(depth, kind, pixels, transparent=b"", palette=b"", width=None):
    """A PNG file of any depth; ``pixels`` are rows of bytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width or len(pixels[0]) * 8 // depth, len(pixels), depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    parts += [chunk(b"PLTE", palette)] if palette else []
    parts += [chunk(b"tRNS", transparent)] if transparent else []
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in pixels))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rows(array):
    return [row.astype(">u2").tobytes() for row in array]


def tiff(array, **options):
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


RGB_TIFF = {"photometric": "rgb"}
ALPHA = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
DEEP = {
    "png": (lambda: png(16, 2, rows(RGB), width=13), RGB),
    "png alpha": (lambda: png(16, 6, rows(RGBA), width=13), RGBA),
    "png grey alpha": (lambda: png(16, 4, rows(LA), width=13), LA[..., [0, 0, 0, 1]]),
    "tiff": (lambda: tiff(RGB, **RGB_TIFF), RGB),
    "tiff big-endian": (lambda: tiff(RGB, byteorder=">", **RGB_TIFF), RGB),
    "tiff deflate": (lambda: tiff(RGBA, compression="zlib", **ALPHA), RGBA),
    "tiff predictor": (lambda: tiff(RGB, compression="zlib", predictor=True, **RGB_TIFF), RGB),
    "tiff planes": (lambda: tiff(RGB.transpose(2, 0, 1), planarconfig="separate", **RGB_TIFF), RGB),
    "ppm": (lambda: b"P6\n13 9\n65535\n" + RGB.astype(">u2").tobytes(), RGB),
    "ppm plain": (lambda: b"P3\n13 9\n65535\n" + " ".join(map(str, RGB.ravel())).encode(), RGB),
}


@pytest.mark.parametrize("name", DEEP)
def test_colour_of_16_bits_is_read_in_full(name):
    make, want = DEEP[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = from_pillow(Image.open(io.BytesIO(make())))
    assert picture.array.dtype == np.uint16
    assert np.array_equal(picture.array, want)
    assert picture.mode == ("RGBA" if want.shape[2] == 4 else "RGB")


def test_fewer_bits_than_16_fill_the_range():
    data = b"P6\n13 9\n1023\n" + (RGB % 1024).astype(">u2").tobytes()
    array = from_pillow(Image.open(io.BytesIO(data))).array
    assert np.array_equal(array, np.rint((RGB % 1024) * (65535 / 1023)))


def test_orientation_applies_to_deep_colour():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = png(16, 2, rows(RGB), width=13)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    at = plain.index(b"IDAT") - 4
    picture = from_pillow(Image.open(io.BytesIO(plain[:at] + chunk + plain[at:])))
    assert np.array_equal(picture.array, np.rot90(RGB, -1))


def test_jpeg_2000_and_avif_say_their_depth():
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.jpeg2k_encode(RGB >> 4, bitspersample=12, reversible=True, level=0)
    picture = Image.open(io.BytesIO(data))
    assert deep.depth(picture) == 12
    array = from_pillow(picture).array
    assert np.array_equal(np.rint(array / 65535 * 4095), RGB >> 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deep, "_by_imagecodecs", lambda image: None)
        with pytest.warns(lz.ConversionWarning, match="12 bits a channel is read as 8"):
            from_pillow(Image.open(io.BytesIO(data)))
    plain = io.BytesIO()
    Image.fromarray((RGB >> 8).astype(np.uint8)).save(plain, "JPEG2000")
    assert deep.depth(Image.open(plain)) == 8


# --- transparency ------------------------------------------------------------------------------------------------


def alpha_of(data) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lz.ConversionWarning)
        decoded = lz.decode(lz.encode(Image.open(io.BytesIO(data)), CODEC))
    return np.asarray(decoded)[..., -1] if decoded.mode in ("LA", "RGBA") else None


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_of_any_depth(depth):
    top = (1 << depth) - 1
    count = 8 // depth
    row = bytes(sum((x % (top + 1)) << depth * (count - 1 - i) for i, x in enumerate(range(at, at + count)))
                for at in range(0, 16, count))  # fmt: skip
    want = np.where(np.arange(16) % (top + 1) == top, 0, 255)
    assert np.array_equal(alpha_of(png(depth, 0, [row] * 3, struct.pack(">H", top), width=16)), [want] * 3)


def test_a_transparent_colour_of_16_bits():
    key = RGB[2, 3]
    near = RGB.copy()
    near[4, 5] = key + np.array([0, 0, 1], np.uint16)
    near[6, 7] = key
    picture = from_pillow(Image.open(io.BytesIO(png(16, 2, rows(near), struct.pack(">3H", *key), width=13))))
    assert np.argwhere(picture.array[..., 3] == 0).tolist() == [[2, 3], [6, 7]]


def test_palettes_with_alpha():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 0], pixels[8:24, 8:24, 3] = 200, 255
    quantised = Image.fromarray(pixels).quantize(8)
    with pytest.warns(lz.ConversionWarning, match="palette"):
        decoded = lz.decode(lz.encode(quantised, CODEC))
    assert decoded.mode == "RGBA"
    assert np.array_equal(np.asarray(decoded)[..., 3], pixels[..., 3])
    head = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 2, 32, 0, 0, 8, 8, 8, 0x28)
    tga = head + bytes([0, 0, 255, 255, 0, 255, 0, 0]) + bytes((i + i // 8) % 2 for i in range(64))
    y, x = np.mgrid[:8, :8]
    assert np.array_equal(alpha_of(tga), np.where((x + y) % 2, 0, 255))
    listed = png(4, 3, [bytes([0x01, 0x23])] * 2, bytes([0, 128, 255]), bytes(range(12)))
    assert np.array_equal(alpha_of(listed), [[0, 128, 255, 255]] * 2)


# --- the range that counts as full scale -------------------------------------------------------------------------


def scan(low, high, size=(96, 128)):
    """A smooth scan whose values lie in a small part of 16 bits."""
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin(x / 17 + y / 29) * np.cos(y / 13) + 0.2 * np.sin(x / 5)
    return np.rint(low + (wave - wave.min()) / np.ptp(wave) * (high - low)).astype(np.uint16)


def own_psnr(a, b):
    a, b = a.astype(float), b.astype(float)
    return 10 * np.log10(np.ptp(a) ** 2 / max(np.mean((a - b) ** 2), 1e-12))


@pytest.mark.parametrize(("low", "high"), [(30768, 35260), (0, 595), (100, 101), (65000, 65535)])
@pytest.mark.parametrize("kind", ["array", "picture", "tensor", "big-endian"])
def test_scans_are_coded_in_their_own_range(low, high, kind):
    values = scan(low, high)
    x = {
        "array": values, "picture": Image.fromarray(values), "tensor": torch.from_numpy(values)[None],
        "big-endian": values.astype(">u2"),
    }[kind]  # fmt: skip
    full = own_psnr(scan(0, 65535), lz.decode(lz.encode(scan(0, 65535), CODEC)))
    blob = lz.encode(x, CODEC)
    back = np.asarray(lz.decode(blob)).squeeze()
    assert back.dtype == np.uint16
    assert own_psnr(values, back) > min(full - 1, 20 if high - low == 1 else 99)
    assert lz.inspect(blob).boxes["RANGE"] == 16
    part = np.asarray(lz.decode(blob, region=(10, 20, 50, 90))).squeeze()
    assert np.array_equal(part, back[10:50, 20:90])
    if kind != "tensor":
        assert np.abs(lz.decode(blob, to="tensor").numpy() * 65535 - back).max() <= 0.51


def test_pictures_that_use_the_range_have_none():
    assert "RANGE" not in lz.inspect(lz.encode(scan(0, 65000), CODEC)).boxes
    assert "RANGE" not in lz.inspect(lz.encode(np.full((9, 9, 3), 7, np.uint8), CODEC)).boxes


def test_one_value_comes_back_as_it_is():
    values = np.full((20, 30), 12345, np.uint16)
    assert np.array_equal(lz.decode(lz.encode(values, CODEC)), values)


def test_floats_beyond_one_on_request():
    values = (scan(0, 65535) / 16 - 1024).astype(np.float32)  # as Hounsfield units are
    with pytest.raises(lz.InputError, match="value_range='auto'"):
        lz.encode(values, CODEC)
    full = own_psnr(scan(0, 65535), lz.decode(lz.encode(scan(0, 65535), CODEC)))
    for value_range in ("auto", (-1024.0, 3072.0)):
        back = lz.decode(lz.encode(values, CODEC, value_range=value_range))
        assert back.dtype == np.float32
        assert own_psnr(values, back) > full - 1
    assert own_psnr(values, np.asarray(lz.decode(lz.encode(Image.fromarray(values), CODEC, value_range="auto")))) > 30
    with pytest.raises(lz.InputError, match="beyond -1000 to 3000"):
        lz.encode(values, CODEC, value_range=(-1000, 3000))


@pytest.mark.parametrize("bad", ["all", (1, 0), (0, float("nan")), (1,), 7, (0, 1, 2), ("a", "b")])
def test_ranges_that_are_none(bad):
    with pytest.raises(lz.InputError, match="value_range"):
        lz.encode(scan(0, 9), CODEC, value_range=bad)
    with pytest.raises(lz.InputError, match=r"NaN|value_range"):
        lz.encode(np.full((4, 4), np.nan, np.float32), CODEC, value_range="auto")


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 15, struct.pack("<dd", 5, 4), struct.pack("<dd", 0, float("inf")),
             struct.pack("<dd", float("nan"), 1), struct.pack("<dd", -1, 9), struct.pack("<dd", 0, 65536),
             struct.pack("<dd", -1.7e308, 1.7e308)],
)  # fmt: skip
def test_hostile_ranges_are_corrupt(data):
    from latentzip.entropy import container

    stream = container.read(lz.encode(scan(5, 99), CODEC))
    boxes = [container.Box(container.RANGE, data)]
    with pytest.raises(lz.FormatError, match="range"):
        stored_range(stream.header, boxes)
    with pytest.raises(lz.FormatError, match="range"):
        lz.decode(container.write(stream.header, list(stream.chunks), boxes))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(["uint16", "float32", "float64"]))
def test_samples_read_and_restore_alike(a, b, dtype):
    low, high = sorted((a, b))
    values = np.linspace(low, high, 60).reshape(1, 6, 10).astype(dtype)
    samples = Samples.of(values, span=(float(low), float(high)))
    floats = samples.all()
    assert 0 <= float(floats.min()) <= float(floats.max()) <= 1
    assert torch.equal(samples[:, 1:4, 2:9], floats[:, 1:4, 2:9])
    assert np.abs(floats.numpy() * (high - low) + low - values.astype(float)).max() < 0.02
