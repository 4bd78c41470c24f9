"""Caches of keys and values: streams that grow with the text, and stay within a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .cache import KVCacheCodec

__all__ = ["KVCacheCodec"]

_HOMES = {
    "cache": ("KVCacheCodec",),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
