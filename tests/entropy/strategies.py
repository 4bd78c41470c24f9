"""What hypothesis draws from: table banks, and symbols with models of every kind."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latentzip.entropy import Gaussian, Mixture, TableBank, TableModel, Uniform
from latentzip.entropy.engine import load_engine

INT32 = st.integers(-(2**31), 2**31 - 1)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENGINES = [load_engine("numba"), load_engine("plain")]


@st.composite
def banks(draw) -> TableBank:
    precision = draw(st.integers(2, 16))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    freqs, lo, raw = [], [], []
    for _ in range(draw(st.integers(1, 5))):
        n = int(rng.integers(2, min(1 << precision, 400) + 1))
        cuts = np.sort(rng.choice((1 << precision) - 1, n - 1, replace=False)) + 1
        freqs.append(np.diff(np.concatenate([[0], cuts, [1 << precision]])))
        raw.append(int(rng.integers(0, 8)))
        lo.append(int(rng.integers(-500, 500)))
    return TableBank(freqs, lo, raw, precision)


@st.composite
def calls(draw):
    """Symbols and the model to code them with."""
    shape = draw(SHAPES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    symbols = np.round(rng.standard_cauchy(shape) * draw(st.sampled_from([0.1, 1, 30]))).clip(-(2**31), 2**31 - 1)
    symbols = symbols.astype(np.int32)
    if symbols.size and draw(st.booleans()):
        symbols.flat[draw(st.integers(0, symbols.size - 1))] = draw(INT32)
    kind = draw(st.sampled_from(["gaussian", "table", "mixture", "uniform"]))
    if kind == "gaussian":
        index = rng.integers(0, 64, shape).astype(draw(st.sampled_from([np.uint8, np.int64])))
        return symbols, Gaussian(index, profile=draw(st.sampled_from(["default", "fine", "max"])))
    if kind == "table":
        bank = draw(banks())
        offset = draw(st.one_of(INT32, st.just(symbols)))
        return symbols, TableModel(bank, rng.integers(0, bank.num_tables, shape), offset)
    if kind == "mixture":
        w = rng.multinomial(256, [0.6, 0.3, 0.1], shape)
        means = np.clip(symbols[..., None] * 16.0, -(2**18), 2**18) + rng.integers(-200, 200, (*shape, 3))
        return symbols, Mixture(w, means.astype(np.int64), rng.integers(0, 64, (*shape, 3)))
    lo = draw(st.integers(-(2**31), 2**31 - 1))
    hi = draw(st.integers(lo, min(2**31 - 1, lo + draw(st.sampled_from([0, 1, 255, 1000, 2**25, 2**32])))))
    return rng.integers(lo, hi + 1, shape).astype(np.int32), Uniform(lo, hi, shape)
