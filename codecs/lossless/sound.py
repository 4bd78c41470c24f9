"""Sound to chunks and back: one or two channels, a few seconds each, coded on their own.

The parameters of a stream are

    version u8 | effort u8 | log2 of the samples of a chunk u8

and a chunk is

    kind u8 | CRC-32 of its samples u32 | what follows by kind
    0  the samples themselves, channel by channel, least significant byte first
    1  form u8 | amount i16 (`integers`) | flags u8 | scale u8 | zero bits below each channel u8 each | lowest and
       highest number i32, i32 | length of the rest u32 | values, where flags say so (`values`) | rest | decisions
    flags: 1 both channels are alike; 2 only the listed values occur

so that no chunk is more than five bytes longer than its samples.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from ...entropy.adaptive import check_end, finished, reader, writer
from ...entropy.errors import FormatError
from . import integers, waves
from .effort import CASCADES
from .values import Values, damaged

VERSION = 1
SECONDS = 4  # a chunk lasts so long at least
SHORTEST, LONGEST = 10, 22  # log2 of its samples
RAW, CODED = 0, 1
_LIKE, _LISTED = 1, 2
_HEAD = struct.Struct("<BI")
_CODED = struct.Struct("<BhBB")
_RANGE = struct.Struct("<iiI")
_MANY = 4  # samples for each value that could be, from which on it is looked whether it occurs
_LIMIT = 255


def pack(effort: int, rate: int) -> bytes:
    """Parameters of a stream."""
    log = (SECONDS * rate - 1).bit_length()
    return bytes([VERSION, effort, min(max(log, SHORTEST), LONGEST)])


def unpack(params: bytes) -> tuple[int, int]:
    """Effort, and samples of a chunk; FormatError where `pack` writes no such parameters."""
    if len(params) != 3 or params[0] != VERSION:
        raise damaged("of an unknown version; the file may need a newer latentzip")
    if params[1] not in CASCADES or not SHORTEST <= params[2] <= LONGEST:
        raise damaged("out of range")
    return params[1], 1 << params[2]


def _bytes(x: np.ndarray) -> bytes:
    return np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()


def encode_chunk(x: np.ndarray, effort: int) -> bytes:
    """Samples (1 or 2, n) of one of `integers.DTYPES`."""
    raw = _bytes(x)
    coded = _encode(x, effort)
    if coded is None or len(coded) >= len(raw):
        return _HEAD.pack(RAW, zlib.crc32(raw)) + raw
    return _HEAD.pack(CODED, zlib.crc32(raw)) + coded


def decode_chunk(data: bytes, channels: int, samples: int, dtype: np.dtype, effort: int) -> np.ndarray:
    """The inverse: (channels, samples) of a dtype; FormatError where the chunk is not what `encode_chunk` writes."""
    if len(data) < _HEAD.size or data[0] not in (RAW, CODED):
        raise FormatError("lossless: a chunk is corrupt, or of another coding")
    kind, check = _HEAD.unpack(data[: _HEAD.size])
    body = data[_HEAD.size :]
    if kind == CODED:
        x = _decode(body, channels, samples, dtype, effort)
    else:
        if len(body) != channels * samples * dtype.itemsize:
            raise FormatError(f"lossless: {len(body)} bytes do not make {channels} x {samples} samples of {dtype}")
        x = np.frombuffer(body, dtype.newbyteorder("<")).astype(dtype).reshape(channels, samples)
    if zlib.crc32(_bytes(x)) != check:
        raise FormatError("lossless: the samples of a chunk are not those that were coded: it is corrupt")
    return x


def _encode(x: np.ndarray, effort: int) -> bytes | None:
    """None where it would take far more bytes than the samples themselves."""
    parts = integers.split(x)
    like = len(x) == 2 and np.array_equal(parts.numbers[0], parts.numbers[1])
    numbers = parts.numbers[:1] if like else parts.numbers
    shifts = [integers.trailing(row) for row in numbers]
    numbers = numbers >> np.array(shifts, np.int32)[:, None]
    low, high = int(numbers.min()), int(numbers.max())
    listed = _listed(numbers, low, high)
    flags, table = _LIKE * like, b""
    if listed is not None:
        flags, table = flags | _LISTED, listed.pack()
        numbers, first, last = listed.ranks(numbers - low), 0, listed.top
    else:
        first, last = low, high
    scale = _scale(numbers)
    head = _CODED.pack(parts.form, parts.amount, flags, scale) + bytes(shifts)
    head += _RANGE.pack(low, high, len(parts.rest)) + table + parts.rest
    if first == last:
        return head
    x = np.zeros((len(numbers), waves.FRONT + numbers.shape[1]), np.int32)
    x[:, waves.FRONT :] = numbers
    coder, words = writer(3 * numbers.size + 4 * waves.ROOM)
    if _run(coder, words, x.reshape(-1), numbers.shape, effort, (first, last), scale):
        return None
    return head + finished(coder, words)


def _decode(data: bytes, channels: int, samples: int, dtype: np.dtype, effort: int) -> np.ndarray:
    if len(data) < _CODED.size:
        raise damaged("cut short")
    form, amount, flags, scale = _CODED.unpack(data[: _CODED.size])
    coded = 1 if flags & _LIKE else channels
    at = _CODED.size + coded
    if len(data) < at + _RANGE.size or flags > 3 or scale > 16:
        raise damaged("cut short")
    shifts = list(data[_CODED.size : at])
    low, high, size = _RANGE.unpack(data[at : at + _RANGE.size])
    top = 1 << (integers.BITS - 1)
    if not -top <= low <= high <= top - 1 or max(shifts) > integers.BITS:
        raise damaged("out of range")
    body, first, last, listed = data[at + _RANGE.size :], low, high, None
    if flags & _LISTED:
        listed, body = Values.read(body, high - low)
        first, last = 0, listed.top
    if size > len(body):
        raise damaged("cut short")
    x = np.zeros((coded, waves.FRONT + samples), np.int32)
    rest, body = body[:size], body[size:]
    if first == last:
        x += np.int32(first)
        if body:
            raise FormatError("lossless: a chunk goes on after its last sample: it is corrupt")
    else:
        coder, words = reader(body)
        if _run(coder, words, x.reshape(-1), (coded, samples), effort, (first, last), scale):
            raise FormatError("lossless: a chunk is corrupt, or of another coding")
        check_end(coder, words)
    numbers = x[:, waves.FRONT :]
    if listed is not None:
        numbers = (listed.samples(numbers) + low).astype(np.int32)
    numbers = numbers.astype(np.int64) << np.array(shifts)[:, None]
    if numbers.min() < -top or numbers.max() >= top:
        raise damaged("out of range")
    numbers = numbers.astype(np.int32)
    if coded < channels:
        numbers = np.repeat(numbers, channels, 0)
    return integers.join(numbers, form, amount, rest, dtype)


def _run(coder: Any, words: Any, x: np.ndarray, size: Any, effort: int, limits: tuple[int, int], scale: int) -> int:
    cascade, channels = CASCADES[effort], size[0]
    return waves.code_wave(
        coder, words, x, size, waves.lags_of(cascade, channels), cascade.log_block, np.array(cascade.keeps),
        cascade.belief, np.array(cascade.stages, np.int64), np.array(cascade.speeds, np.int64),
        waves.memory_of(cascade, channels, size[1]), limits, scale, cascade.counters, _LIMIT,
    )  # fmt: skip


def _listed(numbers: np.ndarray, low: int, high: int) -> Values | None:
    """The values that occur, where many between them do not, as after a change of level."""
    span = high - low + 1
    if span > 1 << 16 or numbers.size < _MANY * span or span < 8:
        return None
    used = np.bincount((numbers - low).reshape(-1), minlength=span) > 0
    inner = used[span // 2 - span // 8 : span // 2 + span // 8]
    if np.count_nonzero(used) * 2 > span or np.count_nonzero(inner) * 4 > 3 * inner.size:
        return None
    return Values.of(numbers - low)


def _scale(numbers: np.ndarray) -> int:
    """Low bits that the filters need not see: magnitudes of about 2**11 are left to them."""
    rough = np.diff(numbers[:, :65536].astype(np.int64), 2)
    mean = int(np.abs(rough).mean()) if rough.size else 0
    return min(max((mean << waves.POINT).bit_length() - 14, 0), 16)
