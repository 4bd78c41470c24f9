"""The conventional sound codecs that ours are compared with, through libsndfile (soundfile).

Sounds are written in blocks of a second: one long write of Ogg Vorbis ends in a crash of libsndfile 1.2.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...entropy.errors import InputError, UnsupportedError

_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_LAME_DELAY = 1105  # samples that LAME and a decoder add in front, where the file does not say so


@dataclass(frozen=True)
class ConventionalSound:
    """A libsndfile format and its ladder.

    Attributes:
        options: (setting, channels, rate) -> what soundfile is told.
        scale: what a setting is: "kbps" (all channels together), "quality" 1..100, or "" for lossless formats.
        ladder: settings, from small files to large ones.
        rates: the sample rates it has, None for any; others are resampled, there and back.
        most: channels at most.
    """

    name: str
    format: str
    subtype: str
    options: Callable[[float, int, int], dict[str, Any]]
    scale: str
    ladder: tuple[float, ...]
    rates: tuple[int, ...] | None = None
    most: int = 8

    def encode(self, samples: np.ndarray, rate: int, setting: float) -> bytes:
        """(T, C) float32 -> a file in memory."""
        soundfile = _soundfile()
        channels = samples.shape[1]
        if channels > self.most:
            raise InputError(f"{self.name} has at most {self.most} channels, not {channels}")
        inner = self._rate(rate)
        samples = _resampled(samples, rate, inner)
        buffer = io.BytesIO()
        options = self.options(setting, channels, inner)
        with soundfile.SoundFile(
            buffer, "w", inner, channels, subtype=self.subtype, format=self.format, **options
        ) as file:
            for start in range(0, len(samples), inner):
                file.write(samples[start : start + inner])
        return buffer.getvalue()

    def decode(self, data: bytes, rate: int, count: int) -> np.ndarray:
        """(count, C) float32 at the rate of the original; a decoder's few samples more or less are cut or silent."""
        samples, inner = _soundfile().read(io.BytesIO(data), dtype="float32", always_2d=True)
        if self.name == "mp3" and len(samples) - -(-count * inner // rate) >= _LAME_DELAY:
            samples = samples[_LAME_DELAY:]  # frames of few bits have no room for the note that readers cut by
        samples = _resampled(samples, inner, rate)[:count]
        return np.pad(samples, ((0, count - len(samples)), (0, 0)))

    def _rate(self, rate: int) -> int:
        if self.rates is None or rate in self.rates:
            return rate
        return min((r for r in self.rates if r > rate), default=max(self.rates))


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise UnsupportedError("sounds need soundfile: pip install soundfile") from error
    return soundfile


def _resampled(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    if rate == target:
        return samples
    from math import gcd

    from scipy.signal import resample_poly

    divisor = gcd(rate, target)
    # a long Kaiser window: the conversion must not count as the codec's error
    return resample_poly(samples, target // divisor, rate // divisor, axis=0, window=("kaiser", 14.0)).astype(
        np.float32
    )


def _opus(kbps: float, channels: int, rate: int) -> dict[str, Any]:
    # libsndfile spreads its scale over 6 to 256 kbit/s a channel
    return {"compression_level": float(np.clip(1 - (kbps / channels - 6) / 250, 0, 1))}


def _mp3(kbps: float, channels: int, rate: int) -> dict[str, Any]:
    low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
    level = float(np.clip((high - kbps) / (high - low), 0, 0.999))
    return {"compression_level": level, "bitrate_mode": "CONSTANT"}


CONVENTIONAL_AUDIO = {
    c.name: c
    for c in (
        ConventionalSound(
            "opus", "OGG", "OPUS", _opus, "kbps", (16, 24, 32, 48, 64, 96, 128), rates=_OPUS_RATES
        ),
        ConventionalSound(
            "mp3", "MP3", "MPEG_LAYER_III", _mp3, "kbps", (48, 64, 96, 128, 192), most=2,
            rates=(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
        ),
        ConventionalSound(
            "vorbis", "OGG", "VORBIS", lambda q, c, r: {"compression_level": 1 - q / 100}, "quality",
            (1, 20, 40, 60, 80),
        ),
        ConventionalSound("flac", "FLAC", "PCM_16", lambda _, c, r: {}, "", ()),
        ConventionalSound("flac-24", "FLAC", "PCM_24", lambda _, c, r: {}, "", ()),
    )
}  # fmt: skip
