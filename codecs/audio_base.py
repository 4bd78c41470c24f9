"""The codec contract for sound: analysis, program, synthesis of one or two channels; everything else is written here.

A signal (C, T) is coded in groups of two channels (and one where C is odd), each resampled to a rate that the codec
takes. Frames of ``hop`` samples become columns of an integer latent; ``chunk`` frames are coded together, on their
own, so that a span decodes alone. Chunks are computed on one fixed grid, each with the frames around it that it
depends on (its halo): what comes out does not depend on how a signal was cut when it was fed, and a span is equal to
the same part of the whole, to the last bit. Nothing here holds more than a few chunks: `AudioEncoder` is fed samples
and yields chunks, `AudioDecoder` is fed chunks and yields samples.

The chunks of a stream lie in order of time, and at equal times in order of the groups.
"""

from __future__ import annotations

import math
import struct
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..entropy.container import Header
from ..entropy.dense import tensor_of
from ..entropy.errors import FormatError, InputError
from ..kernels.parallel import parallel
from ..kernels.resample import Resampler, ResampleStream
from .base import BaseCodec
from .contract import SPAN, STREAMING, Compressed
from .surroundings import plainly

_PARAMS = struct.Struct("<BBHIb")  # version, quality, frames a chunk, rate of the samples that were coded, level
_PARAMS_VERSION = 1
_MAX_CHUNK = 4096  # frames
MIN_RATE, MAX_RATE = 1000, 768_000  # sampling rates that are coded, in Hz
_LEVEL_STEP = 4  # levels are 2 ** (n / 4)
LOUDEST = 2.0 ** (127 / _LEVEL_STEP)

Span = tuple[int, int]


@dataclass(frozen=True)
class Setting:
    """What the three functions know beside samples and latents.

    Attributes:
        rate: sampling rate of the samples that the codec sees, in Hz.
        channels: 1 or 2.
        quality: 1..100, None for codecs of one fixed rate.
        level: magnitude that the loudest sample has, or what else `AudioCodec.level_of` says; what a codec may scale
            its steps by. Samples may exceed it. Always 1 for codecs that do not ask for it.
    """

    rate: int
    channels: int
    quality: int | None = None
    level: float = 1.0


