"""Grids whose symbols are foretold by an integer net: round trips, equal bodies, bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.codecs.overfit.nets import neighbours
from latentzip.entropy.coder import Decoder, Encoder
from latentzip.entropy.errors import FormatError, InputError
from latentzip.entropy.wavefront import LIMIT, ContextNet, Wavefront, build_laplace_tables

BANK = build_laplace_tables()


def _net(rng, count=10, features=6, weight=60):
    c = count + features

    def ints(*shape, top=weight):
        return rng.integers(-top, top + 1, shape).astype(np.int32)

    dy, dx = neighbours(count)
    biases = [ints(n, top=20_000) for n in (c, c, 2)]
    return ContextNet(dy, dx, ints(c, c), biases[0], ints(c, c), biases[1], ints(2, 2 * c, top=300), biases[2])


def _coded(symbols, model):
    encoder = Encoder()
    encoder.code(symbols, model)
    return encoder.finish()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([10, 14]))
def test_what_is_written_is_read(h, w, seed, own, count):
    rng = np.random.default_rng(seed)
    features = rng.integers(-900, 900, ((h + 1) // 2, (w + 1) // 2, 6)).astype(np.int16) if own else None
    model = Wavefront(_net(rng, count), BANK, (h, w), features)
    symbols = np.clip(np.rint(rng.laplace(0, rng.choice([0.1, 2, 60]), (h, w))), -LIMIT, LIMIT).astype(np.int32)
    data = _coded(symbols, model)
    decoder = Decoder(data)
    assert (decoder.code(None, model) == symbols).all()
    decoder.finish()
    assert model.bits(symbols) <= 8 * len(data) + 64  # the last state carries some


@pytest.mark.parametrize("shape", [(1, 1), (9, 4), (3, 50), (33, 47)])
@pytest.mark.parametrize("own", [False, True])
def test_the_plain_body_writes_and_reads_the_same_bytes(shape, own, monkeypatch):
    rng = np.random.default_rng(3)
    h, w = shape
    features = rng.integers(-900, 900, ((h + 1) // 2, (w + 1) // 2, 6)).astype(np.int16) if own else None
    model = Wavefront(_net(rng), BANK, shape, features)
    symbols = np.rint(rng.laplace(0, 3, shape)).astype(np.int32)
    data = _coded(symbols, model)
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert _coded(symbols, model) == data
    decoder = Decoder(data)
    assert (decoder.code(None, model) == symbols).all()
    decoder.finish()


def test_a_symbol_is_foretold_by_what_is_coded_before_it_alone():
    rng = np.random.default_rng(5)
    model = Wavefront(_net(rng, 14), BANK, (12, 15), None)
    symbols = np.rint(rng.laplace(0, 3, (12, 15))).astype(np.int32)
    index, offset = model.tables(symbols)
    order = model.order()
    for at in rng.choice(order.size, 20, replace=False):
        other = symbols.reshape(-1).copy()
        other[order[at:]] = 7  # from here on the decoder knows nothing
        theirs = model.tables(other.reshape(symbols.shape))
        assert theirs[0].reshape(-1)[order[at]] == index.reshape(-1)[order[at]]
        assert theirs[1].reshape(-1)[order[at]] == offset.reshape(-1)[order[at]]


def test_extreme_weights_stay_inside_int32():
    c, (dy, dx) = 20, neighbours(14)
    full = np.full((c, c), 2047, np.int32)
    net = ContextNet(
        dy, dx, full, np.full(c, 1 << 23, np.int32), full, np.full(c, 1 << 23, np.int32),
        np.full((2, 2 * c), 2047, np.int32), np.zeros(2, np.int32),
    )  # fmt: skip
    symbols = np.full((6, 8), LIMIT, np.int32)
    features = np.full((3, 4, 6), 16383, np.int16)
    compiled = Wavefront(net, BANK, (6, 8), features)
    padded = np.zeros((10, 16), np.int32)
    padded[4:, 4:12] = symbols
    plain = compiled._plain_tables(padded)  # computed in more than 32 bits
    for ours, theirs in zip(compiled.tables(symbols), plain):
        assert (ours == theirs).all()


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    net = _net(rng)
    with pytest.raises(FormatError, match="weights w1"):
        ContextNet(net.dy, net.dx, net.w1 + 4000, net.b1, net.w2, net.b2, net.w3, net.b3)
    with pytest.raises(FormatError, match="biases b2"):
        ContextNet(net.dy, net.dx, net.w1, net.b1, net.w2, net.b2 + (1 << 25), net.w3, net.b3)
    model = Wavefront(net, BANK, (4, 4), None)
    with pytest.raises(InputError, match="within"):
        model.tables(np.full((4, 4), 200))
    with pytest.raises(InputError, match="bank"):
        Wavefront(net, BANK.take([0, 1]), (4, 4), None)


def test_damaged_chunks_end_in_one_error():
    rng = np.random.default_rng(2)
    model = Wavefront(_net(rng), BANK, (20, 30), None)
    data = _coded(np.rint(rng.laplace(0, 3, (20, 30))).astype(np.int32), model)
    for i in range(60):
        broken = bytearray(data)
        broken[int(rng.integers(len(broken)))] ^= 1 << int(rng.integers(8))
        try:
            decoder = Decoder(bytes(broken[: len(broken) - i % 3]))
            decoder.code(None, model)
            decoder.finish()
        except FormatError:
            pass
