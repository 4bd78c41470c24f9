"""`encode` and `decode`: any signal to bytes, and back to the same kind of signal."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from . import DEFAULT_CODEC, DEFAULT_SOUND_CODEC, targets
from .codecs.base import Precision, check_precision
from .codecs.contract import GREY, PARTS, AnyCodec, check_options, modalities
from .codecs.outputs import is_special
from .codecs.registry import load_codec, owners
from .codecs.samples import FULL_SCALE
from .codecs.surroundings import plainly
from .entropy import container
from .entropy.container import Container, Header, Limits
from .entropy.errors import FormatError, InputError, UnsupportedError
from .signals.pictures.files import open_picture
from .signals.pictures.metadata import CHOICES
from .signals.pictures.objects import Region, ValueRange, check_boxes, check_range, from_signal, is_batch, to_signal
from .signals.sound import objects as sounds
from .signals.tensors import objects as tensors

Output = Literal["signal", "latent", "pil", "numpy", "tensor"]
_OUTPUTS = ("signal", "latent", "pil", "numpy", "tensor")


def _device(device: str | torch.device | None, x: Any = None) -> str:
    """None: where the tensor lies, else the CPU; ``"auto"``: a GPU where there is one."""
    if device is None:
        x = x[0] if sounds.is_sound(x) else x
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
    """The content of a pipe, which can be read once only; anything else as it is."""
    if isinstance(x, (str, os.PathLike)) and is_special(Path(x)):
        with open(x, "rb") as pipe:
            return io.BytesIO(pipe.read())
    return x


@plainly
def encode(
    x: Any,
    codec: str | AnyCodec | None = None,
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
            entropy decoding some 45 times faster, for data sets that a training loop reads. Or ``max_error``,
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
    check_range(value_range)
    x = _held(x)
    if metadata not in CHOICES:
        raise InputError(f"metadata is {metadata!r}; one of {', '.join(CHOICES)}")
    if (parts := sounds.split_batch(x)) is not None:
        x = parts
    model = loaded(default_codec(x) if codec is None else codec, device, x)
    target, rest = targets.taken({"quality": quality, **options})
    chosen = check_options(model, rest, owners)
    if "tensor" in modalities(model):
        if value_range is not None:
            raise InputError("value_range is for pictures; tensors are coded in their own range")
        if target is not None:
            raise InputError(f"target_{target.kind} is for pictures and sound; {model.name} codes tensors")
        return tensors.encode(x, model, chosen)
    if is_batch(x) and not sounds.is_sound(x):
        if len(x) == 0:
            raise InputError("the batch is empty")
        return [encode(item, codec, quality, device, metadata, value_range=value_range, **options) for item in x]
    if "audio" in modalities(model) and (sounds.is_sound(x) or "image" not in modalities(model)):
        if value_range is not None:
            raise InputError("value_range is for pictures; sound has its own level")
        return targets.reached(target, lambda o: _encode_sound(x, model, o, metadata), model, chosen)
    if sounds.is_sound(x):
        raise InputError(f"{model.name} codes pictures, not sound: choose an audio codec (codec-cli list)")
    picture = _Picture(x, model, metadata, value_range)
    return targets.reached(target, picture.encode, model, chosen, picture.psnr)


def loaded(codec: Any, device: str | torch.device | None = None, x: Any = None) -> Any:
    """The codec of a name, loaded where ``device`` says; a codec as it is."""
    return load_codec(codec, _device(device, x)) if isinstance(codec, str) else codec


def default_codec(x: Any) -> str:
    """The codec that `encode` takes for a signal, path or open file when none is named."""
    if isinstance(x, (str, os.PathLike)) or hasattr(x, "read"):
        from .signals.sound.files import holds_sound

        return DEFAULT_SOUND_CODEC if holds_sound(x) else DEFAULT_CODEC
    return DEFAULT_SOUND_CODEC if sounds.is_sound(x) else DEFAULT_CODEC


def _encode_sound(x: Any, model: AnyCodec, options: dict[str, Any], metadata: str) -> bytes:
    if sounds.is_sound(x):
        return sounds.encode(x, model, options)
    if isinstance(x, (str, os.PathLike)) or hasattr(x, "read"):
        from .signals.sound.files import encode_sound

        buffer = io.BytesIO()
        encode_sound(x, buffer, model, options, metadata)
        return buffer.getvalue()
    raise InputError(
        f"{model.name} codes sound: hand in a path or a pair (samples, rate), not {type(x).__name__} alone"
    )


class _Picture:
    """A picture that is ready to be coded, as often as it takes."""

    def __init__(self, x: Any, model: Any, metadata: str, value_range: ValueRange) -> None:
        name = "picture"
        if isinstance(x, (str, os.PathLike)):
            name = os.fspath(x)
            x = open_picture(x)
        elif hasattr(x, "read"):
            x = open_picture(x, name)
        channels = getattr(model, "signal_channels", 3)
        signal = to_signal(x, channels, metadata, name, value_range, GREY in model.capabilities)
        self.model, self.signal = model, signal
        self.samples = signal.samples if PARTS in model.capabilities else signal.samples.all()
        self.header = Header(
            codec=model.name,
            fingerprint=model.fingerprint,
            modality="image",
            kind=signal.kind,
            shape=tuple(self.samples.shape),
            dtype=signal.dtype,
            mode=signal.mode,
        )
        # what `read` would refuse is refused before the work
        container.write(self.header, (), signal.boxes)

    def encode(self, options: dict[str, Any]) -> bytes:
        packed = self.model.compress(self.samples, **options)
        return container.write(replace(self.header, params=packed.params), packed.chunks, self.signal.boxes)

    def psnr(self, stream: bytes) -> float:
        """Of what a stream decodes to, rounded to the samples' steps, in dB; full scale is the peak."""
        box = container.read(stream)
        found = self.model.restore(box.header, box.chunks).cpu()
        if steps := FULL_SCALE.get(box.header.dtype):
            found = (found * steps).round() / steps
        error = float((found - self.signal.samples.all()).square().mean())
        return math.inf if error == 0 else -10 * math.log10(error)


