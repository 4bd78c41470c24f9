"""The integer network of one step: taps -> mean and scale class, exactly the same on every machine.

    a = table[sample]                       8-bit inputs: values, log magnitudes, log sums of magnitudes around
    h = clip((W1 a + b1) >> s1, 0, 255)     a hidden layer of 8-bit weights and activations
    mean, scale = Wl a + W2 h + b           in 1/4096 of a step and 1/1024 of a scale class

All operands are integers held in float32, and every sum is bounded by 2**24 (checked when a model is made), so
no addition ever rounds and the order in which a BLAS adds is of no consequence. Shifts are multiplications by
powers of two followed by a floor, exact for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import current_engine
from ..errors import InputError

VALUE, MAGNITUDE, SURROUND = 0, 1, 2  # what a tap reads
INPUT_MAX, HIDDEN_MAX = 127, 255
MEAN_BITS, CLASS_BITS = 12, 10
FRACTION_BITS = 4  # the mean is rounded to 1/16
EXACT = 1 << 24

_LEVELS = np.arange(-128, 128)
# |x| -> 16 log2(1 + |x|), from integer squarings only: floor(log2(v**16)) for v = 1 + |x|
MAGNITUDES = np.array([(int(abs(v)) + 1) ** 16 for v in _LEVELS], dtype=object)
MAGNITUDES = np.array([int(v).bit_length() - 1 for v in MAGNITUDES], np.int64).clip(0, INPUT_MAX)


def log_sum(total: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """What a SURROUND tap makes of the sum of nine magnitudes: 8 log2(1 + sum), read off float32's exponent."""
    return ((1 + total).astype(np.float32).view(np.int32) >> 20) - (127 << 3)


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
        if self.w1.shape != (h, f) or self.wl.shape != (2, f) or self.w2.shape != (2, h) or self.s1.shape != (h,):
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
        what, back, dy, dx = self.taps.astype(np.int64).T
        for name, value in (
            ("what", what),
            ("back", back),
            ("dy", dy),
            ("dx", dx),
            ("front", np.concatenate([self.w1, self.wl]).astype(np.float32)),
            ("bias", self.b1.astype(np.float32)),
            ("scale", np.ldexp(1.0, -self.s1.astype(np.int64)).astype(np.float32)),
            ("rear", self.w2.astype(np.float32)),
        ):
            object.__setattr__(self, name, np.ascontiguousarray(value))

    # columns of `taps` and the weights as float32, for the kernels; `__post_init__` sets them
    what: npt.NDArray[np.int64] = field(init=False)
    back: npt.NDArray[np.int64] = field(init=False)
    dy: npt.NDArray[np.int64] = field(init=False)
    dx: npt.NDArray[np.int64] = field(init=False)
    front: npt.NDArray[np.float32] = field(init=False)
    bias: npt.NDArray[np.float32] = field(init=False)
    scale: npt.NDArray[np.float32] = field(init=False)
    rear: npt.NDArray[np.float32] = field(init=False)


def pack_taps(taps: npt.NDArray[np.int16], kinds: int) -> npt.NDArray[np.int16]:
    """(F, 4) taps of so many kinds -> (F,) one number each, for storage."""
    what, back, dy, dx = taps.astype(np.int64).T
    return (what + kinds * ((dy + 3) + 7 * (dx + 3) + 49 * back)).astype(np.int16)


def unpack_taps(codes: npt.NDArray[Any], kinds: int) -> npt.NDArray[np.int16]:
    """The inverse of `pack_taps`."""
    what, c = codes.astype(np.int64) % kinds, codes.astype(np.int64) // kinds
    return np.stack([what, c // 49, c % 7 - 3, c // 7 % 7 - 3], 1).astype(np.int16)


def reader(taps: npt.NDArray[np.int16]) -> StepNet:
    """A step that has taps and no network yet, to read inputs with."""
    f = taps.shape[0]
    return StepNet(
        taps=taps,
        w1=np.zeros((0, f), np.int8),
        b1=np.zeros(0, np.int32),
        s1=np.zeros(0, np.int8),
        wl=np.zeros((2, f), np.int16),
        w2=np.zeros((2, 0), np.int16),
        b=np.zeros(2, np.int32),
    )


def read(
    known: npt.NDArray[np.uint8],
    pad: npt.NDArray[np.int64],
    own_base: npt.NDArray[np.int64],
    planes: npt.NDArray[np.uint8],
    cross_base: npt.NDArray[np.int64],
    back: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    tables: npt.NDArray[np.float32],
    which: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32],
) -> None:
    """out[f, i] = tables[which[f], sample of tap f at point i].

    known: (h * w,) bytes of this channel, laid out on the step's padded grid by `pad`; planes: (channels before
    this one, padded plane). Tap f reads the grid where back[f] is 0, else the plane that many channels earlier.
    """
    grid = known[pad]
    for f in range(back.size):
        if back[f] == 0:
            out[f] = tables[which[f]][grid[own_base + offsets[f]]]
        else:
            out[f] = tables[which[f]][planes[planes.shape[0] - back[f]][cross_base + offsets[f]]]


def conclude(
    front: npt.NDArray[np.float32],
    b1: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    w2: npt.NDArray[np.float32],
    b: npt.NDArray[np.int32],
    start: npt.NDArray[np.int32],
    drop: npt.NDArray[np.int32],
    top: int,
    mean_bits: int,
    fraction_bits: int,
    class_bits: int,
    index: npt.NDArray[np.int32],
    offset: npt.NDArray[np.int32],
) -> None:
    """(H + 2, n) sums of the first layer -> table index and integer part of the mean; overwrites `front`."""
    h = front[:-2]
    h *= scale[:, None]
    h += (b1 * scale)[:, None]
    np.floor(h, out=h)
    np.clip(h, 0, top, out=h)
    said = (front[-2:] + w2 @ h).astype(np.int32) + b[:, None]
    unit = mean_bits - fraction_bits
    mean = (said[0] + (1 << (unit - 1)) >> unit) + (1 << (fraction_bits - 1))
    k = np.clip(said[1] + (1 << (class_bits - 1)) >> class_bits, 0, start.size - 1)
    index[:] = start[k] + ((mean & (1 << fraction_bits) - 1) >> drop[k])
    offset[:] = mean >> fraction_bits


def finish(
    step_net: StepNet,
    front: npt.NDArray[np.float32],
    start: npt.NDArray[np.int32],
    drop: npt.NDArray[np.int32],
    body: Any,
    index: npt.NDArray[np.int32],
    offset: npt.NDArray[np.int32],
) -> None:
    """Run `conclude` or its compiled body with the parameters of a step."""
    s = step_net
    bits = (HIDDEN_MAX, MEAN_BITS, FRACTION_BITS, CLASS_BITS)
    body(front, s.bias, s.scale, s.rear, s.b, start, drop, *bits, index, offset)


def kernels(name: str | None = None) -> tuple[Any, Any]:
    """`read` and `conclude`, compiled where numba is to be used ("numba" or "plain" to insist)."""
    if (name or current_engine().name) == "numba":
        from ..compiled import context

        return context.read, context.conclude
    return read, conclude
