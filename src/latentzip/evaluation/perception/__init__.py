"""How much a machine still sees and hears in what was decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .agreement import Perception, SegmentedFolder, as_metric, class_folders, perceive
    from .tasks import Boundaries, LogMel, Network, Task, canny, felzenszwalb, linear_cka, sound_tensor

__all__ = [
    "Boundaries",
    "LogMel",
    "Network",
    "Perception",
    "SegmentedFolder",
    "Task",
    "as_metric",
    "canny",
    "class_folders",
    "felzenszwalb",
    "linear_cka",
    "perceive",
    "sound_tensor",
]

_HOMES = {
    "agreement": (
        "Perception",
        "SegmentedFolder",
        "as_metric",
        "class_folders",
        "perceive",
    ),
    "tasks": (
        "Boundaries",
        "LogMel",
        "Network",
        "Task",
        "canny",
        "felzenszwalb",
        "linear_cka",
        "sound_tensor",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
