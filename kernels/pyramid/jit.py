"""How the loops of this room are compiled; where numba is missing they stay Python, and the plain bodies serve."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

Loop = Callable[..., Any]
_EXACT: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_FLOATS = {**_EXACT, "fastmath": True}
HAS_NUMBA = find_spec("numba") is not None


def _compile(function: Loop, **options: Any) -> Loop:
    if not HAS_NUMBA:
        return function
    from numba import njit

    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written: compile each time
        return njit(**options)(function)


def compiled(function: Loop) -> Loop:
    """A loop over floats; sums may be taken in another order."""
    return _compile(function, **_FLOATS)


def compiled_exact(function: Loop) -> Loop:
    """A loop over integers."""
    return _compile(function, **_EXACT)


def inlined(function: Loop) -> Loop:
    """A piece of the loops over floats that use it."""
    if not HAS_NUMBA:
        return function
    from numba import njit

    return njit(inline="always", **_FLOATS)(function)
