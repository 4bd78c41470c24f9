"""Latents of a batch decoded together are those decoded one by one; a damaged one is noticed and harms no other."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz
from latentzip.entropy.coder import Decoder, Encoder
from latentzip.entropy.context.lockstep import FEW
from latentzip.entropy.context.model import ContextModel
from latentzip.entropy.engine import current_engine
from latentzip.entropy.errors import FormatError

pytestmark = pytest.mark.skipif(current_engine().name != "numba", reason="lanes are compiled loops")
LANES = 16


@cache
def model(name: str = "walloc-rgb-16x") -> ContextModel:
    found = lz.load_codec(name).context
    assert isinstance(found, ContextModel)
    return found


def encode(m: ContextModel, latent: np.ndarray, streams: int | None = None) -> bytes:
    encoder = Encoder(streams)
    m.program(encoder, latent, latent.shape)  # type: ignore[arg-type]
    return encoder.finish()


def alone(m: ContextModel, chunk: bytes, shape: tuple[int, int, int], limit: int) -> np.ndarray | None:
    """What one decoder makes of a chunk; None where it, or the limit, refuses it."""
    try:
        decoder = Decoder(chunk)
        latent = m.program(decoder, None, shape)
        decoder.finish()
    except FormatError:
        return None
    return latent if np.abs(latent.astype(np.int64)).max() <= limit else None


def latents(rng: np.random.Generator, n: int, shape: tuple[int, int, int], scale: float, limit: int) -> np.ndarray:
    wild = rng.laplace(size=(n, *shape)) * scale * np.exp(rng.normal(size=(n, shape[0], 1, 1)))
    return np.rint(wild).clip(-limit, limit).astype(np.int16)


def in_lanes(n: int) -> np.ndarray:
    """Which of n chunks find lanes: a last group of few does not."""
    return np.arange(n) < (n if n % LANES >= FEW or n % LANES == 0 else n - n % LANES)


@settings(max_examples=20, deadline=None)
@given(
    h=st.integers(1, 21), w=st.integers(1, 21), n=st.integers(1, 37), scale=st.sampled_from([0.2, 3.0, 60.0, 900.0]),
    streams=st.lists(st.sampled_from([None, 1, 2, 8]), min_size=1, max_size=3), seed=st.integers(0, 99),
)  # fmt: skip
def test_together_is_one_by_one(h, w, n, scale, streams, seed) -> None:
    m, limit = model(), 4000
    z = latents(np.random.default_rng(seed), n, (m.channels, h, w), scale, limit)
    chunks = [encode(m, x, streams[i % len(streams)]) for i, x in enumerate(z)]
    out = np.empty_like(z)
    good = m.decode_alike(chunks, out, limit)
    assert np.array_equal(good, in_lanes(n))
    assert np.array_equal(out[good], z[good])


@pytest.mark.parametrize("name", ["walloc-rgb-4x", "walloc-rgb-linear", "walloc-audio-20x"])
def test_models_of_every_order(name: str) -> None:
    m = model(name)
    z = latents(np.random.default_rng(1), 17, (m.channels, 9, 6), 3.0, 127).astype(np.int8)
    out = np.empty_like(z)
    good = m.decode_alike([encode(m, x) for x in z], out, 127)
    assert good.sum() == LANES
    assert np.array_equal(out[:LANES], z[:LANES])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_damaged_chunk_is_noticed_and_harms_no_other(data, seed) -> None:
    m, shape, limit = model(), (12, 6, 7), 127
    rng = np.random.default_rng(seed)
    z = latents(rng, LANES, shape, data.draw(st.sampled_from([2.0, 40.0])), limit).astype(np.int8)
    chunks = [encode(m, x, int(rng.choice([1, 2]))) for x in z]
    hit = data.draw(st.integers(0, LANES - 1))
    bad = bytearray(chunks[hit])
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(bad)))
    chunks[hit] = bytes(bad[:cut] if data.draw(st.booleans()) else bad)
    out = np.empty_like(z)
    good = m.decode_alike(chunks, out, limit)
    others = np.arange(LANES) != hit
    assert good[others].all()
    assert np.array_equal(out[others], z[others])
    expected = alone(m, chunks[hit], shape, limit)
    assert good[hit] == (expected is not None)
    assert expected is None or np.array_equal(out[hit], expected)


def test_values_beyond_the_limit_are_refused() -> None:
    m = model()
    z = latents(np.random.default_rng(2), LANES, (12, 5, 5), 2.0, 127).astype(np.int32)
    z[3, 4, 2, 2], z[9, 0, 0, 0], z[11, 1, 1, 1] = 128, -(2**31), 2**31 - 1
    out = np.empty(z.shape, np.int8)
    good = m.decode_alike([encode(m, x) for x in z], out, 127)
    assert np.flatnonzero(~good).tolist() == [3, 9, 11]
    assert np.array_equal(out[good], z[good])


def test_what_does_not_go_together_is_left_to_the_decoder() -> None:
    m = model()
    z = latents(np.random.default_rng(3), LANES, (5, 8, 8), 2.0, 127)  # a prefix of the channels
    assert not m.decode_alike([encode(m, x) for x in z], np.empty_like(z), 127).any()
    assert m.decode_alike([], np.empty((0, 12, 8, 8), np.int8), 127).size == 0
