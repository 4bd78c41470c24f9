"""Samples of a picture in whatever dtype they came, read part by part as the floats in [0, 1] that transforms take.

A picture of a hundred megapixels is 300 MB as bytes and 1.2 GB as floats: only what a tile needs is ever converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..entropy.dense import dense
from ..entropy.errors import InputError

FULL_SCALE = {"uint8": 255, "uint16": 65535}
FLOATS = ("float16", "bfloat16", "float32", "float64")
_SLACK = 1e-3  # how far floats may leave [0, 1], as resizing makes them; beyond, the scale is probably not 0..1
Values = Tensor | np.ndarray


def dtype_of(values: Values) -> str:
    """The name of a dtype, byte order left out."""
    return values.dtype.name if isinstance(values, np.ndarray) else str(values.dtype).removeprefix("torch.")


def header_dtype(values: Values) -> str:
    """What the header of a stream that `Codec.encode` makes says: integers as they are, float32 for floats."""
    return dtype_of(values) if dtype_of(values) in FULL_SCALE else "float32"


def extremes(values: Values) -> tuple[float, float]:
    """The lowest and the highest value; NaN where there is one."""
    if isinstance(values, np.ndarray):
        return float(values.min()), float(values.max())
    if values.dtype == torch.uint16:  # torch has no order of these
        wide = [part.to(torch.int32) for part in values.flatten(0, -2).split(4096)]
        return float(min(int(p.min()) for p in wide)), float(max(int(p.max()) for p in wide))
    low, high = values.aminmax()
    return float(low), float(high)


def canvas(shape: tuple[int, int, int], dtype: str | None, device: torch.device) -> Tensor:
    """Room for the pixels (C, H, W) of a picture: float32, or integers that lie channels last, as `stepped` makes."""
    if dtype is None:
        return torch.empty(shape, device=device)
    channels, height, width = shape
    return torch.empty(height, width, channels, dtype=getattr(torch, dtype), device=device).permute(2, 0, 1)


def stepped(x: Tensor, dtype: str) -> Tensor:
    """Floats in [0, 1], which may be overwritten, rounded to the steps of uint8 or uint16."""
    x = x.mul_(FULL_SCALE[dtype]).round_()
    return x.to(torch.uint8) if dtype == "uint8" else x.to(torch.int32).to(torch.uint16)  # no way from floats to that


@dataclass(frozen=True, eq=False)
class Samples:
    """A picture (C, H, W) that reads as float32 in [0, 1], where ``low`` stands for 0 and ``high`` for 1.

    Attributes:
        values: uint8, uint16 or floats, in any layout and byte order.
        low, high: in the unit of ``values``.
    """

    values: Values
    low: float
    high: float

    @classmethod
    def of(cls, values: Values, what: str = "the signal", span: tuple[float, float] | None = None) -> Samples:
        """Samples that were checked.

        Args:
            what: how errors name them.
            span: (low, high) that stand for 0 and 1; by default 0 and the end of the dtype's range, 1 for floats.

        Raises:
            InputError: another dtype, NaN or infinite values, values beyond the span.
        """
        values = dense(values, what)
        if not isinstance(values, (np.ndarray, Tensor)):
            raise InputError(f"{what} must be a tensor or an array, not {type(values).__name__}")
        dtype = dtype_of(values)
        if dtype not in FULL_SCALE and dtype not in FLOATS:
            raise InputError(f"{what}: dtype {dtype} is not supported; convert it to uint8, uint16 or float")
        if span is None and dtype in FULL_SCALE:
            return cls(values, 0.0, float(FULL_SCALE[dtype]))
        low, high = extremes(values)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(f"{what} contains NaN or infinite values; replace them first")
        first, last = span or (0.0, 1.0)
        slack = 0.0 if span else _SLACK
        if low < first - slack or high > last + slack:
            if span:
                raise InputError(f"{what} has values from {low:.6g} to {high:.6g}, beyond {first:.6g} to {last:.6g}")
            raise InputError(
                f"{what} has floats from {low:.4g} to {high:.4g}; floats must lie in [0, 1]: divide by the largest "
                "value, or keep the range with value_range='auto'"
            )
        return cls(values, first, last)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def ndim(self) -> int:
        return self.values.ndim

    def __getitem__(self, part: Any) -> Tensor:
        """Floats of a part, on the device of the values."""
        x = self.values[part]
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(np.array(x, x.dtype.newbyteorder("="), order="C"))  # native, writable, no odd strides
        if (self.low, self.high) == (0.0, 1.0):
            return x.to(torch.float32).clamp(0, 1)
        if self.low == self.high:
            return torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        if self.low == 0 and self.high == FULL_SCALE.get(dtype_of(x)):  # cannot leave [0, 1]
            return x.to(torch.float32).div_(self.high)
        x = x.to(torch.float64 if x.dtype in (torch.float32, torch.float64) else torch.float32)
        x = x - self.low if self.low else x
        return x.div(self.high - self.low).to(torch.float32).clamp_(0, 1)

    def all(self) -> Tensor:
        """Floats of the whole picture, or batch of pictures."""
        return self[...]