@plainly
def decode(
    source: Any,
    to: Output = "signal",
    region: Region | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    *,
    span: tuple[float, float] | None = None,
    channels: int | None = None,
    codec: AnyCodec | None = None,
    precision: Precision = "fp32",
    limits: Limits = container.DEFAULT_LIMITS,
) -> Any:
    """Decompress one stream, or a list of streams to a list of signals.

    Args:
        source: bytes of a `.ltz` stream, or the path of a file.
        to: "signal" returns what was handed to `encode`: same kind, size and dtype. "pil" and "numpy" return that
            kind in the original's dtype, as far as Pillow has it. "tensor" returns (C, H, W): in the original's
            dtype if it was a tensor, else float32 in [0, 1]. "latent" returns the integer latent (L, h, w) after
            entropy decoding alone. Sound comes as a pair ``samples, rate``; sound of files, and what "tensor" makes of
            arrays, in float32 with full scale 1; its latent is (rows, frames).
        region: (top, left, bottom, right) in pixels. Only the tiles that it touches are decoded; the result equals
            that part of the whole to the last bit. Of tensors: (start, stop) along the first axis.
        span: of sound: (start, stop) in seconds. Only the chunks that it touches are decoded; the result equals that
            part of the whole to the last bit.
        device: where to compute; tensors stay there.
        channels: decode only this many channels of the latent, the most important ones: a quick preview, or a smaller
            latent. For the `walloc` codecs, and for tensors that were coded with a KLT.
        codec: decode with this loaded codec, feature profile or bottleneck, instead of looking its name up.
        precision: "bf16" runs the networks in bfloat16, up to twice as fast on processors that have it; the
            symbols are the same, pixels differ by rounding (1 of 255). A loaded codec has its own.
        limits: sizes beyond which a stream is refused.

    Raises:
        FormatError: not a `.ltz` stream, truncated, damaged, or too large (`LimitError`).
        UnsupportedError: the stream needs a codec, weights or a format version that is not installed.
        InputError: an argument that does not suit the stream.
        OSError: a file cannot be read.
    """
    if to not in _OUTPUTS:
        raise InputError(f"to is {to!r}; one of {', '.join(_OUTPUTS)}")
    check_precision(precision)
    if isinstance(source, (list, tuple)):
        options: dict[str, Any] = {"span": span, "channels": channels, "codec": codec}
        options |= {"precision": precision, "limits": limits}
        return [decode(item, to, region, device, **options) for item in source]
    with opened(source, limits) as stream:
        return _decode(stream, to, region, device, span, channels, codec, precision, limits)


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


