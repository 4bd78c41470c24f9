"""Options of the WaLLoC codecs, of pictures and of sound."""

from ..contract import CODING, QUALITY
from ..search.options import SEARCH

OPTIONS = (QUALITY, CODING, *SEARCH)
SOUND = ()
