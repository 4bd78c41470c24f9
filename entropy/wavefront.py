"""Integers on a grid, each foretold by a small integer net from causal neighbours and from features of coarser grids.

The net is the context net of an overfitted codec (Ladune et al., 2023; residual layers and a linear way past as in
Cool-chic 5): ``h = clamp(x + W1 x + b1); h = clamp(h + W2 h + b2); (mean, log-scale) = W3 [h, x] + b3``. All of it is
int32 with bounds that are checked when the net is made, so every machine finds the same tables. A symbol's table is a
Laplace of one of 64 scales around one of eight fractions of an integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..kernels.pairs import pairs
from .coder import Decoder
from .compiled import wavefront as loops
from .contract import Model
from .dense import to_numpy
from .engine import current_engine
from .errors import FormatError, InputError
from .tables import TableBank, normalise

if TYPE_CHECKING:
    from .coder import Encoder

Ints = npt.NDArray[np.int32]
Features = npt.NDArray[np.int16]
LIMIT = loops.LIMIT
_REACH = 4
_WEIGHT_LIMIT = 1 << 11  # of a weight: 4.0
_BIAS_LIMIT = 1 << 24
_MAX_INPUTS = 32


@dataclass(frozen=True, eq=False)
class ContextNet:
    """Weights in integers; a weight of one is ``1 << WEIGHT_BITS``, a bias of one ``1 << INPUT_BITS + WEIGHT_BITS``.

    dy, dx: (S,) int64, places of the neighbours, causal and within 4; S is even. w1, w2: (C, C) without the identity,
    which is added here; b1, b2: (C,); w3: (2, 2C), b3: (2,); C - S inputs are features of coarser grids.

    Raises:
        FormatError: a number is out of range: sums could leave int32.
    """

    dy: npt.NDArray[np.int64]
    dx: npt.NDArray[np.int64]
    w1: Ints
    b1: Ints
    w2: Ints
    b2: Ints
    w3: Ints
    b3: Ints

    def __post_init__(self) -> None:
        c = len(self.b1)
        if c % 4 or not 4 <= c <= _MAX_INPUTS or not 2 <= len(self.dy) <= c or len(self.dy) % 2:
            raise FormatError(f"a context net of {c} inputs, {len(self.dy)} neighbours, is not possible")
        for name in ("w1", "w2", "w3"):
            if int(np.abs(getattr(self, name)).max()) >= _WEIGHT_LIMIT:
                raise FormatError(f"a context net with weights {name} of 4 and more is not possible")
        for name in ("b1", "b2", "b3"):
            if int(np.abs(getattr(self, name)).max()) >= _BIAS_LIMIT:
                raise FormatError(f"a context net with biases {name} of 256 and more is not possible")

    @property
    def identity(self) -> Ints:
        """What a layer adds to its inputs, as weights (C, C)."""
        return np.eye(len(self.b1), dtype=np.int32) << loops.WEIGHT_BITS

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the loops take: weights in pairs, biases with the half that rounds."""
        c = len(self.b1)
        half, shift = 1 << (loops.WEIGHT_BITS - 1), np.full(c, loops.WEIGHT_BITS, np.int32)
        first, second = pairs(self.w1 + self.identity), pairs(self.w2 + self.identity)
        last = pairs(self.w3[:, c:]), pairs(self.w3[:, :c]), self.b3 + (1 << (loops.OUTPUT_SHIFT - 1))
        return self.dy, self.dx, first, self.b1 + half, second, self.b2 + half, shift, *last

    @property
    def lag(self) -> int:
        """Fronts that a row lies behind the one above."""
        above = self.dy < 0
        return int(max([1, *(-(-(self.dx[above] + 1) // -self.dy[above]))]))


class Wavefront(Model):
    """The values of one grid (h, w), at most `LIMIT` in magnitude.

    Args:
        net: what foretells them.
        bank: 512 tables, see `laplace_tables`.
        features: (ceil(h / 2), ceil(w / 2), F) int16 below 2**14 in magnitude, or None: zeros.
    """

    def __init__(self, net: ContextNet, bank: TableBank, shape: tuple[int, int], features: Features | None) -> None:
        self.net, self.bank, self.shape = net, bank, shape
        self._own = features is not None
        none = np.zeros((1, 1, len(net.b1) - len(net.dy)), np.int16)
        self.features = none if features is None else np.ascontiguousarray(features)
        if bank.num_tables != loops.SCALES * loops.FRACTIONS or not bank.has_lut:
            raise InputError(f"a wavefront takes a bank of {loops.SCALES * loops.FRACTIONS} tables with lookup slots")
        most = max(int(self.features.max(initial=0)), -int(self.features.min(initial=0)))
        if self.features.dtype != np.int16 or most > loops.CLAMP:
            raise InputError(f"features are int16 within +-{loops.CLAMP}")

    def order(self) -> npt.NDArray[np.int64]:
        """Positions in the order in which they are coded: front by front, each from the top."""
        h, w = self.shape
        front = np.arange(w, dtype=np.int32)[None] + self.net.lag * np.arange(h, dtype=np.int32)[:, None]
        return np.argsort(front.reshape(-1), kind="stable")

    def _checked(self, symbols: Any) -> Ints:
        x = to_numpy(symbols)
        if x.shape != self.shape or x.dtype.kind not in "iu" or int(np.abs(x).max(initial=0)) > LIMIT:
            raise InputError(f"a grid holds {self.shape} integers within +-{LIMIT}, not {x.dtype}{x.shape}")
        return np.ascontiguousarray(x, np.int32)

    def tables(self, symbols: Any) -> tuple[Ints, Ints]:
        """Number of the table of each value, and what it is coded relative to; (h, w) each."""
        x = self._checked(symbols)
        h, w = self.shape
        padded = np.zeros((h + _REACH, w + 2 * _REACH), np.int32)
        padded[_REACH:, _REACH : _REACH + w] = x
        if current_engine().name == "plain":
            return self._plain_tables(padded)
        index, offset = np.empty(self.shape, np.int32), np.empty(self.shape, np.int32)
        dy, dx, *weights = self.net.arguments
        tables: Any = loops.grid_tables
        tables(padded, h, w, self.features.view(np.int32), self._own, dy, dx, *weights, index, offset)
        return index, offset

    def _plain_tables(self, padded: Ints) -> tuple[Ints, Ints]:
        h, w = self.shape
        near = [
            padded[_REACH + y : _REACH + y + h, _REACH + x : _REACH + x + w].reshape(-1)
            for y, x in zip(self.net.dy.tolist(), self.net.dx.tolist())
        ]
        ys, xs = (a.reshape(-1) for a in np.mgrid[:h, :w])
        index, offset = self._plain_net(np.stack(near), self._plain_features(ys, xs))
        return index.reshape(h, w), offset.reshape(h, w)

    def _plain_features(self, ys: Any, xs: Any) -> Ints:
        if not self._own:
            return np.zeros((self.features.shape[2], len(ys)), np.int32)
        return self.features[ys >> 1, xs >> 1].T.astype(np.int32)

    def _plain_net(self, near: Ints, features: Ints) -> tuple[Ints, Ints]:
        """The net in numpy; products in float64 are exact below 2**53."""
        net = self.net
        x = np.concatenate([near << loops.INPUT_BITS, features]).astype(np.float64)

        def layer(w: Ints, b: Ints, x: Any) -> Any:
            y = (w.astype(np.float64) @ x + b[:, None]).astype(np.int64)
            return ((y + (1 << loops.WEIGHT_BITS - 1)) >> loops.WEIGHT_BITS).clip(0, loops.CLAMP).astype(np.float64)

        h = layer(net.w2 + net.identity, net.b2, layer(net.w1 + net.identity, net.b1, x))
        out = (net.w3.astype(np.float64) @ np.concatenate([h, x]) + net.b3[:, None]).astype(np.int64)
        mean, raw = (out + (1 << loops.OUTPUT_SHIFT - 1)) >> loops.OUTPUT_SHIFT
        scale = (raw + 24).clip(0, loops.SCALES - 1)
        whole = (mean + 4) >> 3
        return (scale * loops.FRACTIONS + mean - 8 * whole + 4).astype(np.int32), whole.astype(np.int32)

    def encode(self, encoder: Encoder, symbols: Any) -> None:  # type: ignore[override]
        x = self._checked(symbols)
        index, offset = self.tables(x)
        order = self.order()
        taken = [a.reshape(-1)[order] for a in (x, index, offset)]
        encoder.table(taken[0], self.bank, taken[1], taken[2], taken[0].shape)

    def decode(self, decoder: Decoder) -> Ints:  # type: ignore[override]
        symbols = np.zeros(self.shape, np.int32)
        if current_engine().name == "plain":
            self._plain_decode(decoder, symbols)
        else:
            args = (symbols, self.net.lag, self.features.view(np.int32), self._own, *self.net.arguments)
            loop: Any = loops.decode_grid
            decoder.loop(self.bank, lambda state, plain: loop(*state, *args))
        return symbols

    def _plain_decode(self, decoder: Decoder, symbols: Ints) -> None:
        """A front at a time."""
        h, w = self.shape
        padded = np.zeros((h + _REACH, w + 2 * _REACH), np.int32)
        lag = self.net.lag
        for t in range(w + lag * (h - 1)):
            ys = np.arange(max(0, -(-(t - w + 1) // lag)), min(h - 1, t // lag) + 1)
            xs = t - lag * ys
            near = [padded[ys + _REACH + y, xs + _REACH + x] for y, x in zip(self.net.dy, self.net.dx)]
            index, offset = self._plain_net(np.stack(near), self._plain_features(ys, xs))
            v = decoder.table(self.bank, index, offset)
            if int(np.abs(v.astype(np.int64)).max(initial=0)) > LIMIT:
                raise FormatError("a value of a grid is out of range: the chunk is corrupt or of another model")
            padded[ys + _REACH, xs + _REACH] = symbols[ys, xs] = v

    def bits(self, symbols: Any) -> float:
        x = self._checked(symbols)
        index, offset = self.tables(x)
        return self.bank.ideal_bits((x - offset).reshape(-1), index.reshape(-1))


@lru_cache(maxsize=1)
def build_laplace_tables(precision: int = 12) -> TableBank:
    """The bank of a `Wavefront`, computed anew: scales e^(s/8 - 4), s = 0..63, around fractions (f - 4) / 8, f = 0..7.

    What codes streams is a frozen copy of it: exponentials differ in the last bit between machines.
    """
    freqs, low = [], []
    for s in range(loops.SCALES):
        b = np.exp(s / 8 - 4.0)
        reach = int(np.clip(np.ceil(b * 9), 1, 127))
        k = np.arange(-reach, reach + 1)
        for f in range(loops.FRACTIONS):
            d = k - (f - 4) / 8
            below, above = _laplace_cdf((d - 0.5) / b), _laplace_cdf((d + 0.5) / b)
            p = above - below
            keep = np.flatnonzero(p > 2.0 ** -(precision + 2))
            first, last = keep[0], keep[-1] + 1
            away = max(1.0 - p[first:last].sum(), 2.0**-20)
            freqs.append(normalise(np.append(p[first:last], away), precision))
            low.append(int(k[first]))
    return TableBank(freqs, low, 0, precision)


def _laplace_cdf(x: Any) -> Any:
    return np.where(x < 0, 0.5 * np.exp(np.minimum(x, 0)), 1 - 0.5 * np.exp(-np.maximum(x, 0)))