def _decode(
    stream: Container,
    to: Output,
    region: Region | tuple[int, int] | None,
    device: str | torch.device | None,
    span: tuple[float, float] | None,
    channels: int | None,
    codec: Any,
    precision: Precision,
    limits: Limits,
) -> Any:
    if span is not None and stream.header.modality != "audio":
        raise InputError("span is for sound; pictures and tensors take region")
    if tensors.is_tensor(stream.header):
        return tensors.decode(stream, codec, _device(device), to, region, channels)
    if codec is not None and stream.header.modality not in modalities(codec):
        raise UnsupportedError(f"the stream was made by {stream.header.codec}; {codec.name} cannot decode it")
    model: Any = codec or codec_of(stream.header, _device(device), precision)
    check_model(stream.header, model)
    if stream.header.modality == "audio":
        if region is not None or channels is not None:
            raise InputError(
                "region and channels are for pictures and tensors; sound takes span=(start, stop) in seconds"
            )
        return sounds.decode(stream, model, to, span, limits)
    return _decode_one(stream, model, to, region, channels)


def codec_of(header: Header, device: str = "cpu", precision: Precision = "fp32") -> Any:
    """The codec that a stream needs; UnsupportedError when it is not installed."""
    try:
        return load_codec(header.codec, device, fingerprint=header.fingerprint, precision=precision)
    except InputError as error:
        raise UnsupportedError(
            f"the stream was made by codec {header.codec!r}, which is not installed here ({error})"
        ) from error


def check_model(header: Header, model: AnyCodec) -> None:
    """Raises when a stream was made by another codec, or says so."""
    if (header.codec, header.fingerprint) != (model.name, model.fingerprint):
        raise UnsupportedError(
            f"the stream needs {header.codec} ({header.fingerprint.hex()}), "
            f"not {model.name} ({model.fingerprint.hex()})"
        )
    if header.modality not in modalities(model):
        raise FormatError(
            f"{model.name} codes {' and '.join(modalities(model))} signals, the stream claims {header.modality}"
        )


def _decode_one(
    stream: Container, model: Any, to: Output, region: Sequence[int] | None = None, channels: int | None = None
) -> Any:
    header = stream.header
    part: dict[str, Any] = {"region": None if region is None else _region(region), "channels": channels}
    part = {name: value for name, value in part.items() if value is not None}
    y = model.restore(header, stream.chunks, to="latent" if to == "latent" else "signal", **part)
    return y if to == "latent" else from_signal(y, header, stream.boxes, to, part.get("region"))


def check(source: bytes, limits: Limits = container.DEFAULT_LIMITS) -> None:
    """Verify checksums, entropy-decode everything and unpack auxiliary planes; raises as `decode` does."""
    check_stream(container.read(source, limits))


@plainly
def check_stream(stream: Container) -> None:
    """The same of a stream that was opened, such as a large file."""
    if tensors.is_tensor(stream.header):
        tensors.decode(stream, None, "cpu", "latent", None, None)
        return
    model = codec_of(stream.header)
    check_model(stream.header, model)
    if stream.header.modality == "audio":
        sounds.check(stream, model)
        return
    latent = _decode_one(stream, model, "latent")
    check_boxes(stream.header, stream.boxes)
    del latent


def _region(region: Sequence[int]) -> Region:
    if len(region) != 4 or any(int(v) != v for v in region):
        raise InputError(f"region is {region!r}; four integers (top, left, bottom, right) are needed")
    top, left, bottom, right = (int(v) for v in region)
    return top, left, bottom, right
