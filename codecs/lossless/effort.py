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


PROFILES = {
    1: Profile(0, 0, (), 4),
    2: Profile(6, 2, ((8, 64),), 4),
    3: Profile(8, 4, ((8, 64),), 4),
    4: Profile(8, 4, ((7, 32),), 4),
    5: Profile(6, 2, ((7, 32),), 8),
    6: Profile(10, 4, ((7, 32), (11, -1)), 8),
    7: Profile(16, 4, ((6, 16), (11, -1)), 8),
    8: Profile(18, 4, ((6, 16), (8, 64), (11, -1)), 12),
    9: Profile(24, 6, ((6, 32), (8, 64), (10, 512), (12, -1)), 12),
}
DEFAULT = 5
