"""Chunks of arrays to bytes and back, for `latentzip.numcodecs` and `latentzip.zarr`.

A chunk of one picture, (H, W) or (H, W, C) with C = 1..4, and any chunk for the `features` codec is one `.ltz` stream.
A chunk with further axes in front is a stack of pictures, each a stream of its own:

    stack = "LTZS"  rank:u8  axis:u32 * rank  size:u32 * product of the axes  stream * product of the axes

A chunk of a tensor at the edge of an array, whose far end is padding of one value, is the part before the padding:

    edge = "LTZE"  rank:u8  axis:u32 * rank  axis of the part:u32 * rank  bytes of the value:u8  value  stream

Numbers are little-endian. Streams say what they are made with: decoding needs no configuration.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .codecs.registry import family_of, is_weights, load_codec, owners
from .defaults import DEFAULT_PACK_CODEC
from .entropy import container
from .entropy.errors import FormatError, InputError, LimitError
from .entropy.numbers import plain

STACK, EDGE = b"LTZS", b"LTZE"
MAX_PICTURES = 1 << 20
_CHANNELS = (1, 2, 3, 4)
_PICTURE_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
_TENSOR_DTYPES = ("float16", "float32")


@dataclass(frozen=True, init=False)
class ChunkCoder:
    """How chunks are encoded: a codec's name, or a file of its weights, and options of `latentzip.encode`, plain data
    for JSON.

    Raises:
        TypeError: an option that no codec has.
        InputError: a codec or an option that JSON does not hold.
    """

    codec: str
    options: tuple[tuple[str, Any], ...]

    def __init__(self, codec: str | os.PathLike[str] = DEFAULT_PACK_CODEC, **options: Any) -> None:
        if not isinstance(codec, (str, os.PathLike)):
            raise InputError(f"codec is {codec!r:.60}; arrays keep a name, or the path of a .safetensors file")
        codec = os.fspath(codec)
        given = {k: plain(v) for k, v in options.items() if v is not None}
        if given.get("coding") == "default":
            del given["coding"]
        for name, value in given.items():
            if not isinstance(value, (bool, int, float, str)):
                raise InputError(f"{name} is {value!r:.60}; arrays keep numbers, truths and texts as options")
        strange = [name for name in given if name != "quality" and not owners(name)]
        if strange and family_of(codec) is not None:
            raise TypeError(f"{', '.join(strange)}: no codec has such an option")
        object.__setattr__(self, "codec", codec)
        object.__setattr__(self, "options", tuple(given.items()))

    def config(self) -> dict[str, Any]:
        """The codec, and every argument that was given."""
        return {"codec": self.codec, **dict(self.options)}

    @property
    def _model(self) -> Any:
        """The codec of a file of weights; None of a codec that streams name."""
        return _loaded(self.codec, os.stat(self.codec).st_mtime_ns) if is_weights(self.codec) else None

    @property
    def _tensors(self) -> bool:
        known = self._model or family_of(self.codec)
        return known is not None and known.modality == "tensor"

    def check(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Raises InputError when chunks of this dtype and shape can never be encoded."""
        tensors = self._tensors
        dtypes = _TENSOR_DTYPES if tensors else _PICTURE_DTYPES
        if dtype.name not in dtypes:
            raise InputError(f"codec {self.codec} takes chunks of {', '.join(dtypes)}, not {dtype.name}")
        if not dtype.isnative:
            raise InputError(f"chunks of dtype {dtype.str} are not in this machine's byte order; convert them")
        if tensors and len(shape) > container.MAX_RANK:
            raise InputError(f"chunks of {len(shape)} axes; the codec takes up to {container.MAX_RANK}")
        if not tensors and len(shape) < 2:
            raise InputError(f"a chunk of shape {shape} is no picture: (H, W), (H, W, C) or a stack of these is needed")
        if not tensors and 0 in shape:
            raise InputError(f"a chunk of shape {shape} holds no picture")

    def encode(self, chunk: np.ndarray) -> bytes:
        """One chunk, in C order, to bytes.

        Raises:
            InputError: a chunk or an argument that cannot be coded.
        """
        from .api import encode

        self.check(chunk.dtype, chunk.shape)
        if not chunk.flags.c_contiguous:
            raise InputError("the chunk does not lie in C order; create the array with order='C'")
        options = self.config()
        options["codec"] = self._model or self.codec
        if self._tensors:
            own = _own(chunk)
            if options.get("lossless") or own == chunk.shape:
                return encode(chunk, **options)
            # padding at the edge of an array would count in goals: it is one value, kept as it is
            inside = np.ascontiguousarray(chunk[tuple(map(slice, own))])
            rank, value = chunk.ndim, chunk[(-1,) * chunk.ndim].tobytes()
            head = struct.pack(f"<B{2 * rank}IB", rank, *chunk.shape, *own, len(value))
            return EDGE + head + value + encode(inside, **options)
        inner = 3 if chunk.ndim > 2 and chunk.shape[-1] in _CHANNELS else 2
        front, picture = chunk.shape[: chunk.ndim - inner], chunk.shape[chunk.ndim - inner :]
        if not front:
            return encode(chunk, **options)
        if prod(front) > MAX_PICTURES:
            raise InputError(f"a chunk of {prod(front)} pictures; at most {MAX_PICTURES}")
        streams = [encode(one, **options) for one in chunk.reshape(-1, *picture)]
        sizes = [len(stream) for stream in streams]
        return b"".join([STACK, struct.pack(f"<B{len(front) + len(sizes)}I", len(front), *front, *sizes), *streams])

    def decode(self, data: bytes | bytearray | memoryview) -> np.ndarray:
        """The chunk that `encode` was given: same shape and dtype.

        Raises:
            FormatError, UnsupportedError: as `latentzip.decode`.
            OSError: the file of weights cannot be read.
        """
        return decode_chunk(data, self._model)


