"""The conventional picture codecs that ours are compared with, through Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Conventional:
    """A Pillow format with the settings its users would call good, and its ladder of qualities.

    Attributes:
        save: Pillow's save options for one step of the ladder.
        ladder: steps, from small files to large ones.
    """

    name: str
    format: str
    save: Callable[[float], dict[str, Any]]
    ladder: tuple[float, ...]

    def encode(self, image: Image.Image, step: float) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, self.format, **self.save(step))
        return buffer.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        """(H, W, 3) uint8."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


CONVENTIONAL = {
    c.name: c
    for c in (
        Conventional(
            "jpeg", "JPEG", lambda q: {"quality": int(q), "optimize": True, "subsampling": "4:2:0"},
            (10, 20, 35, 50, 65, 80, 90, 95),
        ),
        Conventional(
            "webp", "WEBP", lambda q: {"quality": int(q), "method": 6}, (5, 20, 40, 60, 75, 85, 92, 97)
        ),
        Conventional(
            "avif", "AVIF", lambda q: {"quality": int(q), "speed": 6, "subsampling": "4:4:4"},
            (15, 30, 45, 55, 65, 75, 85, 92),
        ),
        Conventional(
            "jpeg2000", "JPEG2000",
            lambda r: {"quality_mode": "rates", "quality_layers": [r], "irreversible": True, "mct": 1},
            (160, 96, 64, 40, 24, 16, 10, 7),
        ),
    )
}  # fmt: skip

# without a ladder: every bit is kept
LOSSLESS = {
    c.name: c
    for c in (
        Conventional("png", "PNG", lambda _: {"optimize": True}, ()),
        Conventional("webp-lossless", "WEBP", lambda _: {"lossless": True, "quality": 75, "method": 4}, ()),
    )
}
