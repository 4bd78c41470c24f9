"""Sound that comes and goes in blocks: the chunks of a stream, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...entropy.container import Header
from ...entropy.errors import CodecError, FormatError, InputError
from ...kernels.parallel import parallel
from ..audio_base import MAX_RATE, MIN_RATE, groups_of
from . import integers, sound
from .effort import DEFAULT

Span = tuple[int, int]


class SoundEncoder:
    """Codes a signal that comes in blocks; the chunks do not depend on how it was cut.

    Args:
        channels, rate: of the signal; the rate in Hz.
        effort: 1 (fastest) to 9 (smallest).
        verify: decode every chunk and compare.

    Attributes:
        params: the codec's parameters in the header.
        samples: how many samples a channel has so far.
    """

    def __init__(self, channels: int, rate: int, effort: int = DEFAULT, verify: bool = False, **_: Any) -> None:
        if rate != int(rate) or not MIN_RATE <= rate <= MAX_RATE:
            raise InputError(
                f"the sampling rate is {rate!r}; a whole number from {MIN_RATE} to {MAX_RATE} Hz is needed"
            )
        self.params = sound.pack(int(effort), int(rate))
        self.samples = 0
        self._effort, self._verify, self._channels = int(effort), verify, channels
        self._chunk = sound.unpack(self.params)[1]
        self._pieces: list[np.ndarray] = []
        self._held = 0
        self._dtype: np.dtype | None = None

    def feed(self, x: np.ndarray | Tensor) -> list[bytes]:
        """More samples (C, n) of uint8, int16, int32 or float32 -> the payloads of the chunks that are complete.

        Raises:
            InputError: another number of channels, or another type.
            CodecError: what was decoded differs; nothing is lost but time, please report it.
        """
        x = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
        if x.dtype.name not in integers.DTYPES:
            raise InputError(f"lossless takes sound of {', '.join(integers.DTYPES)}, not {x.dtype}")
        if x.ndim != 2 or x.shape[0] != self._channels or (self._dtype or x.dtype) != x.dtype:
            raise InputError(f"samples come as ({self._channels}, n) of one type, not {x.dtype}{x.shape}")
        self._dtype = x.dtype
        self.samples += x.shape[1]
        self._pieces.append(x)
        self._held += x.shape[1]
        return self._code(self._held // self._chunk) if self._held >= self._chunk else []

    def finish(self) -> list[bytes]:
        """The payloads of the remaining chunks."""
        return self._code(-(-self._held // self._chunk))

    def _code(self, count: int) -> list[bytes]:
        if count == 0:
            return []
        x = np.concatenate(self._pieces, 1) if len(self._pieces) > 1 else self._pieces[0]
        jobs = []
        for start in range(0, count * self._chunk, self._chunk):
            first = 0
            for channels in groups_of(self._channels):
                jobs.append(x[first : first + channels, start : start + self._chunk])
                first += channels
        rest = x[:, count * self._chunk :]
        self._pieces, self._held = [rest.copy()], rest.shape[1]
        return list(parallel(self._code_one, jobs))

    def _code_one(self, x: np.ndarray) -> bytes:
        data = sound.encode_chunk(x, self._effort)
        if self._verify:
            y = sound.decode_chunk(data, x.shape[0], x.shape[1], x.dtype, self._effort)
            if y.tobytes() != np.ascontiguousarray(x).tobytes():
                raise CodecError("lossless: decoding gave other samples than were coded; please report this sound")
        return data


class SoundDecoder:
    """Decodes a signal or a span of it from chunks that come one after the other.

    Args:
        header: of the stream; count: how many chunks it has.
        span: (start, stop) in samples; None for all.
        to: ``"latent"`` gives the samples as int32 tensors, floats as their bits.

    Attributes:
        wanted: numbers of the chunks to feed, in order.
        channels, samples: of what comes out.

    Raises:
        FormatError: header and number of chunks do not fit each other.
        InputError: the span lies outside the signal.
    """

    def __init__(
        self, header: Header, count: int, *, to: Literal["signal", "latent"] = "signal", span: Span | None = None
    ) -> None:
        self._dtype, self._latent = _stored(header), to == "latent"
        self.channels, total = header.shape[0], header.shape[1]
        self._effort, self._chunk = sound.unpack(header.params)
        self._start, self._stop = (0, total) if span is None else span
        if not 0 <= self._start <= self._stop <= total:
            raise InputError(f"samples {self._start} to {self._stop} do not lie inside the signal of {total} samples")
        self.samples, self._total, self._groups = self._stop - self._start, total, groups_of(self.channels)
        chunks = -(-total // self._chunk) * len(self._groups)
        if chunks != count:
            raise FormatError(f"lossless: {count} chunks where the length asks for {chunks}")
        first, last = self._start // self._chunk, -(-self._stop // self._chunk)
        times = range(first, last) if self.samples else range(0)
        self.wanted = range(times.start * len(self._groups), times.stop * len(self._groups))

    def _decode_one(self, job: tuple[int, bytes]) -> np.ndarray:
        number, data = job
        time, group = divmod(number, len(self._groups))
        samples = min(self._chunk, self._total - time * self._chunk)
        return sound.decode_chunk(data, self._groups[group], samples, self._dtype, self._effort)

    def decode(self, chunks: Sequence[bytes]) -> Iterator[Tensor]:
        """Feed what is wanted of all chunks, a few at a time; yields samples (C, n) in the stream's type."""
        many = len(self._groups)
        step = many * max(1, torch.get_num_threads() // many)
        for begin in range(self.wanted.start, self.wanted.stop, step):
            jobs = [(i, chunks[i]) for i in range(begin, min(begin + step, self.wanted.stop))]
            parts = list(parallel(self._decode_one, jobs))
            for i in range(0, len(parts), many):
                start = (begin + i) // many * self._chunk
                part = np.concatenate(parts[i : i + many]) if many > 1 else parts[i]
                yield self._given(part[:, max(0, self._start - start) : self._stop - start])

    def _given(self, x: np.ndarray) -> Tensor:
        x = np.ascontiguousarray(x)
        if self._latent:
            x = x.view(np.int32) if x.dtype == np.float32 else x.astype(np.int32)
        return torch.from_numpy(x)

    def all(self, chunks: Sequence[bytes]) -> Tensor:
        """What comes out, whole: (channels, samples)."""
        parts = list(self.decode(chunks)) or [self._given(np.empty((self.channels, 0), self._dtype))]
        return torch.cat(parts, 1)


# what a header calls the samples, and what they are coded as
STORED = {
    "uint8": "uint8", "int16": "int16", "int24": "int32", "int32": "int32", "float16": "float32", "bfloat16": "float32",
    "float32": "float32", "float64": "float32",
}  # fmt: skip


def _stored(header: Header) -> np.dtype:
    if header.dtype not in STORED or len(header.shape) != 2 or header.shape[0] < 1:
        raise FormatError(f"sound of {header.dtype}{header.shape} in a stream of lossless: it is corrupt")
    return np.dtype(STORED[header.dtype])
