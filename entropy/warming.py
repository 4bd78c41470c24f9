"""Loading the compiled loops ahead of need."""

from __future__ import annotations

import threading


def warm(background: bool = True) -> threading.Thread | None:
    """Load the compiled loops ahead of need, so that the first file does not wait for them.

    The first run on a machine compiles for some seconds, later ones read numba's disk cache. With
    `background` the work happens in a daemon thread, to lie behind the loading of torch and weights; join it
    to wait.
    """

    def run() -> None:
        # numpy is loaded here too, since the command line calls this first of all
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
