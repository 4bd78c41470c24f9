"""How the nets of a picture are sent: differences from a shared start, quantised by group, under frozen tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.banks import NUM_SCALES, frozen_bank
from ...entropy.coder import Decoder, Encoder, RateMeter
from ...entropy.contract import Coder
from ...entropy.errors import FormatError
from ...entropy.models import Laplace, Uniform
from .integers import BITS, IntegerNets, limit
from .nets import GROUPS, Nets, Size, Weight, layout

Ints = npt.NDArray[np.int32]
Steps = Mapping[str, int]  # a group's step is 2**-step

GAIN_UNIT = 16
_MAX_DIFFERENCE = 1 << 20
# arrays whose differences are of one spread share a table
_KINDS = ("w1", "w2", "w3", "b", "fw", "fb", "up", "s1", "s2", "sb", "c")
_SAME = {"b1": "b", "b2": "b", "b3": "b", "sb1": "sb", "sb2": "sb", "cb": "sb"}


def kind_of(weight: Weight) -> int:
    """Which table codes the differences of a weight."""
    name = weight.name
    if name not in _SAME and name[-1].isdigit() and name not in _KINDS:
        name = name[:-1]
    return _KINDS.index(_SAME.get(name, name))


@dataclass(frozen=True, eq=False)
class Start:
    """Shared nets: where fits begin, and what fitted weights are differences from.

    Attributes:
        rate_weight: the lambda that they were trained for.
        values: all weights end to end, in the units of `integers.BITS`.
    """

    size: Size
    channels: int
    rate_weight: float
    values: Ints

    def scaled(self, gain: int) -> Start:
        """For another lambda: latents count gain / 16 times as much in the synthesis."""
        values, at = self.values.astype(np.int64), 0
        for w in layout(self.size, self.channels):
            view = values[at : at + w.total].reshape(w.shape)
            if w.name == "s1":
                view[...] = (view * gain + GAIN_UNIT // 2) // GAIN_UNIT
            elif w.name == "s2":
                view[:, self.size.width :] = (view[:, self.size.width :] * gain + GAIN_UNIT // 2) // GAIN_UNIT
            bound = limit(w.group)
            view[...] = view.clip(-bound, bound)
            at += w.total
        return Start(self.size, self.channels, self.rate_weight * (gain / GAIN_UNIT) ** 2, values.astype(np.int32))

    def grey(self) -> Start:
        """For one channel: what these nets make of a grey picture in three equal channels."""
        if self.channels == 1:
            return self
        nets, out = IntegerNets(self.size, self.channels, self.values).floats(), Nets(self.size, 1)
        for w in out.layout:
            given = nets[w.name]
            if w.name.startswith("c") and w.group == "residual":
                given = given.sum(1, keepdims=True)
            same = given.shape == w.shape
            out[w.name][...] = given if same else given.mean(0, keepdims=True).reshape(w.shape)
        return Start(self.size, 1, self.rate_weight, to_units(out))

    @cached_property
    def nets(self) -> Nets:
        """As floats, exactly; not to be changed."""
        return IntegerNets(self.size, self.channels, self.values).floats()


def to_units(nets: Nets) -> Ints:
    """The nearest weights in the units of `integers.BITS`, inside their limits."""
    parts = []
    for w in nets.layout:
        bound = limit(w.group)
        parts.append(np.rint(nets[w.name].reshape(-1).astype(np.float64) * 2.0 ** BITS[w.group]).clip(-bound, bound))
    return np.concatenate(parts).astype(np.int32)


def _shifts(size: Size, channels: int, steps: Steps) -> Ints:
    """Bits that a difference is shifted by, for each weight."""
    weights = layout(size, channels)
    return np.concatenate([np.full(w.total, BITS[w.group] - steps[w.group], np.int32) for w in weights])


def differences(nets: Nets, start: Start, steps: Steps) -> Ints:
    """Differences of nets from a start in steps, rounded."""
    shift = _shifts(start.size, start.channels, steps)
    fine = to_units(nets).astype(np.int64) - start.values
    return ((fine + ((1 << shift) >> 1)) >> shift).astype(np.int32)


def apply(start: Start, steps: Steps, moved: Ints) -> IntegerNets:
    """The nets that differences lead to; raises FormatError where they are out of range."""
    shift = _shifts(start.size, start.channels, steps)
    values = start.values.astype(np.int64) + (moved.astype(np.int64) << shift)
    bound = np.concatenate([np.full(w.total, limit(w.group)) for w in layout(start.size, start.channels)])
    if int(np.abs(moved.astype(np.int64)).max(initial=0)) > _MAX_DIFFERENCE or (np.abs(values) > bound).any():
        raise FormatError("weights of a fitted net are out of range: the stream is corrupt")
    return IntegerNets(start.size, start.channels, values.astype(np.int32))


def program(coder: Coder, moved: Ints | None, scales: Ints | None, steps: Ints | None, start: Start) -> tuple[Any, Any]:
    """Steps, tables and differences, coded or decoded; returns differences and steps."""
    stored = coder.code(steps, Uniform(0, 15, (len(GROUPS),)))
    tables = coder.code(scales, Uniform(0, NUM_SCALES - 1, (len(_KINDS),)))
    return coder.code(moved, Laplace(_table_of_each(tables, start))), stored


def _table_of_each(scales: Ints, start: Start) -> Ints:
    weights = layout(start.size, start.channels)
    return np.concatenate([np.full(w.total, scales[kind_of(w)], np.int32) for w in weights])


def _scales(moved: Ints, start: Start) -> Ints:
    """The cheapest table of each kind."""
    kinds = np.concatenate([np.full(w.total, kind_of(w)) for w in layout(start.size, start.channels)])
    costs = np.zeros((len(_KINDS), NUM_SCALES))
    np.add.at(costs, kinds, frozen_bank("laplace").costs(moved[:, None], np.arange(NUM_SCALES)[None]))
    return costs.argmin(1).astype(np.int32)


def tables_of(moved: Ints, start: Start) -> Ints:
    """The number of the table that each difference is coded with."""
    return _table_of_each(_scales(moved, start), start)


def bits(moved: Ints, start: Start) -> float:
    """What differences cost with their cheapest tables."""
    meter = RateMeter()
    meter.code(moved, Laplace(tables_of(moved, start)))
    return float(meter.bits) + 6 * len(_KINDS) + 4 * len(GROUPS)


def encode(moved: Ints, start: Start, steps: Steps) -> bytes:
    """Differences as bytes."""
    encoder = Encoder(streams=1)
    program(encoder, moved, _scales(moved, start), np.array([steps[g] for g in GROUPS], np.int32), start)
    return encoder.finish()


def decode(data: bytes, start: Start) -> IntegerNets:
    """The nets that a stream holds.

    Raises:
        FormatError: corrupt bytes, or weights out of range.
    """
    decoder = Decoder(data)
    moved, stored = program(decoder, None, None, None, start)
    decoder.finish()
    steps = {g: int(s) for g, s in zip(GROUPS, stored)}
    if any(steps[g] > BITS[g] for g in GROUPS):
        raise FormatError("steps of a fitted net are out of range: the stream is corrupt")
    return apply(start, steps, moved)
