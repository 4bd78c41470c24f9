"""Options of the codec `audio`."""

from ..contract import QUALITY

OPTIONS = (QUALITY,)
