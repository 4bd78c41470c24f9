"""AAC by the command-line tool ffmpeg, where it is installed: the encoder of FFmpeg itself (AAC-LC)."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np

PRIMING = 1024  # samples that the encoder puts in front


def version() -> str | None:
    """First words of ``ffmpeg -version``, None where the tool is missing."""
    if shutil.which("ffmpeg") is None:
        return None
    return " ".join(_ffmpeg(["-version"], b"").decode().split()[:3])


def _ffmpeg(arguments: list[str], data: bytes) -> bytes:
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def encode(x: np.ndarray, rate: int, kbps: float) -> bytes:
    """(T, C) float32 -> frames of ADTS."""
    import soundfile

    wav = io.BytesIO()
    soundfile.write(wav, x, rate, format="WAV", subtype="FLOAT")
    return _ffmpeg(["-f", "wav", "-i", "-", "-c:a", "aac", "-b:a", f"{kbps}k", "-f", "adts", "-"], wav.getvalue())


def decode(data: bytes, rate: int, count: int) -> np.ndarray:
    """(count, C) float32 at the rate of the original."""
    channels = ((data[2] & 1) << 2) | (data[3] >> 6)
    raw = _ffmpeg(["-f", "aac", "-i", "-", "-ar", str(rate), "-f", "f32le", "-"], data)
    x = np.frombuffer(raw, "<f4").reshape(-1, channels)[PRIMING : PRIMING + count]
    return np.pad(x, ((0, count - len(x)), (0, 0)))


def payload(data: bytes) -> int:
    """Bytes of the frames without their headers of seven bytes."""
    at = total = 0
    while at + 7 <= len(data):
        size = ((data[at + 3] & 3) << 11) | (data[at + 4] << 3) | (data[at + 5] >> 5)
        total += size - 7
        at += size
    return total
