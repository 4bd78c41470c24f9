"""codec-cli verify: every checksum, then entropy decoding of every chunk; nothing is written.

Single streams are decoded unless ``--quick``; packed data sets, which may be large, only with ``--deep``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..entropy import container
from ..entropy.errors import FormatError
from . import common
from .common import Usage

MANIFEST = "manifest.json"  # what makes a folder a packed data set
_SHOWN = 20  # problems printed one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(parser, ".ltz files, packed data sets, or folders with -r")
    parser.add_argument("--quick", action="store_true", help="of .ltz files checksums only: no weights, no decoding")
    parser.add_argument("--deep", action="store_true", help="of packed data sets decode every stream as well")
    parser.add_argument("-j", "--threads", type=common.positive, metavar="N", help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    packs = [item for item in args.inputs if "://" in item or Path(item, MANIFEST).is_file()]
    args.inputs = [item for item in args.inputs if item not in packs]
    try:
        found = common.find_inputs(args.inputs, args.recursive, {container.EXTENSION})
    except Usage as error:
        print(f"codec-cli verify: error: {error}", file=sys.stderr)
        return 2
    decoding = (bool(found) and not args.quick) or (bool(packs) and args.deep)
    if decoding:
        common.start_engines(args.threads)

    def work(item: _Item) -> dict[str, Any]:
        return _check_pack(item.source, args) if item.pack else _check_file(item.source, args.quick)

    items = [_Item(source, True) for source in packs] + [_Item(source, False) for source, _ in found]
    return common.run_all(args, items, work, _describe, name=lambda item: item.source, report_to_stdout=True)


@dataclass(frozen=True)
class _Item:
    source: str
    pack: bool


def _check_file(source: str, quick: bool) -> dict[str, Any]:
    if common.is_pipe(source):
        return _check_stream(container.read(common.read_input(source)), quick)
    with open(source, "rb") as file:
        return _check_stream(container.read_file(file), quick)


def _check_stream(stream: container.Container, quick: bool) -> dict[str, Any]:
    for _ in stream.chunks:
        pass
    if not quick:
        from ..api import check_stream

        check_stream(stream)
    num_bytes = stream.index.num_bytes
    return {"ok": True, "codec": stream.header.codec, "num_bytes": num_bytes, "decoded": not quick}


def _check_pack(source: str, args: argparse.Namespace) -> dict[str, Any]:
    from ..data.reading.check import check_pack

    report = check_pack(source, args.deep)
    for problem in report.problems[:_SHOWN]:
        print(problem, file=sys.stderr)
    if report.problems:
        more = f", the first {_SHOWN} above" if len(report.problems) > _SHOWN else ""
        raise FormatError(f"{len(report.problems)} problems{more}")
    return {
        "ok": True, "samples": report.samples, "shards": report.shards, "num_bytes": report.num_bytes,
        "decoded": args.deep,
    }  # fmt: skip


def _describe(row: dict[str, Any]) -> str:
    if "shards" in row:
        return f"{row['input']}: ok ({row['samples']} samples, {row['shards']} shards)"
    return f"{row['input']}: ok"
