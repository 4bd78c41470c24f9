"""Block-adaptive coding: both bodies agree on every chunk, good or bad."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.entropy import Decoder, Encoder, FormatError, InputError, RateMeter, blocks
from latentzip.entropy.engine import load_engine

SHAPES = [(1, 1, 1), (3, 1, 9), (2, 7, 1), (2, 8, 8), (3, 63, 65), (12, 32, 32), (5, 17, 40)]


def sample(shape, seed=0, limit=127):
    """Smooth channels, sparse channels, flat blocks and outliers."""
    rng = np.random.default_rng(seed)
    c, h, w = shape
    x = rng.laplace(size=shape) * rng.uniform(0.1, 12, (c, 1, 1))
    x[0] = rng.normal(0, 3, (h, w)).cumsum(0).cumsum(1)
    x[:, : h // 2, : w // 3] = 5
    x.flat[rng.integers(0, x.size, 2)] = limit
    return np.clip(np.round(x), -limit, limit).astype(np.int32)


def reference(chunk, shape):
    """The definition: the program, read by a decoder in plain Python."""
    decoder = Decoder(chunk, engine=load_engine("plain"))
    out = blocks.program(decoder, None, shape)
    decoder.finish()
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "limit"), [(np.int8, 127), (np.int16, 2000)])
def test_round_trip_in_both_bodies(shape, dtype, limit):
    x = sample(shape, limit=limit)
    chunk = blocks.encode(x)
    out = np.empty(shape, dtype)
    blocks.decode(chunk, out, limit)
    assert np.array_equal(out, x)
    assert np.array_equal(reference(chunk, shape), x)


def test_plain_bytes_are_the_compiled_ones(monkeypatch):
    x = sample((4, 20, 33))
    chunk = blocks.encode(x)
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert blocks.encode(x) == chunk
    out = np.empty(x.shape, np.int8)
    blocks.decode(chunk, out, 127)
    assert np.array_equal(out, x)


def test_prefix_of_channels_and_strided_target():
    x = sample((6, 40, 24))
    chunk = blocks.encode(x)
    frame = np.zeros((2, 50, 30), np.int8)
    blocks.decode(chunk, frame[:, 5:45, 3:27], 127, whole=False)
    assert np.array_equal(frame[:, 5:45, 3:27], x[:2])
    assert not frame[:, :5].any()
    with pytest.raises(FormatError, match="did not end"):
        blocks.decode(chunk, np.empty((2, 40, 24), np.int8), 127)


def test_rate_meter_agrees_with_the_bytes():
    x = sample((12, 64, 64))
    meter = RateMeter()
    blocks.program(meter, x, x.shape)
    assert 0 <= len(blocks.encode(x)) - meter.bits / 8 < 0.01 * meter.bits / 8 + 32


def test_beats_a_table_a_channel_where_activity_varies():
    """What the blocks are for: half of a picture smooth, half busy."""
    rng = np.random.default_rng(1)
    x = np.round(rng.laplace(size=(4, 64, 64)) * np.where(np.arange(64) < 32, 0.3, 8.0)).astype(np.int32)
    values, counts = np.unique(x, return_counts=True)
    entropy = -(counts * np.log2(counts / x.size)).sum() / 8
    assert len(blocks.encode(x)) < 0.9 * entropy
    assert values.size > 20


def test_med_is_its_own_inverse():
    for shape in ((1, 1), (1, 7), (9, 1), (12, 17)):
        x = sample((1, *shape))[0]
        assert np.array_equal(blocks.from_med(blocks.to_med(x)), x)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_both_bodies_refuse_the_same_damage(data):
    x = sample((2, 12, 12), seed=3)
    chunk = bytearray(blocks.encode(x))
    for _ in range(data.draw(st.integers(1, 3))):
        chunk[data.draw(st.integers(0, len(chunk) - 1))] = data.draw(st.integers(0, 255))
    chunk = bytes(chunk[: data.draw(st.integers(0, len(chunk)))])
    out = np.empty(x.shape, np.int8)
    try:
        expected = reference(chunk, x.shape)
        if np.abs(expected.astype(np.int64)).max() > 127:
            expected = None
    except FormatError:
        expected = None
    if expected is None:
        with pytest.raises(FormatError):
            blocks.decode(chunk, out, 127)
    else:
        blocks.decode(chunk, out, 127)
        assert np.array_equal(out, expected)


def test_compiled_body_is_not_more_lenient_than_the_reference():
    """The compiled body alone, without the slower way behind it, on systematically damaged chunks."""
    from latentzip.entropy.banks import frozen_bank
    from latentzip.entropy.compiled import blocks as compiled

    bank = frozen_bank("laplace")
    x = sample((2, 40, 40), seed=5, limit=2000)  # raw bits and escapes
    chunk = blocks.encode(x)
    refused = 0
    for at in range(0, len(chunk), 7):
        bad = bytearray(chunk)
        bad[at] ^= 0x41
        out = np.empty(x.shape, np.int16)
        good = compiled.decode(np.frombuffer(bytes(bad), np.uint8), bank.lut, bank.entries, 2000, True, out)
        try:
            expected = reference(bytes(bad), x.shape)
            assert good == (np.abs(expected.astype(np.int64)).max() <= 2000)
            if good:
                assert np.array_equal(out, expected)
        except FormatError:
            assert not good
            refused += 1
    assert refused > 10


def test_samples_beyond_the_limit_are_refused():
    chunk = blocks.encode(np.full((1, 4, 4), 100))
    with pytest.raises(FormatError, match="beyond"):
        blocks.decode(chunk, np.empty((1, 4, 4), np.int8), 99)


def test_wrong_inputs():
    with pytest.raises(InputError, match="integer latent"):
        blocks.program(Encoder(), np.zeros((1, 2, 2)), (1, 2, 2))
    with pytest.raises(InputError, match="at least one sample"):
        blocks.program(Encoder(), np.zeros((1, 0, 2), np.int32), (1, 0, 2))
