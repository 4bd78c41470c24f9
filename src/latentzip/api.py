"""`encode` and `decode`: any signal to bytes, and back to the same kind of signal."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import signals, targets
from .codecs.contract import AnyCodec, NamedCodec, check_options
from .codecs.outputs import is_special
from .codecs.precision import AnyPrecision, check_precision
from .codecs.registry import load_codec, owners
from .codecs.surroundings import plainly
from .entropy import container
from .entropy.container import Container, Limits
from .entropy.dense import dense
from .entropy.errors import InputError
from .signals.choice import kind_for, kind_of
from .signals.coding import OUTPUTS, About, Output, Region, ValueRange, Wanted
from .signals.kind import Kind


def device_of(device: str | torch.device | None, x: Any = None) -> str:
    """None: where the tensor lies, or the first of a tuple, else the CPU; ``"auto"``: a GPU where there is one."""
    if device is None:
        x = x[0] if isinstance(x, tuple) and x else x
        return str(x.device) if isinstance(x, Tensor) else "cpu"
    if str(device) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device {device!r} is not available here; use 'cpu' or 'auto'")
    except RuntimeError as error:
        raise InputError(f"device {device!r}: {error}") from error
    return str(chosen)


def _held(x: Any) -> Any:
    """The content of a pipe, which can be read once only; arrays and tensors made plain; anything else as it is."""
    if isinstance(x, (str, os.PathLike)) and is_special(Path(x)):
        with open(x, "rb") as pipe:
            return io.BytesIO(pipe.read())
    return dense(x)


@plainly
def encode(
    x: Any,
    codec: NamedCodec | AnyCodec | None = None,
    quality: float | None = None,
    device: str | torch.device | None = None,
    metadata: str = "auto",
    *,
    value_range: ValueRange = None,
    **options: Any,
) -> Any:
    """Compress one signal to bytes, or several to a list of bytes.

    Args:
        x: path or open binary file of a picture, Pillow image, ndarray (H, W[, C]) or tensor (C, H, W); uint8, uint16,
            or floats in [0, 1]. A list or tuple of these, an array (B, H, W, C) or a tensor (B, C, H, W) is a batch.
            Sound: path of a sound file, or a pair (samples, rate): an array (T,) or (T, C), or a tensor (T,) or
            (C, T), of floats with full scale 1, int16, int32 or uint8, and the sampling rate in Hz. A list of these
            is a batch, and so is a pair of an array (B, T, C) or a tensor (B, C, T) and a rate.
            For a bottleneck: a float tensor (C, H, W), or a batch (B, C, H, W).
            For the `features` codec: one float16, bfloat16 or float32 tensor of any shape, a float array or a
            ``.npy`` path; a list or tuple of these is a batch.
        codec: a name of `list_codecs`, or a loaded codec; by default one for pictures or one for sound, by ``x``.
        quality: 1..100 for codecs of variable rate.
        device: where to compute: a torch device, "auto", or None for the tensor's own, else the CPU.
        metadata: of pictures: "auto" keeps the ICC profile, "all" also EXIF and XMP, "none" nothing. The EXIF
            orientation is always applied to the pixels. Of sound files: tags, unless "none".
        value_range: of pictures: what counts as full scale, (low, high), or "auto" for the lowest and the highest
            value; decoding gives the original's unit again. Floats beyond [0, 1] need it. By default what the dtype
            holds, and for uint16 "auto" where the picture fills less than 7/8 of it, as scans do.
        options: what else the codec understands, by name; a wrong name is answered with the codec's own. Such as
            ``coding="fast"`` of the `walloc` codecs: the latent is coded with plain tables, some percent more bytes,
            entropy decoding many times faster, for data sets that a training loop reads. Or ``max_error``,
            ``relative_error``, ``nmse``, ``bits`` or ``lossless`` of `features`, see `FeatureCodec.compress`: at most
            one goal, lossless without any. Or ``effort``, ``objective`` and ``weight`` of codecs that search, see
            docs/effort.md. None counts as not given.
            Instead of a quality one target may be given: ``target_size`` in bytes, ``target_bpp`` of pictures and
            ``target_kbps`` of sound are met from below, ``target_psnr`` of pictures (dB) from above.

    Returns:
        `bytes` of one `.ltz` stream; a list of them for a batch.

    Raises:
        InputError: unknown codec, or a signal or argument that cannot be coded; the text says what to do.
        OSError: a file cannot be read.

    Example:
        >>> import latentzip as lz, numpy as np
        >>> blob = lz.encode(np.zeros((16, 16, 3), np.uint8))        # doctest: +SKIP
        >>> lz.decode(blob).shape                                    # doctest: +SKIP
        (16, 16, 3)
    """
    about = About(metadata, value_range)
    x = _held(x)
    asked = ask(x, codec, device, about, {"quality": quality, **options})
    coding = asked.kind.coding
    if (parts := coding.parts(x, asked.model)) is not None:
        if len(parts) == 0:
            raise InputError("the batch is empty")
        return [encode(item, codec, quality, device, metadata, value_range=value_range, **options) for item in parts]
    ready = coding.ready(x, asked.model, about)
    return targets.reached(asked.target, ready.encode, asked.model, asked.options, ready.psnr)


class Asked(NamedTuple):
    """What `encode` was asked for, once its kind of signal is known."""

    kind: Kind
    model: Any
    target: targets.Target | None
    options: dict[str, Any]


def ask(
    x: Any,
    codec: NamedCodec | AnyCodec | None,
    device: str | torch.device | None,
    about: About,
    options: dict[str, Any],
) -> Asked:
    """The kind of ``x``, the codec, loaded, and its options, checked; errors as `encode`."""
    model = loaded(kind_of(x).codec if codec is None else codec, device, x)
    kind = kind_for(x, model)
    target, rest = targets.taken(options)
    chosen = check_options(model, rest, owners)
    kind.coding.refuse(about, "" if target is None else f"target_{target.kind}", model)
    return Asked(kind, model, target, chosen)


def loaded(codec: Any, device: str | torch.device | None = None, x: Any = None) -> Any:
    """The codec of a name or a path, loaded where ``device`` says; a codec, or None, as it is."""
    if isinstance(codec, (str, os.PathLike)):
        return load_codec(codec, device_of(device, x))
    if codec is not None and not hasattr(codec, "restore") and not hasattr(codec, "modality"):
        raise InputError(f"codec is {codec!r:.60}; a name, a file of weights or what load_codec gives is needed")
    return codec


@plainly
def decode(
    source: Any,
    to: Output = "signal",
    region: Region | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    *,
    span: tuple[float, float] | None = None,
    channels: int | None = None,
    codec: NamedCodec | AnyCodec | None = None,
    precision: AnyPrecision = "auto",
    limits: Limits = container.DEFAULT_LIMITS,
) -> Any:
    """Decompress one stream, or a list of streams to a list of signals.

    Args:
        source: bytes of a `.ltz` stream, or the path of a file.
        to: "signal" returns what was handed to `encode`: same kind, size and dtype. "pil" and "numpy" return that
            kind in the original's dtype, as far as Pillow has it. "tensor" returns (C, H, W): in the original's
            dtype if it was a tensor, else float32 in [0, 1]. "latent" returns the integer latent (L, h, w) after
            entropy decoding alone. Sound comes as a pair ``samples, rate``; sound of files, and what "tensor" makes of
            arrays, in float32 with full scale 1; its latent is (rows, frames). "tokens" of a codec that has them, such
            as `vq`, are the numbers of codewords, (levels, h, w) int64.
        region: (top, left, bottom, right) in pixels. Only the tiles that it touches are decoded; the result equals
            that part of the whole to the last bit. Of tensors: (start, stop) along the first axis.
        span: of sound: (start, stop) in seconds. Only the chunks that it touches are decoded; the result equals that
            part of the whole to the last bit.
        device: where to compute; tensors stay there.
        channels: decode only this many channels of the latent, the most important ones: a quick preview, or a smaller
            latent. For the `walloc` codecs, and for tensors that were coded with a KLT.
        codec: decode with this loaded codec, feature profile or bottleneck, or the one in this file, instead of looking
            its name up.
        precision: "bf16" runs the networks in bfloat16, up to twice as fast on processors that have it; the
            symbols are the same, pixels differ by rounding (1 of 255, rarely 2). "auto" does so there where it costs
            less than .01 dB, else computes in float32, as "fp32" does always. A loaded codec has its own.
        limits: sizes beyond which a stream is refused.

    Raises:
        FormatError: not a `.ltz` stream, truncated, damaged, or too large (`LimitError`).
        UnsupportedError: the stream needs a codec, weights or a format version that is not installed.
        InputError: an argument that does not suit the stream.
        OSError: a file cannot be read.
    """
    if to not in OUTPUTS:
        raise InputError(f"to is {to!r}; one of {', '.join(OUTPUTS)}")
    check_precision(precision, "auto")
    if isinstance(source, (list, tuple)):
        options: dict[str, Any] = {"span": span, "channels": channels, "codec": loaded(codec, device)}
        options |= {"precision": precision, "limits": limits}
        return [decode(item, to, region, device, **options) for item in source]
    wanted = Wanted(to, region, span, channels, device_of(device), loaded(codec, device), precision, limits)
    with opened(source, limits) as stream:
        return signals.of(stream.header).coding.decode(stream, wanted)


@contextmanager
def opened(source: Any, limits: Limits = container.DEFAULT_LIMITS) -> Iterator[Container]:
    """The stream in bytes or in a file; of a file only what is needed is read."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            yield container.read_file(file, limits) if file.seekable() else container.read(file.read(), limits)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield container.read(source, limits)
    else:
        raise InputError(f"cannot decode a {type(source).__name__}; hand in bytes or a path")


def check(source: bytes, limits: Limits = container.DEFAULT_LIMITS) -> None:
    """Verify checksums, entropy-decode everything and unpack auxiliary planes; raises as `decode` does."""
    check_stream(container.read(source, limits))


@plainly
def check_stream(stream: Container) -> None:
    """The same of a stream that was opened, such as a large file."""
    signals.of(stream.header).coding.verify(stream)
