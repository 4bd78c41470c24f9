"""Damage to files of embeddings."""

import numpy as np
import pytest

import latentzip as lz


def check(source, folder, read):
    """A flipped bit, or one and a cut end, is a CodecError when ``read`` takes a path; tried 60 times."""
    data, rng = source.read_bytes(), np.random.default_rng(0)
    path = folder / "x.ltz"
    for _ in range(60):
        wrong = bytearray(data)
        wrong[rng.integers(len(wrong))] ^= 1 << int(rng.integers(8))
        path.write_bytes(wrong[: len(wrong) - int(rng.integers(0, 3))])
        with pytest.raises(lz.CodecError):
            read(path)
