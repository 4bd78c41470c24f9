"""Checking a pack: every byte of every shard, index, columns, manifest; with ``deep`` every latent as well."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...entropy import container
from ...entropy.container import EXTENSION
from ...entropy.errors import CodecError, InputError
from ...entropy.opening import open_regular
from ..archive import COLUMNS, Archive, index_name, load_index
from ..remote import is_remote
from ..shards import MIRROR, member_header


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
    """Check a pack on this machine against its own checksums and against itself.

    Args:
        deep: entropy-decode every stream too.
        progress: called with (samples done, samples in all).

    Raises:
        FormatError: no pack, or a manifest that cannot be read.
        InputError: a remote pack.
    """
    if is_remote(os.fspath(path)):
        raise InputError(f"{os.fspath(path)}: packs are checked where they lie; copy it here first")
    archive = Archive(path)
    report, folder, m = Report(), Path(archive.path), archive.manifest
    keys = _check_columns(archive, folder, report)
    model = _codec(archive) if deep else None
    sizes = None
    if not report.problems:
        sizes = np.stack([archive.columns["latent_h"], archive.columns["latent_w"]], 1)
    for shard, first in zip(m["shards"], archive.starts.tolist()):
        span = slice(first, first + shard["samples"])
        try:
            _check_shard(
                folder, shard, m, None if keys is None else keys[span], None if sizes is None else sizes[span], model
            )
        except CodecError as error:
            report.problems.append(str(error))
        except OSError as error:
            report.problems.append(f"{error.filename or folder / shard['file']}: {error.strerror or error}")
        report.samples += shard["samples"]
        report.shards += 1
        report.num_bytes += shard["bytes"]
        if progress is not None:
            progress(report.samples, m["samples"])
    return report


def _codec(archive: Archive) -> Any:
    from .decoding import codec_of

    return codec_of(archive.manifest)


class _Wrong(CodecError):
    """A shard is not what it should be."""


def _check_columns(archive: Archive, folder: Path, report: Report) -> list[str] | None:
    """Columns against the manifest; the keys, None where they cannot be read."""
    m, path, problems = archive.manifest, folder / COLUMNS, report.problems
    try:
        if _sha256(path) != m.get("columns_file", {}).get("sha256"):
            problems.append(f"{path}: its SHA-256 is not the one in the manifest")
        keys = archive.columns["key"].tolist()
        if len(set(keys)) != len(keys):
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
    if {"latent_h", "latent_w"} <= set(columns):
        if m["latent"] is not None:
            problems += _check_shapes(columns, m["latent"], path)
    elif not {"latent_h", "latent_w"} <= set(archive.columns):
        problems.append(f"{path}: no columns of latent shapes")
    return keys


def _sha256(path: Path) -> str:
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_shapes(columns: dict[str, np.ndarray], latent: dict[str, Any], path: Path) -> Iterator[str]:
    shapes = Counter(f"{h}x{w}" for h, w in zip(columns["latent_h"].tolist(), columns["latent_w"].tolist()))
    if any(shapes[name] != count for name, count in latent["shapes"].items()):
        yield f"{path}: latent shapes differ from those counted in the manifest"
    fixed = latent["fixed_shape"]
    if fixed is not None and set(shapes) != {f"{fixed[1]}x{fixed[2]}"}:
        yield f"{path}: latents have other shapes than the one in the manifest"


def _check_shard(folder: Path, shard: dict[str, Any], m: dict[str, Any], keys: Any, sizes: Any, model: Any) -> None:
    """Walk through a shard once; everything in it follows from keys and index."""
    path, variants = folder / shard["file"], m["variants"]
    indexes = [
        load_index(folder / index_name(shard["file"], v), shard["samples"], shard["bytes"]) for v in range(variants)
    ]
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as file:

        def take(count: int) -> bytes:
            data = file.read(count)
            digest.update(data)
            return data

        for i in range(shard["samples"]):
            for v in range(variants):
                offset, size, crc = indexes[v][i].tolist()
                name = f"sample {i}" if keys is None else str(keys[i])
                head = take(512)
                if file.tell() != offset:
                    raise _Wrong(f"{path}: {name} lies at byte {file.tell()}, the index says {offset}")
                if keys is not None and head != member_header(keys[i] + (MIRROR if v else "") + EXTENSION, size):
                    raise _Wrong(f"{path}: {name}: its tar header differs from columns and index")
                blob = take(size)
                if len(blob) != size or zlib.crc32(blob) != crc:
                    raise _Wrong(f"{path}: {name}: its checksum does not match the index")
                if take(-size % 512).strip(b"\0"):
                    raise _Wrong(f"{path}: {name}: padding that is not zero")
                try:
                    _check_stream(blob, m, None if sizes is None else tuple(sizes[i].tolist()), model)
                except CodecError as error:
                    raise _Wrong(f"{path}: {name}: {error}") from error
        if take(1024) != bytes(1024) or file.read(1):
            raise _Wrong(f"{path}: it does not end where it should")
    if digest.hexdigest() != shard["sha256"]:
        raise _Wrong(f"{path}: its SHA-256 is not the one in the manifest")


def _check_stream(blob: bytes, m: dict[str, Any], size: tuple[int, int] | None, model: Any) -> None:
    header = container.verify(blob).header
    if (header.codec, header.fingerprint.hex(), header.modality) != (m["codec"], m["fingerprint"], m["modality"]):
        raise _Wrong(f"a stream of {header.codec} ({header.fingerprint.hex()}), not of the manifest's codec")
    if model is None:
        return
    from ...api import decode
    from ...signals.pictures.coding import check_stream_boxes
    from .decoding import keeps_pictures

    latent = decode(blob, "tensor" if keeps_pictures(model) else "latent", codec=model)
    check_stream_boxes(container.read(blob), model)
    if size is not None and tuple(latent.shape[1:]) != size:
        raise _Wrong(
            f"a latent of {latent.shape[1]} x {latent.shape[2]} positions, the columns say {size[0]} x {size[1]}"
        )
