"""Chooses the body of the inner loops: compiled by numba, or plain Python where that is missing."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

from ..kernels.compiled import wanted


class Engine(NamedTuple):
    """The inner loops in one body."""

    name: str  # "numba" or "plain"
    core: ModuleType  # `compiled.coder` or `plain.coder`
    mixture: ModuleType  # `compiled.mixture` or `plain.mixture`


@cache
def load_engine(name: str) -> Engine:
    """The engine "numba" or "plain"."""
    if name == "numba":
        from .compiled import coder, mixture

        return Engine(name, coder, mixture)
    from .plain import coder, mixture

    return Engine(name, coder, mixture)


def current_engine() -> Engine:
    """The engine in use: numba, unless it is missing or told not to compile, or `LATENTZIP_NO_NUMBA` is 1."""
    return load_engine("numba" if wanted() else "plain")
