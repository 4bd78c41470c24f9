"""One layer of one segment of tokens as bytes, and back: components in order, or the numbers as they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import FormatError, InputError
from ...entropy.numbers import whole
from ..features import blocks, profiled
from ..features import lossless as lossless_
from ..features.decoder import floats_of
from ..features.layout import DTYPES, TORCH, bits_of
from ..features.profile import Profile
from .layout import Pair, heads_of, rows_of
from .profile import KVProfile, unit_rows

CODED, EXACT, HALF = 0, 1, 2  # a chunk's first byte; the numbers stand in streams
_HUGE = 1e30  # float32 arithmetic is safe for magnitudes below


def encode(profile: KVProfile, layer: int, keys: Tensor, values: Tensor, start: int) -> bytes:
    """Code keys and values (B, H, T, d) of tokens from `start` on; what is not finite is kept bit by bit."""
    rows = rows_of(keys, values)
    if not bool((rows.abs() < _HUGE).all()):
        return exact(keys, values)
    if profile.upright[layer]:
        assert profile.rotary is not None
        keys = profile.rotary.turn(keys, start, back=True)
    step = float(np.float32(profile.steps[layer]))
    groups = zip(_units(profile, layer), unit_rows(keys.float(), values.float(), profile.groups))
    parts = [profiled.encode(unit, step, x) for unit, x in groups]
    return bytes([CODED]) + blocks.join(None, *parts)


def exact(keys: Tensor, values: Tensor, half: bool = False) -> bytes:
    """Keep every bit; with `half` of float32 what float16 keeps, where its range suffices."""
    rows = rows_of(keys, values)
    mode = EXACT
    if half and rows.dtype == torch.float32 and bool((rows.abs() <= torch.finfo(torch.float16).max).all()):
        mode, rows = HALF, rows.half()
    return bytes([mode]) + lossless_.encode(bits_of(rows), DTYPES[rows.dtype])


def decode(
    profile: KVProfile, layer: int, step: float, data: bytes, tokens: tuple[int, int], batch: int, dtype: torch.dtype,
    components: int | None = None,
) -> Pair:  # fmt: skip
    """Inverse of `encode` and `exact`: keys and values of tokens (start, stop).

    Args:
        step: that the stream carries for this layer.
        components: of each unit; the others count as zero.

    Raises:
        FormatError: the chunk is corrupt.
    """
    g, (start, stop) = profile.geometry, tokens
    count = batch * (stop - start)
    mode, data = data[:1], data[1:]
    if mode in (bytes([EXACT]), bytes([HALF])):
        name = DTYPES[dtype] if mode[0] == EXACT else "float16"
        rows = floats_of(lossless_.decode(data, (count, g.width), name), TORCH[name])
        keys, values = heads_of(rows, batch, g.heads, g.key_dim)
        return keys.to(dtype), values.to(dtype)
    if mode != bytes([CODED]):
        raise FormatError("a chunk of a KV cache begins with an unknown number: the stream is corrupt")
    heads = g.heads // profile.groups
    keys, values = [], []
    for unit, part in zip(_units(profile, layer), _split(data, profile.groups)):
        x = profiled.decode(unit, step, part, count, components)
        k, v = heads_of(x, batch, heads, g.key_dim)
        keys.append(k)
        values.append(v)
    whole = torch.cat(keys, 1)
    if profile.upright[layer]:
        assert profile.rotary is not None
        whole = profile.rotary.turn(whole, start)
    limit = torch.finfo(dtype).max
    return whole.clamp(-limit, limit).to(dtype), torch.cat(values, 1).clamp(-limit, limit).to(dtype)


def shorten(profile: KVProfile, layer: int, step: float, data: bytes, count: int, components: int) -> bytes:
    """A coded chunk with the first components only; chunks kept exactly stay as they are."""
    if data[:1] != bytes([CODED]):
        return data
    units = zip(_units(profile, layer), _split(data[1:], profile.groups))
    parts = [profiled.shorten(unit, step, part, count, components) for unit, part in units]
    return bytes([CODED]) + blocks.join(None, *parts)


def checked_components(profile: KVProfile, components: int | None) -> int | None:
    """Raises InputError where a unit has fewer."""
    components = None if components is None else whole("components", components)
    most = max(len(unit.basis) for unit in profile.units)
    if components is not None and not 1 <= components <= most:
        raise InputError(f"components is {components}; a layer has {most}, the first ones matter most")
    return components


def _split(data: bytes, parts: int) -> list[bytes]:
    return blocks.split(data, parts, 0, 1)[1]


def _units(profile: KVProfile, layer: int) -> tuple[Profile, ...]:
    return profile.units[layer * profile.groups : (layer + 1) * profile.groups]
