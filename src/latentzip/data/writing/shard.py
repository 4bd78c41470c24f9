"""One shard: a pure, repeatable unit of work, whose bytes are the same whenever and wherever it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...entropy.errors import InputError
from ..archive import index_name
from ..shards import ShardWriter, write_bytes
from .sources import Sample, Source

STATE = ".pack"  # records of finished shards, until the manifest is written
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Options:
    """What is done to every sample; decides the bytes."""

    codec: str
    fingerprint: str
    quality: int | None
    coding: str
    size: int | None
    crop: str
    mirror: bool
    shuffle: int | None = None
    effort: int = 0


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to make one shard."""

    dst: str
    file: str
    plan: str
    source: Source
    samples: tuple[Sample, ...]
    options: Options
    on_error: str


def _record_path(job: ShardJob) -> Path:
    return Path(job.dst, STATE, job.file.removesuffix(".tar") + ".json")


def finished(job: ShardJob) -> dict[str, Any] | None:
    """The record of a shard that was made before, None where it or its file is missing or damaged."""
    try:
        record = json.loads(_record_path(job).read_bytes())
        if record["plan"] != job.plan:
            return None
        for name, sha in record["sha256s"].items():
            with open(Path(job.dst, name), "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha:
                    return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record


def pack_shard(job: ShardJob, progress: Progress | None = None) -> str:
    """Make one shard, its index and its record; the same bytes whenever and wherever it runs.

    Args:
        progress: called with 1 after each sample; what it raises stops the work and leaves nothing.

    Returns:
        The shard's file name.

    Raises:
        InputError: a picture that cannot be read, with ``on_error="fail"``.
    """
    from ...api import encode
    from ...codecs.contract import EXACT
    from ...codecs.registry import load_codec
    from ..reading.decoding import latent_size
    from .prepare import exact_picture, load_picture, mirrored

    o, folder = job.options, Path(job.dst)
    model = load_codec(o.codec, fingerprint=bytes.fromhex(o.fingerprint))
    load = exact_picture if EXACT in model.capabilities and o.size is None else load_picture
    rows: list[tuple[Any, ...]] = []
    errors: list[dict[str, str]] = []
    with ShardWriter(folder, job.file, o.mirror) as shard:
        for sample in job.samples:
            try:
                image, original = load(job.source.read(sample), sample.name, o.size, o.crop)
                said: dict[str, Any] = {"quality": o.quality, "coding": o.coding, "effort": o.effort or None}
                blob = encode(image, model, metadata="none", **said)
                twin = encode(mirrored(image), model, metadata="none", **said) if o.mirror else None
            except Exception as error:  # whatever a plug-in or a reader raises, the other samples are packed
                reason = _reason(error).removeprefix(f"{sample.name}: ")
                if job.on_error == "fail":
                    raise InputError(f"{sample.name}: {reason}") from error
                errors.append({"path": sample.name, "reason": reason})
            else:
                shard.add(sample.key, blob, twin)
                h, w = latent_size(model, (image.height, image.width))
                rows.append((sample.key, sample.label, *original, h, w))
            if progress is not None:
                progress(1)
    assert shard.info is not None
    files = [job.file, *(index_name(job.file, v) for v in range(1 + o.mirror))]
    record = {
        "plan": job.plan,
        "shard": asdict(shard.info),
        "sha256s": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files[1:]}
        | {job.file: shard.info.sha256},
        "rows": rows,
        "errors": errors,
    }
    write_bytes(_record_path(job), json.dumps(record).encode())
    return job.file


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
