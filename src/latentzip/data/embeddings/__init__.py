"""Embeddings: rows of vectors, coded, searched and decoded by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codes import CodeStore
    from .store import EmbeddingStore
    from .table import EmbeddingTable

__all__ = ["CodeStore", "EmbeddingStore", "EmbeddingTable"]

_HOMES = {
    "codes": ("CodeStore",),
    "store": ("EmbeddingStore",),
    "table": ("EmbeddingTable",),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
