"""Tensors: what users hand in for the `features` codec, and what they get back; pictures have their own way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from ...codecs.contract import BATCH, REGION, Compressed, modalities
from ...codecs.features.codec import FeatureCodec, tensor_of
from ...entropy import container
from ...entropy.container import Container, Header
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.numbers import bounds
from ..npy import read_npy
from . import SETS

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")

_ELSEWHERE = {
    "kv-cache": "the stream is a KV cache: decode it with KVCacheCodec.load(PROFILE).decode(blob)",
    "embedding-codes": "the file is a store of codes: read it with latentzip.data.CodeStore(path)",
    "embedding-table": "the file is a table of embeddings: read it with latentzip.data.EmbeddingTable(path)",
    "embeddings": "the file is a store of embeddings: read it with latentzip.data.EmbeddingStore(path)",
}


def refuse_pickle(path: str | os.PathLike[str]) -> None:
    """Raises InputError for files that are pickles: opening one runs what it says."""
    if Path(path).suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which may run any code when it is opened, and is not read; save the tensors with "
            "safetensors.torch.save_file (or numpy.savez) and encode that"
        )


def read_array(path: str | os.PathLike[str] | BinaryIO) -> np.ndarray:
    """The array of a ``.npy`` file; raises InputError when it is none."""
    name = "stdin"
    if isinstance(path, (str, os.PathLike)):
        name = os.fspath(path)
        refuse_pickle(name)
        if name.lower().endswith(SETS):
            raise InputError(f"{name} holds several tensors: codec-cli encode -c features makes an archive of them")
        with open(path, "rb") as file:
            return read_npy(file, name)
    return read_npy(path, name)


def encode(x: Any, codec: Any, options: dict[str, Any]) -> Any:
    """One tensor, array or ``.npy`` path to a stream.

    A codec that codes in batches takes (C, H, W), or (B, C, H, W) as a batch.
    """
    if BATCH in codec.capabilities:
        if not isinstance(x, Tensor) or x.ndim not in (3, 4):
            what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"{codec.name} takes a float tensor (C, H, W) or (B, C, H, W), not {what}")
        batch = codec.compress_batch(x if x.ndim == 4 else x[None], **options)
        streams = [_stream(codec, packed, x, "tensor") for packed in batch]
        return streams if x.ndim == 4 else streams[0]
    if isinstance(x, (str, os.PathLike)):
        x = read_array(Path(x))
    elif hasattr(x, "read"):
        x = read_array(x)
    tensor, kind = tensor_of(x)
    container.write(_header(codec, Compressed(b"", []), tensor, kind), ())  # what `read` would refuse comes first
    return _stream(codec, codec.compress(tensor, **options), tensor, kind)


def _header(codec: Any, packed: Compressed, x: Tensor, kind: Any) -> Header:
    shape = tuple(x.shape) if packed.shape is None else packed.shape
    dtype = str(x.dtype).removeprefix("torch.") if packed.dtype is None else packed.dtype
    return Header(codec.name, codec.fingerprint, "tensor", kind, shape, dtype, params=packed.params)


def _stream(codec: Any, packed: Compressed, x: Tensor, kind: Any) -> bytes:
    return container.write(_header(codec, packed, x, kind), packed.chunks)


def decode(
    stream: Container, codec: Any, device: str, to: str, region: Sequence[int] | None, channels: int | None
) -> Any:
    """What `latentzip.decode` returns for a stream of a tensor; codec is a profile's, a bottleneck, or None."""
    header = stream.header
    if codec is not None and REGION not in codec.capabilities and "tensor" in modalities(codec):
        if region is not None or channels is not None or to == "pil":
            raise InputError(f"{codec.name} decodes whole features: leave region and channels out, and to='pil'")
        y = codec.restore(header, stream.chunks, to="latent" if to == "latent" else "signal")
        return to_numpy(y) if to == "numpy" else y
    if header.codec != FeatureCodec.name:
        raise UnsupportedError(
            _ELSEWHERE.get(
                header.codec,
                f"the stream claims tensor signals of {header.codec!r}, no codec of tensors that is known here; "
                "a bottleneck's stream needs its weights: codec=load_codec(PATH)",
            )
        )
    if codec is not None and codec.name != header.codec:
        raise UnsupportedError(
            f"the stream was made by {header.codec}; {getattr(codec, 'name', codec)!r} cannot decode it"
        )
    if header.kind == "pil" or header.mode:
        raise FormatError("a stream of a tensor claims to be of a picture: it is corrupt")
    if to == "pil":
        raise InputError("a tensor is no picture: to is one of signal, numpy, tensor, latent")
    if region is not None:
        region = bounds("region", region, 2, "of tensors it is (start, stop) along the first axis")
    codec = (codec or FeatureCodec()).to(device)
    part: dict[str, Any] = {"channels": channels, "region": region}
    part = {name: value for name, value in part.items() if value is not None}
    y = codec.restore(header, stream.chunks, to=to if to in ("latent", "tokens") else "signal", **part)
    return to_numpy(y) if to == "numpy" or (to == "signal" and header.kind == "numpy") else y


def to_numpy(y: Tensor) -> np.ndarray:
    """As an array; bfloat16, which numpy does not have, as float32."""
    y = y.cpu()
    return (y if str(y.dtype) != "torch.bfloat16" else y.float()).numpy()
