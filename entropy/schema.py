"""What a file of facts may hold: JSON is compared with a schema, every number and length with bounds, before use.

A schema is a function ``check(value, where)`` that returns the value or raises FormatError with the place in its text.
Schemas are put together from those below; each format's own stands beside the code that reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from .errors import FormatError

Check = Callable[[Any, str], Any]

PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a file in the same folder: never a way out of it
HEX = r"(?:[0-9a-f]{2})+"
_SHOWN = 60  # characters of a wrong value that a message repeats


def _wrong(value: Any, where: str, needed: str) -> FormatError:
    shown = repr(value) if not isinstance(value, (dict, list)) else f"{type(value).__name__} of {len(value)}"
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return FormatError(f"{where} is {shown}; {needed} is needed")


def _at(where: str, name: str) -> str:
    """The place of a field: ``file: field``, then ``file: field.field``."""
    return f"{where}{name}" if where.endswith(" ") else f"{where}.{name}"


def integer(low: int, high: int) -> Check:
    """A whole number in low..high; true and false are none."""

    def check(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(value, where, f"a whole number from {low} to {high}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """A finite number in low..high."""

    def check(value: Any, where: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(value, where, f"a number from {low:g} to {high:g}")
        if not isfinite(value):
            raise _wrong(value, where, "a finite number")
        return value

    return check


def boolean(value: Any, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(value, where, "true or false")
    return value


def text(pattern: str | None = None, most: int = 4096) -> Check:
    """A text of at most so many characters, all of it matching a pattern."""
    regex = None if pattern is None else re.compile(pattern)

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise _wrong(value, where, f"a text of at most {most} characters")
        if regex is not None and not regex.fullmatch(value):
            raise _wrong(value, where, f"a text like {pattern}")
        return value

    return check


def one_of(*allowed: Any) -> Check:
    """One of some values, of the same type."""

    def check(value: Any, where: str) -> Any:
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise _wrong(value, where, " or ".join(map(repr, allowed)))
        return value

    return check


def nullable(inner: Check) -> Check:
    """Null, or what another schema asks for."""
    return lambda value, where: None if value is None else inner(value, where)


def array(item: Check, most: int, least: int = 0) -> Check:
    """A list of least..most items."""

    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            raise _wrong(value, where, f"a list of {least} to {most} items")
        return [item(v, f"{where}[{i}]") for i, v in enumerate(value)]

    return check


def mapping(item: Check, most: int, key: Check | None = None) -> Check:
    """An object with at most so many names, each with the same kind of value."""

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > most:
            raise _wrong(value, where, f"an object of at most {most} names")
        if key is not None:
            for k in value:
                key(k, f"{where}: the name")
        return {k: item(v, _at(where, str(k)[:_SHOWN])) for k, v in value.items()}

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, closed: bool = False) -> Check:
    """An object with these fields; others are left as they are, or with ``closed`` refused."""
    optional = optional or {}

    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(value, where.rstrip(": "), "an object")
        missing = [name for name in required if name not in value]
        if missing:
            raise FormatError(f"{_at(where, missing[0])} is missing")
        unknown = [str(name) for name in value if name not in required and name not in optional] if closed else []
        if unknown:
            raise FormatError(f"{_at(where, unknown[0][:_SHOWN])} is unknown here")
        out = dict(value)
        for name, inner in (*required.items(), *optional.items()):
            if name in value:
                out[name] = inner(value[name], _at(where, name))
        return out

    return check


def parse(data: bytes | str, where: str, check: Check | None = None, most: int = 1 << 24) -> Any:
    """JSON, parsed and compared with a schema.

    Args:
        where: names the file in messages.
        check: the schema.
        most: bytes that it may have.

    Raises:
        FormatError: too long, not JSON, nested too deeply, NaN or infinite numbers, or not what the schema asks for.
    """
    if len(data) > most:
        raise FormatError(f"{where}: {len(data)} bytes, more than the {most} that it may have")
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not JSON: {error}") from None
    return value if check is None else check(value, f"{where}: ")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
