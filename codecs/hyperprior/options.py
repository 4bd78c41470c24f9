"""Options of the hyperprior codecs."""

from ..contract import QUALITY
from ..search.options import SEARCH

OPTIONS = (QUALITY, *SEARCH)
DEFAULT_QUALITY = 88  # at which photographs score about 75 in SSIMULACRA 2
