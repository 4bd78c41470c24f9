"""The folder that a pack is made in: whose it is, what was begun in it, and what may be removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...entropy.errors import CodecError, InputError
from ..archive import COLUMNS, MANIFEST, Archive
from ..places import Place
from ..shards import manifest_bytes
from .shard import STATE

ERRORS = "errors.jsonl"
CACHE = ".cache"
_MAX_PLAN = 1 << 20  # bytes


@contextmanager
def claimed(place: Place, shared: bool) -> Iterator[None]:
    """Keep two runs from making the same shards at the same time; parts of one job may run side by side."""
    try:
        with place.claimed(f"{STATE}/lock", shared):
            yield
    except BlockingIOError:
        raise InputError(f"{place} is being packed by another process; wait for it, or stop it first") from None


def begin(place: Place, plan: dict[str, Any], force: bool) -> bool:
    """Make the folder ready for this plan; True when the pack is complete already.

    Raises:
        InputError: it holds something else.
    """
    saved = f"{STATE}/plan.json"
    finished = place.size(MANIFEST) is not None
    ours = finished or bool(place.names(STATE))
    if force and ours:
        remove_pack(place)
        finished = False
    if finished:
        with suppress(CodecError):
            archive = Archive(place.path)
            sound = all(place.size(s["file"]) == s["bytes"] for s in archive.manifest["shards"])
            if archive.manifest.get("plan_sha256") == plan["sha256"] and sound:
                place.remove_folder(STATE)
                return True
        raise InputError(
            f"{place} holds a pack made from other files or with other options, or a damaged one; choose another "
            "folder, or make it anew with force (--force)"
        )
    if place.size(saved) is not None:
        try:
            before = json.loads(place.read(saved, _MAX_PLAN))
            assert isinstance(before["options"], dict)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise InputError(f"{place.where(saved)} is damaged; begin anew with force (--force)") from None
        if before.get("sha256") != plan["sha256"]:
            raise InputError(
                f"{place} holds an unfinished pack with another {_difference(before, plan)}; use the same source and "
                "options to go on, or begin anew with force (--force)"
            )
        return False
    # looked at once more: another part may have begun just now
    if place.exists() and not ours and any(name != STATE for name in place.names()) and place.size(saved) is None:
        raise InputError(f"{place} is not empty and holds no pack; choose another folder")
    place.make(STATE)
    place.write(saved, manifest_bytes(plan))
    return False


def _difference(before: dict[str, Any], plan: dict[str, Any]) -> str:
    options = before["options"] | plan["options"]
    names = [k for k in options if before["options"].get(k) != plan["options"].get(k)]
    names += [k for k in ("source", "samples per shard", "streams") if before.get(k) != plan.get(k)]
    return ", ".join(names) or "version"


_OURS = re.compile(
    r"\d{5,}(\.[a-z][a-z0-9_]*)*\.(tar|idx\.npy)|([a-z][a-z0-9_]*\.)?weights\.safetensors"
    r"|\.(\d{5,}|manifest|columns|errors)\..*\.part"
)


def remove_pack(place: Place) -> None:
    """Remove a pack, the manifest first, and nothing else that may lie in the folder."""
    for name in (MANIFEST, COLUMNS, ERRORS):
        place.remove(name)
    for name in place.names():
        if _OURS.fullmatch(name):
            place.remove(name)
    for name in (STATE, CACHE):
        place.remove_folder(name)


def clean_parts(place: Place, file: str) -> None:
    """Remove what a killed worker left of a shard."""
    for pattern in (f".{file}.*.part", f".{file.removesuffix('.tar')}.*.part"):
        for path in [*place.scratch.glob(pattern), *(place.scratch / STATE).glob(pattern)]:
            path.unlink(missing_ok=True)
