"""Options of the codecs of tokens, of pictures and of sound."""

from ..contract import QUALITY, Option

LEVELS = Option(
    "levels", "int", "how many codebooks are used, instead of a quality", low=1, high=64, metavar="N",
)  # fmt: skip
OPTIONS = (QUALITY, LEVELS)
DEFAULT_QUALITY = 50
