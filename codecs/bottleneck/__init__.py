"""Entropic bottlenecks: a module of a network whose output is a bitstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .codec import BottleneckConfig, EntropicBottleneck, from_bytes, tail

__all__ = ["BottleneckConfig", "EntropicBottleneck", "from_bytes", "tail"]

_HOMES = {
    "codec": (
        "BottleneckConfig",
        "EntropicBottleneck",
        "from_bytes",
        "tail",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
