"""From nets to the integers that decoding computes with, and back: units of weights, and bounds that are checked.

A weight is the shared start's plus a difference that the stream carries; both are integers in the unit of the weight's
group, so encoder and decoder hold the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy import wavefront
from ...entropy.engine import current_engine
from ...entropy.errors import FormatError
from ...entropy.wavefront import ContextNet
from ...kernels.pairs import pairs
from ...kernels.pyramid import exact
from .nets import LEVELS, Nets, Size, layout, neighbours

Ints = npt.NDArray[np.int32]
Features = npt.NDArray[np.int16]

# fractional bits of a weight, by group: the finest step that it can be stored with
BITS = {
    "context": 9, "context-bias": 12, "features": 10, "upsampling": 12,
    "synthesis": 10, "synthesis-bias": 12, "residual": 12,
}  # fmt: skip
_LIMITS = {  # of a weight, in ones: sums of as many products as there are stay inside int32
    "context": 4, "context-bias": 64, "features": 8, "upsampling": 2,
    "synthesis": 16, "synthesis-bias": 64, "residual": 2,
}  # fmt: skip
_INT32 = 1 << 31
_FEATURE_BITS = 7  # of the context net's inputs


def limit(group: str) -> int:
    """Largest magnitude of a weight of this group, in its unit."""
    return (_LIMITS[group] << BITS[group]) - 1


def bound(nets: Nets) -> None:
    """Scale rows of weights down, in place, where sums of their products could leave int32; hardly ever any is."""
    wide = nets.size.width
    sizes = [(nets["s1"], _row_sums(nets["s1"]), 50.0)]
    planes = 1 << (exact.WEIGHT_BITS - exact.PLANE_BITS)
    sizes += [(nets["s2"], _row_sums(nets["s2"][:, :wide]) + planes * _row_sums(nets["s2"][:, wide:]), 50.0)]
    sizes += [(nets[f"c{k}"], _row_sums(nets[f"c{k}"]), 12.0) for k in range(nets.size.residuals)]
    sizes += [(nets[f"up{k}"][None], _row_sums(nets[f"up{k}"][None]), 12.0) for k in range(LEVELS - 1)]
    for weight, sums, most in sizes:
        factor = np.minimum(1, most / np.maximum(sums, 1e-9)).astype(np.float32)
        weight *= factor.reshape(-1, *[1] * (weight.ndim - 1))
    for k in range(nets.size.residuals):
        nets[f"cb{k}"].clip(-8, 8, out=nets[f"cb{k}"])
    nets["sb2"].clip(-32, 32, out=nets["sb2"])


def bounded(nets: Nets) -> Nets:
    """A copy inside the bounds."""
    inside = nets.copy()
    bound(inside)
    return inside


def _row_sums(w: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.abs(w if w.dtype.kind == "f" else w.astype(np.int64)).reshape(len(w), -1).sum(1)


class IntegerNets:
    """Weights in the units of `BITS`, checked.

    Args:
        values: all weights end to end, in the order of `nets.layout`.

    Raises:
        FormatError: weights with which a sum could leave int32.
    """

    def __init__(self, size: Size, channels: int, values: Ints) -> None:
        self.size, self.channels, self.values = size, channels, values
        view, at = {}, 0
        for w in layout(size, channels):
            view[w.name] = values[at : at + w.total].reshape(w.shape)
            at += w.total
            if int(np.abs(view[w.name].astype(np.int64)).max()) > limit(w.group):
                raise FormatError(f"weights {w.name} of a fitted net are out of range: the stream is corrupt")
        self._view = view
        dy, dx = neighbours(size.neighbours)
        bias = [view[n] << 4 for n in ("b1", "b2", "b3")]  # from 12 fractional bits to 16
        self.context = ContextNet(dy, dx, view["w1"], bias[0], view["w2"], bias[1], view["w3"], bias[2])
        self.pointwise = self._pointwise()
        self.residuals = [(view[f"c{k}"], view[f"cb{k}"] << exact.FINE_BITS) for k in range(size.residuals)]
        self._check()

    def floats(self) -> Nets:
        """The same weights as float32, exactly."""
        nets = Nets(self.size, self.channels)
        for w in nets.layout:
            nets[w.name][...] = self._view[w.name] * np.float32(2.0 ** -BITS[w.group])
        return nets

    def taps(self, k: int) -> Ints:
        return self._view[f"up{k}"]

    def _pointwise(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Weights and biases of the hidden layer, and of the way out."""
        v = self._view
        b1 = v["sb1"] << (exact.PLANE_BITS + exact.WEIGHT_BITS - BITS["synthesis-bias"])
        b2 = v["sb2"] << (2 * exact.WEIGHT_BITS - BITS["synthesis-bias"])
        return v["s1"], b1, v["s2"], b2

    @property
    def pointwise_loops(self) -> tuple[Ints, ...]:
        """`pointwise` as `exact.pointwise_rows` takes it."""
        w1, b1, w2, b2 = self.pointwise
        wide = self.size.width
        first, last = np.zeros((wide, LEVELS + 1), np.int32), np.zeros((4, wide + LEVELS + 1), np.int32)
        first[:, :LEVELS], last[: self.channels, :-1] = w1, w2
        halves = [np.int32(1 << shift - 1) for shift in (exact.HIDDEN_SHIFT, exact.OUT_SHIFT)]
        shifts = np.full(wide, exact.HIDDEN_SHIFT, np.int32)
        return pairs(first), b1 + halves[0], shifts, pairs(last[:, wide:]), pairs(last[:, :wide]), b2 + halves[1]

    def _check(self) -> None:
        w1, b1, w2, b2 = self.pointwise
        wide = self.size.width
        most = [_row_sums(w1) * exact.PLANE_LIMIT + np.abs(b1.astype(np.int64))]
        planes = _row_sums(w2[:, wide:]) * exact.PLANE_LIMIT << (exact.WEIGHT_BITS - exact.PLANE_BITS)
        most += [_row_sums(w2[:, :wide]) * exact.HIDDEN_LIMIT + planes + np.abs(b2.astype(np.int64))]
        for k, b in self.residuals:
            most += [(_row_sums(k) + (1 << exact.FINE_BITS)) * exact.SAMPLE_LIMIT + np.abs(b.astype(np.int64))]
        for k in range(LEVELS - 1):
            most += [_row_sums(self.taps(k)[None]) * exact.PLANE_LIMIT]
        if max(int(m.max()) for m in most) >= _INT32 - (1 << 20):
            raise FormatError("the synthesis of a fitted net is out of range: the stream is corrupt")

    def features(self, k: int, grids: list[Ints]) -> Features:
        """Features of grid k from the coarser ones, which are in ``grids``: (ceil(h / 2), ceil(w / 2), F) int16."""
        weights = np.ascontiguousarray(self._view[f"fw{k}"].T)
        h, w = (-(-n // 2) for n in grids[-1].shape)
        sums = np.broadcast_to(self._view[f"fb{k}"], (h, w, weights.shape[1])).astype(np.int32)
        shift, top = BITS["features"] - _FEATURE_BITS, wavefront.loops.CLAMP
        plain = current_engine().name == "plain"
        for j in range(LEVELS - 1, k, -1):
            args = (sums, grids[j], weights[j - k - 1])
            if plain:
                sums = exact.plain_add_level(*args)
            else:
                sums = np.empty((*grids[j].shape, weights.shape[1]), np.int32)
                exact.add_level(*args, sums)
        if plain:
            return exact.plain_round_features(sums, shift, top)
        out = np.empty(sums.shape, np.int16)
        exact.round_features(sums, shift, top, out)
        return out
