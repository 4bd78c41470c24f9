"""What an effort means: how many steps of which kind. Each level takes about twice the time of the one before."""

from __future__ import annotations

from typing import NamedTuple

from ...entropy.errors import InputError

HIGHEST = 9


class Level(NamedTuple):
    """Steps of annealed rounding, then steps of descent."""

    anneal: int
    descent: int

    @property
    def evaluations(self) -> int:
        """Passes through the decoder's networks and back, by which progress is counted."""
        return self.anneal + self.descent + 2


LEVELS = (
    Level(0, 0), Level(0, 2), Level(0, 5), Level(0, 10), Level(0, 20),
    Level(0, 42), Level(80, 10), Level(170, 14), Level(350, 20), Level(720, 30),
)  # fmt: skip


def check_effort(effort: float, name: str = "") -> int:
    """Raises InputError unless the effort is one of the levels."""
    if isinstance(effort, bool) or effort not in range(HIGHEST + 1):
        raise InputError(f"effort is {effort!r}; {name or 'a codec that searches'} takes 0 (one pass) to {HIGHEST}")
    return int(effort)
