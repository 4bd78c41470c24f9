"""What a program has set for itself must not reach the arithmetic of codecs: autocast, the default dtype.

Streams name their weights by a hash, and bounds hold for float32: inside of `plain` a codec computes as it does in a
program that has set nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_lock = threading.Lock()
_inside = 0  # how many threads need float32 as the default just now
_before = torch.float32  # what it was before the first of them

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def plain() -> Iterator[None]:
    """No autocast; float32 is the default dtype. That is the whole process's, and is set back by the last to leave."""
    devices = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        if _inside or torch.get_default_dtype() != torch.float32:
            stack.enter_context(_float32())
        yield


@contextmanager
def _float32() -> Iterator[None]:
    global _inside, _before
    with _lock:
        if not _inside:
            _before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                torch.set_default_dtype(_before)


def plainly(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs inside of `plain`."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with plain():
            return function(*args, **kwargs)

    return wrapped
