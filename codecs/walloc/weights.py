"""Weights files of the WaLLoC codecs, of pictures and of sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...entropy.context.model import ContextModel
from ...entropy.errors import FormatError, InputError
from ...entropy.schema import Check
from .. import storage

C = TypeVar("C", bound=Any)


def bytes_of(codec: Any) -> storage.AsBytes:
    """Convolutions of the decoder network are stored as bytes with a scale for each output channel."""
    axes = 2 + codec.decoder.dims

    def is_byte(key: str, value: Tensor) -> bool:
        return key.startswith("decoder.") and value.ndim == axes and not key.startswith("decoder.linear")

    return is_byte


def round_weights(codec: Any, bits: int = 8) -> None:
    """Set the weights to what storage will keep of them, so that what is measured is what ships.

    Args:
        bits: of the decoder network's convolutions; with fewer than 8 the linear synthesis is kept to half precision,
            too, so that weights pack smaller.
    """
    if bits != 8:
        storage.coarsen_state(codec, bytes_of(codec), bits)
        with torch.no_grad():
            for value in codec.decoder.linear.parameters():
                value.copy_(value.half())
    storage.round_state(codec, bytes_of(codec))


def to_tensors(codec: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. `round_weights` comes first."""
    if codec.context is None:
        raise InputError(f"{codec.name} has no entropy model to store")
    return storage.to_tensors(codec, bytes_of(codec)), storage.metadata(codec, asdict(codec.config))


def read(data: bytes, kind: str, file: str, bounds: Mapping[str, Check], make: Callable[[dict[str, Any], str], C]) -> C:
    """The codec that `to_tensors` described.

    Args:
        kind, file: the family, and its files, in words.
        bounds: of its configuration.
        make: configuration and name -> a codec with weights of its own.

    Raises:
        FormatError: not a weights file of this family.
    """
    weights = storage.read(data)
    config = storage.checked(kind, bounds, weights.config)
    try:
        codec = storage.build(lambda: make(config, weights.name), weights.state, kind)
        codec.context = ContextModel.from_arrays(weights.coding)
    except InputError as error:
        raise FormatError(f"not {file}: {error}") from error
    return codec
