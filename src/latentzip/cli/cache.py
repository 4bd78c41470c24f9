"""codec-cli cache: the training tier of a packed data set, latents ready to be mapped into memory."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="PACK", help="folder that codec-cli pack wrote, or its URL")
    parser.add_argument("-o", "--out", metavar="FOLDER", help="where (default: PACK/.cache, found there by loaders)")
    parser.add_argument(
        "-j", "--threads", type=common.positive, metavar="N", help="threads to use (default: all cores)"
    )
    parser.add_argument("--json", action="store_true", help="report as a JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes; errors still show")


def run(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    common.start_engines(args.threads)
    from ..data.reading.cache import build_cache

    with common.counter(args, "latent") as progress:
        cache = build_cache(args.source, args.out, threads=args.threads, progress=progress)
    size = sum(p.stat().st_size for p in Path(cache.path).iterdir())
    row = {
        "input": args.source, "output": cache.path, "samples": len(cache), "variants": cache.variants,
        "shape": cache.shape, "dtype": cache.dtype.name, "num_bytes": size,
        "seconds": round(time.perf_counter() - start, 3),
    }  # fmt: skip
    if args.json:
        print(json.dumps(row))
    elif not args.quiet:
        shape = "x".join(map(str, cache.shape)) if cache.shape else "of different shapes"
        print(f"{args.source} -> {cache.path}: {len(cache)} latents {shape} {cache.dtype.name}, "
              f"{common.size_text(size)} ({row['seconds']:.1f} s)", file=sys.stderr)  # fmt: skip
    return 0
