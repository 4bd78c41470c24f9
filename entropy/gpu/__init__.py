"""The entropy coder on a GPU: all chunks of a batch at once, a lane a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

if TYPE_CHECKING:
    from .coder import BatchDecoder, BatchEncoder

__all__ = ["BatchDecoder", "BatchEncoder"]

_HOMES = {
    "coder": (
        "BatchDecoder",
        "BatchEncoder",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
