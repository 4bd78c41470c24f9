"""codec-cli bench: which codec runs at which speed on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from ..entropy.errors import InputError
from . import common

_EPILOG = """
Each codec runs in a process of its own, memory to memory; the shortest call counts. Speeds are MP/s of pictures, times
real time of sounds, MB/s of tensors. Pillow's and libsndfile's codecs choose their own number of threads. What else the
machine does meanwhile makes the numbers smaller.

example: codec-cli bench photo.png -c hyperprior-fast -c walloc-rgb-16x -c avif@50 --threads 1,4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        "inputs", nargs="*", metavar="INPUT", help="a picture, a sound, a .npy tensor (default: samples in the package)"
    )
    add("-c", "--codec", action="append", metavar="NAME[@SETTINGS]", help="as often as wanted (default: all)")
    add("-j", "--threads", type=_counts, default=None, metavar="LIST", help="such as 1,4 (default: 1 and all cores)")
    add("--seconds", type=float, default=1.0, metavar="S", help="time for each direction (default: 1)")
    add("--json", action="store_true", help="print one JSON object: machine and rows")
    add("--quiet", action="store_true", help="no progress; errors still show")


def _counts(text: str) -> list[int]:
    return [common.positive(part) for part in text.split(",")]


def run(args: argparse.Namespace) -> int:
    from ..evaluation import bench
    from ..evaluation.runner import machine

    cores = os.cpu_count() or 1
    threads = args.threads or sorted({1, cores})
    try:
        with common.counter(args, "codec") as progress:
            rows = bench.bench(
                args.codec or bench.default_codecs(), args.inputs, threads=threads, seconds=args.seconds,
                progress=progress,
            )  # fmt: skip
    except InputError as error:
        print(f"codec-cli bench: error: {error}", file=sys.stderr)
        return 2
    failed = [r for r in rows if "error" in r]
    if args.json:
        print(json.dumps({"machine": machine(), "rows": rows}))
    else:
        print("\n\n".join(_tables([r for r in rows if "error" not in r])))
    for row in failed:
        print(f"{row['codec']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def _tables(rows: list[dict[str, Any]]) -> list[str]:
    from ..evaluation.report.tables import number, table
    from ..evaluation.signals import RATE_OF

    parts = []
    for modality, rate in RATE_OF.items():
        own = [r for r in rows if r["modality"] == modality]
        if not own:
            continue
        unit, shape = own[0]["speed_unit"], "x".join(map(str, own[0]["shape"]))
        head = ["codec", "setting", "threads", rate, f"encode {unit}", f"decode {unit}", "peak MB", "start s"]
        lines = [
            [
                r["codec"], r["setting"], str(r["threads"] or "own"), number(r[rate], 3), number(r["encode_speed"], 3),
                number(r["decode_speed"], 3), str(r["peak_mb"] or "-"), number(r["load_s"], 3),
            ]
            for r in own
        ]  # fmt: skip
        parts += [f"{own[0]['input']}, {shape}", table(head, lines)]
    return parts
