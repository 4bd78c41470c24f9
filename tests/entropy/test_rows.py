"""Rows: what is coded decodes, the rate is what was foretold, both bodies write the same bytes, damage is an error."""

import numpy as np
import pytest

from latentzip.entropy import Decoder, Encoder, RateMeter, StreamDecoder, StreamEncoder
from latentzip.entropy.errors import FormatError, InputError, UnsupportedError
from latentzip.entropy.rows.fit import MagnitudeExample, ValueExample, fit_magnitudes, fit_values
from latentzip.entropy.rows.program import NOT_CODED, MagnitudeRows, MagnitudeTables, ValueRows, ValueTables

CLASSES = 3


def magnitudes(seed, scale=3.0):
    """Rows of 32, 16 and 64 for two channels, loud at the low end; the last class is not coded."""
    rng = np.random.default_rng(seed)
    lengths = np.repeat(rng.choice([16, 32, 64], 12), 2)
    number = np.arange(lengths.size)
    rows = np.stack([np.cumsum(lengths) - lengths, lengths, np.maximum(number - 2, -1),
                     np.where(number % 2, number - 1, -1)], 1).astype(np.int32)  # fmt: skip
    place = np.concatenate([np.arange(n) / n for n in lengths])
    known = np.where(place > 0.8, NOT_CODED, (place * CLASSES).astype(int)).astype(np.uint8)
    step = np.repeat(rng.integers(-8, 9, lengths.size), lengths).astype(np.int16)
    loud = np.repeat(2 ** np.repeat(np.clip(rng.normal(size=12).cumsum(), -3, 3), 2), lengths)
    symbols = np.rint(rng.laplace(size=place.size) * loud * scale * (1 - place) * 2 ** (-step / 8)).astype(np.int32)
    symbols[known == NOT_CODED] = 0
    return MagnitudeExample(rows, step, known, symbols)


def values(seed):
    rng = np.random.default_rng(seed)
    layouts = np.repeat(rng.integers(0, 2, 12), 2)
    lengths = np.array([10, 6])[layouts]
    number = np.arange(layouts.size)
    rows = np.stack([np.cumsum(lengths) - lengths, lengths, np.maximum(number - 2, -1),
                     np.where(number % 2, number - 1, -1), layouts], 1).astype(np.int32)  # fmt: skip
    places = np.zeros((2, 2, 10), np.int32)
    places[0, 0], places[1, 1, :6] = np.arange(10), np.arange(6)
    places[0, 1, :6], places[1, 0] = np.arange(6) * 10 // 6, np.arange(10) * 6 // 10
    symbols = np.concatenate([40 - np.arange(n) * 20 // n + rng.integers(-2, 3, n) for n in lengths]).astype(np.int32)
    return ValueExample(rows, places, symbols)


@pytest.fixture(scope="module")
def magnitude_tables():
    return fit_magnitudes([magnitudes(s) for s in range(20)], CLASSES)


@pytest.fixture(scope="module")
def value_tables():
    return fit_values([values(s) for s in range(20)])


def models(magnitude_tables, value_tables, seed=100, scale=3.0):
    m, v = magnitudes(seed, scale), values(seed)
    return [
        (MagnitudeRows(magnitude_tables, m.rows, m.step, m.known), m.symbols),
        (ValueRows(value_tables, v.rows, v.places, v.symbols.size), v.symbols),
    ]


def coded(pairs):
    encoder = Encoder()
    for model, symbols in pairs:
        encoder.code(symbols, model)
    return encoder.finish()


@pytest.mark.parametrize("scale", [0.01, 3.0, 3000.0, 3e7])
def test_what_is_coded_decodes(magnitude_tables, value_tables, scale):
    pairs = models(magnitude_tables, value_tables, scale=scale)
    decoder = Decoder(coded(pairs))
    for model, symbols in pairs:
        np.testing.assert_array_equal(decoder.code(None, model), symbols)
    decoder.finish()


def test_the_rate_is_what_the_meter_says_and_less_than_without_neighbours(magnitude_tables, value_tables):
    pairs = [p for seed in range(100, 130) for p in models(magnitude_tables, value_tables, seed)]
    meter = RateMeter()
    for model, symbols in pairs:
        meter.code(symbols, model)
    assert 8 * len(coded(pairs)) == pytest.approx(meter.bits, rel=0.01)
    every = np.concatenate([symbols[model.known != NOT_CODED] for model, symbols in pairs[::2]])
    counts = np.unique(every, return_counts=True)[1]
    static = -(counts * np.log2(counts / counts.sum())).sum()
    alone = RateMeter()
    for model, symbols in pairs[::2]:
        alone.code(symbols, model)
    assert alone.bits < 0.95 * static


def test_plain_loops_write_and_read_the_same_bytes(magnitude_tables, value_tables, monkeypatch):
    pairs = models(magnitude_tables, value_tables)
    blob = coded(pairs)
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert coded(pairs) == blob
    decoder = Decoder(blob)
    for model, symbols in pairs:
        np.testing.assert_array_equal(decoder.code(None, model), symbols)
    decoder.finish()


def test_tables_survive_storage(magnitude_tables, value_tables):
    pairs = models(magnitude_tables, value_tables)
    again = models(
        MagnitudeTables.from_arrays(magnitude_tables.to_arrays()), ValueTables.from_arrays(value_tables.to_arrays())
    )
    assert coded(again) == coded(pairs)
    with pytest.raises(InputError, match="weights"):
        ValueTables.from_arrays({k: v for k, v in value_tables.to_arrays().items() if k != "weights"})


def test_damage_is_an_error_or_other_symbols_never_a_crash(magnitude_tables, value_tables):
    pairs = models(magnitude_tables, value_tables, scale=3000.0)
    blob = coded(pairs)
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(200):
        data = bytearray(blob)
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << int(rng.integers(8))
        data = data[: int(rng.integers(1, len(data) + 1))]
        try:
            decoder = Decoder(bytes(data))
            for model, _ in pairs:
                decoder.code(None, model)
            decoder.finish()
        except FormatError:
            refused += 1
    assert refused > 190


def test_rows_that_refer_to_later_ones_are_refused(magnitude_tables):
    m = magnitudes(1)
    for column, wrong in ((0, m.symbols.size), (1, m.symbols.size + 1), (2, 0), (3, 5)):
        rows = m.rows.copy()
        rows[0, column] = wrong
        with pytest.raises(InputError, match="outside the symbols or refers to a later one"):
            MagnitudeRows(magnitude_tables, rows, m.step, m.known)


def test_symbols_of_uncoded_classes_must_be_zero(magnitude_tables):
    m = magnitudes(1)
    symbols = m.symbols.copy()
    symbols[np.flatnonzero(m.known == NOT_CODED)[0]] = 1
    with pytest.raises(InputError, match="must be zero"):
        Encoder().code(symbols, MagnitudeRows(magnitude_tables, m.rows, m.step, m.known))


def test_streaming_coders_are_refused(magnitude_tables):
    m = magnitudes(1)
    model = MagnitudeRows(magnitude_tables, m.rows, m.step, m.known)
    with pytest.raises(UnsupportedError, match="whole chunks"):
        StreamEncoder().code(m.symbols, model)
    with pytest.raises(UnsupportedError, match="whole chunks"):
        StreamDecoder().code(None, model)
