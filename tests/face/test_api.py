"""The Python face: round trips, what `to` and `region` give, batches, errors, and imports that stay cheap."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentzip as lz
from latentzip.codecs.registry import load_codec
from latentzip.entropy import container
from latentzip.entropy.container import AUX, Box, Limits, read, write
from latentzip.signals import models


def test_every_codec_round_trips(any_codec, rgb, psnr):
    options: dict[str, Any] = {"effort": 1} if any_codec == "overfit" else {}  # its default takes half a minute
    blob = lz.encode(rgb, any_codec, **options)
    assert isinstance(blob, bytes)
    decoded = lz.decode(blob)
    assert (decoded.shape, decoded.dtype) == (rgb.shape, rgb.dtype)
    assert psnr(rgb, decoded) > 25
    assert lz.encode(rgb, any_codec, **options) == blob
    assert np.array_equal(lz.decode(blob), decoded)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (8, 8), (9, 17), (63, 65)])
def test_any_size(size, codec):
    x = np.full((*size, 3), 99, np.uint8)
    y = lz.decode(lz.encode(x, codec))
    assert y.shape == x.shape
    assert np.abs(y.astype(int) - x).max() < 12


def test_what_to_asks_for(rgb, codec):
    blob = lz.encode(Image.fromarray(rgb), codec)
    pil, array, tensor, latent = (lz.decode(blob, to) for to in ("pil", "numpy", "tensor", "latent"))
    assert isinstance(pil, Image.Image)
    assert isinstance(lz.decode(blob), Image.Image)
    assert np.array_equal(np.asarray(pil), array)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, (3, *rgb.shape[:2]))
    assert np.array_equal((tensor * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(), array)
    assert latent.dtype in (torch.int8, torch.int16)
    model = lz.load_codec(codec)
    x = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
    assert torch.equal(latent.int(), model.latent(x).int())
    with pytest.raises(lz.InputError, match="one of signal, latent"):
        lz.decode(blob, "jpeg")  # type: ignore[arg-type]


def test_conversions_between_kinds(codec):
    deep = (np.linspace(0.1, 0.9, 20 * 30 * 4).reshape(20, 30, 4) * 65535).astype(np.uint16)
    blob = lz.encode(deep, codec)
    assert lz.decode(blob, "pil").mode == "RGBA"  # Pillow has 8 bits
    tensor = lz.decode(blob, "tensor")
    assert tensor.shape == (4, 20, 30)
    assert torch.allclose(tensor[3], torch.from_numpy(deep[..., 3].astype(np.float32) / 65535), atol=1e-6)
    grey = lz.encode(deep[..., 0], codec)
    assert lz.decode(grey, "pil").mode == "I;16"
    assert lz.decode(grey, "tensor").shape == (1, 20, 30)
    floats = lz.encode(torch.full((1, 8, 9), 0.5, dtype=torch.bfloat16), codec)
    assert lz.decode(floats, "numpy").dtype == np.float32
    assert lz.decode(floats, "pil").mode == "L"
    assert lz.decode(lz.encode(deep[..., :1] / 65535, codec), "pil").mode == "L"


def test_region_is_the_same_part_of_the_whole(codec, rgb):
    alpha = np.arange(rgb.shape[0] * rgb.shape[1], dtype=np.uint32).astype(np.uint8).reshape(*rgb.shape[:2], 1)
    blob = lz.encode(np.concatenate([rgb, alpha], -1), codec)
    whole = lz.decode(blob)
    for region in ((0, 0, 1, 1), (5, 9, 30, 44), (0, 0, *rgb.shape[:2]), (36, 52, 37, 53)):
        top, left, bottom, right = region
        assert np.array_equal(lz.decode(blob, region=region), whole[top:bottom, left:right])
    latent = lz.decode(blob, "latent")
    assert torch.equal(lz.decode(blob, "latent", region=(8, 16, 24, 40)), latent[:, 1:3, 2:5])
    for bad in ((0, 0, 38, 1), (3, 3, 3, 9), (-1, 0, 4, 4)):
        with pytest.raises(lz.InputError, match="does not lie inside"):
            lz.decode(blob, region=bad)
    with pytest.raises(lz.InputError, match="four integers"):
        lz.decode(blob, region=(0, 0, 1))  # type: ignore[arg-type]


def test_a_region_needs_only_its_chunks(codec):
    from latentzip import api

    y, x = np.mgrid[:3200, :24]  # three tiles, four chunks
    picture = np.stack([y * 200 // 3200, x * 4, y * 0 + 90], -1).astype(np.uint8)
    blob = bytearray(lz.encode(picture, codec))
    assert lz.inspect(blob).chunks == 4
    whole = api.decode(blob)
    blob[-10] ^= 1  # in the last chunk
    assert np.array_equal(lz.decode(blob, region=(0, 0, 100, 24)), whole[:100])
    with pytest.raises(lz.FormatError, match="chunk 3"):
        lz.decode(blob)


def test_batches(codec, rgb):
    single = lz.encode(rgb, codec)
    assert lz.encode([rgb, rgb], codec) == [single, single]
    assert lz.encode(np.stack([rgb, rgb]), codec) == [single, single]
    decoded = lz.decode([single, single])
    assert isinstance(decoded, list)
    assert len(decoded) == 2
    tensors = torch.from_numpy(np.stack([rgb, 255 - rgb])).permute(0, 3, 1, 2)
    blobs = lz.encode(tensors, codec)
    assert blobs[1] == lz.encode(tensors[1], codec)
    with pytest.raises(lz.InputError, match="batch is empty"):
        lz.encode(torch.zeros(0, 3, 4, 4), codec)


def test_paths_buffers_and_codec_objects(codec, rgb, tmp_path):
    model = lz.load_codec(codec)
    blob = lz.encode(rgb, model)
    assert blob == lz.encode(rgb, codec)
    (tmp_path / "x.ltz").write_bytes(blob)
    expected = lz.decode(blob)
    for source in (tmp_path / "x.ltz", str(tmp_path / "x.ltz"), bytearray(blob), memoryview(blob)):
        assert np.array_equal(lz.decode(source), expected)
    assert np.array_equal(lz.decode(blob, codec=model), expected)
    with pytest.raises(lz.InputError, match="cannot decode a int"):
        lz.decode(3)
    # what the module writes by itself reads here
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    assert lz.decode(model.encode(x)[0]).shape == x.shape[1:]


def test_inspect(codec, rgb, tmp_path):
    blob = lz.encode(Image.fromarray(rgb).convert("RGBA"), codec)
    info = lz.inspect(blob)
    assert (info.codec, info.modality, info.kind) == (codec, "image", "pil")
    assert (info.shape, info.dtype, info.mode) == ((3, *rgb.shape[:2]), "uint8", "RGBA")
    assert info.num_bytes == len(blob)
    assert info.bpp == pytest.approx(8 * len(blob) / rgb[..., 0].size)
    assert info.fingerprint == load_codec(codec).fingerprint.hex()
    assert set(info.boxes) == {"AUX"}
    (tmp_path / "x.ltz").write_bytes(blob)
    assert lz.inspect(tmp_path / "x.ltz") == info
    with pytest.raises(lz.FormatError):
        lz.inspect(b"no stream")


# --- refusals ----------------------------------------------------------------------------------------------------


def test_unknown_codec_proposes_a_name(rgb):
    with pytest.raises(lz.InputError, match=r"unknown codec 'toyy'; did you mean 'toy'\? \(codec-cli list\)"):
        lz.encode(rgb, "toyy")


def test_missing_codec_or_weights_of_a_stream(rgb, codec):
    stream = read(lz.encode(rgb, codec))
    other = write(replace(stream.header, codec="else"), list(stream.chunks))
    with pytest.raises(lz.UnsupportedError, match="'else', which is not installed"):
        lz.decode(other)
    other = write(replace(stream.header, fingerprint=b"12345678"), list(stream.chunks))
    with pytest.raises(lz.UnsupportedError, match="3132333435363738"):
        lz.decode(other)
    with pytest.raises(lz.UnsupportedError, match="needs"):
        lz.decode(other, codec=lz.load_codec(codec))


def test_quality_is_refused_by_fixed_rates(rgb):
    with pytest.raises(lz.InputError, match="one fixed rate"):
        lz.encode(rgb, "toy", quality=50)


def test_quality(rgb, psnr):
    blobs = {q: lz.encode(rgb, "toy-variable", quality=q) for q in (10, 50, 90)}
    assert blobs[50] == lz.encode(rgb, "toy-variable")
    assert [lz.inspect(b).quality for b in blobs.values()] == [10, 50, 90]
    measured = [psnr(rgb, lz.decode(b)) for b in blobs.values()]
    assert measured == sorted(measured)
    for bad in (0, 101, 5.5, float("nan")):
        with pytest.raises(lz.InputError, match="from 1"):
            lz.encode(rgb, "toy-variable", quality=bad)
    with pytest.raises(lz.InputError, match="a number from 1"):
        lz.encode(rgb, "toy-variable", quality="best")  # type: ignore[arg-type]


def test_device_that_is_not_there(rgb, codec):
    if torch.cuda.is_available():
        pytest.skip("it is there")
    for device in ("cuda", "no-device"):
        with pytest.raises(lz.InputError, match=device):
            lz.encode(rgb, codec, device=device)
    assert lz.encode(rgb, codec, device="auto") == lz.encode(rgb, codec)


def test_headers_that_contradict_their_stream(rgb, codec):
    stream = read(lz.encode(rgb, codec))
    chunks = list(stream.chunks)

    def refused(text, boxes=(), **change):
        with pytest.raises(lz.CodecError, match=text):
            lz.decode(write(replace(stream.header, **change), chunks, boxes))

    refused("alpha plane of a RGBA stream is missing", mode="RGBA")
    refused("unknown kind", mode="RGBA", boxes=[Box(AUX, b"\x09\x00")])
    refused("does not decompress", mode="RGBA", boxes=[Box(AUX, b"\x01\x00nonsense")])
    refused("auxiliary plane in a stream of mode RGB", boxes=[Box(AUX, b"\x01\x00")])
    refused("channels", shape=(4, *stream.header.shape[1:]))
    refused("parameters", params=b"")
    refused("chunks where", shape=(3, 5000, 53))
    refused("modality|signals", modality="tensor")
    # a smaller picture of as many chunks: the coder notices that data is left over
    refused(None, shape=(3, 8, 8))


def test_alpha_bombs_are_bounded(rgb, codec):
    import zlib

    stream = read(lz.encode(rgb, codec))
    bomb = Box(AUX, b"\x01\x00" + zlib.compress(bytes(50_000_000), 9))
    blob = write(replace(stream.header, mode="RGBA"), list(stream.chunks), [bomb])
    with pytest.raises(lz.FormatError, match="does not have the 1961 bytes"):
        lz.decode(blob)


def test_limits(rgb, codec):
    blob = lz.encode(rgb, codec)
    with pytest.raises(lz.LimitError):
        lz.decode(blob, limits=Limits(samples=100))
    with pytest.raises(lz.LimitError):
        lz.inspect(blob, limits=Limits(samples=100))


def test_every_byte_of_a_file_matters(codec):
    blob = lz.encode(np.full((16, 16, 4), 77, np.uint8), codec)
    for at in range(len(blob)):
        damaged = bytearray(blob)
        damaged[at] ^= 0x41
        with pytest.raises(lz.CodecError):
            lz.decode(damaged, "latent")
    for length in range(len(blob)):
        with pytest.raises(lz.CodecError):
            lz.decode(blob[:length])


# --- cheap imports -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["import latentzip as lz", "lz.list_codecs()", "lz.inspect", "lz.CodecError", "lz.encode_file", "dir(lz)"]
)
def test_light_things_need_no_torch(code):
    program = f"import latentzip as lz; {code}; import sys; assert not {{'torch', 'numpy', 'PIL'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names():
    assert set(lz.__all__) <= set(dir(lz))
    for name in lz.__all__:
        assert getattr(lz, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lz.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert issubclass(lz.LimitError, lz.FormatError)
    assert issubclass(lz.InputError, (lz.CodecError, ValueError))
    assert container.EXTENSION == ".ltz"


def test_bfloat16_networks_give_the_same_symbols_and_nearly_the_same_pixels(rgb):
    blob = lz.encode(rgb, codec="walloc-rgb-16x")
    codec = lz.load_codec("walloc-rgb-16x", precision="bf16")
    assert codec is not lz.load_codec("walloc-rgb-16x")
    assert torch.equal(lz.decode(blob, "latent", precision="bf16"), lz.decode(blob, "latent"))
    exact, fast = (lz.decode(blob, "tensor", precision=p) for p in ("fp32", "bf16"))
    assert 0 < (exact - fast).square().mean() < 1e-5
    assert torch.equal(lz.decode(blob, "tensor", codec=codec), fast)
    with pytest.raises(lz.InputError, match="precision"):
        lz.decode(blob, precision="int4")  # type: ignore[arg-type]


def test_bfloat16_is_chosen_where_it_is_faster_and_costs_nothing_that_is_seen(rgb, monkeypatch):
    blobs = {q: lz.encode(rgb, "hyperprior-fast", quality=q) for q in (50, 51)}
    blobs |= {name: lz.encode(rgb, name) for name in ("walloc-rgb-16x", "toy")}
    for there in (False, True):
        monkeypatch.setattr(models, "multiplies_bfloat16", lambda device, there=there: there)
        for key, blob in blobs.items():
            wanted = "bf16" if there and key in (50, "walloc-rgb-16x") else "fp32"
            pixels = lz.decode(blob, "tensor", precision=wanted)
            assert torch.equal(lz.decode(blob, "tensor"), pixels), (key, there)
    pictures = {p: lz.decode(blobs[50], "tensor", precision=p) for p in ("fp32", "bf16")}
    assert not torch.equal(pictures["fp32"], pictures["bf16"])
