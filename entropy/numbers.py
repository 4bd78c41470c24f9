"""Numbers that users hand in: those of numpy and torch count as those of Python, texts and truths do not."""

from __future__ import annotations

import math
import operator
from contextlib import suppress
from typing import Any

from .errors import InputError

MOST = (1 << 63) - 1


def whole(name: str, value: Any, low: int = 0, high: int = MOST) -> int:
    """An integer from ``low`` to ``high``; raises InputError: anything else, truths, texts and floats included."""
    number = None
    if not isinstance(value, bool) and str(getattr(value, "dtype", "")).rpartition(".")[2] != "bool":
        try:
            number = operator.index(value)
        except (TypeError, ValueError):  # the second by tensors of several numbers
            number = None
    if number is None or not low <= number <= high:
        words = f"from {low} to {high}" if high != MOST else "that is not negative" if not low else f"from {low} on"
        raise InputError(f"{name} is {value!r:.60}; an integer {words} is needed")
    return number


def plain(value: Any) -> Any:
    """One number, truth or text of numpy or torch as that of Python, which JSON holds; anything else as it is."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and math.prod(shape) == 1 and hasattr(value, "item"):
        with suppress(RuntimeError, ValueError):  # tensors without data
            return value.item()
    return value


def real(name: str, value: Any, words: str) -> float:
    """A finite number; raises InputError: anything else, truths and texts included. ``words`` say what is needed."""
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last by tensors of several numbers
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is {value!r:.60}; {words} is needed")
    return number


def share(name: str, value: Any) -> float:
    """A number between 0 and 1, both left out; raises InputError: anything else."""
    number = real(name, value, words := "a number between 0 and 1")
    if not 0 < number < 1:
        raise InputError(f"{name} is {number}; {words} is needed")
    return number


def truth(name: str, value: Any) -> bool:
    """True or False, also of numpy; raises InputError: anything else."""
    if value is True or value is False or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise InputError(f"{name} is {value!r:.60}; True or False is needed")


def bounds(name: str, value: Any, count: int, words: str) -> tuple[int, ...]:
    """So many whole numbers, floats without a fraction included; InputError says in ``words`` what is needed."""
    found: list[int] = []
    with suppress(TypeError, ValueError, OverflowError):
        found = [int(v) for v in value if not isinstance(v, (str, bytes)) and int(v) == v]
    if len(found) != count or len(value) != count:
        raise InputError(f"{name} is {value!r:.80}; {words}")
    return tuple(found)
