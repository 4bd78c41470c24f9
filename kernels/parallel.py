"""Chunks over threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def parallel(function: Any, items: list) -> Any:
    """Chunks over as many threads as torch may use; coding releases the GIL."""
    workers = min(len(items), torch.get_num_threads())
    if workers <= 1:
        return map(function, items)
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(function, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _after_fork() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    # threads of OpenMP do not survive a fork: a child's first parallel loop would wait for them for ever
    os.register_at_fork(after_in_child=_after_fork)
