"""Packs of sound (`modality.base`): whole recordings, or excerpts cut on the grid of the codec's frames."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...codecs.audio_base import MAX_RATE, MIN_RATE
from ...codecs.contract import EXACT, SPAN, check_options
from ...codecs.registry import owners
from ...entropy import container
from ...entropy.batch import run_batch
from ...entropy.container import Container
from ...entropy.errors import FormatError, InputError
from ...kernels.resample import Resampler, ResampleStream
from ...signals.sound import SUFFIXES, files, objects
from ...warn import ConversionWarning
from .base import (
    CHANNELS,
    SHORT,
    Modality,
    Options,
    Piece,
    Table,
    check_shape,
    common_shapes,
    keeps_signals,
    opened,
    spread,
)

_WAVE = {".wav", ".wave", ".aif", ".aiff", ".aifc", ".w64", ".rf64", ".caf", ".au", ".snd", ".flac"}
_SOURCE_KBPS = {True: 1411.0, False: 192.0}  # of files that keep every sample and of others, roughly
_LONGEST = 1 << 32  # seconds
Span = tuple[int, int]


@dataclass(frozen=True)
class _Source:
    """A recording that comes in blocks (C, n) float32; ``dtype`` is that of its file."""

    blocks: Iterator[Tensor]
    channels: int
    rate: int
    dtype: str


@dataclass(frozen=True)
class _Signal:
    samples: Tensor
    rate: int
    dtype: str


class Sound(Modality):
    name, noun, one = "audio", "sound", "sound"
    suffixes = SUFFIXES
    columns: ClassVar[Mapping[str, str]] = {
        "rate": "int32", "channels": "int32", "samples": "int64", "begin": "int64", "latent_rows": "int32",
        "latent_frames": "int32",
    }  # fmt: skip
    shape_columns = ("latent_rows", "latent_frames")
    output, feature = "latent", "Audio"
    formats = ("wav", "flac")

    # --- writing -------------------------------------------------------------------------------------------------

    def check(self, options: Options) -> None:
        if options.size is not None or options.crop != "none":
            raise InputError("size and crop are for pictures; sound takes seconds, rate and channels")
        if options.mirror:
            raise InputError("mirror is for pictures: sound has no mirrored twin")
        for name, value, allowed in (("channels", options.channels, CHANNELS), ("short", options.short, SHORT)):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}; one of {', '.join(allowed)}")
        check_seconds(options.seconds)
        if options.rate is not None:
            rate = objects.checked_rate(options.rate)
            if not MIN_RATE <= rate <= MAX_RATE:
                raise InputError(f"rate is {rate}; {MIN_RATE} to {MAX_RATE} Hz are coded")
        if options.short != "pad" and options.seconds is None:
            raise InputError("short says what becomes of the last excerpt of a recording: it needs seconds")

    def specimen(self, codec: Any) -> Any:
        return np.zeros((256, 1), np.float32), 16000

    def load(self, data: bytes, name: str, options: Options, codec: Any) -> Any:
        return _blocks(data, name)

    def accept(self, x: Any) -> Any:
        if not objects.is_sound(x):
            raise InputError(f"sound comes as a pair (samples, rate), not {type(x).__name__}")
        samples, _, dtype, _ = objects.to_samples(x[0])
        return iter([_Source(iter([samples]), samples.shape[0], objects.checked_rate(x[1]), dtype)])

    def pieces(self, x: Any, options: Options, codec: Any) -> Iterator[Piece]:
        for source in x:
            channels = {"keep": source.channels, "mono": 1, "stereo": 2}[options.channels]
            blocks = (_mixed(block, options.channels) for block in source.blocks)
            rate = source.rate
            if options.rate not in (None, rate):
                rate, blocks = options.rate, _resampled(blocks, channels, rate, options.rate)
            if options.seconds is None:
                parts = iter([(0, torch.cat([torch.empty(channels, 0), *blocks], 1))])
            else:
                size = frames_and_samples(codec, rate, options.seconds)[1]
                parts = _excerpts(blocks, channels, size, options.short == "pad")
            for number, (real, samples) in enumerate(parts):
                if not samples.shape[1]:
                    raise InputError("the recording is empty")
                suffix = "" if options.seconds is None else f"@{number:04d}"
                begin = number * samples.shape[1]
                facts = rate, channels, real or samples.shape[1], begin
                yield Piece(suffix, _Signal(samples, rate, source.dtype), facts)

    def encode(self, signal: Any, options: Options, codec: Any) -> bytes:
        said = check_options(codec, options.said(), owners)
        return objects.stream_of(signal.samples, signal.rate, "numpy", signal.dtype, "file", codec, said)

    def shape_row(self, piece: Piece, blob: bytes, codec: Any) -> tuple[Any, ...]:
        if keeps_signals(codec):
            return tuple(piece.signal.samples.shape)
        return _latent_shape(codec, container.read(blob))

    def describe(self, columns: Mapping[str, np.ndarray], options: Options, codec: Any) -> dict[str, Any]:
        shapes = common_shapes(self.shape_texts([columns[n] for n in self.shape_columns]))
        fixed = [*map(int, next(iter(shapes)).split("x"))] if len(shapes) == 1 else None
        latent = None
        if not keeps_signals(codec):
            dtype = str(codec.latent_dtype).removeprefix("torch.")
            latent = {"dtype": dtype, "fixed_shape": fixed, "shapes": shapes}
        rates = np.unique(columns["rate"])
        signal = {
            "rate": int(rates[0]) if len(rates) == 1 else None, "channels": options.channels,
            "seconds": options.seconds, "short": options.short,
        }  # fmt: skip
        return {"latent": latent, "signal": signal}

    def bytes_of(
        self, options: Options, num_bytes: Sequence[int], names: Sequence[str], rates: Mapping[str, Any]
    ) -> float:
        kbps = max((v for k, v in rates.items() if k.endswith("kbps") and isinstance(v, (int, float))), default=64.0)
        parts = (_SOURCE_KBPS[Path(name).suffix.lower() in _WAVE] for name in names)
        return sum(size * min(1.0, kbps / part) for size, part in zip(num_bytes, parts)) / len(num_bytes)

    # --- reading -------------------------------------------------------------------------------------------------

    def check_codec(self, facts: Mapping[str, Any], codec: Any) -> None:
        latent = facts["latent"]
        if latent is not None and str(codec.latent_dtype).removeprefix("torch.") != latent["dtype"]:
            raise FormatError(
                f"the manifest says latents of {latent['dtype']}, {codec.name} has {codec.latent_dtype}: the pack is "
                "damaged, check it with codec-cli verify"
            )

    def arrays(
        self, blobs: Sequence[bytes], codec: Any, threads: int, table: Table, spans: Sequence[Span] | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """(rows, frames) int8 or int16, all groups of channels one below the other."""
        fingerprint = codec.fingerprint
        dtype = np.dtype(str(codec.latent_dtype).removeprefix("torch."))

        def read(i: int) -> np.ndarray:
            stream = opened(blobs[i], codec, self.name, fingerprint)
            if spans is None:
                return codec.restore(stream.header, stream.chunks, to="latent").numpy().astype(dtype, copy=False)
            first, stop = spans[i]
            begin, end = samples_of(codec, stream.header.sample_rate, first, stop)
            part = min(begin, stream.header.shape[1]), min(end, stream.header.shape[1])
            latent = codec.restore(stream.header, stream.chunks, to="latent", span=part).numpy()
            return latent[:, : stop - first].astype(dtype, copy=False)

        found = _over_threads(read, len(blobs), threads)
        if table.shape is None:
            return found
        shape = table.shape if not spans else (table.shape[0], spans[0][1] - spans[0][0])
        for latent in found:
            check_shape(latent.shape, shape)
        return np.stack(found) if found else np.empty((0, *shape), dtype)

    def signals(
        self, blobs: Sequence[bytes], codec: Any, threads: int, spans: Sequence[Span] | None = None
    ) -> list[Tensor]:
        """(C, T) float32, full scale 1."""
        fingerprint = codec.fingerprint

        def read(i: int) -> Tensor:
            stream = opened(blobs[i], codec, self.name, fingerprint)
            part: dict[str, Any] = {}
            if spans is not None:
                begin, end = samples_of(codec, stream.header.sample_rate, *spans[i])
                coded, hop = _grid(codec, stream.header.sample_rate)
                end = begin + (spans[i][1] - spans[i][0]) * hop * stream.header.sample_rate // coded  # as many for all
                part = {"span": (begin, end)} if SPAN in codec.capabilities else {}
            x = codec.restore(stream.header, stream.chunks, **part)
            if EXACT in codec.capabilities:
                x = objects.to_float(x, stream.header.dtype)
            return x.clone()

        return _over_threads(read, len(blobs), threads)

    def check_stream(self, blob: bytes, codec: Any, row: tuple[Any, ...] | None) -> str | None:
        stream = opened(blob, codec, self.name, codec.fingerprint)
        objects.check(stream, codec)
        shape = tuple(stream.header.shape) if keeps_signals(codec) else _latent_shape(codec, stream)
        if row is None or shape == row:
            return None
        return f"a latent of {shape[0]} rows and {shape[1]} frames, the columns say {row[0]} and {row[1]}"


# --- files -------------------------------------------------------------------------------------------------------


def _blocks(data: bytes, name: str) -> Iterator[_Source]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        with files.open_sound(io.BytesIO(data), name) as sound:
            dtype = files.dtype_of(sound)
            yield _Source(files.blocks(sound, name), sound.channels, sound.samplerate, dtype)


def _mixed(x: Tensor, channels: str) -> Tensor:
    """Samples (C, n) with as many channels as are asked for."""
    if channels == "mono":
        return x.mean(0, keepdim=True)
    if channels == "stereo" and len(x) != 2:
        if len(x) != 1:
            raise InputError(f"{len(x)} channels are not made stereo; choose mono, or keep them")
        return x.expand(2, -1)
    return x


def _resampled(blocks: Iterator[Tensor], channels: int, rate: int, target: int) -> Iterator[Tensor]:
    resampler = Resampler(rate, target)
    stream, taken, given = ResampleStream(resampler), 0, 0
    for block in blocks:
        taken += block.shape[1]
        for part in stream.feed(block):
            given += part.shape[1]
            yield part
    rest = resampler.length(taken) - given
    for part in stream.finish(channels):  # whole groups: what reaches over the end is not of the signal
        yield part[:, :rest]
        rest = max(0, rest - part.shape[1])


def _excerpts(blocks: Iterator[Tensor], channels: int, size: int, pad: bool) -> Iterator[tuple[int, Tensor]]:
    """Excerpts of so many samples: how many of them the recording has, and all of them, silence after its end."""
    rest, first = torch.empty(channels, 0), True
    for block in blocks:
        rest = torch.cat([rest, block], 1)
        while rest.shape[1] >= size:
            yield size, rest[:, :size].contiguous()
            rest, first = rest[:, size:], False
    if rest.shape[1] and pad:
        yield rest.shape[1], torch.nn.functional.pad(rest, (0, size - rest.shape[1]))
    elif first:
        raise InputError(f"the recording has {rest.shape[1]} samples, an excerpt {size}: it is too short")


# --- the grid of frames ------------------------------------------------------------------------------------------


def check_seconds(seconds: float | None) -> None:
    """Raises InputError unless this is None or a length."""
    if seconds is not None and not (0 < seconds < _LONGEST and math.isfinite(seconds)):
        raise InputError(f"seconds is {seconds!r}; a length above 0 is needed")


def frames_and_samples(codec: Any, rate: int, seconds: float) -> Span:
    """How many frames of a codec are nearest to a length, at least one, and how many samples at ``rate`` Hz they are.

    Of codecs without frames a frame is a sample.
    """
    coded, hop = _grid(codec, rate)
    frames = max(1, round(seconds * coded / hop))
    return frames, frames * hop * rate // coded


def samples_of(codec: Any, rate: int, first: int, stop: int) -> Span:
    """The samples at ``rate`` Hz by which a codec is asked for frames ``first`` to ``stop``."""
    coded, hop = _grid(codec, rate)
    return -(-first * hop * rate // coded), -(-stop * hop * rate // coded)


def _grid(codec: Any, rate: int) -> Span:
    if keeps_signals(codec):
        return rate, 1
    coded = codec.coding_rate(rate)
    return coded, codec.hop(coded)


def _latent_shape(codec: Any, stream: Container) -> tuple[int, int]:
    decoder = codec.open_decoder(stream.header, len(stream.chunks), to="latent")
    return decoder.channels, decoder.samples


def _over_threads(read: Any, count: int, threads: int) -> list[Any]:
    parts = run_batch(lambda span: [read(i) for i in span], spread(count, threads), threads=threads)
    return [item for part in parts for item in part]


SOUND = Sound()
