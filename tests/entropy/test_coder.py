"""Round trips, the size of what is written, and both bodies of the coder against constriction."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ENGINES, FEW, SHAPES, banks, calls

from latentzip.entropy import (
    Decoder,
    Encoder,
    Gaussian,
    Mixture,
    RateMeter,
    TableBank,
    TableModel,
    Uniform,
    decode_batch,
    encode_batch,
    run_batch,
)
from latentzip.entropy.errors import FormatError, InputError


@FEW
@given(st.lists(calls(), max_size=4), st.sampled_from([None, 1, 2, 8, 64]))
def test_any_program_comes_back_and_both_bodies_agree(program, streams):
    blobs = []
    for engine in ENGINES:
        encoder = Encoder(streams, engine=engine)
        for symbols, model in program:
            assert encoder.code(symbols, model) is symbols
        blobs.append(encoder.finish())
    assert blobs[0] == blobs[1]
    for engine in ENGINES:
        decoder = Decoder(blobs[0], engine=engine)
        for symbols, model in program:
            out = decoder.code(None, model)
            assert out.dtype == np.int32
            np.testing.assert_array_equal(out, symbols)
        decoder.finish()


@FEW
@given(banks(), SHAPES, st.sampled_from([None, 1, 4]), st.integers(0, 2**32 - 1))
def test_constriction_alone_reads_every_stream(bank, shape, streams, seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, bank.num_tables, shape)
    row = bank.info[index].astype(np.int64)
    symbols = (row[..., 0] + rng.integers(-1, 1 + row[..., 2]) << row[..., 1]) + rng.integers(0, 1 << row[..., 1])
    encoder = Encoder(streams)
    encoder.code(symbols, TableModel(bank, index))
    np.testing.assert_array_equal(oracle.decode_tables(encoder.finish(), bank, index), symbols)


@pytest.mark.parametrize("streams", [1, 2, 16])
def test_constriction_writes_the_same_words(streams):
    rng = np.random.default_rng(0)
    bank = TableBank.from_histograms([rng.gamma(0.5, size=40) for _ in range(3)], lo=0, trim=False)
    index = rng.integers(0, 3, 3000)
    symbols = rng.integers(0, 40, 3000)
    encoder = Encoder(streams)
    encoder.code(symbols, TableModel(bank, index))
    ours, _, _ = oracle.split(encoder.finish())
    models = [oracle.exact_model(bank.table(t).astype(np.int64) << 12) for t in range(3)]
    for j in range(streams):
        coder = oracle.stream.stack.AnsCoder()
        for s, t in zip(symbols[j::streams][::-1].tolist(), index[j::streams][::-1].tolist()):
            coder.encode_reverse(s, models[t])
        np.testing.assert_array_equal(coder.get_compressed(), ours[j])


def test_tiny_chunks_stay_tiny():
    assert Encoder().finish() == b"\0"
    Decoder(b"\0").finish()
    sizes = []
    for value in (0, 1, -3):
        encoder = Encoder()
        encoder.code(np.array([value]), Gaussian(np.array([25])))
        sizes.append(len(encoder.finish()))
    assert max(sizes) <= 4


@pytest.mark.parametrize("profile", ["default", "max"])
@pytest.mark.parametrize("top", [12, 34, 64])
def test_size_against_the_ideal(profile, top):
    rng = np.random.default_rng(top)
    index = rng.integers(0, top, 60_000).astype(np.uint8)
    model = Gaussian(index, profile=profile)
    from latentzip.entropy import scales

    symbols = np.round(rng.normal(size=index.size) * scales()[index]).astype(np.int32)
    ideal = model.bits(symbols) / 8
    for streams in (None, 1, 32):
        encoder = Encoder(streams)
        encoder.code(symbols, model)
        blob = encoder.finish()
        count = 1 << (blob[0] & 7)
        assert ideal - 8 < len(blob) < ideal * 1.002 + 8 * count
        if streams is None:
            assert len(blob) < ideal * 1.006


def test_many_small_calls_equal_one():
    rng = np.random.default_rng(3)
    index = rng.integers(0, 40, 5000).astype(np.uint8)
    symbols = rng.integers(-9, 10, 5000).astype(np.int32)
    whole, parts = Encoder(), Encoder()
    whole.code(symbols, Gaussian(index))
    edges = [0, 1, 1, 7, 100, 4095, 5000]
    for a, b in pairwise(edges):
        parts.code(symbols[a:b], Gaussian(index[a:b]))
    blob = whole.finish()
    assert parts.finish() == blob
    decoder = Decoder(blob)
    got = [decoder.code(None, Gaussian(index[a:b])) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(got), symbols)
    decoder.finish()


def test_more_escapes_than_an_encoder_sets_aside():
    symbols = np.arange(-400, 400, dtype=np.int32) * 5_000_000
    model = Gaussian(np.full(800, 50, np.uint8))
    blobs = []
    for engine in ENGINES:
        encoder = Encoder(engine=engine)
        encoder.code(symbols, model)
        blobs.append(encoder.finish())
    assert blobs[0] == blobs[1]
    np.testing.assert_array_equal(Decoder(blobs[0]).code(None, model), symbols)


def test_warm_compiles_everything_ahead():
    from latentzip.entropy import warm
    from latentzip.entropy.compiled import coder as fast
    from latentzip.entropy.compiled import mixture

    thread = warm()
    assert thread is not None
    thread.join()
    assert warm(background=False) is None
    for loop in (fast.encode, fast.decode_lut_raw, fast.decode_search, mixture.decode_mixture):
        assert loop.signatures  # type: ignore[attr-defined]


def test_restart_points():
    rng = np.random.default_rng(5)
    index = rng.integers(0, 64, (10, 500)).astype(np.uint8)
    symbols = rng.integers(-2000, 2000, (10, 500)).astype(np.int32)
    encoder = Encoder(4)
    for row, s in zip(index, symbols):
        encoder.code(s, Gaussian(row))
    blob = encoder.finish()
    decoder = Decoder(blob)
    points = []
    for row in index:
        points.append(decoder.tell())
        decoder.code(None, Gaussian(row))
    assert len(points[5]) <= 4 * 10 + 8
    for i in (9, 4, 0):
        decoder = Decoder(blob)
        decoder.seek(points[i])
        np.testing.assert_array_equal(decoder.code(None, Gaussian(index[i])), symbols[i])
    decoder = Decoder(blob)
    decoder.seek(points[9])
    decoder.code(None, Gaussian(index[9]))
    decoder.finish()
    for bad in (b"", points[3][:-1], points[3] + b"\0", b"\xff" * 60):
        with pytest.raises(FormatError, match="restart point"):
            Decoder(blob).seek(bad)


def test_batches_over_threads():
    rng = np.random.default_rng(7)
    items = [
        [(rng.integers(-5, 6, (4, n)).astype(np.int32), Gaussian(np.full((4, n), 20, np.uint8)))]
        for n in range(0, 40, 3)
    ]
    one, two = encode_batch(items, threads=1), encode_batch(items, threads=2)
    assert one == two
    back = decode_batch(one, [[m for _, m in item] for item in items], threads=2)
    for item, got in zip(items, back):
        np.testing.assert_array_equal(item[0][0], got[0])
    with pytest.raises(FormatError):
        decode_batch([b"\xff"], [[]], threads=2)
    with pytest.raises(InputError, match="one length"):
        run_batch(len, [1], [])


def test_tensors_come_back_as_tensors():
    import torch

    index = torch.randint(0, 30, (2, 3, 4), dtype=torch.uint8)
    symbols = torch.randint(-4, 5, (2, 3, 4)).float()
    encoder = Encoder()
    assert encoder.code(symbols, Gaussian(index)) is symbols
    out = Decoder(encoder.finish()).code(None, Gaussian(index))
    assert out.dtype == torch.int32
    assert torch.equal(out, symbols.int())


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (np.array([0.5, 1]), "round them"),
        (np.array([np.nan, 1]), "round them"),
        (np.array([1, 2, 3]), r"shape \(3,\), their model has \(2,\)"),
        (np.array([2**31, 0]), "beyond int32"),
        (np.array(["a", "b"]), "must be integers"),
    ],
)
def test_bad_symbols_are_refused_and_leave_no_trace(symbols, message):
    encoder = Encoder()
    with pytest.raises(InputError, match=message):
        encoder.code(symbols, Gaussian(np.array([3, 4])))
    assert encoder.finish() == b"\0"


def test_bad_models_are_refused():
    encoder = Encoder()
    zeros = np.zeros(2, np.int32)
    with pytest.raises(InputError, match="outside the bank's 64 tables"):
        encoder.code(zeros, Gaussian(np.array([3, 64])))
    with pytest.raises(InputError, match="outside the bank's 64 tables"):
        encoder.code(zeros, Gaussian(np.array([3, -1])))
    with pytest.raises(InputError, match="must be integer, not float64"):
        encoder.code(zeros, Gaussian(np.array([3.0, 1])))
    with pytest.raises(InputError, match="code round"):
        encoder.code(zeros, Gaussian(np.array([3, 1]), offset=np.array([0.5, 0])))
    with pytest.raises(InputError, match="sum 256"):
        encoder.code(zeros, Mixture(zeros[:, None], zeros[:, None], zeros[:, None]))
    with pytest.raises(InputError, match="exactly one"):
        Gaussian()
    with pytest.raises(InputError, match=r"outside 0\.\.7"):
        encoder.code(np.array([8, 0]), Uniform(0, 7, (2,)))
    assert encoder.finish() == b"\0"
    with pytest.raises(InputError, match="finished"):
        encoder.code(zeros, Gaussian(zeros))
    with pytest.raises(InputError, match="power of two"):
        Encoder(3)
    with pytest.raises(InputError, match="given None"):
        Decoder(b"\0").code(zeros, Gaussian(zeros))  # type: ignore[arg-type]


def test_rate_meter_counts_what_is_coded():
    rng = np.random.default_rng(1)
    symbols = rng.integers(-8, 9, 4000).astype(np.int32)
    meter, encoder = RateMeter(), Encoder()
    for coder in (meter, encoder):
        coder.code(symbols, Gaussian(np.full(4000, 28, np.uint8)))
        coder.code(symbols, Uniform(-8, 8, (4000,)))
    assert meter.bits / 8 == pytest.approx(len(encoder.finish()), rel=0.005)


def test_importing_the_package_is_cheap():
    heavy = ("torch", "numba", "numpy", "constriction")
    code = f"import sys, latentzip.entropy; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_works_without_numba(monkeypatch):
    from latentzip.entropy import current_engine

    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert current_engine().name == "plain"
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "0")
    assert current_engine().name == "numba"
