"""Options of the codec `features`: one goal, and how to see the tensor; lossless without a goal."""

from ..contract import Option

OPTIONS = (
    Option("max_error", "float", "no value is further off than this", metavar="E", above=0, goal=True),
    Option("relative_error", "float", "the same, as a part of the largest magnitude", metavar="E", above=0, goal=True),
    Option("nmse", "float", "mean squared error over the variance", metavar="E", above=0, goal=True),
    Option("bits", "float", "bits a value, everything counted", metavar="B", above=0, goal=True),
    Option("lossless", "bool", "every bit is kept", goal=True),
    Option("nan", "str", "NaN and infinities: keep them to the bit, or refuse", choices=("keep", "refuse")),
    Option("transform", "str", "auto, identity, hadamard, klt, map (the last two axes are spatial), or vq: codewords"),
    Option("axis", "int", "the channel axis (default: the last)", metavar="N"),
)
