"""Data sets in the compressed domain: packed once, read as bitstreams, latents or signals (docs/datasets.md).

Names are loaded on first use: opening an archive needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import transforms
    from .archive import Archive
    from .cache import Cache, build_cache
    from .check import check_pack
    from .collate import LatentBatch, latent_collate
    from .dataset import LatentDataset
    from .dequantize import Dequantize
    from .embeddings import EmbeddingStore
    from .packing import PackResult, pack
    from .sampler import ElasticBatchSampler
    from .stream import LatentStream
    from .unpacking import unpack

_HOMES = {
    "archive": ("Archive",),
    "cache": ("Cache", "build_cache"),
    "check": ("check_pack",),
    "collate": ("LatentBatch", "latent_collate"),
    "dataset": ("LatentDataset",),
    "dequantize": ("Dequantize",),
    "embeddings": ("EmbeddingStore",),
    "packing": ("PackResult", "pack"),
    "sampler": ("ElasticBatchSampler",),
    "stream": ("LatentStream",),
    "unpacking": ("unpack",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Archive",
    "Cache",
    "Dequantize",
    "ElasticBatchSampler",
    "EmbeddingStore",
    "LatentBatch",
    "LatentDataset",
    "LatentStream",
    "PackResult",
    "build_cache",
    "check_pack",
    "latent_collate",
    "pack",
    "transforms",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name == "transforms":
        return import_module(".transforms", __name__)
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
