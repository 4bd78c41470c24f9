"""Corrupt, truncated and hostile chunks: one clear error or wrong symbols that a checksum finds; never worse.

`LATENTZIP_FUZZ=2000000 pytest tests/entropy/test_hostile.py` runs the long fuzz.
"""

import os
import time
import tracemalloc

import numpy as np
import pytest

from latentzip.entropy import Decoder, Encoder, Gaussian, Laplace, Mixture, TableModel, Uniform, frozen_bank
from latentzip.entropy.ans import leb128
from latentzip.entropy.engine import load_engine
from latentzip.entropy.errors import CodecError, FormatError

ENGINES = ["numba", "plain"]


def program(seed: int):
    """A list of models that use every section of a chunk, and symbols for them."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    mix = np.full((n, 2), 128), rng.integers(-99, 99, (n, 2)), rng.integers(0, 64, (n, 2))
    models = [
        Gaussian(rng.integers(0, 64, n).astype(np.uint8)),
        Laplace(rng.integers(0, 64, n), profile="max"),
        Mixture(*mix),
        TableModel(frozen_bank(), np.full(n, 63, np.uint8), rng.integers(-(2**31), 2**31, n)),
        Uniform(0, 1000, (n,)),
        Uniform(-8, 7, (n,)),
    ]
    symbols = [rng.integers(-300, 300, n) for _ in range(4)] + [
        rng.integers(0, 1001, n),
        rng.integers(-8, 8, n),
    ]
    symbols[0][rng.integers(0, n)] = rng.integers(-(2**31), 2**31)
    return models, symbols


def encode(models, symbols, streams=None) -> bytes:
    encoder = Encoder(streams)
    for s, m in zip(symbols, models):
        encoder.code(s, m)
    return encoder.finish()


def decode(blob, models, engine="numba"):
    decoder = Decoder(blob, engine=load_engine(engine))
    out = [decoder.code(None, m) for m in models]
    decoder.finish()
    return out


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("streams", [1, 8])
def test_every_truncation_is_an_error(engine, streams):
    models, symbols = program(1)
    blob = encode(models, symbols, streams)
    for n in range(0, len(blob), 1 if engine == "numba" else 9):
        with pytest.raises(FormatError):
            decode(blob[:n], models, engine)
    with pytest.raises(FormatError):
        decode(blob + b"\1", models, engine)


@pytest.mark.parametrize("streams", [1, 8])
def test_a_flipped_bit_is_the_same_in_both_bodies(streams):
    models, symbols = program(2)
    blob = encode(models, symbols, streams)
    unseen = 0
    for bit in range(0, 8 * len(blob), 241):
        bad = bytearray(blob)
        bad[bit >> 3] ^= 1 << (bit & 7)
        results = []
        for engine in ENGINES:
            try:
                results.append([a.tolist() for a in decode(bytes(bad), models, engine)])
            except FormatError as error:
                results.append(str(error))
        assert results[0] == results[1]
        unseen += not isinstance(results[0], str)
    # raw bits carry no redundancy: what they hold is for the checksum around the chunk
    assert unseen < len(blob) // 40


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "first byte is missing"),
        (b"\x07", "no version of this format"),
        (b"\x20", "no version of this format"),
        (b"\x08", "ends within its header"),
        (b"\x08\x00", "side section of no bytes"),
        (b"\x08\x80\x00", "malformed length"),
        (b"\x08\xff\xff\xff\xff\x0f", "declares 42949673"),
        (b"\x10\xff\xff\xff\xff\xff\xff", "malformed length"),
        (b"\x01\x09\x01\0\0\1", "claims -5 words of 1"),
        (b"\x00\x01\x00", "ends in a zero byte"),
        (b"\x01\x00" + bytes(4) + b"\1\0\0\1", "ends in a zero word"),
    ],
)
def test_malformed_headers_name_what_is_wrong(blob, message):
    with pytest.raises(FormatError, match=message):
        Decoder(blob)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("section", "message"),
    [(b"", "ends early"), (b"\x80", "ends early"), (b"\x80\x00", "malformed"), (b"\xff" * 5, "malformed"),
     (b"\xff\xff\xff\xff\x1f", "malformed"), (b"\x01\x01", "side bytes left over")],
)  # fmt: skip
def test_escape_sections(engine, section, message):
    model = Gaussian(np.array([10], np.uint8))
    good = encode([model], [np.array([10**6])])
    size = good[1]
    head = bytes([good[0] if section else good[0] & 7]) + (bytes([len(section)]) if section else b"")
    with pytest.raises(FormatError, match=message):
        decode(head + section + good[2 + size :], [model], engine)


def test_no_memory_is_taken_on_a_chunk_s_word():
    tracemalloc.start()
    try:
        for blob in (
            b"\x08\xff\xff\xff\xff\x0f",
            b"\x10\xff\xff\xff\xff\x0f",
            b"\x06" + b"\xff\xff\xff\xff\x0f" * 63,
        ):
            with pytest.raises(FormatError):
                Decoder(blob)
        decoder = Decoder(b"\x08\x01\xff")
        with pytest.raises(FormatError, match="raw section ends early"):
            decoder.code(None, Uniform(0, 255, (1 << 40,)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_leb128_is_canonical():
    values = np.array([0, 127, 128, 2**14 - 1, 2**14, 2**28, 2**32 - 1], np.uint32)
    assert leb128(values).hex() == "007f8001ff7f808001" + "8080808001" + "ffffffff0f"
    assert leb128(np.zeros(0, np.uint32)) == b""


def mutate(rng: np.random.Generator, blob: bytes) -> bytes:
    """One of: flipped bits, a cut, an insertion, a block overwritten, or nothing but noise."""
    data = bytearray(blob)
    kind = rng.integers(0, 6)
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:
        del data[int(rng.integers(0, len(data))) :]
    elif kind == 2:
        at = int(rng.integers(0, len(data) + 1))
        data[at:at] = rng.bytes(int(rng.integers(1, 9)))
    elif kind == 3:
        at = int(rng.integers(0, len(data)))
        data[at : at + 8] = rng.bytes(8)
    elif kind == 4:
        data[: int(rng.integers(1, 6))] = rng.bytes(int(rng.integers(0, 6)))
    else:
        data = bytearray(rng.bytes(int(rng.integers(0, 80))))
    return bytes(data)


def test_fuzz():
    count = int(os.environ.get("LATENTZIP_FUZZ", "3000"))
    rng = np.random.default_rng(20240)
    pool = [
        (models, encode(models, symbols, k)) for i in range(12) for models, symbols in [program(i)] for k in (1, 4, 64)
    ]
    refused = 0
    slowest = 0.0
    for _ in range(count):
        models, blob = pool[int(rng.integers(0, len(pool)))]
        bad = mutate(rng, blob)
        began = time.perf_counter()
        try:
            decode(bad, models)
        except CodecError:
            refused += 1
        slowest = max(slowest, time.perf_counter() - began)
    print(f"fuzz: {count} inputs, {refused} refused, slowest {slowest * 1e3:.1f} ms")
    assert refused > 0.8 * count
    assert slowest < 5
