"""Reading packs: data sets of latents or signals, caches, batches, checks."""

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from . import transforms

__all__ = ["transforms"]

__getattr__, __dir__ = exports(__name__, {}, ("transforms",))
