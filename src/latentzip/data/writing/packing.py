"""Packing: a source of pictures -> an archive of `.ltz` streams. A shard is a pure, repeatable unit of work.

What goes into which shard is settled by names and sizes before anything is coded. A shard appears whole, with a
record in ``DST/.pack``; the manifest appears last. So a run that was killed goes on where it stopped, and shards can be
made by any number of processes or machines: the bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...defaults import DEFAULT_PACK_CODEC
from ...entropy.errors import CodecError, FormatError, InputError, UnsupportedError
from ..archive import COLUMNS, MANIFEST
from ..locks import locked
from ..manifest import FORMAT, VERSION
from ..remote import is_remote
from ..shards import manifest_bytes, npz_bytes, write_bytes
from .shard import STATE, Options, ShardJob, finished
from .sources import Sample, Source, labelled, open_source

if TYPE_CHECKING:
    from ...codecs.base import Codec

ERRORS = "errors.jsonl"
CACHE = ".cache"
ENGINES = ("local", "ray")
ON_ERROR = ("skip", "fail")
MAX_SHAPES = 1000  # latent shapes that the manifest counts one by one

_MIN_SAMPLES, _MIN_SHARDS = 64, 16  # small sets still give every process something to do
_LOSSLESS = {".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".qoi", ".tga"}
_SOURCE_BPP = {True: 12.0, False: 2.5}  # of lossless and of lossy pictures, roughly


@dataclass(frozen=True)
class PackResult:
    """What `pack` did.

    Attributes:
        samples, skipped: in the finished pack; 0 while it is unfinished.
        shards: of the whole pack.
        made: shards that this call made; the others were there already.
        num_bytes: of all shards.
        finished: whether the manifest is written.
    """

    samples: int
    skipped: int
    shards: int
    made: int
    num_bytes: int
    finished: bool


def pack(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    codec: str = DEFAULT_PACK_CODEC,
    *,
    quality: int | None = None,
    coding: str = "default",
    effort: int = 0,
    labels: str | os.PathLike[str] | None = None,
    size: int | None = None,
    crop: str | None = None,
    mirror: bool = False,
    shuffle: int | None = None,
    shard_size: int = 256_000_000,
    shard_samples: int | None = None,
    jobs: int | None = None,
    on_error: str = "skip",
    engine: str = "local",
    address: str | None = None,
    part: tuple[int, int] | None = None,
    merge: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PackResult:
    """Pack a data set of pictures into an archive (docs/datasets.md). Goes on where a killed run stopped.

    Args:
        src: a folder, a WebDataset (tar, brace pattern, folder of tars), or a Hugging Face data set on disk.
        dst: the folder to write.
        codec, quality, coding, effort: as `encode`.
        labels: ``"folders"`` (first folder of the path), a CSV or JSON file; None takes what the source says.
        size: resize the shorter side to so many pixels first.
        crop: ``"center"`` cuts the middle square out (the default with a size), ``"none"`` keeps the whole.
        mirror: store every picture mirrored as well, for flips of latents that cannot be flipped.
        shuffle: a seed: samples are packed in random order, so that a loader that reads few shards at a time still
            sees all classes; None keeps the order of the source.
        shard_size: bytes that a shard should have at most, roughly.
        shard_samples: samples a shard, instead of an estimate.
        jobs: processes; by default one a core.
        on_error: ``"skip"`` lists pictures that cannot be read in ``errors.jsonl``; ``"fail"`` stops at the first.
        engine: ``"local"`` or ``"ray"``; ``address`` is that of a running Ray cluster.
        part: (i, n) makes only the shards whose number is i modulo n, and no manifest: run all n, then ``merge``.
        merge: make no shard, write the manifest of those that are there.
        force: begin anew where ``dst`` holds a pack made otherwise.
        progress: called with (samples done, samples in all).

    Raises:
        InputError: nothing to pack, options that make no sense or differ from those ``dst`` was begun with, or
            (with ``on_error="fail"``) a picture that cannot be read.
        UnsupportedError: a codec that codes no pictures, or a missing package.
        OSError: files cannot be read or written.

    Example:
        >>> import latentzip as lz                                           # doctest: +SKIP
        >>> lz.data.pack("photos", "packed", labels="folders", size=256)     # doctest: +SKIP
    """
    if shuffle is not None and shuffle < 0:
        raise InputError(f"shuffle is {shuffle}; a seed must not be negative")
    crop = crop or ("center" if size is not None else "none")
    _check_arguments(on_error, engine, address, part, merge, jobs, shard_size, shard_samples, size, crop)
    model = _model(codec, quality, coding, effort)
    if is_remote(os.fspath(dst)):
        raise InputError(f"{os.fspath(dst)}: packs are made on this machine; pack into a folder and copy it")
    folder = Path(dst)
    quality = quality if quality is not None or not model.variable_rate else model.default_quality
    options = Options(codec, model.fingerprint.hex(), quality, coding, size, crop, mirror, shuffle, effort)
    source = open_source(src)
    if _inside(folder, Path(source.root)):
        raise InputError(f"{folder} lies inside the source {source.root}; write the pack elsewhere")
    found = labelled(source, None if labels is None else os.fspath(labels))
    if shuffle is not None:
        order = np.random.Generator(np.random.Philox(key=[shuffle, 0])).permutation(len(found.samples))
        found = replace(found, samples=[found.samples[i] for i in order])
    each = shard_samples or samples_a_shard(found.samples, options, shard_size)
    plan = _plan(source, found.samples, found.classes, options, each)
    if _begin(folder, plan, force):
        return _result_of(folder)
    count = -(-len(found.samples) // each)

    def job_of(n: int) -> ShardJob:
        samples = tuple(found.samples[n * each : (n + 1) * each])
        return ShardJob(str(folder), f"{n:05d}.tar", plan["sha256"], source, samples, options, on_error)

    work = [job_of(n) for n in range(count)]
    mine = [] if merge else [job for n, job in enumerate(work) if part is None or n % part[1] == part[0]]
    with _claimed(folder, shared=part is not None):
        made = _make(mine, folder, engine, jobs, address, progress or (lambda done, total: None))
        if part is not None:
            return PackResult(0, 0, count, made, 0, False)
        _merge(folder, plan, work, model, found.classes)
    return replace(_result_of(folder), made=made)


def _make(
    mine: list[ShardJob], folder: Path, engine: str, workers: int | None, address: str | None,
    progress: Callable[[int, int], None],
) -> int:  # fmt: skip
    """Make those shards that are not there yet; returns how many."""
    todo = []
    for job in mine:
        clean_parts(folder, job.file)
        if finished(job) is None:
            todo.append(job)
    total = sum(len(job.samples) for job in mine)
    done = total - sum(len(job.samples) for job in todo)

    def step(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    step(0)
    if todo:
        from .engines import run  # loads torch

        try:
            run(todo, engine, workers, address, step)
        finally:
            for job in todo:
                clean_parts(folder, job.file)
    return len(todo)


@contextmanager
def _claimed(folder: Path, shared: bool) -> Iterator[None]:
    """Keep two runs from making the same shards at the same time; parts of one job may run side by side."""
    try:
        with locked(folder / STATE / "lock", shared=shared, wait=False):
            yield
    except BlockingIOError:
        raise InputError(f"{folder} is being packed by another process; wait for it, or stop it first") from None


# --- before ------------------------------------------------------------------------------------------------------


def _check_arguments(
    on_error: str, engine: str, address: str | None, part: tuple[int, int] | None, merge: bool, jobs: int | None,
    shard_size: int, shard_samples: int | None, size: int | None, crop: str,
) -> None:  # fmt: skip
    from .prepare import check_options

    if on_error not in ON_ERROR:
        raise InputError(f"on_error is {on_error!r}; one of {', '.join(ON_ERROR)}")
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; one of {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise InputError("an address is that of a Ray cluster: it needs engine 'ray'")
    if part is not None and (merge or not 0 <= part[0] < part[1]):
        raise InputError(
            f"part {part}: the index runs from 0 to the number of parts - 1, and merging is a step of its own"
        )
    for name, value in (("jobs", jobs), ("shard_size", shard_size), ("shard_samples", shard_samples)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; at least 1 is needed")
    check_options(size, crop)


def _model(name: str, quality: int | None, coding: str, effort: int) -> Codec:
    """The codec, once it has shown on a small picture that it takes these options."""
    from ...api import encode
    from ...codecs.registry import load_codec

    model = load_codec(name)
    if model.modality != "image":
        raise UnsupportedError(
            f"{name} codes {model.modality} signals; data sets of pictures are what this version packs: choose a codec "
            "with modality image (codec-cli list)"
        )
    encode(np.zeros((16, 16, 3), np.uint8), model, quality, coding=coding, effort=effort or None)
    return model


def _inside(folder: Path, root: Path) -> bool:
    return root.is_dir() and folder.resolve().is_relative_to(root.resolve())


def samples_a_shard(samples: list[Sample], options: Options, shard_size: int) -> int:
    """How many samples fill a shard, guessed from names and sizes alone so that every machine guesses the same."""
    from ...codecs.registry import list_codecs

    info = next((i for i in list_codecs() if i.name == options.codec), None)
    rates = [v for k, v in (info.results if info else {}).items() if k.endswith("bpp") and isinstance(v, (int, float))]
    bpp = max(rates, default=1.0)
    if options.size is not None:
        mean = options.size**2 * bpp / 8
    else:
        mean = sum(
            s.num_bytes * min(1.0, bpp / _SOURCE_BPP[Path(s.name).suffix.lower() in _LOSSLESS]) for s in samples
        ) / len(samples)
    mean = (1 + options.mirror) * (mean + 768)  # tar headers and padding
    return max(1, min(int(shard_size / mean), max(_MIN_SAMPLES, -(-len(samples) // _MIN_SHARDS))))


def _plan(
    source: Source, samples: list[Sample], classes: list[str] | None, options: Options, each: int
) -> dict[str, Any]:
    """What identifies a pack before it is made. File times and absolute paths are no part of it."""
    listing = hashlib.sha256()
    for s in samples:
        listing.update(json.dumps([s.key, s.name, s.num_bytes, s.label]).encode())
    facts = {
        "format": FORMAT,
        "version": VERSION,
        # packs of one pass are what they were before there was an effort
        "options": {k: v for k, v in asdict(options).items() if k != "effort" or v},
        "source": {"kind": source.kind, "samples": len(samples), "sha256": listing.hexdigest(), "classes": classes},
        "samples per shard": each,
    }
    return facts | {"sha256": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}


def _begin(folder: Path, plan: dict[str, Any], force: bool) -> bool:
    """Make the folder ready for this plan; True when the pack is complete already."""
    state, manifest = folder / STATE, folder / MANIFEST
    ours = state.exists() or manifest.exists()
    if force and ours:
        remove_pack(folder)
    if manifest.exists():
        with suppress(CodecError):
            from ..archive import Archive

            archive = Archive(folder)
            sound = all(
                (folder / s["file"]).is_file() and (folder / s["file"]).stat().st_size == s["bytes"]
                for s in archive.manifest["shards"]
            )
            if archive.manifest.get("plan_sha256") == plan["sha256"] and sound:
                shutil.rmtree(state, ignore_errors=True)
                return True
        raise InputError(
            f"{folder} holds a pack made from other files or with other options, or a damaged one; choose another "
            "folder, or make it anew with force (--force)"
        )
    saved = state / "plan.json"
    if saved.exists():
        try:
            before = json.loads(saved.read_bytes())
            assert isinstance(before["options"], dict)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise InputError(f"{saved} is damaged; begin anew with force (--force)") from None
        if before.get("sha256") != plan["sha256"]:
            raise InputError(
                f"{folder} holds an unfinished pack with another {_difference(before, plan)}; use the same source and "
                "options to go on, or begin anew with force (--force)"
            )
        return False
    # looked at once more: another part may have begun just now
    if folder.exists() and not ours and not _only_state(folder) and not saved.exists():
        raise InputError(f"{folder} is not empty and holds no pack; choose another folder")
    state.mkdir(parents=True, exist_ok=True)
    write_bytes(saved, manifest_bytes(plan))
    return False


def _only_state(folder: Path) -> bool:
    """Whether there is nothing but what a run that is just beginning writes."""
    return folder.is_dir() and all(p.name == STATE for p in folder.iterdir())


def _difference(before: dict[str, Any], plan: dict[str, Any]) -> str:
    names = [k for k, v in plan["options"].items() if before["options"].get(k) != v]
    names += [k for k in ("source", "samples per shard") if before.get(k) != plan[k]]
    return ", ".join(names) or "version"


_OURS = re.compile(r"\d{5,}(\.mirror)?\.(tar|idx\.npy)|\.(\d{5,}|manifest|columns|errors)\..*\.part")


def remove_pack(folder: Path) -> None:
    """Remove a pack, the manifest first, and nothing else that may lie in the folder."""
    for name in (MANIFEST, COLUMNS, ERRORS):
        (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for name in (STATE, CACHE):
        shutil.rmtree(folder / name, ignore_errors=True)


def clean_parts(folder: Path, file: str) -> None:
    """Remove what a killed worker left of a shard."""
    for pattern in (f".{file}.*.part", f".{file.removesuffix('.tar')}.*.part"):
        for path in [*folder.glob(pattern), *(folder / STATE).glob(pattern)]:
            path.unlink(missing_ok=True)


# --- after -------------------------------------------------------------------------------------------------------

_ROW = ("key", "label", "width", "height", "latent_h", "latent_w")


def _merge(folder: Path, plan: dict[str, Any], work: list[ShardJob], model: Codec, classes: list[str] | None) -> None:
    """Columns, list of errors and, last of all, the manifest."""
    from ..reading.decoding import keeps_pictures

    records = []
    for job in work:
        record = finished(job)
        if record is None:
            raise InputError(f"{folder}: shard {job.file} is missing or damaged; run pack for it again, then merge")
        records.append(record)
    rows = [row for record in records for row in record["rows"]]
    errors = [error for record in records for error in record["errors"]]
    if not rows:
        raise InputError(
            f"none of {len(errors)} pictures could be read; the first: {errors[0]['path']}: {errors[0]['reason']}"
        )
    columns = _columns(rows)
    packed = npz_bytes(columns)
    write_bytes(folder / COLUMNS, packed)
    if errors:
        write_bytes(
            folder / ERRORS,
            "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in errors).encode("utf-8", "replace"),
        )
    o = work[0].options
    shapes = Counter(f"{h}x{w}" for h, w in zip(columns["latent_h"].tolist(), columns["latent_w"].tolist()))
    common = sorted(shapes.items(), key=lambda item: (-item[1], item[0]))[:MAX_SHAPES]
    latent, signal = None, {}
    if not keeps_pictures(model):
        signal = {"channels": model.signal_channels}
        latent = {
            "channels": model.latent_channels,
            "dtype": str(model.latent_dtype).removeprefix("torch."),
            "stride": model.stride,
            "fixed_shape": [model.latent_channels, *map(int, common[0][0].split("x"))] if len(shapes) == 1 else None,
            "shapes": dict(common),
        }
    described = {
        name: {"dtype": "str" if column.dtype.kind == "U" else column.dtype.name} for name, column in columns.items()
    }
    if "label" in described:
        described["label"]["classes"] = classes  # type: ignore[assignment]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "codec": o.codec,
        "fingerprint": o.fingerprint,
        "quality": o.quality,
        "coding": o.coding,
        **({"effort": o.effort} if o.effort else {}),
        "shuffle": o.shuffle,
        "modality": model.modality,
        "samples": len(rows),
        "skipped": len(errors),
        "variants": 1 + o.mirror,
        "latent": latent,
        "signal": signal | {"size": o.size, "crop": o.crop, "mirror": o.mirror},
        "columns": described,
        "columns_file": {"file": COLUMNS, "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()},
        "shards": [record["shard"] for record in records],
        "plan_sha256": plan["sha256"],
    }
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)
    write_bytes(folder / MANIFEST, manifest_bytes(manifest))
    shutil.rmtree(folder / STATE, ignore_errors=True)


def _columns(rows: Iterable[tuple[Any, ...]]) -> dict[str, np.ndarray]:
    values = dict(zip(_ROW, zip(*rows)))
    if values["label"][0] is None:
        del values["label"]
    kinds = {"key": np.str_, "label": np.int64}
    return {name: np.array(column, kinds.get(name, np.int32)) for name, column in values.items()}


def _result_of(folder: Path) -> PackResult:
    from ..archive import Archive

    m = Archive(folder).manifest
    total = sum(shard["bytes"] for shard in m["shards"])
    if m["samples"] < 1:
        raise FormatError(f"{folder}: a pack without samples")
    return PackResult(m["samples"], m["skipped"], len(m["shards"]), 0, total, True)
