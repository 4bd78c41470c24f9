"""Threads, and how rows are shared out among them: by the picture alone, so that results do not depend on threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Task = Callable[[], Any]
STRIPS = 8
_STRIP_ROWS = 32  # no strip is lower, so that what it sees above lies in one other strip


class Workers:
    """Runs tasks on so many threads, in any order; the loops release the GIL."""

    def __init__(self, threads: int) -> None:
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def run(self, tasks: Sequence[Task]) -> None:
        if self._pool is None or len(tasks) < 2:
            for task in tasks:
                task()
            return
        queue = iter(tasks)  # next() on it is atomic

        def drain() -> None:
            for task in queue:
                task()

        others = [self._pool.submit(drain) for _ in range(min(self.threads, len(tasks)) - 1)]
        drain()
        for other in others:
            other.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def strips(rows: int, even: bool = True) -> list[tuple[int, int]]:
    """Rows cut into at most `STRIPS` parts, each beginning at an even row."""
    count = max(1, min(STRIPS, rows // _STRIP_ROWS))
    height = -(-rows // count)
    height += height & 1 if even else 0
    return [(y, min(y + height, rows)) for y in range(0, rows, height)]
