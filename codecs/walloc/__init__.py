"""WaLLoC: wavelet packets, one linear layer, companded int8 latents; for pictures, and in one dimension for sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codec import Walloc, WallocConfig, from_bytes, load_bundled

__all__ = ["Walloc", "WallocConfig", "from_bytes", "load_bundled"]

_HOMES = {
    "codec": (
        "Walloc",
        "WallocConfig",
        "from_bytes",
        "load_bundled",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
