"""Files: names, formats, and outputs that are whole or absent."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.files import atomic_writer


@pytest.fixture
def photo(tmp_path, rgb):
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    return path


def test_there_and_back(photo, codec, rgb, psnr):
    packed = lz.encode_file(photo, codec=codec)
    assert packed == photo.with_suffix(".ltz")
    with pytest.raises(lz.InputError, match="exists already"):
        lz.decode_file(packed)
    photo.unlink()
    assert lz.decode_file(packed) == photo
    assert psnr(np.asarray(Image.open(photo)), rgb) > 25
    with pytest.raises(lz.InputError, match="exists already"):
        lz.encode_file(photo, codec=codec)
    assert lz.encode_file(photo, codec=codec, force=True) == packed


def test_folders_and_formats(photo, codec, tmp_path, rgb):
    (tmp_path / "out").mkdir()
    packed = lz.encode_file(photo, tmp_path / "out", codec=codec)
    assert packed == tmp_path / "out" / "photo.ltz"
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".tif", "TIFF"), (".webp", "WEBP"), (".bmp", "BMP")):
        assert Image.open(lz.decode_file(packed, tmp_path / f"x{suffix}")).format == kind
    array = np.load(lz.decode_file(packed, tmp_path / "x.npy"))
    assert np.array_equal(array, lz.decode(packed, "numpy"))
    latent = np.load(lz.decode_file(packed, tmp_path / "z.npy", to="latent"))
    assert np.array_equal(latent, lz.decode(packed, "latent").numpy())
    part = Image.open(lz.decode_file(packed, tmp_path / "part.png", region=(3, 4, 20, 30)))
    assert np.array_equal(np.asarray(part), array[3:20, 4:30])


def test_default_format_holds_the_signal(codec, tmp_path):
    y = np.linspace(0.2, 0.8, 16 * 16).reshape(16, 16)
    cases = [
        (Image.fromarray((y * 255).astype(np.uint8)), ".png", "L"),
        (Image.fromarray((y * 65535).astype(np.uint16)), ".png", "I;16"),
        (Image.fromarray((y * 65535).astype(np.int32)), ".png", "I;16"),
        (Image.fromarray(y.astype(np.float32)), ".tif", "F"),
        (np.repeat(y[..., None] * 255, 4, -1).astype(np.uint8), ".png", "RGBA"),
        ((y * 65535).astype(np.uint16), ".png", "I;16"),
        (np.repeat(y[..., None] * 65535, 3, -1).astype(np.uint16), ".npy", None),
        (y.astype(np.float32), ".npy", None),
    ]
    for i, (x, suffix, mode) in enumerate(cases):
        path = tmp_path / f"{i}.ltz"
        path.write_bytes(lz.encode(x, codec))
        out = lz.decode_file(path)
        assert out.suffix == suffix
        if mode:
            assert Image.open(out).mode == mode
        else:
            assert np.array_equal(np.load(out), lz.decode(path, "numpy"))


def test_formats_that_cannot_hold_it(codec, tmp_path):
    path = tmp_path / "a.ltz"
    path.write_bytes(lz.encode(np.full((9, 9, 4), 99, np.uint8), codec))
    with pytest.raises(lz.UnsupportedError, match=r"JPEG cannot hold this picture of mode RGBA.*use \.png"):
        lz.decode_file(path, tmp_path / "a.jpg")
    for name, text in (("a.xyz", r"cannot write \.xyz"), ("a", "without extension")):
        with pytest.raises(lz.InputError, match=text):
            lz.decode_file(path, tmp_path / name)
    with pytest.raises(lz.InputError, match=r"latents are written as \.npy"):
        lz.decode_file(path, tmp_path / "a.png", to="latent")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ltz"]
    path.write_bytes(lz.encode(np.full((9, 9, 3), 99, np.uint16), codec))
    with pytest.warns(lz.ConversionWarning, match="rounded to 8 bits"):
        lz.decode_file(path, tmp_path / "a.png")


def test_damaged_streams_leave_no_file(photo, codec, tmp_path):
    packed = lz.encode_file(photo, codec=codec)
    data = bytearray(packed.read_bytes())
    data[-6] ^= 1
    packed.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(lz.FormatError):
        lz.decode_file(packed, tmp_path / "new.png")
    assert sorted(tmp_path.iterdir()) == before


def test_atomic_writer(tmp_path):
    path = tmp_path / "x"

    def interrupted(force):
        with atomic_writer(path, force) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(False)
    assert list(tmp_path.iterdir()) == []
    with atomic_writer(path) as file:
        file.write(b"whole")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        interrupted(True)
    assert path.read_bytes() == b"whole"
    with pytest.raises(lz.InputError, match="exists already"), atomic_writer(path):
        pass
    with pytest.raises(lz.InputError, match="is a folder"), atomic_writer(tmp_path, force=True):
        pass
    with pytest.raises(lz.InputError, match="does not exist"), atomic_writer(tmp_path / "none" / "x"):
        pass


def test_array_files(codec, tmp_path):
    x = np.full((12, 13, 3), 0.25, np.float32)
    np.save(tmp_path / "x.npy", x)
    packed = lz.encode_file(tmp_path / "x.npy", codec=codec)
    y = np.load(lz.decode_file(packed, tmp_path / "y.npy"))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
