"""Every kind of picture of docs/inputs.md: what it is coded as, what comes back, what is said about it."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

import latentzip as lz
from latentzip.signals.pictures import deep
from latentzip.signals.pictures.files import from_pillow
from latentzip.signals.pictures.planes import fill_hidden

GOOD = 28.0  # dB: any codec at hand does better on smooth pictures; damage is far below


def through(x, codec, **options):
    """Encode and decode; (decoded, texts of the warnings)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decoded = lz.decode(lz.encode(x, codec, **options))
    return decoded, [str(w.message) for w in caught if issubclass(w.category, lz.ConversionWarning)]


def grey(rgb):
    return np.asarray(Image.fromarray(rgb).convert("L"))


# --- Pillow modes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_native_modes(mode, rgb, codec, psnr):
    picture = Image.fromarray(rgb).convert(mode)
    decoded, said = through(picture, codec)
    assert (decoded.mode, decoded.size, said) == (mode, picture.size, [])
    assert psnr(np.asarray(picture), np.asarray(decoded)) > GOOD


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_lossless(mode, rgb, codec, psnr):
    alpha = np.random.default_rng(0).integers(0, 256, rgb.shape[:2], np.uint8)
    alpha[:10] = 0
    alpha[20:30] = 255
    picture = Image.fromarray(rgb).convert(mode)
    picture.putalpha(Image.fromarray(alpha))
    decoded, said = through(picture, codec)
    assert (decoded.mode, said) == (mode, [])
    assert np.array_equal(np.asarray(decoded)[..., -1], alpha)
    seen = alpha > 0
    assert psnr(np.asarray(picture)[..., :-1][seen], np.asarray(decoded)[..., :-1][seen]) > GOOD


def test_hidden_colour_is_smooth_and_visible_colour_untouched():
    colour = torch.rand(3, 61, 35, generator=torch.Generator().manual_seed(1))
    visible = torch.zeros(61, 35, dtype=torch.bool)
    visible[10:14, 5:9] = True
    visible[50:, 30:] = True
    filled = fill_hidden(colour, visible)
    assert torch.equal(filled[:, visible], colour[:, visible])
    assert 0 <= float(filled.min()) <= float(filled.max()) <= 1
    assert float(filled[:, 18:40].diff(dim=1).abs().mean()) < 0.02  # the noise below is gone
    assert not bool(fill_hidden(colour, torch.zeros_like(visible)).any())


def test_sixteen_bits(codec, psnr):
    ramp = np.linspace(20_000, 20_600, 64 * 64).reshape(64, 64).astype(np.uint16)  # 600 levels: 2.3 in 8 bits
    big_endian = Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes())
    for picture in (Image.fromarray(ramp), big_endian):
        decoded, said = through(picture, codec)
        assert (decoded.mode, said) == ("I;16", [])
        values = np.asarray(decoded)
        assert values.dtype == np.uint16
        assert len(np.unique(values)) > 20  # more levels than 8 bits have there
        assert psnr(values, ramp, 65535) > GOOD
    decoded, _ = through(Image.fromarray(ramp.astype(np.int32)), codec)
    assert decoded.mode == "I"
    assert psnr(np.asarray(decoded), ramp, 65535) > GOOD
    with pytest.raises(lz.InputError, match=r"mode I with values -1\.\.70000"):
        lz.encode(Image.fromarray(np.array([[-1, 70000]], np.int32)), codec)


def test_float_pictures(rgb, codec, psnr):
    picture = Image.fromarray(grey(rgb).astype(np.float32) / 255)
    decoded, said = through(picture, codec)
    assert (decoded.mode, said) == ("F", [])
    assert psnr(np.asarray(picture), np.asarray(decoded), 1.0) > GOOD
    with pytest.raises(lz.InputError, match=r"must lie in \[0, 1\]"):
        lz.encode(Image.fromarray(grey(rgb).astype(np.float32)), codec)


