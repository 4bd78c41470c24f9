"""Lambda at an effort: a search changes the rate a little, and a quality is to keep that of one pass.

Factors were fitted on training pictures by `scripts/retune.py`, a codec's to its weights; a codec without a line keeps
its lambda.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib import resources
from itertools import pairwise

TABLE = "retuning.json"
Line = dict[str, list[tuple[float, float]]]  # effort -> (quality, factor), ascending; quality 0 where there is none


@lru_cache(maxsize=1)
def table() -> dict[str, Line]:
    """Factors of every codec that was fitted, by name."""
    return json.loads(resources.files(__package__).joinpath(TABLE).read_text())


def retuned(name: str, effort: int, quality: int = 0) -> float:
    """What the lambda of a quality is multiplied with at an effort, so that its rate is that of one pass."""
    line = table().get(name, {})
    by_effort = [(float(e), _between(points, quality)) for e, points in line.items()]
    return math.exp(_between(by_effort, effort)) if by_effort else 1.0


def _between(points: list[tuple[float, float]], at: float) -> float:
    """Linear between points of ascending abscissa, constant beyond."""
    for (left, low), (right, high) in pairwise(points):
        if at <= right:
            return low + (high - low) * max(0.0, at - left) / (right - left)
    return points[-1][1]
