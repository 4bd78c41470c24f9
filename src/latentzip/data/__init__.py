"""Data sets in the compressed domain: packed once, read as bitstreams, latents or signals (docs/datasets.md).

Names are loaded on first use: opening an archive needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .archive import Archive

_HOMES = {
    "archive": ("Archive",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["Archive"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
