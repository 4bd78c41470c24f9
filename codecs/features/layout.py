"""How a tensor lies in a feature stream: as rows of channels or as planes, in chunks; and the stream's parameters."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import FormatError, InputError
from .codebooks import CodeProfile
from .profile import Profile
from .transforms import IDENTITY, LINEAR

DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}
TORCH = {name: dtype for dtype, name in DTYPES.items()}
BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32}
ROWS, MAPS, LOSSLESS, CODES = 0, 1, 2, 3  # modes; the numbers stand in streams
SIDE, MEAN, PROFILE, CORRECTED = 1, 2, 4, 8  # flags
_PARAMS = struct.Struct("<BBBBbhIfff")  # version, mode, transform, flags, axis, offset, chunk, step, unit, shift
_VERSIONS = {ROWS: 1, MAPS: 1, LOSSLESS: 1, CODES: 2}
_BLOCK_ROWS = 4096  # rows of a chunk: references reach no further
_BLOCK_VALUES = 1 << 18  # of a chunk whose rows are short


@dataclass(frozen=True)
class Params:
    """What the container carries for this codec; the offset of `CODES` is how many levels of codes there are."""

    mode: int
    transform: int = IDENTITY
    flags: int = 0
    axis: int = -1
    offset: int = 0
    chunk: int = 0
    step: float = 0.0
    unit: float = 0.0
    shift: float = 0.0

    def pack(self) -> bytes:
        fields = (self.mode, self.transform, self.flags, self.axis, self.offset, self.chunk, self.step, self.unit)
        return _PARAMS.pack(_VERSIONS[self.mode], *fields, self.shift)

    @classmethod
    def unpack(cls, data: bytes, shape: tuple[int, ...]) -> Params:
        if len(data) != _PARAMS.size or _VERSIONS.get(data[1]) != data[0]:
            raise FormatError("features: unknown codec parameters; the stream may need a newer latentzip")
        p = cls(*_PARAMS.unpack(data)[1:])
        numbers = (p.step, p.unit, p.shift)
        if (
            p.transform > LINEAR
            or p.flags > 15
            or not all(0 <= v < inf for v in numbers)
            or not -max(1, len(shape)) <= p.axis < 0
            or p.chunk < 1
        ):
            raise FormatError("features: codec parameters out of range; the stream is corrupt")
        return p


def bits_of(rows: Tensor) -> Any:
    """(N, K) floats as unsigned integers of their size."""
    signed = rows.contiguous().view(torch.int16 if rows.element_size() == 2 else torch.int32)
    return signed.numpy().view(np.uint16 if rows.element_size() == 2 else np.uint32)


@dataclass(frozen=True)
class View:
    """A tensor as rows (N, D): which axis holds the channels, and how many rows make a chunk."""

    shape: tuple[int, ...]
    axis: int
    flat: bool  # a vector, taken as rows of one channel
    spatial: bool = False
    profiled: bool = False

    @classmethod
    def of(cls, x: Tensor, axis: int | None, profile: Profile | CodeProfile | None) -> View:
        chosen = profile.axis if profile is not None and axis is None else -1 if axis is None else axis
        if not -max(1, x.ndim) <= chosen < max(1, x.ndim):
            raise InputError(f"axis {chosen} does not exist in a tensor of shape {tuple(x.shape)}")
        view = cls.of_shape(
            tuple(x.shape), chosen - max(1, x.ndim) if chosen >= 0 else chosen, False, profile is not None
        )
        if profile is not None and view.channels != profile.channels:
            raise InputError(
                f"the profile has {profile.channels} channels, axis {chosen} of a tensor of shape {tuple(x.shape)} has "
                f"{view.channels}"
            )
        return view

    @classmethod
    def of_shape(cls, shape: tuple[int, ...], axis: int, spatial: bool, profiled: bool) -> View:
        if spatial and len(shape) < 2:
            raise FormatError("features: maps need two spatial axes; the stream is corrupt")
        return cls(shape, axis, not spatial and (not shape or (len(shape) == 1 and not profiled)), spatial, profiled)

    @property
    def channels(self) -> int:
        if self.spatial:
            return self.shape[-2] * self.shape[-1]
        return 1 if self.flat else self.shape[self.axis]

    @property
    def count(self) -> int:
        return prod(self.shape) // max(1, self.channels) if prod(self.shape) else 0

    @property
    def block(self) -> int:
        """Rows of a chunk; chunks are alike but for the last."""
        most = (
            max(1, 4 * _BLOCK_VALUES // self.channels)
            if self.spatial
            else max(_BLOCK_ROWS, _BLOCK_VALUES // self.channels)
        )
        if self.channels > 4096:
            most = max(1, (1 << 24) // self.channels)
        count = max(1, -(-self.count // most))
        return max(1, -(-self.count // count))

    def rows(self, x: Tensor) -> Tensor:
        """(N, D), contiguous."""
        if self.spatial or self.flat:
            return x.reshape(-1, self.channels)
        return x.movedim(self.axis, -1).reshape(-1, self.channels).contiguous()

    def span(self, region: Sequence[int] | None) -> tuple[int, int]:
        """Rows (start, stop) of a region along the first axis."""
        if region is None:
            return 0, self.count
        size = self.shape[0] if self.shape else 0
        first_is_channel = not self.flat and not self.spatial and len(self.shape) + self.axis == 0
        if (
            len(region) != 2
            or first_is_channel
            or not 0 <= region[0] < region[1] <= size
            or (self.spatial and len(self.shape) < 3)
        ):
            raise InputError(
                f"region {tuple(region)} is not (start, stop) along the first axis of a tensor of shape {self.shape}"
                + (", which holds the channels" if first_is_channel else "")
            )
        each = self.count // size
        return int(region[0]) * each, int(region[1]) * each

    def tensor(self, rows: Tensor, region: Sequence[int] | None) -> Tensor:
        """Inverse of `rows`, for a region of it."""
        shape = self.shape if region is None else (int(region[1]) - int(region[0]), *self.shape[1:])
        if self.spatial or self.flat:
            return rows.reshape(shape)
        moved = list(shape)
        moved.append(moved.pop(len(moved) + self.axis))
        return rows.reshape(moved).movedim(-1, self.axis).contiguous()

    def positions(self, region: Sequence[int] | None) -> tuple[int, ...]:
        """The shape of a tensor, or of a region of it, without its channels."""
        shape = list(self.shape if region is None else (int(region[1]) - int(region[0]), *self.shape[1:]))
        if not self.flat:
            del shape[self.axis]
        return tuple(shape)

    def tokens(self, rows: Tensor, region: Sequence[int] | None = None) -> Tensor:
        """Codes (N, k) of rows as (k, ...), a plane of the tensor's positions for each code."""
        return rows.T.reshape(rows.shape[1], *self.positions(region)).contiguous()
