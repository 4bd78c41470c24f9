"""Options of bottlenecks."""

from ..contract import QUALITY

OPTIONS = (QUALITY,)
