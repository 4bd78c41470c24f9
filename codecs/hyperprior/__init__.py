"""Hyperprior codecs of pictures: quality 1 to 100 from one set of weights; mixtures and region-adaptive transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codec import HyperpriorCodec, HyperpriorConfig, from_bytes, load_bundled

__all__ = ["HyperpriorCodec", "HyperpriorConfig", "from_bytes", "load_bundled"]

_HOMES = {
    "codec": (
        "HyperpriorCodec",
        "HyperpriorConfig",
        "from_bytes",
        "load_bundled",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
