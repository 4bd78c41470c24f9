"""Embeddings: rows of vectors, coded, searched and decoded by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codes import CodeStore
    from .store import EmbeddingStore

__all__ = ["CodeStore", "EmbeddingStore"]

_HOMES = {
    "codes": ("CodeStore",),
    "store": ("EmbeddingStore",),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
