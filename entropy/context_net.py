"""The integer network of one step: taps -> mean and scale class, exactly the same on every machine.

    a = table[sample]                       8-bit inputs: values or log magnitudes of neighbouring samples
    h = clip((W1 a + b1) >> s1, 0, 255)     a hidden layer of 8-bit weights and activations
    mean, scale = Wl a + W2 h + b           in 1/4096 of a step and 1/1024 of a scale class

All operands are integers held in float32, and every sum is bounded by 2**24 (checked when a model is made), so no
addition ever rounds and the order in which a BLAS adds is of no consequence. Shifts are multiplications by powers of
two followed by a floor, exact for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .engine import current_engine
from .errors import InputError

VALUE, MAGNITUDE = 0, 1  # what a tap reads
INPUT_MAX, HIDDEN_MAX = 127, 255
MEAN_BITS, CLASS_BITS = 12, 10
FRACTION_BITS = 4  # the mean is rounded to 1/16
EXACT = 1 << 24

_LEVELS = np.arange(-128, 128)
# |x| -> 16 log2(1 + |x|), from integer squarings only: floor(log2(v**16)) for v = 1 + |x|
MAGNITUDES = np.array([(int(abs(v)) + 1) ** 16 for v in _LEVELS], dtype=object)
MAGNITUDES = np.array([int(v).bit_length() - 1 for v in MAGNITUDES], np.int64).clip(0, INPUT_MAX)


def input_table(gain: int) -> npt.NDArray[np.float32]:
    """(2, 256) float32 of integers: what a VALUE and a MAGNITUDE tap make of a sample -128..127."""
    value = (_LEVELS * gain).clip(-INPUT_MAX, INPUT_MAX)
    return np.stack([value, MAGNITUDES]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class StepNet:
    """Parameters of one step, for F taps and H hidden units.

    taps: (F, 4) int16 rows (what, back, dy, dx); back = how many channels earlier, 0 = this channel.
    w1: (H, F) int8; b1: (H,) int32; s1: (H,) int8; wl: (2, F) int16; w2: (2, H) int16; b: (2,) int32.
    """

    taps: npt.NDArray[np.int16]
    w1: npt.NDArray[np.int8]
    b1: npt.NDArray[np.int32]
    s1: npt.NDArray[np.int8]
    wl: npt.NDArray[np.int16]
    w2: npt.NDArray[np.int16]
    b: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        f, h = self.taps.shape[0], self.b1.shape[0]
        if (
            self.w1.shape != (h, f)
            or self.wl.shape != (2, f)
            or self.w2.shape != (2, h)
            or self.s1.shape != (h,)
        ):
            raise InputError(f"a step of {f} taps and {h} hidden units has weights of other shapes")
        first = np.abs(self.w1.astype(np.int64)).sum(1) * INPUT_MAX + np.abs(self.b1.astype(np.int64))
        last = (
            np.abs(self.wl.astype(np.int64)).sum(1) * INPUT_MAX
            + np.abs(self.w2.astype(np.int64)).sum(1) * HIDDEN_MAX
            + np.abs(self.b.astype(np.int64))
        )
        if max(first.max(initial=0), last.max()) + (1 << MEAN_BITS) >= EXACT:
            raise InputError("the weights of a step could overflow exact float32 arithmetic")
        if self.s1.size and not 0 <= int(self.s1.min()) <= int(self.s1.max()) <= 24:
            raise InputError("a hidden shift lies outside 0..24")
        own = self.taps[:, 1] == 0
        object.__setattr__(self, "own", np.flatnonzero(own))
        object.__setattr__(self, "cross", np.flatnonzero(~own))
        object.__setattr__(self, "_front", np.concatenate([self.w1, self.wl]).astype(np.float32))
        object.__setattr__(self, "_back", self.w2.astype(np.float32))
        object.__setattr__(
            self, "_scale", np.ldexp(np.float32(1), -self.s1.astype(np.int64))[:, None].astype(np.float32)
        )

    own: npt.NDArray[np.int64] = None  # type: ignore[assignment]
    cross: npt.NDArray[np.int64] = None  # type: ignore[assignment]

    def __call__(self, a: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """(F, n) inputs -> (2, n) int32: mean in 2**-12, scale class in 2**-10."""
        front = self._front @ a  # type: ignore[attr-defined]
        h = front[:-2]
        h += self.b1[:, None].astype(np.float32)
        h *= self._scale  # type: ignore[attr-defined]
        np.floor(h, out=h)
        np.clip(h, 0, HIDDEN_MAX, out=h)
        out = front[-2:]
        out += self._back @ h  # type: ignore[attr-defined]
        return out.astype(np.int32) + self.b[:, None]


def gather_plain(
    planes: npt.NDArray[np.uint8],
    base: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    tables: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    which: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32],
) -> None:
    """out[rows[f], i] = tables[which[f], planes[base[i] + offsets[f]]]; the definition of `gather`."""
    for f, row in enumerate(rows):
        out[row] = tables[which[f]][planes[base + offsets[f]]]


def gather(*args: npt.NDArray[Any]) -> None:
    """As `gather_plain`, compiled where numba is to be used."""
    if current_engine().name == "numba":
        from ._fast_context import gather as compiled

        compiled(*args)
    else:
        gather_plain(*args)
