"""Sound in memory: pairs (samples, rate) to the (C, T) floats that codecs take, and back.

Arrays are (T,) or (T, C), as soundfile has them; tensors (T,) or (C, T), as torchaudio has them. Floats have their full
scale at 1 and may exceed it; integers at the end of their range. docs/audio.md lists it all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...codecs.contract import EXACT, STREAMING, AnyCodec
from ...entropy import container
from ...entropy.container import Box, Container, Header, Limits
from ...entropy.dense import dense
from ...entropy.errors import FormatError, InputError, LimitError
from ...warn import converted
from . import exact

MAX_CHANNELS = 256
_BITS = {"uint8": 8, "int16": 16, "int24": 24, "int32": 32}
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_OUT = {"uint8": torch.uint8, "int16": torch.int16, "int24": torch.int32, "int32": torch.int32}

Target = Literal["signal", "latent", "pil", "numpy", "tensor"]


class Sound(NamedTuple):
    """What `decode` returns: unpacks as ``samples, rate``."""

    samples: Any
    rate: int


def is_sound(x: Any) -> bool:
    """Whether ``x`` is a pair (samples, rate) rather than a batch."""
    return (
        isinstance(x, tuple)
        and len(x) == 2
        and isinstance(x[0], (np.ndarray, Tensor))
        and isinstance(x[1], Real)
        and not isinstance(x[1], bool)
    )


def split_batch(x: Any) -> list[Any] | None:
    """The sounds of a pair whose samples have a batch axis: (B, T, C) arrays, (B, C, T) tensors; None for one sound."""
    return [(item, x[1]) for item in dense(x[0])] if is_sound(x) and x[0].ndim == 3 else None


def checked_rate(rate: Any) -> int:
    """A sampling rate as an int; InputError when it is no whole number."""
    if not isinstance(rate, (Integral, float)) or int(rate) != rate or rate < 1:
        raise InputError(f"the sampling rate is {rate!r}; a whole number of Hz is needed")
    return int(rate)


# --- in ----------------------------------------------------------------------------------------------------------


def to_float(x: Tensor, dtype: str) -> Tensor:
    """Samples of any supported dtype -> float32 with full scale 1."""
    if dtype == "uint8":
        return (x.to(torch.float32) - 128) / 128
    return x.to(torch.float32) / (1 << (_BITS[dtype] - 1)) if dtype in _BITS else x.to(torch.float32)


def to_samples(x: Any) -> tuple[Tensor, str, str, str]:
    """An array or tensor -> (samples (C, T) float32, kind, dtype, mode) of the header; errors as `laid_out`."""
    samples, kind, dtype, mode = laid_out(x)
    return to_float(samples, dtype).contiguous(), kind, dtype, mode


def laid_out(x: Any) -> tuple[Tensor, str, str, str]:
    """An array or tensor -> (samples (C, T) in its own dtype, kind, dtype, mode) of the header.

    Raises:
        InputError: a type, shape or dtype that cannot be coded.
    """
    x = dense(x)
    if isinstance(x, np.ndarray):
        kind, dtype, what = "numpy", x.dtype.name, f"the array {x.dtype}{x.shape}"
    else:
        kind, dtype = "tensor", str(x.dtype).removeprefix("torch.")
        what = f"the tensor {dtype}{tuple(x.shape)}"
    if dtype not in (*_BITS, *_FLOATS) or dtype == "int24":
        raise InputError(f"{what}: this dtype is not supported for sound; convert it to float32, int16 or int32")
    if x.ndim not in (1, 2):
        form = (
            "arrays (samples,) or (samples, channels)"
            if kind == "numpy"
            else "tensors (samples,) or (channels, samples)"
        )
        raise InputError(f"{what}: sound comes as {form}")
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.array(x.T, dtype=x.dtype.newbyteorder("="), order="C"))  # native and writable ones
    mode = "mono" if x.ndim == 1 else ""
    x = x.detach()[None] if x.ndim == 1 else x.detach()
    if not 1 <= x.shape[0] <= MAX_CHANNELS:
        hint = ""
        if 0 < x.shape[1] <= MAX_CHANNELS < x.shape[0]:
            hint = "; channels come last in arrays: use x.T" if kind == "numpy" else "; channels come first: use x.T"
        raise InputError(f"{what}: {x.shape[0]} channels, 1 to {MAX_CHANNELS} can be coded{hint}")
    return x, kind, dtype, mode


def encode(x: Any, model: AnyCodec, options: dict[str, Any]) -> bytes:
    """One pair (samples, rate) -> a `.ltz` stream."""
    samples, kind, dtype, mode = (laid_out if EXACT in model.capabilities else to_samples)(x[0])
    return stream_of(samples, checked_rate(x[1]), kind, dtype, mode, model, options)


def stream_of(
    samples: Tensor, rate: int, kind: Any, dtype: str, mode: str, model: AnyCodec, options: dict[str, Any]
) -> bytes:
    """Samples (C, T) -> a `.ltz` stream whose header says so of them.

    Codecs take float32; those that are exact the dtype itself, to which floats are rounded where it is one of integers.
    """
    coded: Any = samples
    if EXACT in model.capabilities:
        if samples.is_floating_point() and dtype in _BITS:
            samples = quantised(samples, dtype)[0]
            samples = samples >> 8 if dtype == "int24" else samples
        coded = exact.coded(samples, dtype)
    packed = model.compress(coded, rate, **options)
    header = Header(
        codec=model.name, fingerprint=model.fingerprint, modality="audio", kind=kind, shape=tuple(samples.shape),
        dtype=dtype, mode=mode, sample_rate=rate, params=packed.params,
    )  # fmt: skip
    return container.write(header, packed.chunks)


# --- out ---------------------------------------------------------------------------------------------------------


def quantised(x: Tensor, dtype: str) -> tuple[Tensor, int]:
    """Floats with full scale 1 -> samples of an integer dtype (int24 as int32, shifted by 8), and how many clipped."""
    bits = _BITS[dtype]
    top = 1 << (bits - 1)
    y = x.to(torch.float64 if bits > 16 else torch.float32).mul(top).round_()
    clipped = int(((y >= top + 1) | (y < -top - 1)).sum())  # the last step above is not worth a word
    y = y.clamp_(-top, top - 1)
    if dtype == "uint8":
        return (y + 128).to(torch.uint8), clipped
    y = y.to(_OUT[dtype])
    return (y << 8 if dtype == "int24" else y), clipped


def warn_clipped(clipped: int, total: int, dtype: str) -> None:
    """Say how many samples did not fit into integers."""
    if clipped:
        converted(f"{clipped} of {total} samples exceed the range of {dtype} and were clipped; floats keep them")


def span_of(span: Any, header: Header) -> tuple[int, int] | None:
    """(start, stop) in seconds -> in samples; None for all.

    Raises:
        InputError: not two numbers in order, or outside the signal.
    """
    if span is None:
        return None
    rate, samples = header.sample_rate, header.shape[1]
    try:
        start, stop = (float(v) for v in span)
        first, last = round(start * rate), round(stop * rate)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"span is {span!r}; two numbers (start, stop) in seconds are needed") from None
    if not (0 <= start < stop and first < samples and last <= samples + 1):
        raise InputError(f"span {start:g} to {stop:g} s does not lie inside the signal of {samples / rate:.3f} s")
    return first, min(last, samples)


def open_stream(stream: Container, model: Any, span: Any = None, to: str = "signal") -> Any:
    """The decoder of a stream or of a span in seconds; chunks of the stream are for it to ask for."""
    samples = span_of(span, stream.header)
    kind: Literal["signal", "latent"] = "latent" if to == "latent" else "signal"
    if STREAMING in model.capabilities:
        return model.open_decoder(stream.header, len(stream.chunks), to=kind, span=samples)
    return _Whole(model, stream.header, kind, samples)


class _Whole:
    """The decoder of a codec that decodes a signal at once."""

    def __init__(self, model: AnyCodec, header: Header, to: Literal["signal", "latent"], span: Any) -> None:
        self._model, self._header = model, header
        self._to: Literal["signal", "latent"] = to
        self._part = {} if span is None else {"span": span}
        self.channels = header.shape[0]
        self.samples = header.shape[1] if span is None else span[1] - span[0]

    def decode(self, chunks: Sequence[bytes]) -> Iterator[Tensor]:
        yield self.all(chunks)

    def all(self, chunks: Sequence[bytes]) -> Tensor:
        return self._model.restore(self._header, chunks, to=self._to, **self._part)


def check_header(header: Header) -> None:
    """Raises FormatError when a header says of sound what cannot be."""
    if header.kind == "pil" or header.mode not in ("", "mono", "file") or header.dtype == "uint16":
        raise FormatError("a stream of sound claims to be of a picture: it is corrupt")
    if header.mode == "mono" and header.shape[0] != 1:
        raise FormatError(f"{header.shape[0]} channels in a stream without a channel axis: it is corrupt")


def decode(stream: Container, model: AnyCodec, to: Target, span: Any, limits: Limits) -> Any:
    """What `latentzip.decode` returns for a stream of sound."""
    header = stream.header
    check_header(header)
    if to == "pil":
        raise InputError("sound is no picture: to is one of signal, numpy, tensor, latent")
    decoder = open_stream(stream, model, span, to)
    if decoder.samples > limits.samples or decoder.samples * header.shape[0] > 4 * limits.samples:
        raise LimitError(
            f"{decoder.samples} samples of {header.shape[0]} channels are too many to hold; "
            "decode a span, or to a file with decode_file"
        )
    out = decoder.all(stream.chunks)
    if to == "latent":
        return out
    return Sound(from_samples(out, header, to), header.sample_rate)


def tokens(stream: Container, model: Any, span: Any) -> Tensor:
    """Numbers of codewords of a stream of sound, (levels, frames) int64, or those of a span in seconds."""
    check_header(stream.header)
    samples = span_of(span, stream.header)
    part = {} if samples is None else {"span": samples}
    return model.restore(stream.header, stream.chunks, to="tokens", **part)


def from_samples(x: Tensor, header: Header, to: Target = "signal") -> Any:
    """Decoded floats (C, T) -> an array or tensor as it was handed in, or as ``to`` asks for.

    Sound of files becomes float32; so does what was no tensor, as a tensor. Integers stay as they are where those
    ask for them, or where float32 does not hold them.
    """
    kind = header.kind if to == "signal" else to
    dtype = header.dtype
    if header.mode == "file" or (kind == "tensor" and header.kind != "tensor"):
        dtype = "float32"
    if not x.is_floating_point():
        x = to_float(x, header.dtype) if dtype == "float32" and header.dtype != "int32" else x
    elif dtype in _BITS:
        total = x.numel()
        x, clipped = quantised(x, dtype)
        warn_clipped(clipped, total, dtype)
    elif not (dtype == "bfloat16" and kind == "numpy"):  # numpy has no bfloat16
        x = x.to(getattr(torch, dtype))
    flat = x.shape[0] == 1 and header.mode in ("mono", "file") and (kind == "numpy" or header.mode == "mono")
    x = x[0] if flat else x
    if kind == "tensor":
        return x
    return np.ascontiguousarray(x.cpu().numpy().T)


def check(stream: Container, model: AnyCodec) -> None:
    """Entropy-decode everything, a few chunks at a time; raises as `decode` does."""
    check_header(stream.header)
    decoder = open_stream(stream, model, to="latent")
    for _ in decoder.decode(stream.chunks):
        pass


def tags_box(tags: dict[str, str]) -> list[Box]:
    """Tags as the container's box; empty ones are left out."""
    import json

    kept = {key: value for key, value in tags.items() if value}
    return [Box(container.TAGS, json.dumps(kept, ensure_ascii=False).encode())] if kept else []


def read_tags(boxes: Sequence[Box]) -> dict[str, str]:
    """Tags of a stream; damaged ones count as none."""
    import json

    data = next((box.data for box in boxes if box.type == container.TAGS), b"{}")
    try:
        tags = json.loads(data)
        return {str(k): str(v) for k, v in tags.items()}
    except (ValueError, AttributeError):
        return {}
