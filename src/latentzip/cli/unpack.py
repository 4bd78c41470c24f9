"""codec-cli unpack: a packed data set -> a file a sample."""

from __future__ import annotations

import argparse
import json
import sys

from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="PACK", help="folder that codec-cli pack wrote, or its URL")
    parser.add_argument("target", metavar="OUT", help="folder to write: one file a sample, and labels.csv")
    parser.add_argument("--as", dest="as_", choices=("auto", "png", "tif", "wav", "flac", "npy", "ltz"), default="auto",
                        help="decoded (default: as suits the signals), or the streams as they are")  # fmt: skip
    parser.add_argument("-f", "--force", action="store_true", help="replace existing files")
    parser.add_argument(
        "-j", "--threads", type=common.positive, metavar="N", help="threads to use (default: all cores)"
    )
    parser.add_argument("--json", action="store_true", help="report as a JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes; errors still show")


def run(args: argparse.Namespace) -> int:
    if args.as_ != "ltz":
        common.start_engines(args.threads)
    from ..data.reading.unpacking import unpack

    with common.counter(args, "sample") as progress:
        count = unpack(args.source, args.target, args.as_, force=args.force, progress=progress)
    if args.json:
        print(json.dumps({"input": args.source, "output": args.target, "samples": count}))
    elif not args.quiet:
        print(f"{args.source} -> {args.target}: {count} samples", file=sys.stderr)
    return 0
