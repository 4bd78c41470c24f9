"""Steps on several numbers at once: compiled as they are defined."""

import numpy as np
import pytest

from latentzip.entropy.adaptive import STRETCH, loop
from latentzip.entropy.plain import lanes as plain

pytest.importorskip("numba")
lanes = pytest.importorskip("latentzip.entropy.compiled.lanes")


@loop
def _mix(memory, slots, out, error):  # type: ignore[no-untyped-def]
    dot = 0
    for i in range(0, 8, 4):
        dot += lanes.stretched_sum(memory, slots, i, 100, 120, STRETCH, out)
    for i in range(0, 8, 4):
        lanes.weights_step(memory, 120, out, i, error, 1 << 20)
    return dot


@loop
def _learn(cov, rest, v, e, g):  # type: ignore[no-untyped-def]
    dot = 0
    for j in range(0, 16, 8):
        dot += lanes.product_sum(cov, 5, v, j)
        lanes.products_fade(cov, 7, v, j, g, 6)
        lanes.rest_fade(rest, 3, v, j, e, 7)
        lanes.rest_less(rest, 3, cov, 9, j, g << 10)
    return dot


@pytest.mark.parametrize("seed", range(8))
def test_lanes_do_what_their_definition_says(seed: int) -> None:
    r = np.random.default_rng(seed)
    memory = r.integers(0, 1 << 31, 200).astype(np.int32)
    memory[100:] = r.integers(-(1 << 20), 1 << 20, 100, endpoint=True)
    slots, error = r.permutation(100)[:8], int(r.integers(-65535, 65536)) * 6
    ours, theirs = memory.copy(), memory.copy()
    found, out = np.zeros((2, 8), np.int32)
    dot = sum(plain.stretched_sum(theirs, slots, i, 100, 120, STRETCH, found) for i in (0, 4))
    for i in (0, 4):
        plain.weights_step(theirs, 120, found, i, error, 1 << 20)
    assert _mix(ours, slots, out, error) == dot
    assert np.array_equal(ours, theirs)
    assert np.array_equal(out, found)

    cov = r.integers(-(1 << 30), 1 << 30, 40).astype(np.int32)
    rest, v = r.integers(-(1 << 50), 1 << 50, 30), r.integers(-512, 513, 16).astype(np.int32)
    e, g = int(r.integers(-4096, 4097)), int(r.integers(-512, 513))
    ours, theirs, left, remains = cov.copy(), cov.copy(), rest.copy(), rest.copy()
    dot = 0
    for j in (0, 8):
        dot += plain.product_sum(theirs, 5, v, j)
        plain.products_fade(theirs, 7, v, j, g, 6)
        plain.rest_fade(remains, 3, v, j, e, 7)
        plain.rest_less(remains, 3, theirs, 9, j, g << 10)
    assert _learn(ours, left, v, e, g) == dot
    assert np.array_equal(ours, theirs)
    assert np.array_equal(left, remains)
