"""Checking a pack: every byte of every shard, index, columns, manifest; with ``deep`` every latent as well."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...entropy import container
from ...entropy.errors import CodecError
from ..archive import COLUMNS, Archive
from ..codec import codec_of
from ..modality import MODALITIES
from ..places import Place, place_of
from ..shards import member_header, member_name


@dataclass
class Report:
    """What `check_pack` found.

    Attributes:
        samples, shards, num_bytes: that were looked at.
        problems: one line each; empty when all is well.
    """

    samples: int = 0
    shards: int = 0
    num_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def check_pack(
    path: str | os.PathLike[str], deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Check a pack against its own checksums and against itself; a remote one is read through once.

    Args:
        deep: decode every stream too.
        progress: called with (samples done, samples in all).

    Raises:
        FormatError: no pack, or a manifest that cannot be read.
    """
    archive = Archive(path)
    place, report, m = place_of(archive.path), Report(), archive.manifest
    columns = _check_columns(archive, place, report)
    _check_weights(archive, place, report)
    sound = not report.problems
    codecs = {stream: codec_of(archive, stream) if deep else None for stream in ("", *archive.streams)}
    rows = _shape_rows(archive, columns) if columns is not None and sound else None
    for shard, first in zip(m["shards"], archive.starts.tolist()):
        span = slice(first, first + shard["samples"])
        keys = None if columns is None else columns["key"][span].tolist()
        try:
            own = None if rows is None else {stream: values[span] for stream, values in rows.items()}
            _check_shard(archive, place, shard, keys, own, codecs)
        except CodecError as error:
            report.problems.append(str(error))
        except OSError as error:
            where = error.filename or place.where(shard["file"])
            report.problems.append(f"{where}: {error.strerror or error}")
        report.samples += shard["samples"]
        report.shards += 1
        report.num_bytes += shard["bytes"]
        if progress is not None:
            progress(report.samples, m["samples"])
    return report


class _Wrong(CodecError):
    """A shard is not what it should be."""


def _check_columns(archive: Archive, place: Place, report: Report) -> dict[str, np.ndarray] | None:
    """Columns against the manifest; None where the keys cannot be read."""
    m, path, problems = archive.manifest, place.where(COLUMNS), report.problems
    try:
        if place.sha256(COLUMNS) != m.get("columns_file", {}).get("sha256"):
            problems.append(f"{path}: its SHA-256 is not the one in the manifest")
        keys = archive.columns["key"]
        if len(set(keys.tolist())) != len(keys):
            problems.append(f"{path}: a key occurs twice")
    except (CodecError, OSError) as error:
        problems.append(f"{path}: {error}" if not isinstance(error, CodecError) else str(error))
        return None
    columns: dict[str, np.ndarray] = {}
    for name in archive.columns:
        try:
            columns[name] = archive.columns[name]
        except CodecError as error:
            problems.append(str(error))
    for stream in ("", *archive.streams):
        facts = archive.facts(stream)
        names = shape_columns(stream, facts)
        if set(names) <= set(columns):
            problems += _check_shapes([columns[name] for name in names], facts, path)
        elif not set(names) <= set(archive.columns):
            problems.append(f"{path}: no columns of latent shapes")
    return columns


def shape_columns(stream: str, facts: Mapping[str, Any]) -> list[str]:
    """Names of the columns that say the shapes of a stream."""
    return [f"{stream}.{n}" if stream else n for n in MODALITIES[facts["modality"]].shape_columns]


def _check_shapes(columns: list[np.ndarray], facts: Mapping[str, Any], path: str) -> Iterator[str]:
    kind = MODALITIES[facts["modality"]]
    if kind.table(facts) is None:
        return
    told = facts["signal" if kind.output == "signal" else "latent"]
    shapes = Counter(kind.shape_texts(columns))
    if any(shapes[name] != count for name, count in told["shapes"].items()):
        yield f"{path}: latent shapes differ from those counted in the manifest"
    fixed = told["fixed_shape"]
    if fixed is not None and set(shapes) != {kind.shape_text(fixed)}:
        yield f"{path}: latents have other shapes than the one in the manifest"


def _shape_rows(archive: Archive, columns: Mapping[str, np.ndarray]) -> dict[str, list[tuple[Any, ...]]]:
    """The columns of shapes of each stream, a row a sample."""
    names = {stream: shape_columns(stream, archive.facts(stream)) for stream in ("", *archive.streams)}
    return {stream: list(zip(*(columns[name].tolist() for name in own))) for stream, own in names.items()}


def _check_weights(archive: Archive, place: Place, report: Report) -> None:
    for stream in ("", *archive.streams):
        weights = archive.facts(stream).get("weights")
        if weights is None:
            continue
        where = place.where(weights["file"])
        try:
            if place.sha256(weights["file"]) != weights["sha256"]:
                report.problems.append(f"{where}: its SHA-256 is not the one in the manifest")
        except (CodecError, OSError) as error:
            report.problems.append(f"{where}: {getattr(error, 'strerror', None) or error}")


def _check_shard(
    archive: Archive, place: Place, shard: dict[str, Any], keys: list[str] | None, rows: Any, codecs: dict[str, Any]
) -> None:
    """Walk through a shard once; everything in it follows from keys and index."""
    path, variants = place.where(shard["file"]), archive.variants
    members = [(stream, v) for stream in codecs for v in range(variants)]
    indexes = {member: archive.index_of(shard, *member) for member in members}
    digest = hashlib.sha256()
    with place.open(shard["file"]) as file:

        def take(count: int) -> bytes:
            data = file.read(count)
            digest.update(data)
            return data

        for i in range(shard["samples"]):
            for member in members:
                stream, v = member
                offset, size, crc = indexes[member][i].tolist()
                name = f"sample {i}" if keys is None else keys[i]
                head = take(512)
                if file.tell() != offset:
                    raise _Wrong(f"{path}: {name} lies at byte {file.tell()}, the index says {offset}")
                if keys is not None and head != member_header(member_name(keys[i], stream, v), size):
                    raise _Wrong(f"{path}: {name}: its tar header differs from columns and index")
                blob = take(size)
                if len(blob) != size or zlib.crc32(blob) != crc:
                    raise _Wrong(f"{path}: {name}: its checksum does not match the index")
                if take(-size % 512).strip(b"\0"):
                    raise _Wrong(f"{path}: {name}: padding that is not zero")
                try:
                    row = None if rows is None else rows[stream][i]
                    _check_stream(blob, archive.facts(stream), row, codecs[stream])
                except CodecError as error:
                    raise _Wrong(f"{path}: {name}: {error}") from error
        if take(1024) != bytes(1024) or file.read(1):
            raise _Wrong(f"{path}: it does not end where it should")
    if digest.hexdigest() != shard["sha256"]:
        raise _Wrong(f"{path}: its SHA-256 is not the one in the manifest")


def _check_stream(blob: bytes, facts: Mapping[str, Any], row: tuple[Any, ...] | None, codec: Any) -> None:
    header = container.verify(blob).header
    own = facts["codec"], facts["fingerprint"], facts["modality"]
    if (header.codec, header.fingerprint.hex(), header.modality) != own:
        raise _Wrong(f"a stream of {header.codec} ({header.fingerprint.hex()}), not of the manifest's codec")
    wrong = None if codec is None else MODALITIES[header.modality].check_stream(blob, codec, row)
    if wrong is not None:
        raise _Wrong(wrong)
