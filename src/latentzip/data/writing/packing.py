"""Packing: a source of signals -> an archive of `.ltz` streams. A shard is a pure, repeatable unit of work.

What goes into which shard is settled by names and sizes before anything is coded. A shard appears whole, with a
record in ``DST/.pack``; the manifest appears last. So a run that was killed goes on where it stopped, and shards can be
made by any number of processes or machines: the bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...codecs.contract import check_options
from ...codecs.registry import list_codecs, owners
from ...defaults import DEFAULT_PACK_CODEC
from ...entropy.errors import InputError
from ...entropy.numbers import plain, real, truth, whole
from ..archive import RESERVED
from ..arguments import mapping, names
from ..codec import named
from ..manifest import FORMAT, STREAM_NAME, VERSION, WIDER
from ..modality import PICTURES, of_codec
from ..modality.base import Modality, Options
from ..places import Place, place_of
from .folder import begin, claimed, clean_parts
from .merging import PackResult, result_of
from .merging import merge as merge_records
from .shard import ShardJob, Stream, finished
from .sources import Labelled, Sample, Source, Wanted, key_of, labelled, open_source

ENGINES = ("local", "ray")
ON_ERROR = ("skip", "fail")
TAKEN = ("mirror", "idx", "latent", "signal", "bytes", "label", "index", "key")  # words that no stream may have as name
_MIN_SAMPLES, _MIN_SHARDS = 64, 16  # small sets still give every process something to do

Pair = str | os.PathLike[str] | tuple[str | os.PathLike[str], str] | Mapping[str, Any]


def pack(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    codec: Any = DEFAULT_PACK_CODEC,
    *,
    quality: int | None = None,
    coding: str = "default",
    effort: int = 0,
    labels: str | os.PathLike[str] | None = None,
    columns: Sequence[str] = (),
    size: int | None = None,
    crop: str | None = None,
    mirror: bool = False,
    seconds: float | None = None,
    rate: int | None = None,
    channels: str = "keep",
    short: str = "pad",
    pairs: Mapping[str, Pair] | None = None,
    modality: str | None = None,
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
    **options: Any,
) -> PackResult:
    """Pack a data set of pictures, sound or float tensors into an archive (docs/datasets.md). Goes on where a killed
    run stopped.

    Args:
        src: a folder, a WebDataset (tar, brace pattern, folder of tars), or a Hugging Face data set on disk.
        dst: the folder to write, or a URL that fsspec understands (``s3://bucket/pack``).
        codec: name of a codec, which decides what is packed; or a ``.safetensors`` file of weights or of a feature
            profile, or a `FeatureCodec` with a profile: the pack brings these along.
        quality, coding, effort, options: as `encode`.
        labels: ``"folders"`` (first folder of the path), a CSV or JSON file; None takes what the source says.
        columns: names of further columns, from the file of labels or from what the source says.
        size: of pictures: resize the shorter side to so many pixels first.
        crop: ``"center"`` cuts the middle square out (the default with a size), ``"none"`` keeps the whole.
        mirror: store every picture mirrored as well, for flips of latents that cannot be flipped.
        seconds: of sound: cut into excerpts of this length, in whole frames of the codec; None keeps recordings whole.
        rate: resample to so many Hz; None keeps what each file has.
        channels: ``"mono"`` mixes them, ``"stereo"`` doubles one, ``"keep"`` leaves them.
        short: the last excerpt of a recording: ``"pad"`` with silence, or ``"drop"``.
        pairs: name -> what belongs to every sample as a stream of its own, such as its mask: a folder, tar or data set
            with the same keys, or an ending such as ``".mask.png"`` of names in ``src``; with a codec of its own as a
            pair (source, codec), or a dict of ``source``, ``codec`` and options.
        modality: ``"image"``, ``"audio"`` or ``"tensor"``, of codecs that take several; None: what ``src`` has most.
        shuffle: a seed: samples are packed in random order, so that a loader that reads few shards at a time still
            sees all classes; None keeps the order of the source.
        shard_size: bytes that a shard should have at most, roughly.
        shard_samples: samples a shard, instead of an estimate; of sound that is cut: recordings.
        jobs: processes; by default one a core.
        on_error: ``"skip"`` lists files that cannot be read in ``errors.jsonl``; ``"fail"`` stops at the first.
        engine: ``"local"`` or ``"ray"``; ``address`` is that of a running Ray cluster.
        part: (i, n) makes only the shards whose number is i modulo n, and no manifest: run all n, then ``merge``.
        merge: make no shard, write the manifest of those that are there.
        force: begin anew where ``dst`` holds a pack made otherwise.
        progress: called with (samples done, samples in all).

    Raises:
        InputError: nothing to pack, options that make no sense or differ from those ``dst`` was begun with, or
            (with ``on_error="fail"``) a file that cannot be read.
        UnsupportedError: a codec whose signals cannot be packed, or a missing package.
        OSError: files cannot be read or written.

    Example:
        >>> import latentzip as lz                                                             # doctest: +SKIP
        >>> lz.data.pack("photos", "packed", labels="folders", size=256)                       # doctest: +SKIP
        >>> lz.data.pack("clips", "sounds", "walloc-audio-5x", labels="folders", seconds=4)    # doctest: +SKIP
    """
    shuffle, jobs = _whole("shuffle", shuffle, 0), _whole("jobs", jobs)
    shard_samples = _whole("shard_samples", shard_samples)
    shard_size, columns = whole("shard_size", shard_size, 1), names("columns", columns)
    pairs = {name: _checked_pair(name, pair) for name, pair in mapping("pairs", pairs, '{"mask": "masks/"}').items()}
    part = None if part is None else _checked_part(part, merge)
    _check_arguments(on_error, engine, address)
    asked = {
        "quality": quality, "coding": coding, "effort": effort, "size": size, "crop": crop, "mirror": mirror,
        "seconds": seconds, "rate": rate, "channels": channels, "short": short, **options,
    }  # fmt: skip
    table = labels is not None and os.fspath(labels) != "folders"
    ends = tuple(_source_of(pair).lower() for pair in pairs.values() if _source_of(pair).startswith("."))
    wanted = Wanted(others=ends, columns=() if table else tuple(columns))
    check_names(columns, pairs)
    first = _stream("", src, codec, asked, wanted, shuffle, modality)
    place = place_of(dst)
    if place.one_process and (engine != "local" or part is not None):
        raise InputError(f"{place} lies in the memory of one process: leave engine and part out, or name a folder")
    if place.one_process:
        jobs = 1
    assert first.source is not None
    _check_apart(place, first.source)
    found = labelled(first.source, None if labels is None else os.fspath(labels), columns if table else ())
    found = replace(found, samples=[replace(s, key=s.key.replace("@", "_")) for s in found.samples])
    streams, paired = [first], []
    for name, pair in pairs.items():
        stream, samples = _paired(name, pair, src, found.samples, asked, place)
        streams.append(stream)
        paired.append(samples)
    others: list[tuple[Sample, ...]] = [*zip(*paired)] if paired else []
    if shuffle is not None:
        order = np.random.Generator(np.random.Philox(key=[shuffle, 0])).permutation(len(found.samples))
        found = replace(found, samples=[found.samples[i] for i in order])
        others = [others[i] for i in order] if others else []
    each = shard_samples or _samples_a_shard([found.samples, *paired], streams, shard_size)
    plan = _plan(streams, found, others, each, columns)
    if begin(place, plan, force):
        return result_of(place)
    count = -(-len(found.samples) // each)

    def job_of(n: int) -> ShardJob:
        span = slice(n * each, (n + 1) * each)
        samples, rest = tuple(found.samples[span]), tuple(others[span])
        return ShardJob(place.path, f"{n:05d}.tar", plan["sha256"], tuple(streams), samples, rest, on_error)

    work = [job_of(n) for n in range(count)]
    mine = [] if merge else [job for n, job in enumerate(work) if part is None or n % part[1] == part[0]]
    with claimed(place, shared=part is not None):
        made = _make(mine, place, engine, jobs, address, progress or (lambda done, total: None))
        if part is not None:
            return PackResult(0, 0, count, made, 0, False)
        records = []
        for job in work:
            record = finished(place, job.file, job.plan)
            if record is None:
                raise InputError(f"{place}: shard {job.file} is missing or damaged; run pack for it again, then merge")
            records.append(record)
        merge_records(place, plan["sha256"], records, streams, found.classes, columns)
    return replace(result_of(place), made=made)


def _make(
    mine: list[ShardJob], place: Place, engine: str, workers: int | None, address: str | None,
    progress: Callable[[int, int], None],
) -> int:  # fmt: skip
    """Make those shards that are not there yet; returns how many."""
    todo = []
    for job in mine:
        clean_parts(place, job.file)
        if finished(place, job.file, job.plan) is None:
            todo.append(job)
    total = sum(len(job.samples) for job in mine)
    done = total - sum(len(job.samples) for job in todo)

    def step(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    step(0)
    if todo:
        from .engines import run  # loads Ray where that is asked for

        try:
            run(todo, engine, workers, address, step)
        finally:
            for job in todo:
                clean_parts(place, job.file)
    return len(todo)


# --- what is asked for -------------------------------------------------------------------------------------------


def _whole(name: str, value: Any, low: int = 1) -> int | None:
    return None if value is None else whole(name, value, low)


def _checked_pair(name: str, pair: Any) -> Pair:
    source = pair.get("source") if isinstance(pair, Mapping) else pair
    parts = source if isinstance(source, tuple) and source is pair and len(source) == 2 else (source, "")
    if not all(isinstance(part, (str, os.PathLike)) for part in parts):
        raise InputError(f"pair {name} is {pair!r:.60}; a source, (source, codec), or a dict of source and options")
    return pair


def _checked_part(part: Any, merge: bool) -> tuple[int, int]:
    if isinstance(part, (tuple, list)) and len(part) == 2 and not merge:
        index, count = whole("the index of a part", part[0]), whole("the number of parts", part[1], 1)
        if index < count:
            return index, count
    raise InputError(
        f"part is {part!r:.60}: (index, number of parts) with an index from 0 to the number of parts - 1, and merging "
        "is a step of its own"
    )


def _check_arguments(on_error: str, engine: str, address: str | None) -> None:
    if on_error not in ON_ERROR:
        raise InputError(f"on_error is {on_error!r}; one of {', '.join(ON_ERROR)}")
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}; one of {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise InputError("an address is that of a Ray cluster: it needs engine 'ray'")


def check_names(columns: Sequence[str], pairs: Iterable[str]) -> None:
    """Raises InputError for names of columns and of streams that a pack cannot have."""
    for name in columns:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or name in RESERVED:
            raise InputError(
                f"a column cannot be called {name!r}; use letters, digits, _ and -, none of what packs have"
            )
    for name in pairs:
        if not re.fullmatch(STREAM_NAME, name) or name in TAKEN:
            raise InputError(
                f"a stream cannot be called {name!r}; use small letters, digits and _, beginning with a letter"
            )


def _check_apart(place: Place, source: Source) -> None:
    root = Path(source.root)
    if type(place) is Place and root.is_dir() and place.scratch.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{place} lies inside the source {source.root}; write the pack elsewhere")


def plain_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Options as numbers of Python, which a plan can write down; raises InputError: other things than their kind."""
    own = {name: plain(value) for name, value in asked.items()}
    for name in own:
        if name == "mirror":
            own[name] = truth(name, own[name])
        elif own[name] is not None and name in ("size", "rate"):
            own[name] = whole(name, own[name])
        elif own[name] is not None and name == "seconds":
            real(name, own[name], "a length above 0")  # kept as it is: 2 and 2.0 are different plans
    return own


def options_of(
    codec: Any, asked: Mapping[str, Any], shuffle: int | None = None, modality: str | None = None
) -> tuple[Any, bytes | None, list[Modality], Options]:
    """A codec, the weights that a pack of it brings, what it can pack, and the options of a stream.

    Raises:
        InputError: options that the codec does not have, or that make no sense of what it codes.
        UnsupportedError: a codec whose signals cannot be packed.
    """
    model, weights = named(codec)
    kinds = [kind for kind in of_codec(model) if modality in (None, kind.name)]
    if not kinds:
        raise InputError(f"modality is {modality!r}; {model.name} codes {', '.join(k.name for k in of_codec(model))}")
    own = plain_options(asked)
    o = Options(
        codec=model.name, fingerprint=model.fingerprint.hex(), quality=own.pop("quality", None),
        coding=own.pop("coding", "default"), effort=own.pop("effort", 0), size=own.pop("size", None),
        crop=own.pop("crop", None), mirror=own.pop("mirror", False), shuffle=shuffle,
        **{name: own.pop(name) for name in ("seconds", "rate", "channels", "short") if name in own},
        more=tuple(sorted((name, value) for name, value in own.items() if value is not None)),
    )  # fmt: skip
    if o.crop is None:
        o = replace(o, crop="center" if o.size is not None and kinds[0] is PICTURES else "none")
    check_options(model, o.said(), owners)
    for name, value in o.more:
        if not isinstance(value, (bool, int, float, str)):
            raise InputError(f"{name} is {value!r:.60}; packs take numbers, truths and texts as options")
    levels = dict(o.more).get("levels")
    if levels is not None:  # they count instead of a quality
        o = replace(o, quality=model.quality_of(levels))
    if o.quality is None and getattr(model, "variable_rate", False):
        o = replace(o, quality=model.default_quality)
    return model, weights, kinds, o


def _stream(
    name: str, src: Any, codec: Any, asked: Mapping[str, Any], wanted: Wanted, shuffle: int | None, modality: str | None
) -> Stream:
    """A stream of what ``src`` holds, once its codec has shown on a small signal that it takes these options."""
    model, weights, kinds, o = options_of(codec, asked, shuffle, modality)
    kind = _likeliest(src, kinds, wanted)
    try_options(kind, o, model)
    return Stream(name, kind.name, open_source(src, replace(wanted, modality=kind.name)), o, weights)


def try_options(kind: Modality, o: Options, model: Any) -> None:
    """Code a small signal: raises InputError for options that a codec refuses, before any work is done."""
    kind.check(o)
    specimen = kind.specimen(model)
    if specimen is not None:
        for piece in kind.pieces(kind.accept(specimen), replace(o, size=None, crop="none", seconds=None), model):
            kind.encode(piece.signal, o, model)


def _likeliest(src: Any, kinds: list[Modality], wanted: Wanted) -> Modality:
    if len(kinds) == 1:
        return kinds[0]
    counts = [len(open_source(src, replace(wanted, modality=kind.name, columns=())).samples()) for kind in kinds]
    return kinds[counts.index(max(counts))]


def _source_of(pair: Pair) -> str:
    source: Any = pair.get("source", "") if isinstance(pair, Mapping) else pair
    return os.fspath(source[0] if isinstance(source, tuple) else source)


def _paired(
    name: str, pair: Pair, src: Any, samples: list[Sample], asked: Mapping[str, Any], place: Place
) -> tuple[Stream, list[Sample]]:
    """A further stream, and its sample for each of the first one.

    Raises:
        InputError: a sample without a partner.
    """
    given = dict(pair) if isinstance(pair, Mapping) else {}
    if isinstance(pair, tuple):
        given["codec"] = pair[1]
    source = _source_of(pair)
    given.pop("source", None)
    codec = given.pop("codec", "lossless")
    kept = {n: asked[n] for n in ("size", "crop", "mirror") if n not in given}
    only = source.lower() if source.startswith(".") else ""
    kinds = of_codec(named(codec)[0])
    if kinds[0] is not PICTURES:
        kept = {"mirror": asked["mirror"]}
    stream = _stream(name, src if only else source, codec, kept | given, Wanted(only=only), None, None)
    assert stream.source is not None
    if not only:
        _check_apart(place, stream.source)
    by_key = {s.key.replace("@", "_"): s for s in stream.source.samples()}
    # keys of files that differ in their extensions alone were made unique
    keys = [key_of(s.name).replace("@", "_") if s.file and not s.offset else s.key for s in samples]
    missing = [s.name for s, key in zip(samples, keys) if key not in by_key]
    if missing:
        raise InputError(f"{name}: {missing[0]} has no partner in {source} ({len(missing)} such samples)")
    return stream, [by_key[key] for key in keys]


# --- the plan ----------------------------------------------------------------------------------------------------


def samples_a_shard(samples: list[Sample], options: Options, shard_size: int, kind: Modality = PICTURES) -> int:
    """How many samples fill a shard, guessed from names and sizes alone so that every machine guesses the same."""
    return _capacity(_mean_size(samples, options, kind), len(samples), shard_size)


def _samples_a_shard(samples: Sequence[list[Sample]], streams: Sequence[Stream], shard_size: int) -> int:
    mean = sum(_mean_size(part, s.options, s.kind) for part, s in zip(samples, streams))
    return _capacity(mean, len(samples[0]), shard_size)


def _mean_size(samples: list[Sample], options: Options, kind: Modality) -> float:
    info = next((i for i in list_codecs() if i.name == options.codec), None)
    rates = info.results if info else {}
    mean = kind.bytes_of(options, [s.num_bytes for s in samples], [s.name for s in samples], rates)
    return (1 + options.mirror) * (mean + 768)  # tar headers and padding


def _capacity(mean: float, count: int, shard_size: int) -> int:
    return max(1, min(int(shard_size / mean), max(_MIN_SAMPLES, -(-count // _MIN_SHARDS))))


def _plan(
    streams: Sequence[Stream], found: Labelled, others: Sequence[Sequence[Sample]], each: int, columns: Sequence[str]
) -> dict[str, Any]:
    """What identifies a pack before it is made. File times and absolute paths are no part of it."""
    listing = hashlib.sha256()
    for n, s in enumerate(found.samples):
        facts: list[Any] = [s.key, s.name, s.num_bytes, s.label]
        if s.extra or others:
            facts += [s.extra, [[o.name, o.num_bytes] for o in others[n]] if others else []]
        listing.update(json.dumps(facts).encode())
    first = streams[0]
    assert first.source is not None
    plain = first.kind is PICTURES and len(streams) == 1 and first.weights is None
    source = {"kind": first.source.kind, "samples": len(found.samples), "sha256": listing.hexdigest()}
    plan: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION if plain else WIDER,
        "options": first.options.facts(),
        "source": source | {"classes": found.classes},
        "samples per shard": each,
    }
    if columns:
        plan["source"]["columns"] = list(columns)
    if len(streams) > 1:
        plan["streams"] = {s.name: s.options.facts() for s in streams[1:]}
    return hashed(plan)


def hashed(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan with its SHA-256."""
    return plan | {"sha256": hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()}
