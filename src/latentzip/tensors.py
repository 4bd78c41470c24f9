"""Tensors: what users hand in for the `features` codec, and what they get back; pictures have their own way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from .codecs.bottleneck.codec import EntropicBottleneck
from .codecs.features.codec import FeatureCodec
from .codecs.registry import WEIGHTLESS
from .entropy import container
from .entropy.container import Container
from .entropy.errors import FormatError, InputError, UnsupportedError
from .npy import read_npy

_ELSEWHERE = {
    "kv-cache": "the stream is a KV cache: decode it with KVCacheCodec.load(PROFILE).decode(blob)",
    "embeddings": "the file is a store of embeddings: read it with latentzip.data.EmbeddingStore(path)",
}


def codes_tensors(codec: Any) -> bool:
    """Whether a codec, or the one of this name, takes tensors rather than pictures."""
    return codec in WEIGHTLESS if isinstance(codec, str) else isinstance(codec, FeatureCodec)


def read_array(path: str | os.PathLike[str] | BinaryIO) -> np.ndarray:
    """The array of a ``.npy`` file; raises InputError when it is none."""
    name = "stdin"
    if isinstance(path, (str, os.PathLike)):
        from .tensor_files import SUFFIXES, refuse_pickle

        name = os.fspath(path)
        refuse_pickle(name)
        if name.lower().endswith(SUFFIXES):
            raise InputError(f"{name} holds several tensors: codec-cli encode -c features makes an archive of them")
        with open(path, "rb") as file:
            return read_npy(file, name)
    return read_npy(path, name)


def encode(x: Any, codec: FeatureCodec, options: dict[str, Any]) -> Any:
    """One tensor, array or ``.npy`` path to a stream; a list or tuple of them to a list of streams."""
    if isinstance(x, (list, tuple)):
        if not x:
            raise InputError("the batch is empty")
        return [encode(item, codec, options) for item in x]
    if isinstance(x, (str, os.PathLike)):
        x = read_array(Path(x))
    return codec.encode(x, **options)


def encode_inputs(x: Any, codec: EntropicBottleneck, quality: float | None) -> Any:
    """What a bottleneck takes, (C, H, W) or a batch of them, to a stream or a list of streams."""
    if not isinstance(x, Tensor) or x.ndim not in (3, 4):
        what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{codec.name} takes a float tensor (C, H, W) or (B, C, H, W), not {what}")
    streams = codec.encode(x if x.ndim == 4 else x[None], quality)
    return streams if x.ndim == 4 else streams[0]


def decode(
    stream: Container, codec: Any, device: str, to: str, region: Sequence[int] | None, channels: int | None
) -> Any:
    """What `latentzip.decode` returns for a stream of a tensor; codec is a profile's, a bottleneck, or None."""
    header = stream.header
    if isinstance(codec, EntropicBottleneck):
        if region is not None or channels is not None or to == "pil":
            raise InputError(f"{codec.name} decodes whole features: leave region and channels out, and to='pil'")
        y = codec.decompress(header, stream.chunks, to="latent" if to == "latent" else "signal")
        return to_numpy(y) if to == "numpy" else y
    if header.codec != FeatureCodec.name:
        raise UnsupportedError(
            _ELSEWHERE.get(
                header.codec,
                f"the stream claims tensor signals of {header.codec!r}, no codec of tensors that is known here; "
                "a bottleneck's stream needs its weights: codec=load_codec(PATH)",
            )
        )
    if codec is not None and not isinstance(codec, FeatureCodec):
        raise UnsupportedError(
            f"the stream was made by {header.codec}; {getattr(codec, 'name', codec)!r} cannot decode it"
        )
    if header.kind == "pil" or header.mode:
        raise FormatError("a stream of a tensor claims to be of a picture: it is corrupt")
    if to == "pil":
        raise InputError("a tensor is no picture: to is one of signal, numpy, tensor, latent")
    if region is not None and len(region) != 2:
        raise InputError(f"region is {tuple(region)}; of tensors it is (start, stop) along the first axis")
    codec = (codec or FeatureCodec()).to(device)
    options: dict[str, Any] = {"channels": channels, "region": region}
    y = codec.decompress(header, stream.chunks, to="latent" if to == "latent" else "signal", **options)
    return to_numpy(y) if to == "numpy" or (to == "signal" and header.kind == "numpy") else y


def to_numpy(y: Tensor) -> np.ndarray:
    """As an array; bfloat16, which numpy does not have, as float32."""
    y = y.cpu()
    return (y if str(y.dtype) != "torch.bfloat16" else y.float()).numpy()


def is_tensor(header: container.Header) -> bool:
    """Whether a stream holds a tensor."""
    return header.modality == "tensor"
