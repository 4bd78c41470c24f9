"""The verbs of pictures (`signals.coding.Coding`)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from ...codecs.contract import EXACT, GREY, INTEGERS, PARTS, TOKENS, AnyCodec
from ...codecs.samples import FULL_SCALE
from ...entropy import container
from ...entropy.container import Container, Header
from ...entropy.errors import InputError
from ...entropy.numbers import bounds
from ...warn import converted
from .. import coding
from ..coding import About, Progress, Region, Wanted, integers, refuse_span, refuse_tokens
from ..models import model_for
from . import PICTURES
from .exact import check_exact, from_exact, to_exact
from .files import check_suffix, open_picture, save_picture
from .objects import check_boxes, from_signal, ready_dtype, to_signal


def holds(x: Any) -> bool:
    """Pillow images; arrays, tensors and files may be of other kinds."""
    return isinstance(x, Image.Image)


def parts(x: Any, codec: AnyCodec) -> Any:
    """Of a list or a tuple, an array (B, H, W, C) or a tensor (B, C, H, W)."""
    several = isinstance(x, (list, tuple)) or (isinstance(x, (np.ndarray, Tensor)) and x.ndim == 4)
    return x if several else None


def refuse(about: About, target: str, codec: AnyCodec) -> None:
    """Pictures have a range, and targets of all units but kbps."""


def ready(x: Any, codec: AnyCodec, about: About) -> coding.Ready:
    """One path, open file, Pillow image, array or tensor."""
    return _Ready(x, codec, about)


class _Ready(coding.Ready):
    def __init__(self, x: Any, model: Any, about: About) -> None:
        name = "picture"
        if isinstance(x, (str, os.PathLike)):
            name = os.fspath(x)
            x = open_picture(x)
        elif hasattr(x, "read"):
            x = open_picture(x, about.name or name)
        signal: Any
        if EXACT in model.capabilities:
            if about.value_range is not None:
                raise InputError(f"{model.name} keeps every value as it is: leave value_range out")
            signal = to_exact(x, about.metadata, name)
        else:
            channels = getattr(model, "signal_channels", 3)
            signal = to_signal(x, channels, about.metadata, name, about.value_range, GREY in model.capabilities)
        self.model, self.signal = model, signal
        whole = PARTS in model.capabilities or EXACT in model.capabilities
        self.samples = signal.samples if whole else signal.samples.all()
        self.header = Header(
            codec=model.name,
            fingerprint=model.fingerprint,
            modality=PICTURES.name,
            kind=signal.kind,
            shape=tuple(self.samples.shape),
            dtype=signal.dtype,
            mode=signal.mode,
        )
        # what `read` would refuse is refused before the work
        container.write(self.header, (), signal.boxes)
        self.psnr = self._psnr

    def encode(self, options: dict[str, Any]) -> bytes:
        packed = self.model.compress(self.samples, **options)
        return container.write(replace(self.header, params=packed.params), packed.chunks, self.signal.boxes)

    def _psnr(self, stream: bytes) -> float:
        """Of what a stream decodes to, rounded to the samples' steps, in dB; full scale is the peak."""
        box = container.read(stream)
        found = self.model.restore(box.header, box.chunks).cpu()
        if steps := FULL_SCALE.get(box.header.dtype):
            found = (found * steps).round() / steps
        error = float((found - self.signal.samples.all()).square().mean())
        return math.inf if error == 0 else -10 * math.log10(error)


def decode(stream: Container, wanted: Wanted) -> Any:
    """What was handed in, or what ``to`` asks for."""
    refuse_span(wanted)
    model = model_for(stream.header, wanted)
    part: dict[str, Any] = {"channels": wanted.channels}
    part["region"] = None if wanted.region is None else _region(wanted.region)
    part = {name: value for name, value in part.items() if value is not None}
    if TOKENS not in model.capabilities:
        refuse_tokens(wanted, model.name)
    if wanted.to in ("latent", "tokens"):
        return model.restore(stream.header, stream.chunks, to=wanted.to, **part)  # type: ignore[arg-type]
    if INTEGERS in model.capabilities and (dtype := ready_dtype(stream.header, stream.boxes, wanted.to)):  # type: ignore[arg-type]
        part["dtype"] = dtype
    y = model.restore(stream.header, stream.chunks, **part)
    if EXACT in model.capabilities:
        return from_exact(y, stream.header, stream.boxes, wanted.to)
    return from_signal(y, stream.header, stream.boxes, wanted.to, part.get("region"))  # type: ignore[arg-type]


def _region(region: Sequence[int]) -> Region:
    top, left, bottom, right = bounds("region", region, 4, "four integers (top, left, bottom, right) are needed")
    return top, left, bottom, right


def array(stream: Container, wanted: Wanted) -> np.ndarray:
    """(H, W[, C]) in the original's dtype, or the latent."""
    if wanted.to in ("latent", "tokens"):
        return integers(decode(stream, wanted), wanted)
    return decode(stream, replace(wanted, to="numpy"))


def write(stream: Container, out: BinaryIO, suffix: str, wanted: Wanted, progress: Progress | None = None) -> None:
    """What Pillow writes under the suffix."""
    header = stream.header
    check_suffix(suffix)
    if header.dtype != "uint8" and PICTURES.suffix(header) == ".npy":
        converted(f"{header.dtype} samples are rounded to 8 bits for {suffix}; .npy keeps them in full")
    save_picture(decode(stream, replace(wanted, to="pil")), out, suffix)


def verify(stream: Container) -> None:
    """The latent, the alpha plane and the range."""
    decode(stream, Wanted("latent"))
    check_stream_boxes(stream, model_for(stream.header, Wanted()))


def check_stream_boxes(stream: Container, model: AnyCodec) -> None:
    """Raises FormatError when header and boxes contradict each other."""
    (check_exact if EXACT in model.capabilities else check_boxes)(stream.header, stream.boxes)
