"""Rounding that every machine agrees on: noise far below the margin never changes an integer."""

import numpy as np
import pytest

from latentzip.entropy import Decoder, Encoder, FormatError, InputError
from latentzip.entropy.snap import OFFSETS, _offset_model, snap


def encode(*quantities):
    encoder = Encoder()
    return snap(encoder, False, *quantities), encoder.finish()


def test_noise_does_not_change_what_is_decoded():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-70, 70, (40, 50)), rng.normal(0, 1e5, 3000)
    b[:200] = np.rint(b[:200]) + 0.5  # on the border, where rounding is a matter of the last bit
    expected, blob = encode((a, 1e-6), (b, 1e-4))
    for seed in range(20):
        noise = np.random.default_rng(seed)
        decoder = Decoder(blob)
        got = snap(
            decoder,
            True,
            (a + noise.uniform(-1e-7, 1e-7, a.shape), 1e-6),
            (b + noise.uniform(-1e-5, 1e-5, b.shape), 1e-4),
        )
        decoder.finish()
        assert all(np.array_equal(g, e) for g, e in zip(got, expected))
    for rounded, values in zip(expected, (a, b)):
        assert np.abs(rounded - values).max() <= 1


def test_usual_values_are_simply_rounded():
    values = np.random.default_rng(1).uniform(0, 63, 10000)
    (got,), blob = encode((values, 1e-9))
    assert np.array_equal(got, np.rint(values))
    assert len(blob) <= 8


def test_empty():
    assert encode((np.empty((0, 3)), 1e-6))[0][0].shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad):
    with pytest.raises(InputError, match="NaN or infinite"):
        encode((np.array([1.0, bad]), 1e-6))


def test_no_offset_will_do():
    with pytest.raises(InputError, match="in parts"):
        encode((np.arange(0, 1, 1e-4), 1e-3))


def test_offset_out_of_range():
    encoder = Encoder()
    encoder.code(np.array([OFFSETS]), _offset_model())
    with pytest.raises(FormatError, match="offset"):
        snap(Decoder(encoder.finish()), True, (np.zeros(3), 1e-6))
