"""The verbs of tensors (`signals.coding.Coding`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from ...codecs.contract import BATCH, AnyCodec
from ...codecs.features.codec import FeatureCodec
from ...entropy.container import Container
from ...entropy.errors import InputError
from ...warn import converted
from .. import coding
from ..coding import About, Progress, Wanted, integers, refuse_span, refuse_tokens
from . import objects


def holds(x: Any) -> bool:
    """Nothing is for certain: arrays are pictures, until a codec of tensors is named."""
    return False


def parts(x: Any, codec: AnyCodec) -> Any:
    """Of a list or a tuple; codecs that code in batches take theirs as one tensor."""
    return x if isinstance(x, (list, tuple)) and BATCH not in codec.capabilities else None


def refuse(about: About, target: str, codec: AnyCodec) -> None:
    """Tensors have neither a range nor targets."""
    if about.value_range is not None:
        raise InputError("value_range is for pictures; tensors are coded in their own range")
    if target:
        raise InputError(f"{target} is for pictures and sound; {codec.name} codes tensors")


def ready(x: Any, codec: AnyCodec, about: About) -> coding.Ready:
    """One tensor, array, `.npy` path or open file; of a codec that codes in batches also (B, C, H, W)."""
    return _Ready(x, codec)


class _Ready(coding.Ready):
    def __init__(self, x: Any, codec: AnyCodec) -> None:
        self.x, self.codec = x, codec

    def encode(self, options: dict[str, Any]) -> Any:
        return objects.encode(self.x, self.codec, options)


def decode(stream: Container, wanted: Wanted) -> Any:
    """A tensor or an array, or the integers."""
    refuse_span(wanted)
    if stream.header.codec != FeatureCodec.name:
        refuse_tokens(wanted, stream.header.codec)
    return objects.decode(stream, wanted.codec, wanted.device, wanted.to, wanted.region, wanted.channels)


def array(stream: Container, wanted: Wanted) -> np.ndarray:
    """The values, or the integers."""
    if stream.header.dtype == "bfloat16":
        converted("bfloat16 values are written as float32: .npy has no bfloat16")
    if wanted.to in ("latent", "tokens"):
        return integers(decode(stream, wanted), wanted)
    return decode(stream, replace(wanted, to="numpy"))


def write(stream: Container, out: BinaryIO, suffix: str, wanted: Wanted, progress: Progress | None = None) -> None:
    """Arrays only, which `array` makes."""
    raise InputError(f"a tensor is written as .npy, not {suffix}")


def verify(stream: Container) -> None:
    """The integers."""
    decode(stream, Wanted("latent"))
