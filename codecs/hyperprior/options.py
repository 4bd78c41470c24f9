"""Options of the hyperprior codecs."""

from ..contract import QUALITY

OPTIONS = (QUALITY,)
DEFAULT_QUALITY = 88  # at which photographs score about 75 in SSIMULACRA 2
