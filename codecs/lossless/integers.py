"""Samples of any type as integers of at most 25 bits, and what these leave: (T,) arrays there and back.

Forms, as they stand in streams:

    0  integers as they are: int16, int24 in int32, int32 that need no more; uint8 less 128
    1  integers of more bits: the upper ones, the `amount` low bits of each remain
    2  float32 as whole multiples of 2**-amount, rounded towards zero; what remains of a sample whose multiple has n
       bits are the low 24 - n bits of its mantissa. A multiple of zero stands for zero, or for a sample whose 32
       bits are listed: tiny ones, -0, NaN with any payload, infinite ones
    3  float32 that are integers divided by DIVISORS[amount]
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from .values import damaged, inflated

PLAIN, WIDE, FLOAT, DIVIDED = range(4)
BITS = 25  # of an integer, sign included
DIVISORS = (32767, 8388607)
DTYPES = ("uint8", "int16", "int32", "float32")
_MANTISSA = 24


@dataclass(frozen=True)
class Integers:
    """Samples as integers.

    Attributes:
        numbers: int32, of at most 25 bits.
        form, amount: see the module's text.
        rest: what the numbers leave, packed.
    """

    numbers: np.ndarray
    form: int
    amount: int = 0
    rest: bytes = b""


def split(x: np.ndarray) -> Integers:
    """Samples (C, T) of one of DTYPES as integers."""
    if x.dtype == np.float32:
        return _divided(x) or _float(x)
    wide = x.astype(np.int64) - (128 if x.dtype == np.uint8 else 0)
    top = max(int(wide.max(initial=0)), -1 - int(wide.min(initial=0)))
    more = top.bit_length() + 1 - BITS
    low = trailing(wide)
    if more <= 0:
        return Integers(wide.astype(np.int32), PLAIN)
    if more <= low:
        return Integers((wide >> low).astype(np.int32), WIDE, low)
    rest = (wide & ((1 << more) - 1)).reshape(-1)
    return Integers((wide >> more).astype(np.int32), WIDE, more, _packed(rest, np.full(rest.size, more)))


def join(numbers: np.ndarray, form: int, amount: int, rest: bytes, dtype: np.dtype) -> np.ndarray:
    """The inverse of `split`; FormatError where the parts do not fit each other."""
    if (dtype == np.float32) != (form in (FLOAT, DIVIDED)) or form > DIVIDED:
        raise damaged("a form of numbers that samples of this type do not have")
    if form == FLOAT:
        return _unfloat(numbers, amount, rest)
    if form == DIVIDED:
        if not 0 <= amount < len(DIVISORS) or rest:
            raise damaged("out of range")
        return numbers.astype(np.float32) / np.float32(DIVISORS[amount])
    wide = numbers.astype(np.int64)
    if form == WIDE:
        if not 0 < amount < 32:
            raise damaged("out of range")
        wide <<= amount
        if rest:
            wide += _unpacked(rest, np.full(wide.size, amount)).reshape(wide.shape)
    elif amount or rest:
        raise damaged("out of range")
    wide += 128 if dtype == np.uint8 else 0
    limits = np.iinfo(dtype)
    if wide.size and (wide.min() < limits.min or wide.max() > limits.max):
        raise damaged("samples that their type cannot hold")
    return wide.astype(dtype)


def trailing(x: np.ndarray) -> int:
    """How many low bits of all integers are zero; 0 where all are."""
    either = int(np.bitwise_or.reduce(x, axis=None))
    return (either & -either).bit_length() - 1 if either else 0


# --- floats ------------------------------------------------------------------------------------------------------


def _divided(x: np.ndarray) -> Integers | None:
    """Floats that were made of integers by a division."""
    if not np.isfinite(x).all():
        return None
    for i, divisor in enumerate(DIVISORS):
        rounded = np.rint(x.astype(np.float64) * divisor)
        if np.abs(rounded).max(initial=0) >= 1 << (BITS - 1):
            continue
        numbers = rounded.astype(np.int32)
        back = numbers.astype(np.float32) / np.float32(divisor)
        if np.array_equal(back.view(np.uint32), x.view(np.uint32)):
            return Integers(numbers, DIVIDED, i)
    return None


def _float(x: np.ndarray) -> Integers:
    bits = np.ascontiguousarray(x).view(np.uint32)
    exponent = ((bits >> np.uint32(23)) & np.uint32(255)).astype(np.int32) - 127
    normal = (exponent > -127) & (exponent < 128)
    amount = _MANTISSA - 1 - int(exponent[normal].max(initial=-126))
    drop = _MANTISSA - 1 - exponent - amount  # bits of the mantissa below the multiple
    kept = normal & (drop < _MANTISSA)
    mantissa = ((bits & np.uint32(0x7FFFFF)) | np.uint32(0x800000)).astype(np.int32)
    drop = np.where(kept, drop, 0)
    size = np.where(kept, mantissa >> drop, 0)
    numbers = np.where(bits >> np.uint32(31) != 0, -size, size)
    low = np.where(kept, mantissa & ((1 << drop) - 1), 0)
    zero = ~kept
    listed = zero & (bits != 0)
    rest = b""
    if listed.any() or low.any():
        flags = zlib.compress(np.packbits(listed[zero]).tobytes(), 6) if listed.any() else b""
        raw = zlib.compress(bits[listed].astype("<u4").tobytes(), 6) if listed.any() else b""
        rest = struct.pack("<II", len(flags), len(raw)) + flags + raw
        rest += _packed(low[kept].astype(np.int64), drop[kept]) if low.any() else b""
    return Integers(numbers, FLOAT, amount, rest)


def _unfloat(numbers: np.ndarray, amount: int, rest: bytes) -> np.ndarray:
    size = np.abs(numbers.astype(np.int64))
    length = np.frexp(size.astype(np.float64))[1].astype(np.int64)  # bits of each
    drop = _MANTISSA - length
    exponent = _MANTISSA - 1 - amount - drop
    kept = size > 0
    if (kept & ((drop < 0) | (exponent < -126) | (exponent > 127))).any():
        raise damaged("floats that do not exist")
    mantissa = np.where(kept, size << np.where(kept, drop, 0), 0)
    bits = np.where(kept, (exponent + 127) << 23 | (mantissa & 0x7FFFFF) | (numbers < 0).astype(np.int64) << 31, 0)
    if rest:
        if len(rest) < 8:
            raise damaged("cut short")
        flags, raw = struct.unpack("<II", rest[:8])
        low = rest[8 + flags + raw :]
        if flags:
            places = (~kept).reshape(-1).nonzero()[0]
            listed = np.unpackbits(np.frombuffer(inflated(rest[8 : 8 + flags], places.size // 8 + 1), np.uint8))
            places = places[: listed.size][listed[: places.size] != 0]
            words = inflated(rest[8 + flags : 8 + flags + raw], 4 * places.size)
            if len(words) != 4 * places.size:
                raise damaged("cut short")
            bits.reshape(-1)[places] = np.frombuffer(words, "<u4")
        if low:
            bits[kept] |= _unpacked(low, drop[kept])
    return bits.astype(np.uint32).view(np.float32)


# --- bits of several lengths ---------------------------------------------------------------------------------------


def _packed(values: np.ndarray, lengths: np.ndarray) -> bytes:
    """Low bits of each value, those of one length after the other, deflated where that is shorter."""
    parts = []
    for n in range(1, 32):
        those = values[lengths == n]
        if those.size:
            columns = (those[:, None] >> np.arange(n - 1, -1, -1)) & 1
            parts.append(np.packbits(columns.astype(np.uint8).reshape(-1)).tobytes())
    data = b"".join(parts)
    small = zlib.compress(data, 6)
    return b"\1" + small if len(small) < len(data) else b"\0" + data


def _unpacked(data: bytes, lengths: np.ndarray) -> np.ndarray:
    """The inverse of `_packed`."""
    counts = np.bincount(lengths, minlength=32)
    sizes = [(int(counts[n]) * n + 7) // 8 for n in range(1, 32)]
    body = inflated(data[1:], sum(sizes)) if data[:1] == b"\1" else data[1:]
    if len(body) != sum(sizes) or data[:1] not in (b"\0", b"\1"):
        raise damaged("cut short")
    values, at = np.zeros(lengths.size, np.int64), 0
    for n, size in enumerate(sizes, 1):
        if size:
            count = int(counts[n])
            bits = np.unpackbits(np.frombuffer(body, np.uint8, size, at), count=count * n).reshape(count, n)
            values[lengths == n] = bits.astype(np.int64) @ (1 << np.arange(n - 1, -1, -1, dtype=np.int64))
            at += size
    return values
