"""Advisory locks between processes; a process that dies holds none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which is created; without effect where the file system has no locks.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is False.
    """
    with open(path, "ab") as file:
        if fcntl is not None:
            how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
            try:
                fcntl.flock(file, how)
            except BlockingIOError:
                raise
            except OSError:
                pass
        yield
