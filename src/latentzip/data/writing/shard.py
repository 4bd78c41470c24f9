"""One shard: a pure, repeatable unit of work, whose bytes are the same whenever and wherever it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...entropy.errors import CodecError, FormatError, InputError
from ..codec import loaded
from ..modality import MODALITIES
from ..modality.base import Modality, Options
from ..places import Place, place_of
from ..shards import ShardWriter, fitted
from .sources import Sample, Source, key_of

STATE = ".pack"  # records of finished shards, until the manifest is written
MAX_RECORD = 1 << 32  # bytes
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Stream:
    """One of the streams that every sample has.

    Attributes:
        name: empty for the first.
        modality: of its signals.
        source: where they come from; None where they are handed in.
        weights: of a codec of one's own.
    """

    name: str
    modality: str
    source: Source | None
    options: Options
    weights: bytes | None = None

    @property
    def kind(self) -> Modality:
        return MODALITIES[self.modality]

    def codec(self) -> Any:
        """Loaded."""
        return loaded(self.options.codec, bytes.fromhex(self.options.fingerprint), self.weights)


@dataclass(frozen=True)
class ShardJob:
    """All that a worker needs to make one shard.

    Attributes:
        samples: of the first stream.
        paired: what belongs to each in the other streams.
    """

    dst: str
    file: str
    plan: str
    streams: tuple[Stream, ...]
    samples: tuple[Sample, ...]
    paired: tuple[tuple[Sample, ...], ...]
    on_error: str


@dataclass(frozen=True)
class Coded:
    """A signal's streams by variant, and its columns."""

    suffix: str
    blobs: tuple[bytes, ...]
    row: tuple[Any, ...]


def code(stream: Stream, codec: Any, x: Any, refused: list[str] | None = None) -> list[Coded]:
    """What `Modality.load` or `accept` gave -> all samples that it makes.

    Args:
        refused: takes the reasons why parts of it can be no samples, where others can.

    Raises:
        InputError: it cannot be coded; without ``refused`` also where a part of it cannot.
    """
    kind, o, out, reasons = stream.kind, stream.options, [], []
    for piece in kind.pieces(x, o, codec):
        try:
            if piece.refused:
                raise InputError(piece.refused)
            blobs = [kind.encode(piece.signal, o, codec)]
            if o.mirror:
                blobs.append(kind.encode(kind.mirrored(piece.signal), o, codec))
            row = (*piece.facts, *kind.shape_row(piece, blobs[0], codec))
        except CodecError as error:
            if refused is None or not piece.suffix:
                raise
            name = f"{piece.suffix.removeprefix('@')}: "
            reasons.append(str(error) if piece.refused else name + str(error))
            continue
        out.append(Coded(piece.suffix, tuple(blobs), row))
    if reasons and not out:
        raise InputError("; ".join(reasons))
    if refused is not None:
        refused += reasons
    return out


def check_lengths(streams: Sequence[Stream], coded: Sequence[Sequence[Coded]]) -> None:
    """Raises InputError where the streams of one source make different numbers of samples."""
    if len({len(part) for part in coded}) > 1:
        counts = ", ".join(f"{len(part)} of {s.name or 'the first'}" for s, part in zip(streams, coded))
        raise InputError(f"the streams of a sample do not fit each other: {counts}")


class Shard:
    """A shard in the making, with the record that says it is finished."""

    def __init__(self, place: Place, file: str, plan: str, streams: Sequence[Stream]) -> None:
        self._place, self._file, self._plan, self._streams = place, file, plan, streams
        self._rows: list[tuple[Any, ...]] = []
        mirror = streams[0].options.mirror
        self.writer = ShardWriter(place, file, mirror, [s.name for s in streams[1:]])

    def add(self, key: str, label: Any, coded: Sequence[Sequence[Coded]], extra: Sequence[Any] = ()) -> None:
        """The samples of one source: for each stream a list of equal length (`check_lengths`)."""
        taken: set[str] = set()
        for parts in zip(*coded):
            own = _own_key(key, parts[0].suffix, taken)
            blobs = {(s.name, v): blob for s, part in zip(self._streams, parts) for v, blob in enumerate(part.blobs)}
            own = fitted(own, list(blobs))
            self.writer.add_all(own, blobs)
            self._rows.append((own, label, *(value for part in parts for value in part.row), *extra))

    def finish(self, errors: list[dict[str, str]], taken: int) -> dict[str, Any]:
        """Write the record, and return it; the writer's block has ended.

        Args:
            taken: sources that went into it.
        """
        info = self.writer.info
        assert info is not None
        record = {
            "plan": self._plan, "shard": asdict(info), "sha256s": self.writer.files, "rows": self._rows,
            "errors": errors, "taken": taken,
        }  # fmt: skip
        self._place.write(record_name(self._file), json.dumps(record).encode())
        return record


def _own_key(key: str, suffix: str, taken: set[str]) -> str:
    """Key of a piece, unique among those of its source."""
    if not suffix:
        return key
    own = key_of(f"{key}{suffix}.x")
    number = 2
    while own in taken:
        own, number = key_of(f"{key}{suffix}_{number}.x"), number + 1
    taken.add(own)
    return own


def record_name(file: str) -> str:
    """Where the record of a shard lies in a pack."""
    return f"{STATE}/{file.removesuffix('.tar')}.json"


def finished(place: Place, file: str, plan: str) -> dict[str, Any] | None:
    """The record of a shard that was made before, None where it or its file is missing or damaged."""
    try:
        record = json.loads(place.read(record_name(file), MAX_RECORD))
        if record["plan"] != plan or any(place.sha256(name) != sha for name, sha in record["sha256s"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, FormatError):
        return None
    return record


def pack_shard(job: ShardJob, progress: Progress | None = None) -> str:
    """Make one shard, its index and its record; the same bytes whenever and wherever it runs.

    Args:
        progress: called with 1 after each sample; what it raises stops the work and leaves nothing.

    Returns:
        The shard's file name.

    Raises:
        InputError: a signal that cannot be read, with ``on_error="fail"``.
    """
    codecs = [stream.codec() for stream in job.streams]
    errors: list[dict[str, str]] = []
    shard = Shard(place_of(job.dst), job.file, job.plan, job.streams)

    # partners belong together by their order: of these all or none
    some = job.on_error != "fail" and len(job.streams) == 1

    def coded(stream: Stream, codec: Any, sample: Sample) -> list[Coded]:
        assert stream.source is not None
        x = stream.kind.load(stream.source.read(sample), sample.name, stream.options, codec)
        refused: list[str] = []
        found = code(stream, codec, x, refused if some else None)
        errors.extend({"path": sample.name, "reason": reason} for reason in refused)
        return found

    with shard.writer:
        for sample, others in zip(job.samples, job.paired or [()] * len(job.samples)):
            at = sample
            try:
                parts = []
                for stream, codec, at in zip(job.streams, codecs, (sample, *others)):
                    parts.append(coded(stream, codec, at))
                check_lengths(job.streams, parts)
            except Exception as error:  # whatever a plug-in or a reader raises, the other samples are packed
                reason = _reason(error).removeprefix(f"{at.name}: ")
                if job.on_error == "fail":
                    raise InputError(f"{at.name}: {reason}") from error
                errors.append({"path": at.name, "reason": reason})
            else:
                shard.add(sample.key, sample.label, parts, sample.extra)
            if progress is not None:
                progress(1)
    shard.finish(errors, len(job.samples))
    return job.file


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
