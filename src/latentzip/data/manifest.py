"""The manifest of a pack, from its bytes: all that reading relies on is compared with a schema first.

docs/datasets.md is normative.
"""

from __future__ import annotations

import math
from typing import Any

from ..entropy import container, schema
from ..entropy.errors import FormatError, UnsupportedError
from ..entropy.schema import array, boolean, integer, mapping, nullable, number, one_of, record, text

FORMAT = "latentzip-pack"
VERSION = 1  # of packs of pictures alone
WIDER = 2  # of sound, of tensors, of several streams a sample, of a codec whose weights the pack brings
MAX_MANIFEST = 1 << 28  # bytes; a shard takes about 200
MAX_LATENT = container.DEFAULT_LIMITS.samples  # values of a latent
MAX_AXES = 8
STREAM_NAME = r"[a-z][a-z0-9_]{0,31}"  # of what a sample has beside its first stream; "mirror" is none
_BYTES = integer(0, 1 << 50)
_COUNT = integer(0, 1 << 40)
_SIDE = integer(1, 1 << 16)
_LONG = integer(0, 1 << 40)
_SHA = text(r"[0-9a-f]{64}", 64)
_SHARD = text(schema.PLAIN_NAME + r"\.tar", 200)
_SHAPES = r"(\d{1,13}(x\d{1,13}){0,7})?"


def _shapes(pattern: str, most: int) -> schema.Check:
    return mapping(_COUNT, 1000, text(pattern, most))


def _option(value: Any, where: str) -> Any:
    """What a codec was asked for: a number, a truth or a text."""
    if isinstance(value, bool):
        return value
    return number(-1e300, 1e300)(value, where) if isinstance(value, (int, float)) else text(most=256)(value, where)


_FACTS = {  # of a stream, by its modality
    "image": record(
        {
            "latent": nullable(  # of a codec that keeps pictures as they are
                record(
                    {
                        "channels": integer(1, 1 << 16),
                        "dtype": one_of("int8", "int16"),
                        "fixed_shape": nullable(array(_SIDE, 3, 3)),
                        "shapes": _shapes(r"\d{1,6}x\d{1,6}", 13),
                    },
                    {"stride": integer(1, 1 << 16)},
                )
            )
        },
        {
            "signal": record(
                {},
                {"channels": integer(1, 1 << 16), "size": nullable(_SIDE), "crop": text(most=64), "mirror": boolean},
            )
        },
    ),
    "audio": record(
        {
            "latent": nullable(
                record(
                    {
                        "dtype": one_of("int8", "int16"),
                        "fixed_shape": nullable(array(_LONG, 2, 2)),
                        "shapes": _shapes(r"\d{1,13}x\d{1,13}", 27),
                    }
                )
            )
        },
        {
            "signal": record(
                {},
                {
                    "rate": nullable(integer(1, 1 << 24)),
                    "channels": one_of("keep", "mono", "stereo"),
                    "seconds": nullable(number(0, 1 << 32)),
                    "short": one_of("pad", "drop"),
                },
            )
        },
    ),
    "tensor": record(
        {
            "latent": one_of(None),
            "signal": record(
                {
                    "dtype": nullable(one_of("float16", "bfloat16", "float32")),
                    "fixed_shape": nullable(array(_LONG, MAX_AXES)),
                    "shapes": _shapes(_SHAPES, 128),
                }
            ),
        },
    ),
}

_STREAM = record(
    {
        "codec": text(r"[ -~]+", 64),
        "fingerprint": text(r"[0-9a-f]{16}", 16),
        "modality": one_of(*_FACTS),
    },
    {
        "quality": nullable(integer(1, 100)),
        "coding": text(most=64),
        "effort": integer(0, 9),
        "options": mapping(_option, 64, text(r"[a-z_]+", 64)),
        "weights": record(
            {"file": text(schema.PLAIN_NAME + r"\.safetensors", 200), "bytes": integer(0, 1 << 32), "sha256": _SHA}
        ),
    },
)

_SCHEMA = record(
    {
        "samples": _COUNT,
        "variants": one_of(1, 2),
        "columns": mapping(
            record({"dtype": text(most=32)}, {"classes": nullable(array(text(most=1 << 16), 1 << 24))}),
            1000,
            text(r"[A-Za-z0-9_.-]+", 200),
        ),
        "shards": array(
            record({"file": _SHARD, "samples": integer(0, 1 << 32), "bytes": _BYTES, "sha256": _SHA}), 1 << 22
        ),
    },
    {
        "shuffle": nullable(integer(0, 1 << 64)),
        "skipped": _COUNT,
        "columns_file": record({"bytes": _BYTES, "sha256": _SHA}),
        "plan_sha256": _SHA,
    },
)


def _facts(value: Any, where: str) -> dict[str, Any]:
    """A stream's part of a manifest."""
    found = _STREAM(value, where)
    return _FACTS[found["modality"]](found, where)


_STREAMS = mapping(_facts, 16, text(STREAM_NAME, 32))


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """Manifest from its bytes, with everything checked that reading relies on.

    Raises:
        FormatError: not a manifest, one with values out of bounds, or one that contradicts itself.
        UnsupportedError: a newer version of the format.
    """
    found = schema.parse(data, where, most=MAX_MANIFEST)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FormatError(f"{where}: not the manifest of a {FORMAT}")
    if found.get("version") not in (VERSION, WIDER):
        raise UnsupportedError(
            f"{where}: format version {found.get('version')!r:.40}, this latentzip reads versions {VERSION} and "
            f"{WIDER}; install a newer latentzip (pip install -U latentzip)"
        )
    place = f"{where}: damaged manifest: "
    manifest = _facts(_SCHEMA(found, place), place)
    if "streams" in manifest:
        manifest["streams"] = _STREAMS(manifest["streams"], f"{place}streams")
    shards = manifest["shards"]
    streams = [manifest, *manifest.get("streams", {}).values()]
    sound = manifest["samples"] == sum(shard["samples"] for shard in shards)
    sound = sound and len({shard["file"] for shard in shards}) == len(shards)
    sound = sound and manifest["version"] >= version_of(manifest)
    # a stream takes a header block of the tar and some bytes of its own
    members = manifest["variants"] * len(streams)
    sound = sound and all(512 * s["samples"] * members <= s["bytes"] for s in shards)
    if not sound or not all(map(_consistent, streams)):
        raise FormatError(f"{where}: damaged manifest: its fields contradict each other")
    if "key" not in manifest["columns"]:
        raise FormatError(f"{where}: damaged manifest: no column of keys")
    return manifest


def _consistent(facts: dict[str, Any]) -> bool:
    table = facts["signal"] if facts["modality"] == "tensor" else facts["latent"]
    if table is None or table["fixed_shape"] is None:
        return True
    fixed = table["fixed_shape"]
    if "channels" in table and fixed[0] != table["channels"]:
        return False
    return math.prod(fixed) <= MAX_LATENT


def version_of(manifest: dict[str, Any]) -> int:
    """The version of the format that can say this."""
    plain = manifest["modality"] == "image" and not manifest.get("streams") and "weights" not in manifest
    return VERSION if plain else WIDER


def columns_of(manifest: dict[str, Any]) -> dict[str, int | None]:
    """Columns by name, each with the number of its classes where it has any."""
    classes = {name: facts.get("classes") for name, facts in manifest["columns"].items()}
    return {name: None if names is None else len(names) for name, names in classes.items()}
