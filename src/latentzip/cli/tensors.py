"""Files of several tensors in `codec-cli encode` and `decode`: `.safetensors` and `.npz` to archives and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..entropy.container import EXTENSION
from ..signals.tensors import SETS, TENSORS
from . import common
from .common import STD, Job, Usage

ARCHIVE = ".tar"


def is_set(source: str) -> bool:
    """Whether a path names a file of several tensors."""
    return source != STD and source.lower().endswith(SETS)


def is_archive(source: str) -> bool:
    """Whether a path names what such a file is encoded to."""
    return source != STD and source.lower().endswith(ARCHIVE)


def target_suffix(source: str) -> str:
    """Extension of what a file is encoded to."""
    return ARCHIVE if is_set(source) else EXTENSION


def check_codec(args: argparse.Namespace, jobs: list[Job]) -> None:
    """Raises Usage when a file of tensors is to be coded by something that codes none."""
    from ..codecs.registry import is_weights

    suits = args.codec is not None and (args.codec == "features" or is_weights(args.codec))
    for job in jobs:
        if is_set(job.source) and not suits:
            raise Usage(f"{job.source} holds tensors; add -c features")


def encode(job: Job, codec: Any, args: argparse.Namespace, goal: dict[str, Any]) -> dict[str, Any]:
    """One file to one archive; the row of the report."""
    from ..api import loaded
    from ..signals.tensors.archives import encode_tensors

    coder = loaded(codec, args.device)
    with common.opened_output(job.target, args.force) as out:
        coded = encode_tensors(job.source, out, coder, goal)
        size = out.tell()
    return {
        "output": job.target, "codec": coder.name, "quality": None, "shape": [], "tensors": coded.tensors,
        "input_bytes": Path(job.source).stat().st_size, "num_bytes": size,
        "bpp": round(8 * coded.num_bytes / max(1, coded.values), 4),
    }  # fmt: skip


def decode(job: Job, codec: Any, args: argparse.Namespace) -> dict[str, Any]:
    """One archive to one file of tensors; the row of the report."""
    from ..signals.tensors.archives import decode_tensors, write_tensors

    tensors, origin = decode_tensors(job.source, codec)
    suffix = Path(job.target).suffix if job.target != STD else f".{(args.format or origin.suffix).lstrip('.')}"
    with common.opened_output(job.target, args.force) as out:
        write_tensors(tensors, origin.metadata, out, suffix)
    return {
        "output": job.target, "codec": "features", "modality": TENSORS.name, "shape": [], "tensors": len(tensors),
        "num_bytes": Path(job.source).stat().st_size,
    }  # fmt: skip


def decoded_suffix(source: str) -> str:
    """Extension that an archive is decoded to: that of the file it was made from."""
    from ..signals.tensors.archives import origin_of

    return origin_of(source).suffix
