"""Context models: a latent is coded in a few vectorised steps, each from the neighbours known so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import exports

if TYPE_CHECKING:
    from .model import ContextModel

__all__ = ["ContextModel"]

_HOMES = {
    "model": ("ContextModel",),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