@lru_cache(maxsize=4)
def _loaded(path: str, changed: int) -> Any:
    return load_codec(path)


def decode_chunk(data: bytes | bytearray | memoryview, codec: Any = None) -> np.ndarray:
    """The chunk that `ChunkCoder.encode` was given: same shape and dtype.

    Args:
        codec: the one that made it, where no name of it is enough.

    Raises:
        FormatError, UnsupportedError: as `latentzip.decode`.
    """
    from .api import decode

    view = memoryview(data).cast("B")
    if view[: len(EDGE)] == EDGE:
        shape, own, value, at = _edge(view)
        inside = decode(view[at:], "numpy", codec=codec)
        if inside.shape != own or inside.dtype.itemsize != len(value):
            raise FormatError(f"damaged chunk: {inside.dtype}{inside.shape} inside, its header says {own}")
        chunk = np.full(shape, np.frombuffer(value, inside.dtype)[0])
        chunk[tuple(map(slice, own))] = inside
        return chunk
    if view[: len(STACK)] != STACK:
        return decode(view, "numpy", codec=codec)
    front, sizes, at = _stack(view)
    pictures = []
    for size in sizes:
        pictures.append(decode(view[at : at + size], "numpy", codec=codec))
        at += size
    if len({(p.shape, p.dtype) for p in pictures}) > 1:
        raise FormatError("damaged chunk: its pictures differ in shape or dtype")
    return np.stack(pictures).reshape(*front, *pictures[0].shape)


def _own(chunk: np.ndarray) -> tuple[int, ...]:
    """The part of a chunk, from its first corner on, beyond which all values are the last one to the bit."""
    if chunk.size == 0 or chunk.ndim == 0:
        return chunk.shape
    bits = chunk.view(f"u{chunk.dtype.itemsize}")
    own = list(chunk.shape)
    differs = bits != bits[(-1,) * bits.ndim]
    for axis in range(bits.ndim):
        across = differs.any(tuple(i for i in range(bits.ndim) if i != axis))
        if not across[-1]:
            own[axis] = max(1, int(np.flatnonzero(across)[-1]) + 1) if across.any() else 1
    return tuple(own)


def _edge(view: memoryview) -> tuple[tuple[int, ...], tuple[int, ...], bytes, int]:
    """Shape of a chunk, of the part inside its padding, the padding's value, and where the stream begins."""
    rank = view[len(EDGE)] if len(view) > len(EDGE) else 0
    at = len(EDGE) + 1 + 8 * rank
    if not 1 <= rank <= container.MAX_RANK or len(view) < at + 1 or view[at] not in (2, 4):
        raise FormatError("damaged chunk: no header of a padded chunk")
    numbers = struct.unpack_from(f"<{2 * rank}I", view, len(EDGE) + 1)
    shape, own = numbers[:rank], numbers[rank:]
    if any(not 1 <= b <= a for a, b in zip(shape, own)):
        raise FormatError(f"damaged chunk: {own} does not lie in {shape}")
    if prod(shape) > container.DEFAULT_LIMITS.samples:
        raise LimitError(f"a chunk of {prod(shape)} values; the limit is {container.DEFAULT_LIMITS.samples}")
    size = view[at]
    return shape, own, bytes(view[at + 1 : at + 1 + size]), at + 1 + size


def _stack(view: memoryview) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Axes in front, bytes of each stream, and where the first begins."""
    at = len(STACK) + 1
    if len(view) < at:
        raise FormatError("truncated chunk: it ends in its header")
    rank = view[at - 1]
    if rank > container.MAX_RANK or len(view) < at + 4 * rank:
        raise FormatError(f"damaged chunk: a stack with {rank} axes")
    front = struct.unpack_from(f"<{rank}I", view, at)
    at += 4 * rank
    count = prod(front)
    if not rank or not count:
        raise FormatError("damaged chunk: an empty stack")
    if count > MAX_PICTURES:
        raise LimitError(f"a chunk of {count} pictures; the limit is {MAX_PICTURES}")
    if len(view) < at + 4 * count:
        raise FormatError("truncated chunk: it ends in its header")
    sizes = struct.unpack_from(f"<{count}I", view, at)
    at += 4 * count
    if at + sum(sizes) != len(view):
        raise FormatError(f"damaged chunk: {len(view)} bytes where its header asks for {at + sum(sizes)}")
    return front, sizes, at
