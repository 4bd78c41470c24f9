"""A numcodecs codec: pictures and float tensors as compressor of Zarr version 2 arrays, and wherever numcodecs is used.

    import zarr
    from latentzip.numcodecs import Latentzip

    zarr.create_array(store, shape=(1000, 256, 256, 3), chunks=(1, 256, 256, 3), dtype="uint8", zarr_format=2,
                      compressors=Latentzip(codec="hyperprior-fast", quality=60))

Installing latentzip registers the codec id ``"latentzip"``. Needs numcodecs (``pip install "latentzip[zarr]"``).
"""

from __future__ import annotations

from typing import Any

try:
    from numcodecs.abc import Codec
    from numcodecs.compat import ensure_bytes, ensure_ndarray, ndarray_copy
    from numcodecs.registry import register_codec
except ImportError as error:
    raise ImportError('latentzip.numcodecs needs numcodecs: pip install "latentzip[zarr]"') from error

from .entropy.dense import dense
from .zarr_chunks import ChunkCoder


class Latentzip(Codec):
    """Chunks as `.ltz` streams.

    Args:
        codec: a name of `latentzip.list_codecs`. Codecs for pictures take chunks (H, W), (H, W, C) with C = 1..4, or
            stacks of these (further axes in front; a last axis of 1 to 4 is channels): uint8, uint16, or floats in
            [0, 1]. ``"features"`` takes float16 and float32 chunks of any shape.
        options: ``quality``, ``coding``, ``max_error``, ``relative_error``, ``nmse``, ``bits``, ``lossless``,
            ``nan``, ``transform``, ``axis``: as `latentzip.encode`.

    Raises:
        InputError: in `encode`, for a chunk or an argument that cannot be coded.
        FormatError, UnsupportedError: in `decode`, as `latentzip.decode`.
    """

    codec_id: str | None = "latentzip"

    def __init__(self, **options: Any) -> None:
        self._coder = ChunkCoder(**options)

    def encode(self, buf: Any) -> Any:
        """An array in C order (or a buffer of one) to bytes."""
        return self._coder.encode(ensure_ndarray(dense(buf, "the chunk")))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The array; into ``out`` where it is given."""
        return ndarray_copy(self._coder.decode(ensure_bytes(buf)), out)

    def get_config(self) -> dict[str, Any]:
        """Plain data that `from_config` takes."""
        return {"id": self.codec_id, **self._coder.config()}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._coder.config().items())
        return f"{type(self).__name__}({arguments})"


register_codec(Latentzip)
