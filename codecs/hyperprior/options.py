"""Options of the hyperprior codecs."""

from ..contract import QUALITY

OPTIONS = (QUALITY,)
