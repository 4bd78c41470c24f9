"""A Zarr version 3 codec: pictures and float tensors as chunks of an array.

    import zarr
    from latentzip.zarr import LatentzipCodec

    zarr.create_array(store, shape=(1000, 256, 256, 3), chunks=(1, 256, 256, 3), dtype="uint8",
                      serializer=LatentzipCodec(codec="hyperprior-fast", quality=60), compressors=None)

It turns arrays into bytes, so it takes the place of the serializer; a general compressor after it gains nothing.
Installing latentzip registers the name ``"latentzip"``, which is not part of the Zarr specification: other
implementations do not read these chunks. Needs zarr (``pip install "latentzip[zarr]"``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

try:
    from zarr.abc.codec import ArrayBytesCodec
    from zarr.core.common import parse_named_configuration
    from zarr.registry import register_codec
except ImportError as error:
    raise ImportError('latentzip.zarr needs zarr 3: pip install "latentzip[zarr]"') from error

from .entropy.errors import FormatError
from .zarr_chunks import ChunkCoder

NAME = "latentzip"


@dataclass(frozen=True, init=False)
class LatentzipCodec(ArrayBytesCodec):
    """Chunks as `.ltz` streams.

    Args:
        options: ``codec``, ``quality``, ``coding``, ``max_error``, ``relative_error``, ``nmse``, ``bits``,
            ``lossless``, ``nan``, ``transform``, ``axis``: as `latentzip.encode`. Codecs for pictures take chunks
            (H, W), (H, W, C) with C = 1..4, or stacks of these; ``codec="features"`` takes float16 and float32
            chunks of any shape.

    Raises:
        InputError: when the array is created with a dtype or chunk shape that the codec does not take, and when a
            chunk is written that cannot be coded.
        FormatError, UnsupportedError: when a chunk is read, as `latentzip.decode`.
    """

    coder: ChunkCoder
    is_fixed_size = False

    def __init__(self, **options: Any) -> None:
        object.__setattr__(self, "coder", ChunkCoder(**options))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From the array's metadata."""
        _, options = parse_named_configuration(data, NAME, require_configuration=False)
        return cls(**(options or {}))

    def to_dict(self) -> dict[str, Any]:
        """For the array's metadata."""
        return {"name": NAME, "configuration": self.coder.config()}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays whose chunks can never be encoded; Zarr calls this when an array is created or opened."""
        self.coder.check(dtype.to_native_dtype(), tuple(getattr(chunk_grid, "chunk_shape", shape)))

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        chunk = np.ascontiguousarray(chunk_data.as_numpy_array()).reshape(chunk_spec.shape)
        blob = await asyncio.to_thread(self.coder.encode, chunk)
        return chunk_spec.prototype.buffer.from_bytes(blob)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        chunk = await asyncio.to_thread(self.coder.decode, chunk_data.to_bytes())
        dtype = chunk_spec.dtype.to_native_dtype()
        if chunk.shape != chunk_spec.shape or chunk.dtype != dtype:
            raise FormatError(
                f"a chunk holds {chunk.dtype}{chunk.shape}; the array's metadata says {dtype}{chunk_spec.shape}"
            )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Unknown before encoding: always raises NotImplementedError, as Zarr asks for."""
        raise NotImplementedError("the size of a .ltz stream is not known before it is encoded")


register_codec(NAME, LatentzipCodec)