class AudioCodec(BaseCodec):
    """Base of all codecs of sound.

    Sub-classes set the class attributes, implement the three functions, `hop` and `coding_arrays`, and override
    `rows` and `coding_rate` where these depend on the signal.

    Attributes:
        chunk: frames that are coded together; 1 to 5 seconds are a good length, 4096 the most.
        analysis_halo: frames on each side of a frame whose samples decide about its latent.
        synthesis_halo: frames on each side of a frame whose latents decide about its samples.
        tail: frames beyond the last sample; 1 for lapped transforms whose last block reaches over the end.
        needs_level: whether `Setting.level` is used. A file is then read twice, and what is fed from a pipe counts as
            full scale.
    """

    modality = "audio"
    chunk: int = 512
    analysis_halo: int = 0
    synthesis_halo: int = 0
    tail: int = 0
    needs_level: bool = False

    # --- the three functions -------------------------------------------------------------------------------------

    @abstractmethod
    def analysis(self, x: Tensor, setting: Setting) -> Tensor:
        """Samples (B, C, T) float32 -> latent (B, rows, ceil(T / hop) + tail) int32 or int16.

        Full scale is [-1, 1], and may be exceeded. A piece of a signal is given with ``analysis_halo`` frames around
        it; where it ends without them, the signal ends. Frame f stands for the samples from ``f * hop``.
        """

    @abstractmethod
    def program(self, coder: Any, latent: np.ndarray | None, shape: tuple[int, int], setting: Setting) -> np.ndarray:
        """Code one chunk's latent (rows, frames) int32 with ``coder.code``; returns what was coded (what was read).

        A chunk knows of no other: contexts begin anew.
        """

    @abstractmethod
    def synthesis(self, latent: Tensor, setting: Setting, first: int = 0) -> Tensor:
        """Latent (B, rows, frames) int -> samples (B, C, frames * hop) float32, not clamped.

        A piece is given with ``synthesis_halo`` frames around it, as far as the signal has them; it begins with frame
        ``first`` of the signal, for what has to differ from frame to frame, such as noise.
        """

    def settled(self, latent: np.ndarray, setting: Setting) -> np.ndarray:
        """A chunk's latent (rows, frames) int32 with what is decided for all of its frames at once; may be changed."""
        return latent

    @abstractmethod
    def hop(self, rate: int) -> int:
        """Samples a frame advances at a rate that the codec takes."""

    def rows(self, setting: Setting) -> int:
        """Rows of the latent of one group."""
        return self.latent_channels

    def coding_rate(self, rate: int) -> int:
        """The rate that a signal of ``rate`` Hz is coded at; the same where the codec takes it as it is."""
        return rate

    def frames_of(self, samples: int, rate: int) -> int:
        """Frames of a signal of so many samples at ``rate`` Hz."""
        coded = self.coding_rate(rate)
        length = samples if coded == rate else _resampler(rate, coded).length(samples)
        return _frames(self, length, self.hop(coded))

    def level_of(self, x: Tensor) -> float:
        """What `Setting.level` has to be at least for samples (C, n); that of a signal is the largest of its parts."""
        return peak(x)

    # --- signal <-> parameters and chunks ------------------------------------------------------------------------

    @plainly
    def compress(self, x: Tensor, rate: int, quality: float | None = None) -> Compressed:
        """Code one signal.

        Args:
            x: (C, T) float32, any number of channels from 1, any length from 0. Full scale is [-1, 1].
            rate: sampling rate in Hz.
            quality: 1..100 for codecs of variable rate.

        Raises:
            InputError: not such a signal, NaN or infinite values, quality refused.
        """
        encoder, latents = self.analysed(self._samples(x), rate, quality)
        return Compressed(encoder.params, encoder.code(latents))

    def analysed(
        self, x: Tensor, rate: int, quality: float | None = None
    ) -> tuple[AudioEncoder, Iterable[list[np.ndarray]]]:
        """The encoder of a signal (C, T) float32, and the latents (rows, frames) of each group, one list a chunk."""
        level = self.level_of(x) if self.needs_level else 1.0
        encoder = AudioEncoder(self, x.shape[0], rate, quality, level)
        return encoder, encoder.analyse_whole(x)

    def _samples(self, x: Any) -> Tensor:
        x = tensor_of(x, "f", "sound")
        if x.ndim != 2 or x.shape[0] < 1:
            raise InputError(f"{self.name} takes signals of shape (channels, samples), not {tuple(x.shape)}")
        return x.to(torch.float32)

    @plainly
    def latent(self, x: Tensor, rate: int, quality: float | None = None) -> Tensor:
        """Integer latent of one signal (C, T), all groups one below the other: (rows, frames) int16 on the CPU."""
        encoder, latents = self.analysed(self._samples(x), rate, quality)
        parts = [np.concatenate(groups) for groups in latents]
        rows = sum(self.rows(s) for s in encoder.settings)
        return torch.from_numpy(np.concatenate([np.zeros((rows, 0), np.int32), *parts], 1).astype(np.int16))

    @plainly
    def decompress(
        self,
        params: bytes,
        chunks: Sequence[bytes],
        shape: tuple[int, int],
        rate: int,
        *,
        to: Literal["signal", "latent"] = "signal",
        span: Span | None = None,
    ) -> Tensor:
        """Inverse of `compress`.

        Args:
            params, chunks: as `compress` returned them. ``chunks`` may be lazy: only those needed are indexed.
            shape, rate: (C, T) and sampling rate in Hz of the signal.
            to: ``"latent"`` stops after entropy decoding.
            span: (start, stop) in samples; only the chunks that it touches are decoded.

        Returns:
            Signal (C, T) float32, not clamped, on the codec's device; or latent (rows, frames), all groups one below
            the other, on the CPU. With a span, the part of it: samples start to stop, or the frames that they touch.

        Raises:
            FormatError: the parameters or chunks are not what this codec writes.
            InputError: the span lies outside the signal.
        """
        return AudioDecoder(self, params, shape, rate, len(chunks), span=span, to=to).all(chunks)

    # --- what the face asks (`contract`) -------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities | {SPAN, STREAMING}

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Tensor:
        """`decompress` of a stream's header and payloads; see `contract.AnyCodec`."""
        shape = header.shape[0], header.shape[1]
        return self.decompress(header.params, chunks, shape, header.sample_rate, to=to, **part)

    def open_encoder(self, channels: int, rate: int, *, level: float = 1.0, **options: Any) -> AudioEncoder:
        """What codes a signal that comes in blocks; options as `compress`."""
        return AudioEncoder(self, channels, rate, level=level, **options)

    def open_decoder(
        self, header: Header, count: int, *, to: Literal["signal", "latent"] = "signal", span: Span | None = None
    ) -> AudioDecoder:
        """What decodes the ``count`` chunks of a stream, or those of a span in samples, one after the other."""
        shape = header.shape[0], header.shape[1]
        return AudioDecoder(self, header.params, shape, header.sample_rate, count, span=span, to=to)

    # --- tensors <-> files in memory -----------------------------------------------------------------------------

    @plainly
    def encode(self, x: Tensor, rate: int, quality: float | None = None) -> list[bytes]:
        """Signals (B, C, T) float32 at ``rate`` Hz -> one `.ltz` stream each."""
        if x.ndim != 3:
            raise InputError(f"encode takes a batch (B, channels, samples), not {tuple(x.shape)}")
        from ..entropy.container import Header, write

        streams = []
        for signal in x:
            c = self.compress(signal.float(), rate, quality)
            header = Header(
                codec=self.name, fingerprint=self.fingerprint, modality=self.modality, kind="tensor",
                shape=tuple(signal.shape), dtype="float32", sample_rate=rate, params=c.params,
            )  # fmt: skip
            streams.append(write(header, c.chunks))
        return streams

    @plainly
    def decode(self, streams: Sequence[bytes], to: Literal["signal", "latent"] = "signal") -> list[Tensor]:
        """Inverse of `encode`: one (C, T) tensor (or latent) a stream."""
        from ..entropy.container import read

        out = []
        for stream in streams:
            box = read(stream)
            h = box.header
            if h.codec != self.name or h.fingerprint != self.fingerprint:
                raise FormatError(
                    f"the stream was made by {h.codec} ({h.fingerprint.hex()}), "
                    f"not by this {self.name} ({self.fingerprint.hex()}); use latentzip.decode, which picks the weights"
                )
            out.append(self.decompress(h.params, box.chunks, (h.shape[0], h.shape[1]), h.sample_rate, to=to))
        return out


