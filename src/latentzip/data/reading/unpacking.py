"""Files back from a pack: pictures, or the streams themselves."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

from ...entropy.container import EXTENSION
from ...entropy.errors import FormatError, InputError
from ...files import atomic_writer, check_writable, write_decoded
from ..archive import Archive

FORMATS = ("png", "ltz")
LABELS = "labels.csv"


def unpack(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    as_: str = "png",
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write every sample of a pack to a file of its own, ``OUT/KEY.png``, and labels to ``OUT/labels.csv``.

    Args:
        as_: ``"png"`` decodes, ``"ltz"`` writes the streams as they are. Mirrored twins are left out.
        force: replace files that exist.
        progress: called with (samples done, samples in all).

    Returns:
        How many samples were written.

    Raises:
        InputError: a file exists.
        FormatError: the pack is damaged, or a key leads out of the folder.
    """
    if as_ not in FORMATS:
        raise InputError(f"unpack as {as_!r}; one of {', '.join(FORMATS)}")
    archive, folder = Archive(path), Path(out)
    keys = archive.columns["key"].tolist()
    for key in keys:
        if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or ":" in key:
            raise FormatError(f"{archive.path}: the key {key!r} leads out of the folder")
    suffix = EXTENSION if as_ == "ltz" else ".png"
    codec = None
    if as_ == "png":
        from .decoding import codec_of

        codec = codec_of(archive.manifest)
    folder.mkdir(parents=True, exist_ok=True)
    _write_labels(archive, folder / LABELS, [key + suffix for key in keys], force)
    for i, key in enumerate(keys):
        target = folder / (key + suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_writable(target, force)
        blob = archive.read(i, verify=True)
        with atomic_writer(target, force) as file:
            if codec is None:
                file.write(blob)
            else:
                write_decoded(blob, file, suffix, codec=codec)
        if progress is not None:
            progress(i + 1, len(keys))
    return len(keys)


def _write_labels(archive: Archive, target: Path, names: list[str], force: bool) -> None:
    """A CSV file that ``pack --labels`` takes."""
    if "label" not in archive.columns:
        return
    classes = archive.manifest["columns"]["label"].get("classes")
    labels = archive.columns["label"].tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    writer.writerows(zip(names, labels if classes is None else [classes[label] for label in labels]))
    with atomic_writer(target, force) as file:
        file.write(text.getvalue().encode())
