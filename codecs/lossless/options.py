"""Options of the codec `lossless`."""

from ..contract import Option

OPTIONS = (
    Option(
        "effort", "int", "how long to compute: 1 is fastest, 9 smallest; decoding takes as long", default=5, low=1,
        high=9, metavar="1..9",
    ),
    Option("verify", "bool", "decode again and compare before anything is returned"),
)  # fmt: skip
