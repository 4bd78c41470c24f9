"""Training data as one file that is small enough to travel: crops of pictures as WebP, passages of sound as FLAC."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_writer
from .audio_data import EXTENSIONS as SOUNDS
from .data import EXTENSIONS as PICTURES
from .data import read_rgb
from .sources import MANIFEST, Folders, Source, by_kind, list_sources

_SIDE = 640  # pixels: crops of 256 can still be shrunk by up to 2
_QUALITY = 90  # of the WebP files, in steps far below those of most trained rates
_SECONDS = 12.0


def pack_data(data: Folders, out: Path, limit: float = 28e6, seed: int = 1) -> dict[str, int]:
    """Write a zip file of crops or passages, kind after kind in turn, until the next one would pass the limit.

    Args:
        data: folders of pictures, of sounds, or of both.
        out: the zip file; it appears whole or not at all.
        limit: bytes, of the whole file.

    Returns:
        How many files of each kind it holds.

    Raises:
        FileNotFoundError: nothing to pack.
    """
    sources = list_sources(data, PICTURES | SOUNDS)
    if not sources:
        raise FileNotFoundError(f"no picture and no sound in {data}")
    rng = np.random.default_rng(seed)
    counts: dict[str, int] = {}
    rows, used = [("file", "kind")], 4096.0
    with atomic_writer(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for source in _in_turn(sources, rng):
            blob, suffix = _part(source, rng)
            name = f"{source.kind}/{len(rows):05d}{suffix}"
            cost = len(blob) + 3 * len(name) + 150  # the archive names a file twice, the manifest once
            if used + cost > limit:
                break
            used += cost
            archive.writestr(name, blob)
            rows.append((name, source.kind))
            counts[source.kind] = counts.get(source.kind, 0) + 1
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        archive.writestr(MANIFEST, text.getvalue(), zipfile.ZIP_DEFLATED)
    return counts


def _in_turn(sources: list[Source], rng: np.random.Generator) -> Iterator[Source]:
    """Every source once; one of each kind after the other while they last, so that rare kinds are in any beginning."""
    queues = [list(rng.permutation(numbers)) for numbers in by_kind([s.kind for s in sources])]
    while any(queues):
        for queue in queues:
            if queue:
                yield sources[queue.pop()]


def _part(source: Source, rng: np.random.Generator) -> tuple[bytes, str]:
    """A crop or a passage, compressed, and its suffix."""
    file = io.BytesIO()
    if Path(source.name).suffix.lower() in SOUNDS:
        import soundfile

        x, rate = soundfile.read(io.BytesIO(source.read()), dtype="float32", always_2d=True)
        count = int(_SECONDS * rate)
        start = int(rng.integers(max(1, len(x) - count + 1)))
        soundfile.write(file, x[start : start + count], rate, format="FLAC", subtype="PCM_16")
        return file.getvalue(), ".flac"
    image = read_rgb(source)
    h, w = (min(n, _SIDE) for n in image.shape[:2])
    y, x0 = int(rng.integers(image.shape[0] - h + 1)), int(rng.integers(image.shape[1] - w + 1))
    Image.fromarray(image[y : y + h, x0 : x0 + w]).save(file, "WEBP", quality=_QUALITY, method=4)
    return file.getvalue(), ".webp"
