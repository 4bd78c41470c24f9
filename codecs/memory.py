"""Memory that was freed goes back to the system, where a C library keeps it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def _trim() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # glibc's; others have no such function, or no need of it
    except (OSError, AttributeError, TypeError):
        return None


def give_back() -> None:
    """Return free pages to the system.

    glibc keeps blocks below 32 MB for later, in pieces that tensors of other sizes do not fit into: over a large
    picture that adds up to several times what is in use.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
