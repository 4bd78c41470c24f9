"""What is done to a stream of tensors before it is decoded: cut, flipped, and forged under checksums that fit."""

from dataclasses import replace

import numpy as np
import pytest

import latentzip as lz
from latentzip.entropy.container import read, write


def check(blob, codec, cuts, flips, reach=None):
    """Every damage is a CodecError; a forgery one as well, or another tensor of this shape, never anything else.

    Args:
        cuts: step of the lengths that are tried. flips: bits, one at a time.
        reach: bytes of a part that a forgery changes one of; None: all.
    """
    rng = np.random.default_rng(0)
    for length in [*range(0, len(blob), cuts), len(blob) - 1]:
        with pytest.raises(lz.CodecError):
            lz.decode(blob[:length], codec=codec)
    for at in rng.integers(0, len(blob), flips):
        damaged = bytearray(blob)
        damaged[at] ^= 1 << rng.integers(8)
        with pytest.raises(lz.CodecError):
            lz.decode(bytes(damaged), codec=codec)
    stream = read(blob)
    for _ in range(150):
        parts = [bytearray(c) for c in (stream.header.params, *stream.chunks)]
        part = parts[rng.integers(len(parts))]
        part[rng.integers(min(len(part), reach or len(part)))] ^= 1 << rng.integers(8)
        forged = write(replace(stream.header, params=bytes(parts[0])), [bytes(p) for p in parts[1:]])
        try:
            y = lz.decode(forged, codec=codec)
        except lz.CodecError:
            continue
        assert tuple(y.shape) == stream.header.shape
