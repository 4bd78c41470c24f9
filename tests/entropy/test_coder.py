"""Round trips through every model, call by call."""

import numpy as np

from latentzip.entropy import Decoder, Encoder, Gaussian


def test_round_trip_with_escapes():
    rng = np.random.default_rng(0)
    index = rng.integers(0, 64, (3, 50, 7)).astype(np.uint8)
    symbols = np.round(rng.normal(size=index.shape) * 9).astype(np.int32)
    symbols.flat[::97] = 2**31 - 1
    encoder = Encoder()
    assert encoder.code(symbols, Gaussian(index)) is symbols
    decoder = Decoder(encoder.finish())
    np.testing.assert_array_equal(decoder.code(None, Gaussian(index)), symbols)
    decoder.finish()
