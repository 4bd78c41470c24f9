"""Many chunks at once: the compiled loops release the GIL, so plain threads code them in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .coder import Decoder, Encoder
from .contract import Model
from .errors import InputError
from .symbols import Symbols


def run_batch(function: Callable[..., Any], *items: Sequence[Any], threads: int | None = None) -> list[Any]:
    """`[function(*row) for row in zip(*items)]` over threads, in order; the first error is raised.

    Args:
        function: what to do with one item: write a program's bytes, read them back.
        threads: at most so many; by default one a core.
    """
    count = min((len(i) for i in items), default=0)
    if any(len(i) != count for i in items):
        raise InputError(f"a batch needs lists of one length, not {[len(i) for i in items]}")
    workers = min(count, threads if threads is not None else os.cpu_count() or 1)
    if workers <= 1:
        return [function(*row) for row in zip(*items)]
    with ThreadPoolExecutor(workers, thread_name_prefix="latentzip-entropy") as pool:
        return list(pool.map(function, *items))


def encode_batch(
    items: Sequence[Iterable[tuple[Symbols, Model]]], threads: int | None = None, streams: int | None = None
) -> list[bytes]:
    """Each item, a list of (symbols, model), to the bytes of its own chunk."""

    def one(parts: Iterable[tuple[Symbols, Model]]) -> bytes:
        encoder = Encoder(streams)
        for symbols, model in parts:
            encoder.code(symbols, model)
        return encoder.finish()

    return run_batch(one, items, threads=threads)


def decode_batch(
    blobs: Sequence[bytes], models: Sequence[Iterable[Model]], threads: int | None = None
) -> list[list[Symbols]]:
    """Each chunk back to its symbols, one array a model; every chunk is checked to its end.

    Raises:
        FormatError: a chunk is corrupt.
    """

    def one(blob: bytes, parts: Iterable[Model]) -> list[Symbols]:
        decoder = Decoder(blob)
        symbols = [decoder.code(None, m) for m in parts]
        decoder.finish()
        return symbols

    return run_batch(one, blobs, models, threads=threads)