def test_converted_modes_say_so(rgb, codec, psnr):
    base = Image.fromarray(rgb)
    lab = ImageCms.profileToProfile(
        base, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    cases = [
        (base.convert("P"), "RGB", "palette"),
        (base.convert("P").convert("PA"), "RGBA", "mode PA"),
        (base.convert("RGBA").convert("RGBa"), "RGBA", "mode RGBa"),
        (base.convert("LA").convert("La"), "LA", "mode La"),
        (base.convert("RGBX"), "RGB", "mode RGBX"),
        (base.convert("CMYK"), "RGB", "CMYK without a CMYK profile"),
        (base.convert("YCbCr"), "RGB", "YCbCr"),
        (base.convert("HSV"), "RGB", "HSV"),
        (lab, "RGB", "LAB"),
        (base.convert("1"), "L", "black-and-white"),
    ]
    for picture, mode, text in cases:
        decoded, said = through(picture, codec)
        assert (decoded.mode, decoded.size) == (mode, base.size), picture.mode
        assert len(said) == 1, said
        assert text in said[0]
        if picture.mode not in ("P", "PA", "1", "La"):  # those have texture of their own
            assert psnr(rgb, np.asarray(decoded.convert("RGB"))) > GOOD - 4, picture.mode


def test_palette_with_transparency(rgb, codec):
    palette = Image.fromarray(rgb).convert("P")
    palette.info["transparency"] = int(np.asarray(palette)[0, 0])
    decoded, said = through(palette, codec)
    assert decoded.mode == "RGBA"
    assert len(said) == 1
    assert np.array_equal(np.asarray(decoded)[..., 3], np.asarray(palette.convert("RGBA"))[..., 3])


def test_transparent_colour_of_true_colour(codec):
    picture = Image.new("RGB", (16, 16), (10, 200, 30))
    picture.paste((0, 0, 0), (0, 0, 8, 16))
    picture.info["transparency"] = (0, 0, 0)
    decoded, said = through(picture, codec)
    assert decoded.mode == "RGBA"
    assert "transparent colour" in said[0]
    assert np.array_equal(np.asarray(decoded)[..., 3], np.repeat([[0] * 8 + [255] * 8], 16, 0))


def test_cmyk_goes_through_its_profile(rgb, codec):
    # littlecms brings no CMYK profile; a LAB one takes the same way
    target = ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(Image.fromarray(rgb), ImageCms.createProfile("sRGB"), target, outputMode="LAB")
    assert lab is not None
    lab.info["icc_profile"] = ImageCms.ImageCmsProfile(target).tobytes()
    decoded, said = through(lab, codec)
    assert "through its ICC profile" in said[0]
    assert "icc_profile" not in decoded.info
    broken = Image.fromarray(rgb).convert("CMYK")
    broken.info["icc_profile"] = b"no profile"
    decoded, said = through(broken, codec)
    assert "dropped" in said[0]
    assert decoded.mode == "RGB"


def test_first_frame(tmp_path, rgb, codec, psnr):
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    decoded, said = through(tmp_path / "two.tif", codec)
    assert "only the first of 2 frames" in said[0]
    assert psnr(rgb, np.asarray(decoded)) > GOOD
    with Image.open(tmp_path / "two.tif") as opened:
        opened.seek(1)
        decoded, said = through(opened, codec)
    assert "number 2" in said[0]
    assert psnr(255 - rgb, np.asarray(decoded)) > GOOD


def png16(width=8, height=8):
    """A PNG of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x12\x34\x56\x78\x9a\xbc" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_deep_colour_files_are_read_in_full(tmp_path, codec):
    (tmp_path / "deep.png").write_bytes(png16())
    decoded, said = through(tmp_path / "deep.png", codec)
    assert (decoded.mode, said) == ("RGB", [])
    assert lz.decode(lz.encode(tmp_path / "deep.png", codec), to="numpy").dtype == np.uint16
    with Image.open(tmp_path / "deep.png") as picture:
        assert (from_pillow(picture).array == np.array([0x1234, 0x5678, 0x9ABC], np.uint16)).all()


def test_depth_that_no_reader_gives_is_said(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(deep, "read", lambda image: None)
    (tmp_path / "deep.png").write_bytes(png16())
    said = through(tmp_path / "deep.png", codec)[1]
    assert len(said) == 1
    assert "latentzip[deep]" in said[0]


# --- metadata ----------------------------------------------------------------------------------------------------


def photo(rgb, orientation=6):
    """A JPEG with EXIF (orientation, a comment), ICC and XMP."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    buffer = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.fromarray(rgb)
    picture.save(buffer, "JPEG", quality=95, exif=exif, icc_profile=profile, xmp=b"<x:xmpmeta/>")
    return buffer.getvalue(), profile


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("metadata", ["auto", "all", "none"])
def test_orientation_is_applied(orientation, metadata, rgb, codec, psnr):
    data, _ = photo(rgb, orientation)
    picture = Image.open(io.BytesIO(data))
    decoded, said = through(picture, codec, metadata=metadata)
    assert said == []
    upright = ImageOps.exif_transpose(picture)
    assert decoded.size == upright.size
    assert psnr(np.asarray(upright), np.asarray(decoded)) > GOOD
    # a reader that looks at tags sees the same
    assert ImageOps.exif_transpose(decoded).size == upright.size


def test_what_metadata_keeps(rgb, codec, tmp_path):
    data, profile = photo(rgb)
    (tmp_path / "photo.jpg").write_bytes(data)
    blobs = {m: lz.encode(tmp_path / "photo.jpg", codec, metadata=m) for m in ("auto", "all", "none")}
    kept = {m: set(lz.inspect(b).boxes) for m, b in blobs.items()}
    assert kept == {"auto": {"ICC"}, "all": {"ICC", "EXIF", "XMP"}, "none": set()}
    decoded = lz.decode(blobs["all"])
    assert decoded.info["icc_profile"] == profile
    assert decoded.info["xmp"] == b"<x:xmpmeta/>"
    assert decoded.getexif()[0x010E] == "a description"
    assert 0x0112 not in decoded.getexif() or decoded.getexif()[0x0112] == 1
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        (tmp_path / "photo.ltz").write_bytes(blobs["all"])
        written = Image.open(lz.decode_file(tmp_path / "photo.ltz", tmp_path / f"out{suffix}"))
        assert written.info["icc_profile"] == profile, suffix
        if suffix != ".tif":
            assert written.getexif()[0x010E] == "a description", suffix
            assert "x:xmpmeta" in str(written.info.get("xmp") or written.info.get("XML:com.adobe.xmp")), suffix
    with pytest.raises(lz.InputError, match="one of auto, all, none"):
        lz.encode(rgb, codec, metadata="some")


def test_damaged_exif_is_no_reason_to_fail(rgb, codec):
    picture = Image.fromarray(rgb)
    picture.info["exif"] = b"Exif\0\0garbage"
    decoded, said = through(picture, codec, metadata="all")
    assert decoded.size == picture.size
    assert all("EXIF" in s for s in said)


# --- arrays and tensors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays(dtype, channels, codec, psnr):
    y, x = np.mgrid[:20, :27]
    plane = 0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 7)
    a = plane if channels is None else np.stack([plane * (1 - 0.1 * c) for c in range(channels)], -1)
    peak = np.iinfo(dtype).max if dtype.startswith("u") else 1
    a = (a * peak).astype(dtype)
    b, said = through(a, codec)
    assert (b.shape, b.dtype, said) == (a.shape, a.dtype, [])
    assert psnr(a, b, peak) > GOOD
    if channels in (2, 4):
        assert np.array_equal(a[..., -1], b[..., -1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tensors(dtype, channels, codec, psnr):
    y, x = np.mgrid[:20, :27]
    plane = 0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 7)
    peak = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    a = torch.from_numpy(np.stack([plane] * channels) * peak)
    a = (a.round().to(torch.int32) if peak > 1 else a).to(getattr(torch, dtype))
    b, said = through(a, codec)
    assert (b.shape, b.dtype, said) == (a.shape, a.dtype, [])
    assert psnr(a.double().numpy(), b.double().numpy(), peak) > GOOD
    if channels in (2, 4):
        assert torch.equal(a[-1].double(), b[-1].double())


def test_layouts_that_numpy_allows(rgb, codec):
    plain = lz.encode(rgb, codec)
    assert lz.encode(np.asfortranarray(rgb), codec) == plain
    assert lz.encode(rgb[::-1, ::-1][::-1, ::-1], codec) == plain
    read_only = rgb.copy()
    read_only.flags.writeable = False
    assert lz.encode(read_only, codec) == plain
    wide = rgb.astype(np.uint16)
    assert lz.encode(wide.astype(">u2"), codec) == lz.encode(wide, codec)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    assert lz.encode(tensor, codec) == lz.encode(tensor.contiguous(), codec)


def test_arguments_are_left_alone(codec):
    a = np.full((9, 9, 4), 0.5, np.float32)
    a[..., 3] = 0
    before = a.copy()
    lz.encode(a, codec)
    t = torch.full((3, 9, 9), 0.5, requires_grad=True)
    lz.encode(t, codec)
    assert np.array_equal(a, before)
    assert bool((t == 0.5).all())


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "NaN or infinite"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinite"),
        (torch.full((3, 4, 4), float("nan")), "NaN or infinite"),
        (np.full((4, 4, 3), 200.0), r"must lie in \[0, 1\]"),
        (np.full((4, 4, 3), -0.5), r"must lie in \[0, 1\]"),
        (np.zeros((0, 4, 3), np.uint8), "H, W >= 1"),
        (torch.zeros(3, 4, 0), "H, W >= 1"),
        (np.zeros((4, 4, 5), np.uint8), r"must be \(H, W\)"),
        (np.zeros((3, 40, 40), np.uint8), "channels come last"),
        (torch.zeros(40, 40, 3), "channels come first"),
        (torch.zeros(40, 40), r"\(C, H, W\)"),
        (np.zeros((4, 4, 3), np.int64), "dtype is not supported"),
        (np.zeros((4, 4, 3), bool), "multiply by 255"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "dtype is not supported"),
        (np.zeros(4, np.uint8), r"must be \(H, W\)"),
        ([], "batch is empty"),
        (b"bytes", "cannot encode a bytes"),
        (None, "cannot encode a NoneType"),
    ],
)
def test_what_is_refused(x, text, codec):
    with pytest.raises(lz.InputError, match=text):
        lz.encode(x, codec)


