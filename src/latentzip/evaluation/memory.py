"""Peak memory of this process over a stretch of time, where the system tells it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self")


def reset_peak() -> bool:
    """Let the system's high-water mark of resident memory start anew; False where it cannot (other than Linux)."""
    with suppress(OSError):
        (_PROC / "clear_refs").write_text("5")
        return True
    return False


def peak_mb() -> float | None:
    """Highest resident memory since `reset_peak` in MB (1e6 bytes): the whole process with libraries and weights."""
    with suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None
