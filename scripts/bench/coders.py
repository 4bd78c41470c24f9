"""Coders of float tensors that the benchmark of features compares: ours, integers, float16, and ready libraries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import latentzip as lz


class Coder(NamedTuple):
    """encode(x, parameter) -> (bytes, whatever decode needs); a larger parameter means a larger error."""

    name: str
    encode: Callable[[np.ndarray, float], Any]
    decode: Callable[[Any], np.ndarray]
    size: Callable[[Any], int]
    fixed: bool = False


def ours(codec: Any, name: str, scale: float = 1.0) -> Coder:
    """`scale` turns NMSE about channel means into NMSE about the tensor's own."""
    known = codec if isinstance(codec, lz.FeatureCodec) else None
    return Coder(
        name, lambda x, p: lz.encode(x, codec=codec, nmse=p * scale), lambda b: lz.decode(b, codec=known), len, True
    )


def _zstd(level: int = 3) -> Any:
    import zstandard

    return zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()


def _int_steps() -> Coder:
    """A step for each channel in proportion to its deviation, bytes (or 16 bits), zstd."""
    pack, unpack = _zstd()

    def encode(x: np.ndarray, p: float) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        scale = np.maximum((rows.std(0) * p).astype(np.float16), np.float16(6e-8)).astype(np.float32)
        q = np.rint(rows / scale)
        q = q.astype(np.int8 if np.abs(q).max() < 128 else np.int16)
        return pack.compress(q.tobytes()) + scale.astype(np.float16).tobytes(), q.dtype, scale, x.shape

    def decode(coded: Any) -> np.ndarray:
        data, dtype, scale, shape = coded
        q = np.frombuffer(unpack.decompress(data[: -2 * scale.size]), dtype).reshape(-1, scale.size)
        return (q * scale).reshape(shape)

    return Coder("int + zstd, a step a channel", encode, decode, lambda c: len(c[0]))


def int_token(bits: int) -> Coder:
    """Symmetric integers of so many bits, a float16 scale a token, zstd."""
    pack, unpack = _zstd()
    top = (1 << bits - 1) - 1

    def encode(x: np.ndarray, _: float) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        scale = np.maximum((np.abs(rows).max(1, keepdims=True) / top).astype(np.float16), np.float16(6e-8))
        q = np.clip(np.rint(rows / scale.astype(np.float32)), -top, top).astype(np.int8)
        packed = q if bits == 8 else ((q.reshape(-1)[::2] & 15) | (q.reshape(-1)[1::2] << 4)).astype(np.int8)
        return pack.compress(packed.tobytes() + scale.tobytes()), q, scale, x.shape

    def decode(coded: Any) -> np.ndarray:
        unpack.decompress(coded[0])
        return (coded[1] * coded[2].astype(np.float32)).reshape(coded[3])

    return Coder(f"int{bits} + zstd, a scale a token", encode, decode, lambda c: len(c[0]), True)


def _half() -> Coder:
    pack, unpack = _zstd()
    return Coder(
        "float16 + zstd",
        lambda x, _: (pack.compress(x.astype(np.float16).tobytes()), x.shape),
        lambda c: np.frombuffer(unpack.decompress(c[0]), np.float16).reshape(c[1]).astype(np.float32),
        lambda c: len(c[0]),
        True,
    )


def _zfp() -> Coder:
    zfpy = import_module("zfpy")
    return Coder(
        "zfp, fixed accuracy",
        lambda x, p: zfpy.compress_numpy(np.ascontiguousarray(x.reshape(-1, x.shape[-1])), tolerance=p),
        lambda b: zfpy.decompress_numpy(b),
        len,
    )


def _sz3() -> Coder:
    pysz = import_module("pysz")

    def encode(x: np.ndarray, p: float) -> Any:
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]))
        coded = []
        for algorithm in (pysz.szAlgorithm.INTERP_LORENZO, pysz.szAlgorithm.NOPRED):  # the better ones on features
            config = pysz.szConfig()
            config.cmprAlgo, config.errorBoundMode, config.absErrorBound = algorithm, pysz.szErrorBoundMode.ABS, p
            coded.append(pysz.sz.compress(rows, config)[0])
        return min(coded, key=len), rows.shape

    return Coder("SZ3", encode, lambda c: pysz.sz.decompress(c[0], np.float32, c[1])[0], lambda c: int(c[0].nbytes))


def _blosc() -> Coder:
    blosc2 = import_module("blosc2")

    def encode(x: np.ndarray, p: float) -> Any:
        options = {
            "codec": blosc2.Codec.ZSTD, "clevel": 5, "typesize": 4, "filters_meta": [max(1, round(23 - p)), 0],
            "filters": [blosc2.Filter.TRUNC_PREC, blosc2.Filter.BITSHUFFLE],
        }  # fmt: skip
        return blosc2.compress2(np.ascontiguousarray(x), **options), x.shape

    return Coder(
        "blosc2, truncated, bitshuffle + zstd",
        encode,
        lambda c: np.frombuffer(blosc2.decompress2(c[0]), np.float32).reshape(c[1]),
        lambda c: len(c[0]),
    )


@cache
def peers() -> tuple[list[Coder], list[str]]:
    """Coders that can be imported, and a word on each of those that cannot."""
    found, missing = [], []
    for make in (_half, lambda: int_token(8), lambda: int_token(4), _int_steps, _zfp, _sz3, _blosc):
        try:
            found.append(make())
        except ImportError as error:
            missing.append(str(error))
    return found, missing
