"""codec-cli info: what .ltz files contain, without decoding and without torch."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..entropy.container import EXTENSION
from ..info import Info, inspect
from ..signals.sound import duration
from . import common
from .common import Usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(parser, ".ltz files, or folders with -r")


def _text(row: dict[str, Any]) -> str:
    shape, boxes = row["shape"], row["boxes"]
    size, rate = " x ".join(map(str, shape)), f"{row['bpp']:.3f} bpp"
    if row["modality"] == "image":
        size = f"{shape[2]} x {shape[1]}"
    elif row["modality"] == "audio":
        length = duration(row["duration"])
        size = f"{length} ({shape[1]} samples) at {row['sample_rate']} Hz, {shape[0]} channel{'s' * (shape[0] > 1)},"
        rate = f"{row['kbps']:.1f} kb/s"
    chunks = f"{row['chunks']} chunk{'s' if row['chunks'] != 1 else ''}"
    quality = "" if row["quality"] is None else f", quality {row['quality']}"
    lines = [
        row["input"],
        f"  codec     {row['codec']}{quality}, weights {row['fingerprint']}",
        f"  {row['modality']:<9} {size} {row['mode']} {row['dtype']}, from a {row['kind']} object",
        f"  size      {common.size_text(row['num_bytes'])}, {rate}, {chunks}",
    ]
    if boxes:
        lines.append("  boxes     " + ", ".join(f"{k} {common.size_text(n)}" for k, n in boxes.items()))
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    try:
        found = common.find_inputs(args.inputs, args.recursive, {EXTENSION})
    except Usage as error:
        print(f"codec-cli info: error: {error}", file=sys.stderr)
        return 2

    def work(source: str) -> dict[str, Any]:
        info: Info = inspect(common.read_input(source) if common.is_pipe(source) else source)
        return info.to_json()

    sources = [source for source, _ in found]
    return common.run_all(args, sources, work, _text, name=str, report_to_stdout=True)
