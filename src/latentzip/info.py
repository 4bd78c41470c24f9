"""What a stream says about itself, without decoding anything and without torch or numpy."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from . import signals
from .entropy import container
from .entropy.container import BOX_NAMES, Index, Limits
from .entropy.errors import InputError


@dataclass(frozen=True)
class Info:
    """Facts about one `.ltz` stream.

    Attributes:
        codec, fingerprint: the codec and, in hex, the weights that decoding needs.
        modality: ``"image"``, ``"audio"`` or ``"tensor"``.
        kind: what came in: ``"pil"``, ``"numpy"`` or ``"tensor"``.
        shape: of the coded signal, (C, H, W) for images. Grey is coded as RGB.
        dtype, mode: of the original; the mode is a Pillow mode where one applies.
        sample_rate: in Hz, 0 where there is none.
        num_bytes: of the whole stream.
        bpp: bits per pixel (bits per sample position for audio, per element for tensors), everything included.
        duration: of audio: seconds, else 0.
        kbps: of audio: 1000 bits per second, everything included, else 0.
        chunks: parts that decode on their own.
        boxes: bytes of each box beside the payload, by name: ICC, EXIF, XMP, TAGS, AUX (an alpha channel).
        quality: 1..100 for codecs of variable rate, else None.
        version: of the format.
    """

    codec: str
    fingerprint: str
    modality: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    mode: str
    sample_rate: int
    num_bytes: int
    bpp: float
    duration: float
    kbps: float
    chunks: int
    boxes: dict[str, int]
    quality: int | None
    version: int

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"shape": list(self.shape), "bpp": round(self.bpp, 5)}


def from_index(index: Index) -> Info:
    """`Info` of a parsed header."""
    h = index.header
    kind = signals.of(h)
    duration = kind.seconds(h)
    return Info(
        codec=h.codec,
        fingerprint=h.fingerprint.hex(),
        modality=h.modality,
        kind=h.kind,
        shape=h.shape,
        dtype=h.dtype,
        mode=h.mode,
        sample_rate=h.sample_rate,
        num_bytes=index.num_bytes,
        bpp=8 * index.num_bytes / max(1, kind.positions(h)),
        duration=duration,
        kbps=round(8 * index.num_bytes / duration / 1000, 3) if duration else 0.0,
        chunks=len(index.chunk_sizes),
        boxes={BOX_NAMES.get(number, f"#{number}"): size for number, size in index.boxes},
        quality=kind.quality(h.params),
        version=index.version,
    )


def inspect(
    source: bytes | bytearray | memoryview | str | os.PathLike[str],
    *,
    limits: Limits = container.DEFAULT_LIMITS,
) -> Info:
    """Read the header of a stream in memory or of a file; payloads are neither read nor checked.

    Raises:
        FormatError: not a `.ltz` stream, or truncated.
        OSError: the file cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return from_index(container.read_header(source, limits))
    if not isinstance(source, (str, os.PathLike)):  # a number would be a file that somebody else has open
        raise InputError(f"cannot inspect a {type(source).__name__}; hand in bytes or a path")
    with open(source, "rb") as file:
        return from_index(container.read_header(file, limits))
