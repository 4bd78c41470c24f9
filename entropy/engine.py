"""Chooses the body of the inner loops: compiled by numba, or plain Python where that is missing."""

from __future__ import annotations

import os
import threading
from functools import cache
from types import ModuleType
from typing import NamedTuple

from ..kernels.compiled import usable


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
    plain = os.environ.get("LATENTZIP_NO_NUMBA", "0") not in ("", "0") or not usable()
    return load_engine("plain" if plain else "numba")


def warm(background: bool = True) -> threading.Thread | None:
    """Load the compiled loops ahead of need, so that the first file does not wait for them.

    The first run on a machine compiles for some seconds, later ones read numba's disk cache. With
    `background` the work happens in a daemon thread, to lie behind the loading of torch and weights; join it
    to wait.
    """

    def run() -> None:
        import numpy as np

        from .coder import Decoder, Encoder
        from .models import Gaussian, Mixture, Uniform

        index = np.arange(64, dtype=np.uint8)
        symbols = np.zeros(64, np.int32)
        mix = np.zeros((1, 1), np.int32)
        models = [Gaussian(i, profile=p) for p in ("default", "max") for i in (index, index.astype(np.int32))]
        encoder = Encoder()
        for m in models:
            encoder.code(symbols, m)
        encoder.code(symbols, Uniform(0, 255, (64,)))
        encoder.code(symbols[:1], Mixture(mix + 256, mix, mix))
        blob = encoder.finish()
        decoder = Decoder(blob)
        for m in models:
            decoder.code(None, m)
        decoder.code(None, Uniform(0, 255, (64,)))
        decoder.code(None, Mixture(mix + 256, mix, mix))
        decoder.finish()

    if not background:
        run()
        return None
    thread = threading.Thread(target=run, name="latentzip-warm", daemon=True)
    thread.start()
    return thread
