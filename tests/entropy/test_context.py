"""The context model: exact, reversible for any shape, and smaller than static tables and than lossless WebP."""

from __future__ import annotations

import numpy as np
import pytest

from latentzip.entropy.coder import Decoder, Encoder, RateMeter
from latentzip.entropy.context import ContextModel

CHANNELS = 6


def photo_like(rng: np.random.Generator, channels: int, h: int, w: int, gain: float = 20.0) -> np.ndarray:
    """Latents with smooth areas, edges and activity shared between channels: int16 (channels, h, w)."""
    spectrum = 1 / np.maximum(
        np.hypot(*np.meshgrid(np.fft.fftfreq(h), np.fft.fftfreq(w), indexing="ij")), 1 / max(h, w)
    )
    noise = np.fft.fft2(rng.normal(size=(channels + 1, h, w)))
    smooth = np.fft.ifft2(noise * spectrum).real
    smooth /= smooth.std(axis=(1, 2), keepdims=True) + 1e-9
    activity = np.exp(1.2 * smooth[-1])
    out = [gain * smooth[0]]
    out += [
        activity * (smooth[c] * 3 + rng.laplace(size=(h, w))) * gain / (4 + 4 * c) for c in range(1, channels)
    ]
    return np.rint(out).clip(-127, 127).astype(np.int16)


@pytest.fixture(scope="module")
def model() -> ContextModel:
    rng = np.random.default_rng(0)
    train = [photo_like(rng, CHANNELS, 32, 40) for _ in range(12)]
    return ContextModel.fit(
        train, deep=2, middle=2, value_taps=8, magnitude_taps=8, hidden=8, steps=60, batch=512
    )


def encode(model: ContextModel, latent: np.ndarray) -> bytes:
    encoder = Encoder()
    model.program(encoder, latent, latent.shape)
    return encoder.finish()


def decode(model: ContextModel, blob: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    decoder = Decoder(blob)
    out = model.program(decoder, None, shape)
    decoder.finish()
    return out


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (3, 2), (5, 9), (16, 16), (33, 17), (64, 65)])
def test_round_trip_of_any_size(model: ContextModel, size: tuple[int, int]) -> None:
    latent = photo_like(np.random.default_rng(1), CHANNELS, *size)
    np.testing.assert_array_equal(decode(model, encode(model, latent), latent.shape), latent)


def test_samples_beyond_the_int8_range_survive(model: ContextModel) -> None:
    latent = np.random.default_rng(2).integers(-(2**31), 2**31 - 1, (CHANNELS, 6, 5)).astype(np.int32)
    np.testing.assert_array_equal(decode(model, encode(model, latent), latent.shape), latent)


def test_rate_meter_agrees_with_the_bytes(model: ContextModel) -> None:
    latent = photo_like(np.random.default_rng(3), CHANNELS, 64, 64)
    meter = RateMeter()
    model.program(meter, latent, latent.shape)
    assert len(encode(model, latent)) * 8 == pytest.approx(meter.bits, rel=0.01)


def test_a_prefix_of_the_channels_decodes_alone(model: ContextModel) -> None:
    latent = photo_like(np.random.default_rng(4), CHANNELS, 20, 24)
    blob = encode(model, latent)
    for c in (1, 3, CHANNELS):
        np.testing.assert_array_equal(model.program(Decoder(blob), None, (c, 20, 24)), latent[:c])


def test_arrays_restore_the_model(model: ContextModel) -> None:
    latent = photo_like(np.random.default_rng(5), CHANNELS, 24, 24)
    again = ContextModel.from_arrays(model.to_arrays())
    assert all(v.dtype.kind in "iu" for v in model.to_arrays().values())
    assert encode(again, latent) == encode(model, latent)


def test_fitting_is_deterministic(model: ContextModel) -> None:
    rng = np.random.default_rng(0)
    train = [photo_like(rng, CHANNELS, 32, 40) for _ in range(12)]
    options = {
        "deep": 2,
        "middle": 2,
        "value_taps": 8,
        "magnitude_taps": 8,
        "hidden": 8,
        "steps": 60,
        "batch": 512,
    }
    again = ContextModel.fit(train, workers=1, **options)
    for key, value in model.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[key], value, err_msg=key)
