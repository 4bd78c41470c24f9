"""The seam between a search and a codec: what a codec says of a picture, piece by piece, so that it can be searched.

A codec that can search has `search_field(x, quality) -> Field`. A field holds the integers found so far and hands out
pieces; a piece quantises towards a target, in the codec's own order, and decodes. All search is written against this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from ..tiling import Tile
from .measures import Box

Costs = Callable[[Tensor], Tensor]  # integers -> bits of each, under the tables at hand
Rule = Callable[[Tensor, Costs], Tensor]  # (real values in steps, their costs) -> integers
Rounding = Callable[[Tensor], Tensor]  # real values in steps -> nearly integers, differentiable


class State(NamedTuple):
    """A quantised piece: integers (1, M, h, w) where it is free, ``values`` that decode from them (with the fixed
    surroundings), and what the free integers cost in bits."""

    symbols: Tensor
    values: Tensor
    bits: float


class Piece(ABC):
    """A part of a picture under search, with fixed surroundings.

    Attributes:
        box: the part in pixels, surroundings included.
        free: slices of ``values`` (1, M, h, w) that may change.
        target: real-valued latent where it is free, in units of ``values``: what the encoder says.
        stride: pixels that a latent position covers, along each axis.
        step: of the quantiser in these units, broadcastable to (1, M, h, w).
        reach: how much an element's change upsets those coded after it, 0 (not at all) to 1, broadcastable.
    """

    box: Box
    free: tuple[slice, slice]
    target: Tensor
    stride: int
    step: Tensor
    reach: Tensor | float = 0.0

    @abstractmethod
    def settle(self, target: Tensor, rule: Rule) -> State:
        """Quantise towards a target (1, M, h, w) in units of ``values``, where free."""

    @abstractmethod
    def decode(self, values: Tensor) -> Tensor:
        """Values -> pixels of the box (1, C, H, W), not clamped; differentiable."""

    def inner(self, values: Tensor) -> Tensor:
        """The free part of values."""
        return values[..., self.free[0], self.free[1]]


class RelaxedPiece(Piece):
    """A piece with a differentiable twin of its coding, for gradients through everything that is quantised."""

    @abstractmethod
    def variables(self) -> list[Tensor]:
        """Real-valued starts of what is searched, in steps: the latent, and whatever else is coded beside it."""

    @abstractmethod
    def relaxed(self, variables: Sequence[Tensor], rounding: Rounding) -> tuple[Tensor, Tensor]:
        """(pixels of the box, bits), both differentiable by the variables."""

    @abstractmethod
    def adopt(self, variables: Sequence[Tensor]) -> None:
        """Take the variables over: side information is rounded, the latent becomes `target`."""


class Field(ABC):
    """A picture under search.

    Attributes:
        latent: (L, h, w) int16 on the CPU, the integers found so far; at first those of one pass.
        trade: lambda, the weight of an 8-bit squared error against a bit, summed over pixels alike.
        tiles: the pieces, in the order of their search.
    """

    latent: Tensor
    trade: float
    tiles: list[Tile]

    @abstractmethod
    def piece(self, tile: Tile) -> Piece:
        """The piece of a tile, its surroundings as found so far."""

    @abstractmethod
    def accept(self, tile: Tile, piece: Piece, state: State) -> None:
        """Write a piece's integers into `latent`."""
