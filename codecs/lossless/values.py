"""Which values samples have: all up to a largest, or those that a bit map lists."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...entropy.errors import FormatError


@dataclass(frozen=True)
class Values:
    """Which values occur: all to `top`, or those listed."""

    top: int
    listed: npt.NDArray[np.int32] | None = None

    @classmethod
    def of(cls, planes_: np.ndarray) -> Values:
        """Of samples from 0 up, not many thousand values."""
        flat = planes_.reshape(-1)
        top = int(flat.max())
        parts = np.array_split(flat, max(1, flat.size >> 20))  # they are widened to be counted
        used = np.sum([np.bincount(part, minlength=top + 1) for part in parts], 0).nonzero()[0]
        if used.size * 2 <= top + 1 and top > 1:
            return cls(used.size - 1, used.astype(np.int32))
        return cls(top)

    def pack(self) -> bytes:
        if self.listed is None:
            return struct.pack("<BH", 0, self.top)
        flags = np.zeros(int(self.listed[-1]) + 1, np.uint8)
        flags[self.listed] = 1
        data = zlib.compress(np.packbits(flags).tobytes(), 9)
        return struct.pack("<BI", 1, len(data)) + data

    @classmethod
    def read(cls, data: bytes, most: int) -> tuple[Values, bytes]:
        """Values, none above `most`, and what follows them."""
        if len(data) >= 3 and data[0] == 0:
            top = int.from_bytes(data[1:3], "little")
            if top > most:
                raise damaged("a value is too large for the samples")
            return cls(top), data[3:]
        if len(data) < 5 or data[0] != 1:
            raise damaged("of an unknown kind")
        size = int.from_bytes(data[1:5], "little")
        flags = np.unpackbits(np.frombuffer(inflated(data[5 : 5 + size], most // 8 + 1), np.uint8))
        used = flags.nonzero()[0]
        if len(data) < 5 + size or used.size == 0 or used[-1] > most:
            raise damaged("values that the samples cannot have")
        return cls(used.size - 1, used.astype(np.int32)), data[5 + size :]

    def hold(self, samples: np.ndarray) -> bool:
        """Whether all samples are among them."""
        return bool(np.isin(samples, self.listed).all() if self.listed is not None else (samples <= self.top).all())

    def ranks(self, samples: np.ndarray) -> npt.NDArray[np.int32]:
        """Samples as they are coded."""
        if self.listed is None:
            return samples.astype(np.int32)
        table = np.zeros(int(self.listed[-1]) + 1, np.int32)
        table[self.listed] = np.arange(self.listed.size)
        return table[samples]

    def samples(self, ranks: np.ndarray) -> np.ndarray:
        """The inverse of `ranks`."""
        return ranks if self.listed is None else self.listed[ranks]


def damaged(what: str) -> FormatError:
    """What is wrong with parameters."""
    return FormatError(f"lossless: codec parameters are {what}")


def inflated(data: bytes, size: int) -> bytes:
    """Deflated bytes, `size` at most."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise FormatError(f"lossless: codec parameters do not decompress: {error}") from error
    if len(out) > size or not stream.eof:
        raise damaged("longer than they can be")
    return out
