"""codec-cli verify: every checksum, then (unless --quick) entropy decoding of every chunk; nothing is written."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..entropy import container
from . import common
from .common import Usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(parser, ".ltz files, or folders with -r")
    parser.add_argument("--quick", action="store_true", help="checksums only: no weights, no decoding")
    parser.add_argument("-j", "--threads", type=common.positive, metavar="N", help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    try:
        found = common.find_inputs(args.inputs, args.recursive, {container.EXTENSION})
    except Usage as error:
        print(f"codec-cli verify: error: {error}", file=sys.stderr)
        return 2
    if not args.quick:
        common.start_engines(args.threads)

    def work(source: str) -> dict[str, Any]:
        blob = common.read_input(source)
        index = container.verify(blob)
        if not args.quick:
            from ..api import check

            check(blob)
        return {"ok": True, "codec": index.header.codec, "num_bytes": len(blob), "decoded": not args.quick}

    sources = [source for source, _ in found]
    return common.run_all(args, sources, work, lambda row: f"{row['input']}: ok", name=str, report_to_stdout=True)
