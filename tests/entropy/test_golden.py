"""Frozen chunks decode for ever, with both bodies and with constriction alone."""

from pathlib import Path

import numpy as np
import oracle
import pytest
from make_golden import GOLDEN, model_of

from latentzip.entropy import Decoder, Encoder, TableModel, Uniform, frozen_bank
from latentzip.entropy.engine import load_engine

NAMES = [p.stem for p in sorted(Path(GOLDEN).glob("*.bin"))]


def load(name: str):
    with np.load(GOLDEN / f"{name}.npz") as z:
        arrays = {k: z[k] for k in z.files}
    return (GOLDEN / f"{name}.bin").read_bytes(), arrays


def test_they_are_there():
    assert len(NAMES) == 10


@pytest.mark.parametrize("engine", ["numba", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_decodes_and_is_written_again(name, engine):
    blob, arrays = load(name)
    model = model_of(name, arrays)
    decoder = Decoder(blob, engine=load_engine(engine))
    np.testing.assert_array_equal(decoder.code(None, model), arrays["symbols"])
    decoder.finish()
    encoder = Encoder(1 << (blob[0] & 7), engine=load_engine(engine))
    encoder.code(arrays["symbols"], model)
    assert encoder.finish() == blob


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("mixture", "uniform", "raw")])
def test_constriction_alone_decodes_tables(name):
    blob, arrays = load(name)
    model = model_of(name, arrays)
    assert isinstance(model, TableModel)
    np.testing.assert_array_equal(oracle.decode_tables(blob, model.bank, arrays["index"]), arrays["symbols"])


def test_constriction_alone_decodes_the_mixture():
    blob, arrays = load("mixture")
    rows = oracle.mixture_rows([arrays[k] for k in ("weights", "means", "scale")])
    streams, _, escapes = oracle.split(blob)
    escaped = oracle.zigzags(escapes)
    coders = [oracle.stream.stack.AnsCoder(w) for w in streams]
    for i, (symbol, (first, freq)) in enumerate(zip(arrays["symbols"].tolist(), rows)):
        entry = int(coders[i % len(coders)].decode(oracle.exact_model(freq)))
        if entry < freq.size - 1:
            assert first + entry == symbol
        else:
            assert next(escaped) == symbol
    assert next(escaped, None) is None
    assert all(c.is_empty() for c in coders)


def test_constriction_alone_decodes_the_uniform_tops():
    blob, arrays = load("uniform")
    model = model_of("uniform", arrays)
    assert isinstance(model, Uniform)
    got = oracle.decode_tables(blob, model._tables().bank, np.zeros(200, np.int64), offset=-5)
    np.testing.assert_array_equal(got, arrays["symbols"])


def test_raw_bits_are_plain():
    blob, arrays = load("raw")
    _, raw, _ = oracle.split(blob)
    bits = int.from_bytes(raw, "little")
    assert [(bits >> 11 * i) & 2047 for i in range(50)] == arrays["symbols"].tolist()


def test_the_frozen_banks_are_those_of_the_files():
    assert frozen_bank("gaussian").fingerprint().hex() == "0772c710e0d7a76d"
