"""Files back from a pack: signals, or the streams themselves."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

from ...entropy.errors import FormatError, InputError
from ...files import atomic_writer, check_writable, write_decoded
from ..archive import RESERVED, Archive
from ..codec import codec_of
from ..modality import MODALITIES
from ..shards import member_name

FORMATS = ("auto", "png", "wav", "flac", "npy", "ltz")

LABELS = "labels.csv"


def unpack(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    as_: str = "auto",
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write every sample of a pack to a file of its own, ``OUT/KEY.png``, and labels to ``OUT/labels.csv``.

    Args:
        as_: ``"png"``, ``"wav"``, ``"flac"`` or ``"npy"`` decodes, ``"auto"`` to the first that suits the signals;
            ``"ltz"`` writes the streams as they are. Mirrored twins are left out; what is paired with a sample becomes
            ``KEY.NAME.png`` and so on.
        force: replace files that exist.
        progress: called with (samples done, samples in all).

    Returns:
        How many samples were written.

    Raises:
        InputError: a file exists, or a format that the signals do not go into.
        FormatError: the pack is damaged, or a key leads out of the folder.
    """
    if as_ not in FORMATS:
        raise InputError(f"unpack as {as_!r}; one of {', '.join(FORMATS)}")
    archive, folder = Archive(path), Path(out)
    keys = archive.columns["key"].tolist()
    for key in keys:
        if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or ":" in key:
            raise FormatError(f"{archive.path}: the key {key!r} leads out of the folder")
    ends = {stream: _end(archive, stream, as_) for stream in ("", *archive.streams)}
    codecs = {stream: codec_of(archive, stream) for stream in ends} if as_ != "ltz" else {}
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(archive, folder / LABELS, [key + ends[""] for key in keys], force)
    for i, key in enumerate(keys):
        for stream, end in ends.items():
            target = folder / (key + end)
            target.parent.mkdir(parents=True, exist_ok=True)
            check_writable(target, force)
            blob = archive.read(i, verify=True, stream=stream)
            with atomic_writer(target, force) as file:
                if as_ == "ltz":
                    file.write(blob)
                else:
                    write_decoded(blob, file, target.suffix, codec=codecs[stream])
        if progress is not None:
            progress(i + 1, len(keys))
    return len(keys)


def _end(archive: Archive, stream: str, as_: str) -> str:
    """What follows a key in the name of a file."""
    kind = MODALITIES[archive.facts(stream)["modality"]]
    if as_ == "ltz":
        return member_name("", stream)
    # of paired streams each takes the format that suits it
    suffix = as_ if as_ in kind.formats else kind.formats[0]
    if as_ not in ("auto", *kind.formats) and not stream:
        raise InputError(f"{archive.path} holds {kind.noun}, which are written as {', '.join(kind.formats)}, not {as_}")
    return f".{stream}.{suffix}" if stream else f".{suffix}"


def _write_table(archive: Archive, target: Path, names: list[str], force: bool) -> None:
    """A CSV file of labels and columns that ``pack --labels`` takes."""
    own = [name for name in archive.columns if name.rpartition(".")[2] not in RESERVED]
    columns = {"path": names} | {name: archive.columns[name].tolist() for name in own}
    if "label" in archive.columns:
        classes = archive.manifest["columns"]["label"].get("classes")
        labels = archive.columns["label"].tolist()
        columns["label"] = labels if classes is None else [classes[label] for label in labels]
    if len(columns) == 1:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    with atomic_writer(target, force) as file:
        file.write(text.getvalue().encode())
