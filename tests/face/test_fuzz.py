"""Ten thousand seeded mutations of small streams: each ends in a CodecError or in a valid decode, never otherwise.

Plain damage (flips, cuts, splices) has to be caught by signature, lengths and checksums. To get past them, most mutants
have their checksums repaired: then the header's own checks, the codec's and the coder's stand alone.
"""

from __future__ import annotations

import random
import resource
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs.base import Codec
from latentzip.codecs.contract import LATENT
from latentzip.entropy import container
from latentzip.entropy.container import ICC, Box, Limits, read, read_header, verify, write

SEED = 20_240_907
LIMITS = Limits(samples=1 << 14)  # deep mutants decode what their headers claim; this bounds the time of the test


@pytest.fixture(scope="module")
def streams() -> list[bytes]:
    """A grey and a transparent picture, one with two chunks, and one without boxes."""
    y, x = np.mgrid[:24, :20]
    colour = np.stack([10 * y, 12 * x, 5 * (x + y)], -1).astype(np.uint8)
    alpha = Image.fromarray(colour).convert("RGBA")
    alpha.putalpha(Image.fromarray((x * 12).astype(np.uint8)))
    alpha.info["icc_profile"] = bytes(range(60))
    long = np.broadcast_to(np.arange(1040, dtype=np.uint16)[:, None], (1040, 8))
    return [lz.encode(picture, "toy") for picture in (colour, alpha, long)]


@pytest.fixture(scope="module")
def model() -> Codec:
    """The codec of the streams, at hand: looking up wrong fingerprints would load it again and again."""
    return lz.load_codec("toy")


def flip(r: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8))):
        out[r.randrange(len(out))] ^= 1 << r.randrange(8)
    return bytes(out)


def overwrite(r: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    at = r.randrange(len(out))
    out[at : at + r.randrange(1, 9)] = r.choice((b"\0", b"\xff", b"\x80", b"\x7f")) * r.randrange(1, 9)
    return bytes(out)


def cut(r: random.Random, data: bytes) -> bytes:
    a, b = sorted(r.randrange(len(data) + 1) for _ in range(2))
    return data[:a] if r.random() < 0.5 else data[:a] + data[b:]


def insert(r: random.Random, data: bytes) -> bytes:
    at = r.randrange(len(data) + 1)
    return data[:at] + r.randbytes(r.randrange(1, 12)) + data[at:]


def splice(r: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: r.randrange(len(data))] + other[r.randrange(len(other)) :]


def mutated(r: random.Random, data: bytes, other: bytes) -> bytes:
    choice = r.choice((flip, flip, overwrite, cut, insert, None))
    return splice(r, data, other) if choice is None else choice(r, data)


def with_body(blob: bytes, body: bytes) -> bytes:
    """Another header body under a checksum that fits."""
    head = b"\x01" + container.packed_string(body)
    crc = zlib.crc32(head).to_bytes(4, "little")
    return container.SIGNATURE + head + crc + blob[read_header(blob).start :]


def body_of(blob: bytes) -> bytes:
    _, begin = container.read_varint(blob, 9)
    return blob[begin : read_header(blob).start - 4]


def outcome(action: Callable[[], object]) -> str:
    """The kind of CodecError, or "decoded"; every other exception fails the test."""
    try:
        action()
    except lz.CodecError as error:
        return type(error).__name__ if str(error) else "silent"
    return "decoded"


def test_damage_never_passes(streams):
    """6000 mutants without repair: all are refused, whatever is hit."""
    r = random.Random(SEED)
    for _ in range(6000):
        blob, other = r.choice(streams), r.choice(streams)
        mutant = mutated(r, blob, other)
        if mutant in streams:
            continue
        assert outcome(lambda m=mutant: verify(m)) != "decoded"


def test_repaired_headers(streams, model):
    """2000 mutants whose header is wrong under a right checksum."""
    r = random.Random(SEED + 1)
    seen: Counter[str] = Counter()
    for _ in range(2000):
        blob, other = r.choice(streams), r.choice(streams)
        mutant = with_body(blob, mutated(r, body_of(blob), body_of(other)))
        seen[outcome(lambda m=mutant: lz.decode(m, "latent", codec=model, limits=LIMITS))] += 1
        outcome(lambda m=mutant: lz.inspect(m))
    assert not seen["silent"]
    assert seen["FormatError"] > 200
    assert seen["UnsupportedError"] > 50
    assert seen["decoded"] > 20  # mode, kind and dtype may change what comes back, not how the latent is coded


def test_repaired_payloads(streams, model):
    """1500 mutants of chunks and boxes under right checksums: the coder itself meets nonsense."""
    r = random.Random(SEED + 2)
    for _ in range(1500):
        stream = read(r.choice(streams))
        chunks, boxes = list(stream.chunks), list(stream.boxes)
        if boxes and r.random() < 0.3:
            i = r.randrange(len(boxes))
            boxes[i] = Box(boxes[i].type, mutated(r, boxes[i].data, r.randbytes(40)))
        else:
            i = r.randrange(len(chunks))
            chunks[i] = mutated(r, chunks[i], r.choice(chunks))
        mutant = write(stream.header, chunks, boxes)
        outcome(lambda m=mutant: lz.decode(m, "latent", codec=model))


@pytest.mark.parametrize("name", [e.name for e in pretrained.index() if e.current and e.modality == "image"])
def test_released_codecs_meet_nonsense(name):
    """300 mutants a released codec: its context model decodes nonsense without falling over."""
    r = random.Random(SEED + 5)
    codec = lz.load_codec(name)
    y, x = np.mgrid[:40, :33]
    options: dict[str, Any] = {"effort": 1} if name == "overfit" else {}
    stream = read(lz.encode(np.stack([6 * y, 7 * x, 3 * (x + y)], -1).astype(np.uint8), codec, **options))
    to = "latent" if LATENT in codec.capabilities else "signal"
    for _ in range(300):
        mutant = write(stream.header, [mutated(r, chunk, stream.chunks[0]) for chunk in stream.chunks])
        assert outcome(lambda m=mutant: lz.decode(m, to, codec=codec)) != "silent"


def test_repaired_to_pixels(streams, model):
    """500 mutants through the whole decoder, synthesis and Pillow included."""
    r = random.Random(SEED + 3)
    for _ in range(500):
        blob = r.choice(streams[:2])
        body = bytearray(body_of(blob))
        body[r.randrange(2)] = r.randrange(256)  # kind, dtype, mode
        if r.random() < 0.5:
            body[r.randrange(len(body))] ^= 1 << r.randrange(8)
        mutant = with_body(blob, bytes(body))
        to = r.choice(("signal", "pil", "numpy", "tensor"))
        outcome(lambda m=mutant, t=to: lz.decode(m, t, codec=model, limits=LIMITS))


def test_memory_stays_bounded(streams, model):
    """Claims of enormous sizes are refused without being believed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stream = read(streams[0])
    r = random.Random(SEED + 4)
    began = time.perf_counter()
    for _ in range(300):
        body = body_of(streams[0])
        huge = container._varint(r.getrandbits(r.randrange(20, 62)))
        at = r.randrange(2, len(body))
        mutant = with_body(streams[0], body[:at] + huge + body[at + r.randrange(3) :])
        outcome(lambda m=mutant: lz.decode(m, "latent", codec=model))
    outcome(lambda: lz.decode(write(stream.header, [b""], [Box(ICC, b"")])))
    assert time.perf_counter() - began < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert torch.get_num_threads() >= 1
