"""What people do with tensors before they think of a codec: narrower numbers, and general-purpose compression."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlainTensor:
    """A way to store floats; `decode` takes the shape from the original, as any file would have it."""

    name: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, tuple[int, ...]], np.ndarray]


def _int8(x: np.ndarray) -> bytes:
    largest = float(np.abs(x).max()) or 1.0
    return struct.pack("<f", largest) + np.round(x.astype(np.float32) * (127 / largest)).astype(np.int8).tobytes()


def _from_int8(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    (largest,) = struct.unpack("<f", data[:4])
    return np.frombuffer(data, np.int8, offset=4).reshape(shape) * np.float32(largest / 127)


def _shuffled(x: np.ndarray) -> bytes:
    """The bytes of a kind together, as the shuffle filters of HDF5 and Blosc do, then deflate."""
    x = np.ascontiguousarray(x)
    return bytes([x.itemsize]) + zlib.compress(x.view(np.uint8).reshape(-1, x.itemsize).T.tobytes(), 6)


def _from_shuffled(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    size = data[0]
    planes = np.frombuffer(zlib.decompress(data[1:]), np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(f"<f{size}").reshape(shape)


CONVENTIONAL_TENSOR = {
    c.name: c
    for c in (
        PlainTensor(
            "float16",
            lambda x: x.astype(np.float16).tobytes(),
            lambda data, shape: np.frombuffer(data, np.float16).reshape(shape),
        ),
        PlainTensor("int8", _int8, _from_int8),
        PlainTensor("deflate", _shuffled, _from_shuffled),
    )
}
