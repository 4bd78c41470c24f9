"""What each level of effort computes; streams name the level, so these numbers stay for ever."""

from __future__ import annotations

from dataclasses import dataclass

# earlier neighbours of a sample as (rows, columns) from it, nearest first; and neighbours in an earlier plane
OWN = (
    (0, -1), (-1, 0), (-1, 1), (-1, -1), (0, -2), (-2, 0), (-2, 1), (-1, 2), (-1, -2), (-2, -1), (0, -3), (-3, 0),
    (-2, -2), (-2, 2), (-1, -3), (-1, 3), (-3, 1), (-3, -1), (0, -4), (-2, 3), (-2, -3), (-1, 4), (-1, -4), (-4, 0),
)  # fmt: skip
NEAR = ((0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1), (-1, 1))


@dataclass(frozen=True)
class Profile:
    """One level.

    Attributes:
        own, near: how many neighbours predict, in the plane itself and in each earlier one.
        predictors: (log2 of the samples that are remembered, columns that share a predictor, or -1: like slopes).
        counters: contexts of each decision.
    """

    own: int
    near: int
    predictors: tuple[tuple[int, int], ...]
    counters: int


# of pictures, by version of their streams and effort
PROFILES = {
    1: {
        1: Profile(0, 0, (), 4),
        2: Profile(6, 2, ((8, 64),), 4),
        3: Profile(8, 4, ((8, 64),), 4),
        4: Profile(8, 4, ((7, 32),), 4),
        5: Profile(6, 2, ((7, 32),), 8),
        6: Profile(10, 4, ((7, 32), (11, -1)), 8),
        7: Profile(16, 4, ((6, 16), (11, -1)), 8),
        8: Profile(18, 4, ((6, 16), (8, 64), (11, -1)), 12),
        9: Profile(24, 6, ((6, 32), (8, 64), (10, 512), (12, -1)), 12),
    },
    2: {
        1: Profile(0, 0, (), 4),
        2: Profile(6, 2, ((8, 64),), 4),
        3: Profile(6, 2, ((7, 32),), 4),
        4: Profile(6, 2, ((8, 64),), 8),
        5: Profile(6, 2, ((7, 32),), 8),
        6: Profile(6, 2, ((7, 32), (10, -1)), 16),
        7: Profile(10, 4, ((6, 16), (8, 64), (10, -1)), 16),
        8: Profile(18, 4, ((6, 16), (8, 64), (10, 512), (11, -1)), 24),
        9: Profile(24, 6, ((6, 16), (7, 32), (8, 64), (10, 512), (11, -1)), 24),
    },
}
TRIED = {9: (8, 9)}  # levels that are tried for pictures; the smallest stream is kept
DEFAULT = 5


@dataclass(frozen=True)
class Cascade:
    """One level for sound.

    Attributes:
        own, other: earlier samples of the channel and of its partner that predict, of two channels; alone: of one.
        log_block: log2 of the samples that share weights.
        keeps: what a block keeps of the products before it; one system of least squares each.
        belief: the same of the products of predictions, of which it follows how much each counts.
        stages: lengths of the filters that follow; speeds: what divides their steps.
        counters: contexts of each decision.
    """

    own: int
    other: int
    alone: int
    log_block: int
    keeps: tuple[float, ...]
    belief: float
    stages: tuple[int, ...]
    speeds: tuple[int, ...]
    counters: int


CASCADES = {
    1: Cascade(8, 4, 12, 8, (0.6,), 0.6, (), (), 2),
    2: Cascade(8, 8, 16, 7, (0.75,), 0.75, (), (), 2),
    3: Cascade(16, 8, 24, 7, (0.75,), 0.75, (16,), (300,), 2),
    4: Cascade(16, 8, 24, 6, (0.85,), 0.85, (32, 16), (150, 400), 2),
    5: Cascade(16, 16, 24, 6, (0.85,), 0.85, (256, 32, 16), (100, 150, 400), 2),
    6: Cascade(16, 16, 32, 5, (0.9,), 0.95, (256, 32, 16), (100, 150, 400), 3),
    7: Cascade(16, 16, 32, 5, (0.87, 0.99), 0.95, (256, 32, 16), (100, 150, 400), 3),
    8: Cascade(24, 16, 32, 5, (0.87, 0.99), 0.95, (1024, 256, 16), (100, 150, 400), 3),
    9: Cascade(32, 16, 32, 4, (0.93, 0.985, 0.997), 0.97, (2048, 256, 32, 16), (100, 150, 150, 400), 3),
}
