"""Promises of docs/guarantees.md on the codecs that ship, not on small ones of the same kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import latentzip as lz

IMAGES = [info.name for info in lz.list_codecs() if info.codes("image") and info.source == "latentzip"]
SOUNDS = [info.name for info in lz.list_codecs() if info.codes("audio") and info.source == "latentzip"]

QUICK: dict[str, dict[str, Any]] = {
    "overfit": {"seconds": 0.5}
}  # what is promised of decoding holds however long a fit took


def photograph(height, width):
    """Waves and noise: something of every frequency."""
    y, x = np.mgrid[:height, :width]
    waves = (
        128 + 80 * np.sin(x / 17 + 3) + 20 * np.cos(y / 9),
        100 + 60 * np.cos((x + y) / 23),
        140 + 70 * np.sin(y / 31 + 0.9),
    )
    noise = np.random.default_rng(3).normal(0, 4, (height, width, 3))
    return (np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def threads():
    """Sets the number of threads; as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_the_same_at_any_number_of_threads(name, threads):
    threads(1)
    blob = lz.encode(photograph(300, 420), name, **QUICK.get(name, {}))
    want = lz.decode(blob)
    for number in (2, 3, 5):
        threads(number)
        assert np.array_equal(lz.decode(blob), want), number


@pytest.mark.parametrize("name", SOUNDS)
def test_samples_are_the_same_at_any_number_of_threads(name, threads):
    threads(1)
    t = np.arange(40000) / 16000
    sound = np.stack([np.sin(2 * np.pi * 440 * t * (1 + t)), np.random.default_rng(0).normal(0, 0.1, len(t))], 1)
    blob = lz.encode((sound.astype(np.float32), 16000), name)
    want = lz.decode(blob)[0]
    for number in (2, 3, 5):
        threads(number)
        assert np.abs(lz.decode(blob)[0] - want).max() < 1e-6, number


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_region_is_the_same_part_of_the_whole(name, precision):
    blob = lz.encode(photograph(200, 260), name, **QUICK.get(name, {}))
    whole = lz.decode(blob, precision=precision)
    for top, left, bottom, right in ((0, 0, 1, 1), (37, 41, 120, 203), (150, 200, 200, 260)):
        part = lz.decode(blob, region=(top, left, bottom, right), precision=precision)
        assert np.array_equal(part, whole[top:bottom, left:right])


@pytest.mark.parametrize("name", IMAGES)
def test_any_size_returns_in_its_size_and_dtype(name):
    for shape in ((1, 1, 3), (1, 70, 3), (65, 1), (17, 33, 4)):
        x = np.full(shape, 90, np.uint8)
        back = lz.decode(lz.encode(x, name, **QUICK.get(name, {})))
        assert (back.shape, back.dtype) == (x.shape, x.dtype)
        if shape[-1] == 4:
            assert np.array_equal(back[..., 3], x[..., 3])


def test_pictures_go_to_the_codec_for_files_and_packs_keep_theirs():
    blob = lz.encode(photograph(64, 64))
    info = lz.inspect(blob)
    assert (info.codec, info.quality) == (lz.DEFAULT_CODEC, 88)
    assert lz.DEFAULT_CODEC == "hyperprior"
    assert lz.DEFAULT_PACK_CODEC == "walloc-rgb-16x"
