"""Float tensors, to a known error or rate, or lossless: activations, keys and values, embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codec import FeatureCodec, from_bytes

__all__ = ["FeatureCodec", "from_bytes"]

_HOMES = {
    "codec": (
        "FeatureCodec",
        "from_bytes",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
