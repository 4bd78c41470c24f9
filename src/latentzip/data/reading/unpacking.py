"""Files back from a pack: signals, or the streams themselves."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import signals
from ...entropy import container
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...files import atomic_writer, check_writable, write_decoded
from ..archive import RESERVED, Archive
from ..codec import codec_of
from ..modality import MODALITIES
from ..remote import here
from ..shards import member_name

FORMATS = ("auto", "png", "tif", "wav", "flac", "npy", "ltz")

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
        as_: ``"png"``, ``"tif"``, ``"wav"``, ``"flac"`` or ``"npy"`` decodes, ``"auto"`` to what suits each signal, as
            `decode_file` does (pictures of floats and CMYK go into TIFF files, arrays of floats into ``.npy``);
            ``"ltz"`` writes the streams as they are. Mirrored twins are left out; what is paired with a sample becomes
            ``KEY.NAME.png`` and so on.
        force: replace files that exist.
        progress: called with (samples done, samples in all).

    Returns:
        How many samples were written.

    Raises:
        InputError: a file exists, or a format that the signals do not go into.
        UnsupportedError: a picture that does not go into the format asked for; the text names it.
        FormatError: the pack is damaged, or a key leads out of the folder.
    """
    if as_ not in FORMATS:
        raise InputError(f"unpack as {as_!r}; one of {', '.join(FORMATS)}")
    archive, folder = Archive(path), Path(here(os.fspath(out), "files are unpacked"))
    keys = archive.columns["key"].tolist()
    for key in keys:
        if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or ":" in key:
            raise FormatError(f"{archive.path}: the key {key!r} leads out of the folder")
    ends = {stream: _end(archive, stream, as_) for stream in ("", *archive.streams)}
    codecs = {stream: codec_of(archive, stream) for stream in ends} if as_ != "ltz" else {}
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / LABELS, force)
    names = []
    for i, key in enumerate(keys):
        for stream, own in ends.items():
            blob = archive.read(i, verify=True, stream=stream)
            end = _write(blob, folder / key, own, force, codecs.get(stream))
            if not stream:
                names.append(key + end)
        if progress is not None:
            progress(i + 1, len(keys))
    _write_table(archive, folder / LABELS, names, force)
    return len(keys)


def _write(blob: bytes, start: Path, end: str, force: bool, codec: Any) -> str:
    """Write a sample and return what follows its key in the file's name; without codec as it is.

    Args:
        end: that, or a beginning of it that ends with a dot, after which comes what suits the signal.
    """
    if end.endswith("."):
        header = container.read_header(blob).header
        end += signals.of(header).suffix(header).removeprefix(".")
    target = start.with_name(start.name + end)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_writable(target, force)
    try:
        with atomic_writer(target, force) as file:
            if codec is None:
                file.write(blob)
            else:
                write_decoded(blob, file, target.suffix, codec=codec)
    except UnsupportedError as error:
        raise UnsupportedError(f"{target}: {error}") from error
    return end


def _end(archive: Archive, stream: str, as_: str) -> str:
    """What follows a key in the name of a file, as `_write` takes it."""
    kind = MODALITIES[archive.facts(stream)["modality"]]
    if as_ == "ltz":
        return member_name("", stream)
    if as_ not in ("auto", *kind.formats) and not stream:
        raise InputError(f"{archive.path} holds {kind.noun}, which are written as {', '.join(kind.formats)}, not {as_}")
    # of paired streams each takes the format that suits it
    own = as_ if as_ in kind.formats else ""
    return f".{stream}.{own}" if stream else f".{own}"


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
