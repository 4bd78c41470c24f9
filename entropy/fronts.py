"""What the two pairs of coders do alike, before each goes its own way: checks, and parameters in order."""

from __future__ import annotations

from typing import Any

import numpy as np

from .contract import Model
from .engine import Engine, current_engine
from .errors import InputError
from .symbols import Symbols, as_int32


class EncoderFront:
    """Takes symbols as long as it is not finished; encoders add `table`, `_mixture` and `_raw_integers`."""

    _MORE = _AGAIN = ""  # what is said when it is finished: to more symbols, and to a second end

    def __init__(self, engine: Engine | None) -> None:
        self._engine = engine or current_engine()
        self._finished = False

    def code(self, symbols: Symbols, model: Model) -> Symbols:
        """Append symbols; returns what it was given.

        Args:
            symbols: integers (or floats of integral value) of the model's shape; int32 arrays are read in
            place.

        Raises:
            InputError: wrong shape, not integers, or a model whose parameters are out of range. Nothing is
            appended.
        """
        if self._finished:
            raise InputError(self._MORE)
        model.encode(self, symbols)
        return symbols

    def _end(self) -> None:
        if self._finished:
            raise InputError(self._AGAIN)
        self._finished = True

    def mixture(self, symbols: Symbols, weights: np.ndarray, means: np.ndarray, scale: np.ndarray, phi, shape) -> None:
        """Append symbols under integer Gaussian mixtures; parameters (n, K) int32."""
        x = as_int32(symbols, shape)
        if x.size:
            window = mixture_windows(self._engine.mixture, weights, means, scale, phi.reach)
            self._mixture(x, (weights, means, scale, *window, phi.phi, phi.rate))

    def raw(self, symbols: Symbols, bits: int, lo: int, shape: tuple) -> None:
        """Append integers in lo .. lo + 2**bits - 1 as they are; bits 1..24."""
        x = as_int32(symbols, shape)
        if x.size == 0:
            return
        if int(x.min()) < lo or int(x.max()) > lo + (1 << bits) - 1:
            raise InputError(f"a symbol lies outside {lo}..{lo + (1 << bits) - 1}")
        self._raw_integers(x, bits, lo)

    def _mixture(self, x: np.ndarray, parameters: tuple) -> None:
        """Symbols, at least one; weights, means, scales, first and count of each window, and the table."""
        raise NotImplementedError

    def _raw_integers(self, x: np.ndarray, bits: int, lo: int) -> None:
        """Integers in range, at least one."""
        raise NotImplementedError


def check_none(decoder: Any, symbols: Any) -> None:
    """Raises InputError when a decoder is given symbols."""
    if symbols is not None:
        raise InputError(f"a {type(decoder).__name__} is given None for symbols; it returns them")


def mixture_windows(
    kernels: Any, weights: np.ndarray, means: np.ndarray, scale: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First value and number of values of each mixture's window.

    Raises:
        InputError: parameters are out of range.
    """
    first, count = np.empty(len(weights), np.int64), np.empty(len(weights), np.int64)
    if kernels.windows(weights, means, scale, reach, first, count):
        raise InputError("mixture parameters out of range: weights >= 0 with sum 256, |mean| <= 2**19, scale 0..63")
    return first, count
