"""The facts of a kind of signal, read without torch; its verbs lie in the module that `coding` loads.

A kind is a room of `latentzip.signals`: its `__init__` holds the facts, its `coding` the verbs.

    kind = signals.of(header)             # decided once
    kind.suffix(header)                   # ".png": a fact
    kind.coding.decode(stream, wanted)    # a picture: a verb
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from ..codecs.contract import quality_in
from ..entropy.container import Header

if TYPE_CHECKING:
    from .coding import Coding


class Kind:
    """The facts of a kind.

    Attributes:
        name: what headers and codecs call it.
        noun, one: many of them and one, in words.
        suffixes: what a folder is searched for; files named one by one are recognised by their content.
        codec: what `latentzip.encode` takes when none is named; empty where one has to be.
        rate, rate_label, speed_unit: of its measurements.
        module: of the verbs.
    """

    name: str
    noun: str
    one: str
    suffixes: frozenset[str]
    codec = ""
    rate: str
    rate_label: str
    speed_unit: str
    module: str

    @property
    def coding(self) -> Coding:
        """The verbs; this loads torch."""
        return cast("Coding", import_module(self.module, __package__))

    def suffix(self, header: Header) -> str:
        """Extension under which a stream is decoded: the plainest format that holds its signal in full."""
        raise NotImplementedError

    def shape(self, header: Header, region: Sequence[int] | None, span: Sequence[float] | None) -> list[int]:
        """The shape of what is decoded: of the whole, or of the part that is asked for."""
        raise NotImplementedError

    def positions(self, header: Header) -> int:
        """What bits are divided by: pixels, samples of a channel, values."""
        return math.prod(header.shape[1:])

    def seconds(self, header: Header) -> float:
        """The length of a signal that lasts; 0 of others."""
        return 0.0

    def extent(self, header: Header) -> dict[str, Any]:
        """What target rates are counted against: ``pixels``, ``seconds``, or nothing."""
        return {}

    def quality(self, params: bytes) -> int | None:
        """Quality in a codec's parameters; None where there is none, or in a layout of the codec's own."""
        return quality_in(params)

    def units(self, shape: Sequence[int], rate: int) -> float:
        """What an evaluation divides bits by, of an array of this kind: values."""
        return math.prod(shape)

    def amount(self, units: float, num_bytes: int) -> float:
        """What it counts a second, in `speed_unit`: megabytes."""
        return num_bytes / 1e6

    def words(self, shape: Sequence[int], rate: int) -> str:
        """The size of a decoded signal, for people."""
        return " x ".join(map(str, shape))
