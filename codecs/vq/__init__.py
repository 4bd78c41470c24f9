"""Vector quantisation: pictures as grids of discrete tokens, several codebooks deep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codec import VqCodec, VqConfig, from_bytes, load_bundled

__all__ = ["VqCodec", "VqConfig", "from_bytes", "load_bundled"]

_HOMES = {
    "codec": (
        "VqCodec",
        "VqConfig",
        "from_bytes",
        "load_bundled",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
