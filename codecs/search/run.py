"""The search over a picture: piece after piece, the best kept, never worse than one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from . import descent
from .anneal import anneal
from .levels import LEVELS, Level
from .measures import Objective
from .piece import Field, Piece, RelaxedPiece, State

Progress = Callable[[float, float], None]  # steps done, steps in all
_SEED = 0


def search(
    field: Field, objective: Objective, effort: int, thrift: float = 1.0, progress: Progress | None = None
) -> Tensor:
    """Integers (L, h, w) int16 of a picture that cost less than one pass does, in bits and weighted distortion.

    Args:
        field: the picture, as its codec presents it; its latent is changed.
        objective: the distortion.
        effort: 1..9, see `levels`.
        thrift: above 1 bytes count more than the quality says, below 1 less.
        progress: called with steps done and steps in all.
    """
    level, trade = LEVELS[effort], field.trade / thrift
    count = _Count(level.evaluations * len(field.tiles), progress)
    for tile in field.tiles:
        piece = field.piece(tile)
        best = improve(piece, objective, trade, level, count)
        if best is not None:
            field.accept(tile, *best)
    return field.latent


def improve(
    piece: Piece, objective: Objective, trade: float, level: Level, tick: Callable[[], None]
) -> tuple[Piece, State] | None:
    """The piece and a state of it that is better than one pass, None where none was found."""
    generator = torch.Generator().manual_seed(_SEED)
    measure = objective.piece(piece.box)
    with torch.no_grad():
        start = piece.settle(piece.target, descent.nearest)
        measure.settle(piece.decode(start.values))
        before = descent.cost(piece, measure, trade, start)
        steps = level.descent
        if isinstance(piece, RelaxedPiece) and level.anneal:
            piece.adopt(anneal(piece, measure, trade, level.anneal, generator, tick))
            start = piece.settle(piece.target, descent.nearest)
        else:
            steps += level.anneal
        state, after = descent.descend(piece, measure, trade, start, steps, generator, tick)
    return (piece, state) if after < before else None


class _Count:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


@contextmanager
def frozen(module: nn.Module) -> Iterator[Any]:
    """A module whose parameters take no part in gradients meanwhile."""
    asking = [p for p in module.parameters() if p.requires_grad]
    for p in asking:
        p.requires_grad_(False)
    try:
        yield module
    finally:
        for p in asking:
            p.requires_grad_(True)
