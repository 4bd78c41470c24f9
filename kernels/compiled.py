"""How loops are compiled: numba, cached on disk where there is a place for it, GIL released."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def usable() -> bool:
    """Whether loops are compiled: numba is there, and is not told to leave Python alone (``NUMBA_DISABLE_JIT``)."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0") and _found()


@lru_cache(maxsize=1)
def _found() -> bool:
    return find_spec("numba") is not None


def wanted() -> bool:
    """Whether compiled loops are there, and asked for (``LATENTZIP_NO_NUMBA`` unset)."""
    return os.environ.get("LATENTZIP_NO_NUMBA", "0") in ("", "0") and usable()


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """The function, compiled at its first call for the types it is given; ``options`` are more of numba's."""
    from numba import njit

    try:
        loop = njit(cache=True, **_OPTIONS, **options)(function)
    except (RuntimeError, OSError):  # neither the package's folder nor the user's cache can be written
        return njit(**_OPTIONS, **options)(function)
    cache = getattr(loop, "_cache", None)
    if hasattr(cache, "save_overload"):
        save = cache.save_overload

        def save_if_possible(*args: Any) -> None:
            with suppress(OSError):  # a full disk, a cache of another user: compiled all the same
                save(*args)

        cache.save_overload = save_if_possible
    return loop