def test_empty_picture(codec):
    with pytest.raises(lz.InputError, match="empty"):
        lz.encode(Image.new("RGB", (0, 5)), codec)


def test_a_hair_outside_the_range_is_clamped(codec):
    a = np.full((8, 8, 3), 1.0005, np.float32)
    assert lz.decode(lz.encode(a, codec)).max() <= 1


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm", ".jp2", ".avif", ".gif"])
def test_formats(suffix, tmp_path, rgb, codec, psnr):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(rgb).save(path)
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    decoded, _ = through(path, codec)
    assert psnr(pixels, np.asarray(decoded.convert("RGB"))) > GOOD - 6


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("photo.heic", b"\0\0\0\x18ftypheic", "pip install pillow-heif"),
        ("photo.jxl", b"\xff\x0a....", "pip install pillow-jxl-plugin"),
        ("photo.cr2", b"a camera's own format", "developed first"),
        ("photo.svg", b"<svg/>", "rendered first"),
        ("notes.txt", b"hello", "not a picture that Pillow can read"),
        ("empty.png", b"", "not a picture"),
        ("stream.ltz", b"\x89LTZ\r\n\x1a\n", "decode it"),
        ("array.npy", b"\x93NUMPY\x01\x00junk", "damaged"),
    ],
)
def test_unreadable_files(name, data, text, tmp_path, codec):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(lz.InputError, match=text) as raised:
        lz.encode(tmp_path / name, codec)
    assert name in str(raised.value)


def test_truncated_picture(tmp_path, rgb, codec):
    for suffix in (".jpg", ".png"):
        path = tmp_path / f"cut{suffix}"
        Image.fromarray(np.tile(rgb, (4, 4, 1))).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(lz.InputError, match="damaged picture"):
            lz.encode(path, codec)


def test_missing_file(tmp_path, codec):
    with pytest.raises(FileNotFoundError):
        lz.encode(tmp_path / "none.png", codec)
    with pytest.raises(FileNotFoundError):
        lz.decode(tmp_path / "none.ltz")


def test_bombs_are_refused(tmp_path, codec, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (300, 300)).save(tmp_path / "large.png")
    with pytest.raises(lz.InputError, match="MAX_IMAGE_PIXELS"):
        lz.encode(tmp_path / "large.png", codec)
