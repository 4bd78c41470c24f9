"""The passes over one latent: what is known so far, what a step says of its symbols, where they go.

`Plain` is the definition, step by step in numpy. `Compiled` holds the same numbers in another order and gives the same
tables; where the encoder allows, it goes through all steps of a latent in one call.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..coder import Decoder
from ..engine import current_engine
from ..models import TableModel
from . import net
from .steps import REACH, Step, geometry, plane_pad
from .taps import ZERO, inputs, surroundings

Ints = npt.NDArray[np.int32]


class Passes:
    """One latent of c x h x w samples on its way through a `ContextModel`."""

    def __init__(self, model: Any, c: int, h: int, w: int) -> None:
        self.model, self.size = model, (c, h, w)
        self.samples = np.zeros((c, h * w), np.int32)

    def run(self, coder: Any, latent: npt.NDArray[Any] | None) -> Ints:
        """Code all steps; returns the samples (c, h * w)."""
        c, h, w = self.size
        bank = self.model.bank
        for number, (channel, step) in enumerate(self.model.steps):
            if channel == c:
                break
            n = step.count(h, w)
            index, offset = self.predict(number, channel, step, n)  # without points too: it may begin a grid
            symbols = index
            if n:
                known = None if latent is None else latent[channel].reshape(-1)[geometry(h, w, step).flat]
                symbols = coder.code(None if known is None else known.astype(np.int32), TableModel(bank, index, offset))
            self.keep(channel, step, np.asarray(symbols))
        return self.samples

    def predict(self, number: int, channel: int, step: Step, n: int) -> tuple[Ints, Ints]:
        """Table index and offset (integer part of the mean) of the n symbols of a step."""
        raise NotImplementedError

    def keep(self, channel: int, step: Step, symbols: Ints) -> None:
        """Note the symbols of a step, for later ones to read."""
        raise NotImplementedError


class Plain(Passes):
    """Samples as bytes, gathered by index; a product of matrices a step."""

    def __init__(self, model: Any, c: int, h: int, w: int) -> None:
        super().__init__(model, c, h, w)
        self._known = np.full((c, h * w), ZERO, np.uint8)
        self._planes = np.empty((c, (h + 2 * REACH) * (w + 2 * REACH)), np.uint8)
        self._around = np.empty_like(self._planes)

    def predict(self, number: int, channel: int, step: Step, n: int) -> tuple[Ints, Ints]:
        m = self.model
        g = geometry(*self.size[1:], step)
        near = self._planes[:channel], self._around[:channel]
        a = inputs(m.nets[number], channel, self._known[channel], *near, step.kind, g, m.tables)
        index, offset = np.empty(n, np.int32), np.empty(n, np.int32)
        net.finish(m.nets[number], m.nets[number].front @ a, m.start, m.drop, net.conclude, index, offset)
        return index, offset

    def keep(self, channel: int, step: Step, symbols: Ints) -> None:
        flat = geometry(*self.size[1:], step).flat
        self.samples[channel, flat] = symbols
        self._known[channel, flat] = np.clip(symbols, -net.INPUT_MAX, net.INPUT_MAX) + ZERO
        self._planes[channel] = self._known[channel][plane_pad(*self.size[1:])]
        self._around[channel] = surroundings(self._known[channel], *self.size[1:])


class Packed:
    """A `ContextModel`'s numbers as the compiled passes read them."""

    def __init__(self, model: Any) -> None:
        nets = [_pack(n) for n in model.nets]
        self.nets = np.concatenate(nets)
        self.starts = np.cumsum([0] + [n.size for n in nets])
        self.each = [self.nets[i:j] for i, j in zip(self.starts, self.starts[1:])]
        self.tables = model.tables.astype(np.int16)
        self.steps = np.array([(c, s.stride, s.kind) for c, s in model.steps], np.int64)
        self._bank = model.bank

    @cached_property
    def lut(self) -> npt.NDArray[np.uint8]:
        """(tables << 8,): the entry in which each 256th of a table's quantiles begins; of banks of 8 bits and more."""
        b = self._bank
        return np.ascontiguousarray(b.lut.reshape(b.num_tables, -1)[:, :: 1 << (b.precision - 8)]).reshape(-1)


class Compiled(Passes):
    """Samples as taps see them, in planes whose points lie side by side; see `compiled.passes`."""

    def __init__(self, model: Any, c: int, h: int, w: int) -> None:
        from ..compiled import passes

        super().__init__(model, c, h, w)
        self._loops, self._packed = passes, model.packed
        self._store = np.zeros(passes.room(c, h, w), np.int16)

    def run(self, coder: Any, latent: npt.NDArray[Any] | None) -> Ints:
        (c, h, w), p, m = self.size, self._packed, self.model
        steps = p.steps[: int(np.searchsorted(p.steps[:, 0], c))]
        args = (self._store, p.tables, self.samples, p.nets, p.starts, steps, m.start, m.drop, h, w)
        if latent is None and m.bank.has_lut and isinstance(coder, Decoder):
            room = [np.empty(h * w, np.int32) for _ in range(3)]
            coder.loop(m.bank, lambda state, _: self._loops.decode(*state, *args, *room))
        elif latent is not None and getattr(coder, "joins_calls", False):
            self.samples[:] = latent.reshape(c, h * w)
            symbols, index, offset = (np.empty(c * h * w, np.int32) for _ in range(3))
            self._loops.foretell(*args, symbols, index, offset)
            coder.code(symbols, TableModel(m.bank, index, offset))
        else:
            return super().run(coder, latent)
        return self.samples

    def predict(self, number: int, channel: int, step: Step, n: int) -> tuple[Ints, Ints]:
        (c, h, w), m, p = self.size, self.model, self._packed
        index, offset = np.empty(n, np.int32), np.empty(n, np.int32)
        self._loops.predict(
            *(self._store, p.tables, self.samples[channel], p.each[number], m.start, m.drop),
            *(c, channel, h, w, step.stride, step.kind, index, offset),
        )
        return index, offset

    def keep(self, channel: int, step: Step, symbols: Ints) -> None:
        (c, h, w), p = self.size, self._packed
        samples = self.samples[channel]
        self._loops.keep(self._store, p.tables, samples, symbols, c, channel, h, w, step.stride, step.kind)


def _pairs(m: npt.NDArray[Any]) -> Ints:
    """Neighbouring columns of (rows, even) integers as one int32 each."""
    low, high = m[:, 0::2].astype(np.int64), m[:, 1::2].astype(np.int64)
    return ((low & 0xFFFF) | (high << 16)).astype(np.int32)


def _pack(n: net.StepNet) -> Ints:
    """A network as `compiled.passes` describes it."""
    taps_more, units_more = n.taps.shape[0] & 1, -n.b1.size % 4
    more = ((0, units_more), (0, taps_more))
    front = np.concatenate([np.pad(n.w1.astype(np.int64), more), np.pad(n.wl.astype(np.int64), ((0, 0), more[1]))])
    taps, b1, s1, rear = (
        np.pad(n.taps, ((0, taps_more), (0, 0))),
        np.pad(n.b1, (0, units_more)),
        np.pad(n.s1, (0, units_more)),
        np.pad(n.w2, ((0, 0), (0, units_more))),
    )
    head = np.array([b1.size, taps.shape[0] // 2])
    parts = [head, taps, b1, s1, _pairs(front), _pairs(rear), n.b]
    return np.concatenate([np.ravel(p).astype(np.int32) for p in parts])


def body() -> type[Passes]:
    """`Compiled` where loops are compiled, else `Plain`."""
    return Compiled if current_engine().name == "numba" else Plain
