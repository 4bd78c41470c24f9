"""Where the time of a training run goes: crops a second, and the share of each part of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Log = Callable[[str], None]  # takes a line of words


class Parts:
    """Seconds by part, by the wall and by the processor.

    Args:
        wait: called before every look at the clock: waits for a device that works on its own.
    """

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self.wait = wait
        self.wall: dict[str, float] = {}
        self.crops = 0
        self.start = self.processor = 0.0

    def begin(self) -> None:
        """The run starts, or starts again after something that does not count."""
        self.start, self.processor = time.perf_counter(), time.process_time()
        self.wall, self.crops = {}, 0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside belongs to this part."""
        before = time.perf_counter()
        yield
        if self.wait is not None:
            self.wait()
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - before

    def lines(self) -> list[str]:
        """The report, a line each: crops a second, then every part's share, the largest first."""
        total = max(time.perf_counter() - self.start, 1e-9)
        processor = max(time.process_time() - self.processor, 1e-9)
        lines = [f"{self.crops / total:.2f} crops/s ({self.crops / processor:.2f} a second of processor time)"]
        rest = total - sum(self.wall.values())
        for name, seconds in sorted({**self.wall, "other": rest}.items(), key=lambda item: -item[1]):
            lines.append(f"  {name:<12} {100 * seconds / total:5.1f} %")
        return lines
