"""The verbs of sound (`signals.coding.Coding`)."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from ...codecs.contract import TOKENS, AnyCodec
from ...entropy.container import Container
from ...entropy.errors import InputError
from .. import coding
from ..coding import About, Progress, Wanted, integers, refuse_tokens
from ..models import model_for
from . import files, objects


def holds(x: Any) -> bool:
    """A pair (samples, rate), or a file of sound."""
    return files.holds_sound(x) if _is_file(x) else objects.is_sound(x)


def _is_file(x: Any) -> bool:
    return isinstance(x, (str, os.PathLike)) or hasattr(x, "read")


def parts(x: Any, codec: AnyCodec) -> Any:
    """Of a list or a tuple of sounds, or of a pair whose samples have a batch axis."""
    if objects.is_sound(x):
        return objects.split_batch(x)
    return x if isinstance(x, (list, tuple)) else None


def refuse(about: About, target: str, codec: AnyCodec) -> None:
    """Sound has no range."""
    if about.value_range is not None:
        raise InputError("value_range is for pictures; sound has its own level")


def ready(x: Any, codec: AnyCodec, about: About) -> coding.Ready:
    """One pair, path or open file."""
    if objects.is_sound(x):
        return _Pair(x, codec)
    if _is_file(x):
        return _File(x, codec, about)
    raise InputError(
        f"{codec.name} codes sound: hand in a path or a pair (samples, rate), not {type(x).__name__} alone"
    )


class _Pair(coding.Ready):
    def __init__(self, x: Any, model: AnyCodec) -> None:
        self.x, self.model = x, model

    def encode(self, options: dict[str, Any]) -> bytes:
        return objects.encode(self.x, self.model, options)


class _File(coding.Ready):
    """A file is read again for each stream, block by block: it may be longer than memory."""

    def __init__(self, source: Any, model: AnyCodec, about: About) -> None:
        self.source, self.model, self.about = source, model, about

    def encode(self, options: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        self.write(buffer, options)
        return buffer.getvalue()

    def write(self, out: BinaryIO, options: dict[str, Any], progress: Progress | None = None) -> None:
        if hasattr(self.source, "seek"):
            self.source.seek(0)
        files.encode_sound(self.source, out, self.model, options, self.about.metadata, progress, self.about.name)


def decode(stream: Container, wanted: Wanted) -> Any:
    """A pair (samples, rate), or the latent."""
    model = model_for(stream.header, wanted)
    if TOKENS not in model.capabilities:
        refuse_tokens(wanted, model.name)
    if wanted.region is not None or wanted.channels is not None:
        raise InputError("region and channels are for pictures and tensors; sound takes span=(start, stop) in seconds")
    if wanted.to == "tokens":
        return objects.tokens(stream, model, wanted.span)
    return objects.decode(stream, model, wanted.to, wanted.span, wanted.limits)  # type: ignore[arg-type]


def array(stream: Container, wanted: Wanted) -> np.ndarray:
    """Samples (T, C), or the latent."""
    if wanted.to in ("latent", "tokens"):
        return integers(decode(stream, wanted), wanted)
    return decode(stream, replace(wanted, to="numpy")).samples


def write(stream: Container, out: BinaryIO, suffix: str, wanted: Wanted, progress: Progress | None = None) -> None:
    """A sound file, piece by piece."""
    if wanted.region is not None:
        raise InputError("region is for pictures and tensors; sound takes span=(start, stop) in seconds")
    model = model_for(stream.header, wanted)
    files.decode_sound(stream, out, suffix, model, wanted.span, progress)


def verify(stream: Container) -> None:
    """The latent, a few chunks at a time."""
    objects.check(stream, model_for(stream.header, Wanted()))