def groups_of(channels: int) -> list[int]:
    """How many channels each group has: pairs, and one alone where their number is odd."""
    return [2] * (channels // 2) + [1] * (channels % 2)


def peak(x: Tensor) -> float:
    """Largest magnitude of a signal; InputError where it holds NaN or infinite values, or exceeds what a level says."""
    if x.numel() == 0:
        return 0.0
    low, high = (float(v) for v in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("the signal contains NaN or infinite values; replace them first")
    top = max(-low, high)
    if top > LOUDEST:
        raise InputError(f"the signal reaches {top:.3g}; full scale is 1 and {LOUDEST:.2g} the most: scale it first")
    return top


@lru_cache(maxsize=8)
def _resampler(source: int, target: int) -> Resampler:
    return Resampler(source, target)


class AudioEncoder:
    """Codes a signal that comes in blocks; the chunks do not depend on how it was cut.

    Args:
        codec: what to code with.
        channels, rate: of the signal; the rate in Hz.
        quality: 1..100 for codecs of variable rate.
        level: magnitude of the loudest sample, for codecs that ask for it; 0 (silence) counts as 1.

    Attributes:
        params: the codec's parameters in the header.
        samples: how many samples a channel has so far.
        settings: one for each group.
    """

    @plainly
    def __init__(
        self, codec: AudioCodec, channels: int, rate: int, quality: float | None = None, level: float = 1.0
    ) -> None:
        if rate != int(rate) or not MIN_RATE <= rate <= MAX_RATE:
            raise InputError(
                f"the sampling rate is {rate!r}; a whole number from {MIN_RATE} to {MAX_RATE} Hz is needed"
            )
        q = codec.check_quality(quality)
        self.codec, self.channels, self.samples = codec, channels, 0
        self.rate = codec.coding_rate(int(rate))
        steps = round(math.log2(level) * _LEVEL_STEP) if codec.needs_level and level > 0 else 0
        steps = min(max(steps, -128), 127)
        self.settings = [Setting(self.rate, c, q or None, 2.0 ** (steps / _LEVEL_STEP)) for c in groups_of(channels)]
        self.params = _PARAMS.pack(_PARAMS_VERSION, q, codec.chunk, self.rate, steps)
        self._hop = codec.hop(self.rate)
        self._resampling = ResampleStream(_resampler(int(rate), self.rate)) if self.rate != rate else None
        self._pieces: list[Tensor] = []  # samples to code that are still needed, end to end
        self._start, self._end = 0, 0  # which samples those are
        self._frame = 0  # the next frame to code

    @plainly
    def feed(self, x: Tensor) -> list[bytes]:
        """More samples (C, n) float32 -> the payloads of the chunks that are complete by now.

        Raises:
            InputError: another number of channels, NaN or infinite values.
        """
        return self.code(self.analyse(x))

    @plainly
    def finish(self) -> list[bytes]:
        """The payloads of the remaining chunks."""
        return self.code(self.analyse(None))

    def code(self, latents: Iterable[list[np.ndarray]]) -> list[bytes]:
        """The payloads of latents (rows, frames) int32 of each group, a list a chunk."""
        jobs = [(latent, setting) for groups in latents for latent, setting in zip(groups, self.settings)]
        return list(parallel(self._code_one, jobs))

    def _code_one(self, job: tuple[np.ndarray, Setting]) -> bytes:
        from ..entropy.coder import Encoder

        latent, setting = job
        encoder = Encoder()
        self.codec.program(encoder, latent, (latent.shape[0], latent.shape[1]), setting)
        return encoder.finish()

    def analyse_whole(self, x: Tensor) -> Iterator[list[np.ndarray]]:
        """As `analyse`, of a signal that ends with ``x``."""
        return chain(self.analyse(x), self.analyse(None))

    def analyse(self, x: Tensor | None) -> Iterator[list[np.ndarray]]:
        """Latents (rows, frames) int32 of each group, one list a chunk; None ends the signal."""
        if x is not None:
            self._check(x)
            self.samples += x.shape[1]
            parts = [x] if self._resampling is None else self._resampling.feed(x)
        else:
            parts = [] if self._resampling is None else self._resampling.finish(self.channels)
        for part in parts:
            self._pieces.append(part)
            self._end += part.shape[1]
        if x is None and self._resampling is not None:
            self._end = self._resampling.r.length(self.samples)
        codec, hop = self.codec, self._hop
        total = _frames(codec, self._end, hop) if x is None else None
        while True:
            first, stop = self._frame, self._frame + codec.chunk
            if total is not None:
                stop = min(stop, total)
                if first >= stop:
                    return
            elif (stop + codec.analysis_halo) * hop > self._end:
                return
            yield self._chunk(first, stop)
            self._frame = stop

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[0] != self.channels:
            raise InputError(f"samples come as ({self.channels}, n), not {tuple(x.shape)}")
        peak(x)

    def _chunk(self, first: int, stop: int) -> list[np.ndarray]:
        codec, hop = self.codec, self._hop
        begin = max(0, first - codec.analysis_halo)
        data = self._pieces[0] if len(self._pieces) == 1 else torch.cat(self._pieces, 1)
        keep = begin * hop - self._start
        data, self._start = data[:, keep:], self._start + keep
        self._pieces = [data]
        limit = min((stop + codec.analysis_halo) * hop, self._end) - self._start
        piece = data[:, :limit].to(codec.device)
        out, channel = [], 0
        for setting in self.settings:
            x = piece[channel : channel + setting.channels]
            channel += setting.channels
            latent = codec.analysis(x[None], setting)[0, :, first - begin : stop - begin]
            out.append(codec.settled(np.array(latent.cpu().numpy(), np.int32, order="K"), setting))
        return out


def _frames(codec: AudioCodec, samples: int, hop: int) -> int:
    """Frames of a whole signal of that many samples at the rate of the codec."""
    return -(-samples // hop) + codec.tail if samples else 0


class AudioDecoder:
    """Decodes a signal or a span of it from chunks that come one after the other.

    Args:
        codec: what the stream was made with.
        params: the codec's parameters in the header.
        shape, rate: of the signal: (C, T), and its sampling rate in Hz.
        count: how many chunks the stream has.
        span: (start, stop) in samples; None for all.
        to: ``"latent"`` stops after entropy decoding.

    Attributes:
        wanted: numbers of the chunks to feed, in order.
        channels, samples: of what comes out: rows and frames of a latent.

    Raises:
        FormatError: parameters, shape and number of chunks do not fit each other.
        InputError: the span lies outside the signal.
    """

    @plainly
    def __init__(
        self,
        codec: AudioCodec,
        params: bytes,
        shape: tuple[int, int],
        rate: int,
        count: int,
        *,
        span: Span | None = None,
        to: Literal["signal", "latent"] = "signal",
    ) -> None:
        self.codec, self._latent = codec, to == "latent"
        quality, self._chunk, self.rate, level = _read_params(codec, params)
        self.settings = [Setting(self.rate, c, quality, level) for c in groups_of(shape[0])]
        self._start, self._stop = (0, shape[1]) if span is None else span
        if not 0 <= self._start <= self._stop <= shape[1]:
            raise InputError(
                f"samples {self._start} to {self._stop} do not lie inside the signal of {shape[1]} samples"
            )
        self._hop = codec.hop(self.rate)
        self._coded = shape[1] if rate == self.rate else _resampler(rate, self.rate).length(shape[1])
        self._total = _frames(codec, self._coded, self._hop)
        chunks = -(-self._total // self._chunk) * len(self.settings)
        if chunks != count:
            raise FormatError(f"{codec.name}: {count} chunks where the length asks for {chunks}")
        self._resampling: ResampleStream | None = None
        first, last = self._latent_plan(rate, shape[1]) if self._latent else self._signal_plan(rate)
        numbers = range(first // self._chunk, -(-last // self._chunk)) if first < last else range(0)
        self.wanted = range(numbers.start * len(self.settings), numbers.stop * len(self.settings))
        self._pieces: list[Tensor] = []  # latents that are still needed, end to end
        self._have = self._begin = numbers.start * self._chunk  # which frames those are: from _begin to _have

    def _latent_plan(self, rate: int, length: int) -> Span:
        """The frames to hand out."""
        first = self._start * self.rate // rate // self._hop
        last = -(-self._stop * self.rate // (rate * self._hop)) + self.codec.tail * (self._stop == length)
        self._frames = (first, last) if self._start < self._stop else (0, 0)
        self.channels, self.samples = sum(self.codec.rows(s) for s in self.settings), self._frames[1] - self._frames[0]
        return self._frames

    def _signal_plan(self, rate: int) -> Span:
        """The frames to decode. Samples are synthesised by whole chunks, so that a span has the bits of the whole."""
        self.channels, self.samples = sum(s.channels for s in self.settings), self._stop - self._start
        if self._start == self._stop:
            return 0, 0
        self._need = self._start, self._stop  # at the rate of the codec
        self._out = self._start  # the next sample to hand out
        if rate != self.rate:
            r = _resampler(self.rate, rate)
            group, after = self._start // r.group_out, -(-self._stop // r.group_out)
            self._resampling, self._out = ResampleStream(r, group), group * r.group_out
            self._need = (
                max(0, group * r.group_in - r.margin),
                min(self._coded, after * r.group_in + r.margin),
            )
        size, halo = self._chunk * self._hop, self.codec.synthesis_halo
        self._piece, self._after = self._need[0] // size, -(-self._need[1] // size)
        return max(0, self._piece * self._chunk - halo), min(self._total, self._after * self._chunk + halo)

    def empty(self) -> Tensor:
        """Room for all that comes out: (channels, samples)."""
        if self._latent:
            return torch.empty(self.channels, self.samples, dtype=self.codec.latent_dtype)
        return torch.empty(self.channels, self.samples, device=self.codec.device)

    def decode(self, chunks: Sequence[bytes]) -> Iterator[Tensor]:
        """Feed what is wanted of all chunks, a few at a time; yields what comes out."""
        step = len(self.settings) * max(1, torch.get_num_threads())
        for start in range(self.wanted.start, self.wanted.stop, step):
            part = self.feed([chunks[i] for i in range(start, min(start + step, self.wanted.stop))])
            if part.shape[1]:
                yield part

    def all(self, chunks: Sequence[bytes]) -> Tensor:
        """What comes out, whole: (channels, samples)."""
        out, at = self.empty(), 0
        for part in self.decode(chunks):
            out[:, at : at + part.shape[1]] = part
            at += part.shape[1]
        return out

    @plainly
    def feed(self, payloads: Sequence[bytes]) -> Tensor:
        """The next wanted chunks -> samples (C, n) float32, or frames (rows, n), that are complete by now.

        The chunks of all groups of one time have to come together.

        Raises:
            FormatError: a payload is not what this codec writes.
        """
        g = len(self.settings)
        if len(payloads) % g:
            raise InputError(f"chunks come {g} at a time: one for each group of channels")
        number = self._have // self._chunk * g
        jobs = [(number + i, payload, self.settings[i % g]) for i, payload in enumerate(payloads)]
        latents = list(parallel(self._decode_one, jobs))
        for i in range(0, len(latents), g):
            self._pieces.append(latents[i] if g == 1 else torch.cat(latents[i : i + g]))
            self._have += self._pieces[-1].shape[1]
        return self._take_frames() if self._latent else self._take_samples()

    def _decode_one(self, job: tuple[int, bytes, Setting]) -> Tensor:
        from ..entropy.coder import Decoder

        number, payload, setting = job
        codec, first = self.codec, number // len(self.settings) * self._chunk
        shape = codec.rows(setting), min(self._chunk, self._total - first)
        decoder = Decoder(payload)
        latent = codec.program(decoder, None, shape, setting)
        decoder.finish()
        if max(-int(latent.min(initial=0)), int(latent.max(initial=0))) > codec.latent_limit:
            raise FormatError(f"{codec.name}: chunk {number} holds latents beyond +-{codec.latent_limit}")
        return torch.from_numpy(latent).to(codec.latent_dtype)

    def _take_frames(self) -> Tensor:
        data, self._pieces = _joined(self._pieces), []
        first, self._begin = self._begin, self._have
        return data[:, max(0, self._frames[0] - first) : self._frames[1] - first]

    def _take_samples(self) -> Tensor:
        codec, halo = self.codec, self.codec.synthesis_halo
        parts: list[Tensor] = []
        while self._piece < self._after and self._have >= min(self._total, (self._piece + 1) * self._chunk + halo):
            begin = max(0, self._piece * self._chunk - halo)
            data = _joined(self._pieces)[:, begin - self._begin :]
            self._pieces, self._begin = [data], begin
            samples = self._synthesise(data[:, : min(self._total, (self._piece + 1) * self._chunk + halo) - begin])
            self._piece += 1
            parts += self._restored(samples)
        out = (
            parts[0] if len(parts) == 1 else torch.cat([torch.empty(self.channels, 0, device=codec.device), *parts], 1)
        )
        first, self._out = self._out, self._out + out.shape[1]
        return out[:, max(0, self._start - first) : max(0, self._stop - first)]

    def _synthesise(self, latent: Tensor) -> Tensor:
        """Latents of a chunk and its halo -> those of its samples that are needed, at the rate of the codec."""
        codec, at, parts = self.codec, 0, []
        for setting in self.settings:
            rows = codec.rows(setting)
            with torch.inference_mode(), codec.arithmetic():
                x = codec.synthesis(latent[None, at : at + rows].to(codec.device), setting, self._begin)[0]
            parts.append(x.float())
            at += rows
        origin, size = self._begin * self._hop, self._chunk * self._hop
        start = max(self._piece * size, self._need[0])
        stop = min((self._piece + 1) * size, self._need[1])
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[:, start - origin : stop - origin]

    def _restored(self, samples: Tensor) -> list[Tensor]:
        """At the rate of the signal."""
        if self._resampling is None:
            return [samples]
        parts = self._resampling.feed(samples)
        if self._piece == self._after and self._need[1] == self._coded:
            parts += self._resampling.finish(self.channels)
        return parts


def _joined(pieces: list[Tensor]) -> Tensor:
    """Latents (rows, n) end to end; those that lie in memory frame after frame keep doing so."""
    if len(pieces) == 1:
        return pieces[0]
    if all(piece.T.is_contiguous() for piece in pieces):
        return torch.cat([piece.T for piece in pieces]).T
    return torch.cat(pieces, 1)


def _read_params(codec: AudioCodec, params: bytes) -> tuple[int | None, int, int, float]:
    """Quality, frames a chunk, rate and level."""
    if len(params) != _PARAMS.size or params[0] != _PARAMS_VERSION:
        raise FormatError(f"{codec.name}: unknown codec parameters; the file may need a newer latentzip")
    _, quality, chunk, rate, steps = _PARAMS.unpack(params)
    good = (quality > 0) == codec.variable_rate and quality <= 100 and 0 < chunk <= _MAX_CHUNK
    if not good or not MIN_RATE <= rate <= MAX_RATE or codec.coding_rate(rate) != rate:
        raise FormatError(f"{codec.name}: codec parameters out of range")
    return quality or None, chunk, rate, 2.0 ** (steps / _LEVEL_STEP)
