"""How the loops of this room are compiled; where numba is missing they stay Python, and the plain bodies serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import compiled as compiling

Loop = Callable[..., Any]


def compiled(function: Loop) -> Loop:
    """A loop over floats; sums may be taken in another order."""
    return compiling.compiled(function, fastmath=True) if compiling.usable() else function


def compiled_exact(function: Loop) -> Loop:
    """A loop over integers."""
    return compiling.compiled(function) if compiling.usable() else function


def inlined(function: Loop) -> Loop:
    """A piece of the loops over floats that use it."""
    return compiling.compiled(function, fastmath=True, inline="always") if compiling.usable() else function
