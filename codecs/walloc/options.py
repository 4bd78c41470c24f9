"""Options of the WaLLoC codecs, of pictures and of sound."""

from ..contract import CODING, QUALITY

OPTIONS = (QUALITY, CODING)
SOUND = ()
