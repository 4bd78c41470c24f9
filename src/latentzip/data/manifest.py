"""The manifest of a pack, from its bytes: all that reading relies on is compared with a schema first.

docs/datasets.md is normative.
"""

from __future__ import annotations

import math
from typing import Any

from ..entropy import container, schema
from ..entropy.errors import FormatError, UnsupportedError
from ..entropy.schema import array, boolean, integer, mapping, nullable, one_of, record, text

FORMAT = "latentzip-pack"
VERSION = 1
MAX_MANIFEST = 1 << 28  # bytes; a shard takes about 200
MAX_LATENT = container.DEFAULT_LIMITS.samples  # values of a latent
_BYTES = integer(0, 1 << 50)
_COUNT = integer(0, 1 << 40)
_SIDE = integer(1, 1 << 16)
_SHA = text(r"[0-9a-f]{64}", 64)
_SHARD = text(schema.PLAIN_NAME + r"\.tar", 200)

_SCHEMA = record(
    {
        "codec": text(r"[ -~]+", 64),
        "fingerprint": text(r"[0-9a-f]{16}", 16),
        "modality": one_of("image"),
        "samples": _COUNT,
        "variants": one_of(1, 2),
        "latent": nullable(  # of a codec that keeps pictures as they are
            record(
                {
                    "channels": integer(1, 1 << 16),
                    "dtype": one_of("int8", "int16"),
                    "fixed_shape": nullable(array(_SIDE, 3, 3)),
                    "shapes": mapping(_COUNT, 1000, text(r"\d{1,6}x\d{1,6}", 13)),
                },
                {"stride": integer(1, 1 << 16)},
            )
        ),
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
        "quality": nullable(integer(1, 100)),
        "coding": text(most=64),
        "effort": integer(0, 9),
        "shuffle": nullable(integer(0, 1 << 64)),
        "skipped": _COUNT,
        "signal": record(
            {},
            {"channels": integer(1, 1 << 16), "size": nullable(_SIDE), "crop": text(most=64), "mirror": boolean},
        ),
        "columns_file": record({"bytes": _BYTES, "sha256": _SHA}),
        "plan_sha256": _SHA,
    },
)


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """Manifest from its bytes, with everything checked that reading relies on.

    Raises:
        FormatError: not a manifest, one with values out of bounds, or one that contradicts itself.
        UnsupportedError: a newer version of the format.
    """
    found = schema.parse(data, where, most=MAX_MANIFEST)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FormatError(f"{where}: not the manifest of a {FORMAT}")
    if found.get("version") != VERSION:
        raise UnsupportedError(
            f"{where}: format version {found.get('version')!r:.40}, this latentzip reads version {VERSION}; "
            "install a newer latentzip (pip install -U latentzip)"
        )
    manifest = _SCHEMA(found, f"{where}: damaged manifest: ")
    latent, shards = manifest["latent"], manifest["shards"]
    fixed, channels = (None, 0) if latent is None else (latent["fixed_shape"], latent["channels"])
    sound = manifest["samples"] == sum(shard["samples"] for shard in shards)
    sound = sound and len({shard["file"] for shard in shards}) == len(shards)
    # a stream takes a header block of the tar and some bytes of its own
    sound = sound and all(512 * s["samples"] * manifest["variants"] <= s["bytes"] for s in shards)
    if fixed is not None:
        sound = sound and fixed[0] == channels and math.prod(fixed) <= MAX_LATENT
    if not sound:
        raise FormatError(f"{where}: damaged manifest: its fields contradict each other")
    if "key" not in manifest["columns"]:
        raise FormatError(f"{where}: damaged manifest: no column of keys")
    return manifest


def columns_of(manifest: dict[str, Any]) -> dict[str, int | None]:
    """Columns by name, each with the number of its classes where it has any."""
    classes = {name: facts.get("classes") for name, facts in manifest["columns"].items()}
    return {name: None if names is None else len(names) for name, names in classes.items()}
