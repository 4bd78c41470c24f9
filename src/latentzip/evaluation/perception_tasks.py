"""The tasks of `perception`, under the name of earlier versions."""

from .perception.tasks import Boundaries, LogMel, Network, Task, canny, felzenszwalb, linear_cka, sound_tensor

__all__ = ["Boundaries", "LogMel", "Network", "Task", "canny", "felzenszwalb", "linear_cka", "sound_tensor"]
