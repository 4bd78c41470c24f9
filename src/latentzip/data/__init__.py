"""Data sets in the compressed domain: packed once, read as bitstreams, latents or signals (docs/datasets.md).

Names are loaded on first use: opening an archive needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..entropy.lazy import exports

if TYPE_CHECKING:
    from .archive import Archive
    from .embeddings.codes import CodeStore
    from .embeddings.store import EmbeddingStore
    from .embeddings.table import EmbeddingTable
    from .reading import transforms
    from .reading.backbone import LatentInput, image_classifier_input
    from .reading.cache import Cache, build_cache
    from .reading.check import check_pack
    from .reading.collate import LatentBatch, latent_collate
    from .reading.dataset import LatentDataset
    from .reading.dequantize import Dequantize
    from .reading.sampler import ElasticBatchSampler
    from .reading.stream import LatentStream
    from .reading.unpacking import unpack
    from .writing.merging import PackResult
    from .writing.packing import pack
    from .writing.writer import PackWriter

_HOMES = {
    "reading": ("transforms",),
    "archive": ("Archive",),
    "reading.backbone": ("LatentInput", "image_classifier_input"),
    "reading.cache": ("Cache", "build_cache"),
    "reading.check": ("check_pack",),
    "reading.collate": ("LatentBatch", "latent_collate"),
    "reading.dataset": ("LatentDataset",),
    "reading.dequantize": ("Dequantize",),
    "embeddings.codes": ("CodeStore",),
    "embeddings.store": ("EmbeddingStore",),
    "embeddings.table": ("EmbeddingTable",),
    "writing.merging": ("PackResult",),
    "writing.packing": ("pack",),
    "writing.writer": ("PackWriter",),
    "reading.sampler": ("ElasticBatchSampler",),
    "reading.stream": ("LatentStream",),
    "reading.unpacking": ("unpack",),
}


__all__ = [
    "Archive",
    "Cache",
    "CodeStore",
    "Dequantize",
    "ElasticBatchSampler",
    "EmbeddingStore",
    "EmbeddingTable",
    "LatentBatch",
    "LatentDataset",
    "LatentInput",
    "LatentStream",
    "PackResult",
    "PackWriter",
    "build_cache",
    "check_pack",
    "image_classifier_input",
    "latent_collate",
    "pack",
    "transforms",
    "unpack",
]

__getattr__, __dir__ = exports(__name__, _HOMES)
