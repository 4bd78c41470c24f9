"""What decoding and profiles are asked for: other things than numbers in range are one clear error."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentzip as lz

decode: Any = lz.decode  # what is handed in here is wrong on purpose


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    return lz.encode(Image.fromarray(pixels), codec="walloc-rgb-linear")


@pytest.fixture(scope="module")
def tensor():
    return lz.encode(torch.randn(40, 8), codec="features", nmse=0.01)


@pytest.mark.parametrize("region", [3, "abcd", (0, 0, "a", 8), (0, 0, 8), (0.5, 0, 8, 8), (0, 0, None, 8)], ids=repr)
def test_regions_of_pictures(picture, region):
    with pytest.raises(lz.InputError, match=r"region is .*four integers"):
        decode(picture, region=region)
    assert decode(picture, region=np.array([0.0, 0.0, 8.0, 16.0])).size == (16, 8)


@pytest.mark.parametrize("region", [3, "ab", ("a", 3), (1.5, 3), (1,), (float("nan"), 3)], ids=repr)
def test_regions_of_tensors(tensor, region):
    with pytest.raises(lz.InputError, match="region is"):  # 1.5 was taken for 1
        decode(tensor, region=region)
    assert torch.equal(decode(tensor, region=(np.int64(1), 3.0)), decode(tensor)[1:3])


def test_channels_and_codecs(tensor):
    for channels in ("a", 1.5, True):
        with pytest.raises(lz.InputError, match="channels is"):
            decode(tensor, channels=channels)
    with pytest.raises(lz.InputError, match="load_codec"):
        decode(tensor, codec=3)
    with pytest.raises(lz.InputError, match="unknown codec 'feature'"):
        decode(tensor, codec="feature")
    assert decode(tensor, codec="features").shape == decode(tensor).shape


@pytest.mark.parametrize("source", [None, [b"x"], np.zeros(3)], ids=lambda x: type(x).__name__)
def test_inspecting_something_else(source):
    with pytest.raises(lz.InputError, match="bytes or a path"):
        lz.inspect(source)


def test_inspecting_a_number_closes_no_file(tmp_path):
    with open(tmp_path / "other", "wb") as other:
        with pytest.raises(lz.InputError, match="cannot inspect a int"):
            lz.inspect(other.fileno())  # type: ignore[arg-type]
        os.fstat(other.fileno())


def test_too_few_bits_for_zeros():
    with pytest.raises(lz.InputError, match="fewer than the shortest stream"):  # was a logarithm of zero
        lz.encode(torch.zeros(3), codec="features", bits=3)


@pytest.mark.parametrize(
    "options",
    [{"nmse": "a"}, {"nmse": True}, {"transform": "vq", "size": "a"}, {"transform": "vq", "size": 2, "price": None}],
    ids=str,
)
def test_profiles_of_features(options):
    with pytest.raises(lz.InputError, match=r" is .*needed"):
        lz.FeatureCodec.fit([torch.randn(64, 4)], **options)


def test_caches():
    fit: Any = lz.KVCacheCodec.fit
    cache = [(torch.randn(1, 2, 64, 4), torch.randn(1, 2, 64, 4)) for _ in range(2)]
    for options in ({"nmse": "a"}, {"first": 1.5}, {"recent": "a"}, {"segment": 0}, {"keys_weight": None}):
        with pytest.raises(lz.InputError, match=r" is .*needed"):
            fit([cache], **options)
    for wrong, options in ((None, {}), ([cache], {"rotary": "a"})):
        with pytest.raises(lz.InputError, match=r"list of caches|rotary is"):
            fit(wrong, **options)
    codec: Any = fit([cache], nmse=0.1, recent=np.int64(3))
    stream = codec.open(codec.encode(cache))
    for part in ({"tokens": "a"}, {"tokens": 3}, {"tokens": (0.5, 3)}, {"layers": 0}, {"layers": [True]},
                 {"components": 1.5}, {"components": "a"}):  # fmt: skip
        with pytest.raises(lz.InputError, match=r"tokens|layers|components"):
            stream.decode(**part)
    with pytest.raises(lz.InputError, match="components is"):
        stream.prefix(1.5)
