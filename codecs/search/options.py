"""Options of codecs that search at encode time; nothing here needs torch."""

from __future__ import annotations

from ..contract import Option

EFFORT = Option(
    "effort", "int", "how long to search for a better stream of the same quality: 0 is one pass, each further level "
    "takes about twice the time; hyperprior-fast takes 12 s a megapixel on one core at 1, 33 at 3 and 270 at 6, and "
    "saves some 3, 6 and 10 per cent, hyperprior twice the time for 2, 3 and 8",
    default=0, low=0, high=9, metavar="0..9", needs="searches",
)  # fmt: skip
OBJECTIVE = Option(
    "objective", "object", "what a search works towards: mse (default), ms-ssim; in Python any function",
    load="latentzip.codecs.search.options:text", metavar="mse|ms-ssim", needs="searches",
)  # fmt: skip
WEIGHT = Option(
    "weight", "object", "map of importance for a search: a grey picture or .npy of the picture's size",
    load="latentzip.signals.pictures.importance:load", metavar="PATH", needs="searches",
)  # fmt: skip
THRIFT = Option(
    "thrift", "float", "of a search: above 1 gives up quality for bytes, below 1 the other way round",
    default=1.0, above=0, metavar="X", needs="searches",
)  # fmt: skip
PROGRESS = Option("progress", "object", "called with steps of the search done and steps in all", needs="searches")
SEARCH = (EFFORT, OBJECTIVE, WEIGHT, THRIFT, PROGRESS)


def text(value: str) -> str:
    """An objective on the command line is its name."""
    return value
