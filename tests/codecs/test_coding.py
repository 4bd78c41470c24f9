"""The fast coding: the same latent in other bytes, refused where a codec does not have it."""

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.codecs.base import Codec


def picture(h, w, seed=0):
    y, x = np.mgrid[:h, :w] / 9 + seed
    rgb = np.stack([np.sin(x), np.cos(y), np.sin(x * y)], -1)
    return ((rgb + 1) * 127.5).round().astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (63, 65), (256, 200)])
@pytest.mark.parametrize("codec", ["walloc-rgb-16x", "walloc-rgb-linear"])
def test_fast_coding_is_the_same_latent(codec, size):
    x = picture(*size)
    usual, fast = lz.encode(x, codec=codec), lz.encode(x, codec=codec, coding="fast")
    assert lz.inspect(fast).quality == lz.inspect(usual).quality
    assert torch.equal(lz.decode(fast, to="latent"), lz.decode(usual, to="latent"))
    assert np.array_equal(lz.decode(fast), lz.decode(usual))


def test_several_chunks_regions_and_prefixes():
    x = picture(1200, 700)  # 150 x 88 latent positions: two chunks
    usual, fast = (lz.encode(x, codec="walloc-rgb-16x", coding=c) for c in ("default", "fast"))
    assert lz.inspect(fast).chunks == 2
    assert torch.equal(lz.decode(fast, to="latent"), lz.decode(usual, to="latent"))
    region = (580, 100, 660, 333)
    assert np.array_equal(lz.decode(fast, region=region), lz.decode(usual, region=region))
    assert torch.equal(lz.decode(fast, to="latent", channels=3), lz.decode(usual, to="latent", channels=3))
    assert torch.equal(lz.decode(fast, to="latent", region=region), lz.decode(usual, to="latent", region=region))


def test_many_chunks_are_what_each_is_alone(monkeypatch):
    codec = lz.load_codec("walloc-rgb-16x")
    monkeypatch.setattr(codec, "chunk", 16)
    blob = lz.encode(picture(520, 400), codec=codec)  # 5 x 4 chunks of four shapes
    assert lz.inspect(blob).chunks == 20
    latent = lz.decode(blob, to="latent")
    with monkeypatch.context() as patched:
        patched.setattr(type(codec), "_decode_alike", Codec._decode_alike)
        assert torch.equal(lz.decode(blob, to="latent"), latent)
    region = 100, 30, 390, 270
    assert np.array_equal(lz.decode(blob, region=region), lz.decode(blob)[100:390, 30:270])
    from latentzip.entropy import container

    stream = container.read(blob)
    for number in (6, 19):
        chunks = list(stream.chunks)
        chunks[number] = chunks[number][:-3]
        with pytest.raises(lz.FormatError):
            codec.decompress(stream.header.params, chunks, (520, 400))


@pytest.mark.parametrize("coding", ["default", "fast"])
def test_a_single_chunk_is_decoded_in_place(coding):
    codec = lz.load_codec("walloc-rgb-16x")
    blob = lz.encode(picture(70, 90), codec=codec, coding=coding)
    from latentzip.entropy import container

    box = container.read(blob)
    shape = codec.single_chunk(box.header.params, 1, (70, 90))
    assert shape is not None
    out = np.empty(shape, np.int8)
    codec.decode_single(box.header.params, box.chunks[0], out)
    assert np.array_equal(out, lz.decode(blob, to="latent"))
    assert codec.single_chunk(box.header.params, 2, (70, 90)) is None


def test_damage_is_an_error():
    blob = bytearray(lz.encode(picture(64, 64), codec="walloc-rgb-16x", coding="fast"))
    codec = lz.load_codec("walloc-rgb-16x")
    from latentzip.entropy import container

    box = container.read(bytes(blob))
    chunk = bytearray(box.chunks[0])
    chunk[len(chunk) // 2] ^= 0x55
    with pytest.raises(lz.FormatError):
        codec.decompress(box.header.params, [bytes(chunk)], (64, 64), to="latent")
    with pytest.raises(lz.FormatError, match="newer latentzip"):
        codec.decompress(b"\x03" + box.header.params[1:], box.chunks, (64, 64))


def test_refusals():
    x = picture(16, 16)
    with pytest.raises(lz.InputError, match="one of default, fast"):
        lz.encode(x, codec="walloc-rgb-16x", coding="quick")
    codec = lz.load_codec("walloc-rgb-16x")

    class Other(type(codec)):
        fast_coding = False

    other = Other(codec.config, "other")
    with pytest.raises(lz.InputError, match="no fast coding"):
        lz.encode(x, codec=other, coding="fast")
    assert not Codec.fast_coding


def test_command_line(tmp_path):
    from PIL import Image

    from latentzip.cli import main

    Image.fromarray(picture(40, 50)).save(tmp_path / "x.png")
    how = ["-c", "walloc-rgb-16x", "--coding", "fast"]
    assert main(["encode", str(tmp_path / "x.png"), "-o", str(tmp_path / "x.ltz"), *how]) == 0
    assert (tmp_path / "x.ltz").read_bytes() == lz.encode(tmp_path / "x.png", codec="walloc-rgb-16x", coding="fast")
