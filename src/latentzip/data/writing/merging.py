"""The end of packing: records of shards become columns, the list of errors and, last of all, the manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...entropy.errors import FormatError, InputError
from ..archive import COLUMNS, MANIFEST, Archive
from ..codec import weights_name
from ..manifest import FORMAT, version_of
from ..places import Place
from ..shards import manifest_bytes, npz_bytes
from .folder import ERRORS
from .shard import STATE, Stream


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


def merge(
    place: Place,
    plan: str,
    records: Sequence[dict[str, Any]],
    streams: Sequence[Stream],
    classes: list[str] | None,
    extra: Sequence[str] = (),
) -> None:
    """Write what is left of a pack when all shards are there.

    Args:
        plan: its SHA-256.
        records: of the shards, in order.
        classes: names of the labels, where these are numbers of names; None takes them from labels that are names.
        extra: names of the columns that samples carry beside what follows from their signals.

    Raises:
        InputError: no sample could be read.
    """
    rows = [row for record in records for row in record["rows"]]
    errors = [error for record in records for error in record["errors"]]
    if not rows:
        what = f"; the first: {errors[0]['path']}: {errors[0]['reason']}" if errors else ""
        raise InputError(f"none of {len(errors)} {streams[0].kind.noun} could be read{what}")
    kinds: dict[str, str | None] = {"key": "str", "label": "int64"}
    for stream in streams:
        kinds |= {_column(stream, name): kind for name, kind in stream.kind.columns.items()}
    if len({row[0] for row in rows}) != len(rows):
        twice = next(key for key, count in Counter(row[0] for row in rows).items() if count > 1)
        raise InputError(f"the key {twice!r} occurs twice; every sample needs one of its own")
    columns, classes = _columns(rows, kinds | dict.fromkeys(extra), classes)
    packed = npz_bytes(columns)
    place.write(COLUMNS, packed)
    if errors:
        lines = "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in errors)
        place.write(ERRORS, lines.encode("utf-8", "replace"))
    described: dict[str, Any] = {
        name: {"dtype": "str" if column.dtype.kind == "U" else column.dtype.name} for name, column in columns.items()
    }
    if "label" in described:
        described["label"]["classes"] = classes
    o = streams[0].options
    manifest = {
        "format": FORMAT,
        **_facts(place, streams[0], columns),
        "shuffle": o.shuffle,
        "samples": len(rows),
        "skipped": len(errors),
        "variants": 1 + o.mirror,
        "columns": described,
        "columns_file": {"file": COLUMNS, "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()},
        "shards": [record["shard"] for record in records],
        "plan_sha256": plan,
    }
    if len(streams) > 1:
        manifest["streams"] = {stream.name: _facts(place, stream, columns) for stream in streams[1:]}
    for path in place.scratch.glob(".*.part"):
        path.unlink(missing_ok=True)
    place.write(MANIFEST, manifest_bytes(manifest | {"version": version_of(manifest)}))
    place.remove_folder(STATE)


def _column(stream: Stream, name: str) -> str:
    return f"{stream.name}.{name}" if stream.name else name


def _facts(place: Place, stream: Stream, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a manifest says of a stream; its weights are written."""
    o, codec = stream.options, stream.codec()
    own = {name: columns[_column(stream, name)] for name in stream.kind.columns}
    weights = {}
    if stream.weights is not None:
        name = weights_name(stream.name)
        place.write(name, stream.weights)
        sha = hashlib.sha256(stream.weights).hexdigest()
        weights = {"weights": {"file": name, "bytes": len(stream.weights), "sha256": sha}}
    return {
        "codec": o.codec,
        "fingerprint": o.fingerprint,
        "quality": o.quality,
        "coding": o.coding,
        **({"effort": o.effort} if o.effort else {}),
        **({"options": dict(o.more)} if o.more else {}),
        "modality": stream.modality,
        **stream.kind.describe(own, o, codec),
        **weights,
    }


def _columns(
    rows: Sequence[Sequence[Any]], kinds: Mapping[str, str | None], classes: list[str] | None
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Columns of rows, and the names of the labels."""
    values: dict[str, Sequence[Any]] = dict(zip(kinds, zip(*rows)))
    without = sum(label is None for label in values["label"])
    if without == len(rows):
        del values["label"]
    elif without:
        raise InputError(f"{without} of {len(rows)} samples have no label while the others have one")
    elif any(isinstance(label, str) for label in values["label"]):
        classes = sorted({str(label) for label in values["label"]})
        numbers = {name: i for i, name in enumerate(classes)}
        values["label"] = [numbers[str(label)] for label in values["label"]]
    out = {}
    for name, column in values.items():
        kind = kinds[name]
        if kind is None:  # numbers where all are, else texts
            kind = "str" if any(isinstance(v, str) for v in column) else None
        out[name] = np.array([str(v) for v in column] if kind == "str" else column, None if kind == "str" else kind)
        if out[name].dtype.kind not in "biufU":
            raise InputError(f"column {name}: numbers or texts are needed in every sample")
    return out, classes


def result_of(place: Place) -> PackResult:
    """What a finished pack holds; raises FormatError: no sample."""
    m = Archive(place.path).manifest
    total = sum(shard["bytes"] for shard in m["shards"])
    if m["samples"] < 1:
        raise FormatError(f"{place}: a pack without samples")
    return PackResult(m["samples"], m["skipped"], len(m["shards"]), 0, total, True)
