"""Sound at any sampling rate: lapped transforms, whose levels and symbols are coded under trained tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codec import Audio, AudioConfig, from_bytes, load_bundled

__all__ = ["Audio", "AudioConfig", "from_bytes", "load_bundled"]

_HOMES = {
    "codec": (
        "Audio",
        "AudioConfig",
        "from_bytes",
        "load_bundled",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
