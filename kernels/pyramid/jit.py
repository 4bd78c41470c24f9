"""How the loops of this room are compiled; where numba is missing they stay Python, and the plain bodies serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import compiled as compiling

Loop = Callable[..., Any]

# Sums may be taken in another order and products fused, but divisions are exact: which of a loop's two bodies runs, the
# vectorised one or the other, hangs on where arrays lie in memory, and both have to give the same numbers.
_FLOATS = {"fastmath": {"nnan", "ninf", "nsz", "contract", "reassoc"}}


def compiled(function: Loop) -> Loop:
    """A loop over floats; sums may be taken in another order."""
    return compiling.compiled(function, **_FLOATS) if compiling.usable() else function


def piece(function: Loop) -> Loop:
    """A loop over floats that others call, compiled into each of them.

    Apart, it would have a body of its own beside copies that were made to fit their callers, and which of them runs
    would hang on whether loops come from the cache on disk: they round differently.
    """
    return compiling.compiled(function, **_FLOATS, forceinline=True) if compiling.usable() else function


def compiled_exact(function: Loop) -> Loop:
    """A loop over integers."""
    return compiling.compiled(function) if compiling.usable() else function


def inlined(function: Loop) -> Loop:
    """A piece of the loops over floats that use it."""
    return compiling.compiled(function, **_FLOATS, inline="always") if compiling.usable() else function
