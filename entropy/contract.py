"""What coders and models ask of each other.

A program talks to a coder, a coder asks a model, and the model answers in the coder's own primitives:

    coder.code(symbols, model)  ->  model.encode(coder, symbols)  ->  coder.table(symbols, bank, index, ...)
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .symbols import Symbols
from .tables import TableBank


class Coder(Protocol):
    """What a program is written against."""

    def code(self, symbols: Symbols, model: Model) -> Symbols:
        """Code integers under a model: takes None when decoding, always returns the symbols."""
        ...


class Model:
    """Base of all models; `shape` is the shape of the symbols."""

    shape: tuple[int, ...]

    def encode(self, encoder: Any, symbols: Any) -> None:
        """Append symbols of `shape` to the encoder."""
        raise NotImplementedError

    def decode(self, decoder: Any) -> Any:
        """Read symbols of `shape` from the decoder: int32."""
        raise NotImplementedError

    def bits(self, symbols: Any) -> Any:
        """Sum of -log2 p: a float for integers, a differentiable torch scalar for float tensors."""
        raise NotImplementedError


class Writer(Protocol):
    """The primitives of an encoder; arguments as in `coder.Encoder`."""

    def table(self, symbols: Symbols, bank: TableBank, index: np.ndarray, offset: np.ndarray, shape: tuple) -> None:
        """Symbols under indexed tables."""
        ...

    def mixture(self, symbols: Symbols, weights: np.ndarray, means: np.ndarray, scale: np.ndarray, phi, shape) -> None:
        """Symbols under integer Gaussian mixtures."""
        ...

    def raw(self, symbols: Symbols, bits: int, lo: int, shape: tuple) -> None:
        """Integers as they are."""
        ...


class Reader(Protocol):
    """The primitives of a decoder; arguments as in `coder.Decoder`."""

    def table(self, bank: TableBank, index: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Symbols under indexed tables."""
        ...

    def mixture(self, weights: np.ndarray, means: np.ndarray, scale: np.ndarray, phi) -> np.ndarray:
        """Symbols under integer Gaussian mixtures."""
        ...

    def raw(self, count: int, bits: int, lo: int) -> np.ndarray:
        """Integers as they are."""
        ...
