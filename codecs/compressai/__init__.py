"""CompressAI's picture models, coded here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .bridge import CompressAICodec, load

__all__ = ["CompressAICodec", "load"]

_HOMES = {
    "bridge": (
        "CompressAICodec",
        "load",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
