"""Sound: files and pairs (samples, rate) become (C, T) floats with full scale 1, and come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...defaults import DEFAULT_SOUND_CODEC
from ...entropy.container import Header
from ..kind import Kind

# files that libsndfile reads
SUFFIXES = frozenset({
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".w64", ".rf64", ".caf"),
    *(".au", ".snd"),
})  # fmt: skip


class Sound(Kind):
    name, noun, one = "audio", "sound", "sound"
    suffixes = SUFFIXES
    codec = DEFAULT_SOUND_CODEC
    rate, rate_label, speed_unit = "kbps", "kilobits per second", "x real time"
    module = ".sound.coding"

    def suffix(self, header: Header) -> str:
        """WAV, whatever it was."""
        return ".wav"

    def shape(self, header: Header, region: Sequence[int] | None, span: Sequence[float] | None) -> list[int]:
        """(C, T), or of a span (start, stop) in seconds."""
        channels, samples = header.shape
        if span is None:
            return [channels, samples]
        start, stop = (round(seconds * header.sample_rate) for seconds in span)
        return [channels, min(stop, samples) - start]

    def seconds(self, header: Header) -> float:
        """Its length."""
        return header.shape[1] / header.sample_rate

    def extent(self, header: Header) -> dict[str, Any]:
        """Seconds."""
        return {"seconds": self.seconds(header)}

    def units(self, shape: Sequence[int], rate: int) -> float:
        """Milliseconds of (T, C), so that bits become kbit/s."""
        return 1000 * shape[0] / rate

    def amount(self, units: float, num_bytes: int) -> float:
        """Seconds."""
        return units / 1000

    def words(self, shape: Sequence[int], rate: int) -> str:
        """Length and rate."""
        return f"{duration(shape[1] / rate)} of {rate} Hz"

    def quality(self, params: bytes) -> int | None:
        """Of the nine bytes of `codecs.audio_base`."""
        return params[1] if len(params) == 9 and params[0] == 1 and 1 <= params[1] <= 100 else None


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


SOUND = Sound()
