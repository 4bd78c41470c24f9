"""Options of the codec `overfit`."""

from dataclasses import replace

from ..contract import QUALITY, Option
from ..search.options import OBJECTIVE, PROGRESS, WEIGHT

EFFORTS = {1: 300, 2: 500, 3: 700, 4: 1000, 5: 1500, 6: 2000, 7: 3000, 8: 5000, 9: 10000}
EFFORT = Option(
    "effort", "int", "how long to fit: 1 is 300 steps, 4 is 1000, 9 is 10 000", default=4, low=1, high=9, metavar="1..9"
)  # fmt: skip
OPTIONS = (
    QUALITY,
    EFFORT,
    Option("seconds", "float", "fit for so long instead of an effort", above=0, metavar="S"),
    replace(OBJECTIVE, needs=""),
    replace(WEIGHT, needs=""),
    Option("keep_best", "bool", "an interrupt (Ctrl-C) ends the fit early and keeps what there is"),
    replace(PROGRESS, needs=""),
)
