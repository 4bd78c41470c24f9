"""A larger budget of bits is never worse; cost grows with the rows, not with their square."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz

KINDS = {
    "smooth": lambda g: torch.linspace(0, 1, 1536).reshape(48, 32),
    "normal": lambda g: torch.randn(48, 32, generator=g),
    "relu": lambda g: torch.randn(48, 32, generator=g).relu(),
    "map": lambda g: torch.randn(4, 16, 24, generator=g).cumsum(2),
    "vector": lambda g: torch.randn(1500, generator=g),
}


def error_of(x, bits):
    try:
        y = lz.decode(lz.encode(x, codec="features", bits=bits))
    except lz.InputError:
        return float("inf")
    return float((x - y).double().square().mean() / x.double().var())


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 3), st.floats(1.5, 30), st.floats(1.1, 2.5))
def test_more_bits_are_never_worse(kind, seed, bits, factor):
    x = KINDS[kind](torch.Generator().manual_seed(seed))
    assert error_of(x, bits * factor) <= 1.05 * error_of(x, bits) + 1e-13


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_enough_bits_are_exact(kind):
    x = KINDS[kind](torch.Generator().manual_seed(0))
    assert torch.equal(lz.decode(lz.encode(x, codec="features", bits=64)), x)


def test_time_grows_with_the_rows():
    took = []
    for n in (20_000, 80_000):
        x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
        lz.encode(x[:1000], codec="features", max_error=0.05)
        start = time.process_time()
        lz.encode(x, codec="features", max_error=0.05)
        took.append(time.process_time() - start)
    assert took[1] < 9 * max(took[0], 0.05)
