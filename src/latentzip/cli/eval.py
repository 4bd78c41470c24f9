"""codec-cli eval: every input through every codec, really encoded and decoded; tables, JSON, CSV, an HTML report."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..entropy.errors import InputError
from . import common
from .common import Usage

if TYPE_CHECKING:
    from ..evaluation import Evaluation

_EPILOG = """
codecs: a name of `codec-cli list`; jpeg, webp, avif, jpeg2000, png, webp-lossless; opus, mp3, vorbis, flac, flac-24;
float16, int8, deflate; compressai:MODEL. NAME@SETTINGS says what is measured: jpeg@10,50,90 or avif@20..80:20
(quality 1..100), opus@16,32,64 (kbit/s), features@0.1,0.01 (squared error over variance), compressai:mbt2018-mean@1..6;
hyperprior@e7 or hyperprior@30,50,e7: with an effort of 7.

example: codec-cli eval photos/ -c hyperprior-fast -c jpeg -c avif --anchor jpeg --report report.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="pictures, sounds, .npy tensors, or folders of them")
    add("-c", "--codec", action="append", metavar="NAME[@SETTINGS]",
        help="measure this codec; as often as wanted (default: ours and the usual conventional ones)")  # fmt: skip
    add("-q", "--quality", metavar="LIST", help="for codecs with a quality of 1..100: 10,50,90 or 1..100:10")
    add("--metrics", metavar="LIST", help="names, such as psnr,ms_ssim (default: all that are installed)")
    add("--anchor", metavar="NAME", help="the codec that others are compared with (default: jpeg or opus)")
    add("--report", type=Path, metavar="FILE.html", help="write one self-contained page: curves, viewer, maps, players")
    add("--report-size", type=float, default=24.0, metavar="MB", help="bound on the signals in it (default: 24)")
    add("--samples", type=int, default=4, metavar="N", help="inputs that the report lets one look at (default: 4)")
    add("--rows", type=Path, metavar="FILE.jsonl", help="append every measurement there (default: beside the report)")
    add("--resume", action="store_true", help="take the measurements that an interrupted run left in that file")
    add("-f", "--force", action="store_true", help="replace existing files")
    add("--weights", action="append", default=[], metavar="compressai:MODEL=PATH", help="a checkpoint for CompressAI")
    add("-j", "--threads", type=common.positive, metavar="N", help="threads of torch (default: all cores)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object: about, rows, averages, comparisons")
    form.add_argument("--csv", action="store_true", help="print the rows as comma-separated values")
    add("--quiet", action="store_true", help="no progress, no notes; errors still show")


def _weights(items: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for name, equals, path in pairs:
        if not (name.startswith("compressai:") and equals and path):
            raise Usage("--weights takes compressai:MODEL=PATH")
    return {name: path for name, _, path in pairs}


def _check(args: argparse.Namespace) -> dict[str, Any]:
    """What is wrong with the arguments themselves, before torch is loaded."""
    from ..evaluation.coders import check_name, parse_settings, split_effort
    from ..files import check_writable

    try:
        options: dict[str, Any] = {"weights": _weights(args.weights)}
        if args.quality:
            options["quality"] = parse_settings(args.quality)
        for spec in args.codec or []:
            name, _, settings = spec.partition("@")
            settings, _ = split_effort(settings)
            if settings:
                parse_settings(settings)
            check_name(name)
        if args.report:
            check_writable(args.report, args.force or args.resume)
            args.rows = args.rows or args.report.with_suffix(".jsonl")
        if args.resume and not args.rows:
            raise Usage("--resume needs the file of an earlier run: name it with --rows or --report")
    except InputError as error:
        raise Usage(str(error)) from error
    if args.metrics:
        options["metrics"] = [name.strip() for name in args.metrics.split(",")]
    return options


def run(args: argparse.Namespace) -> int:
    try:
        options = _check(args)
    except Usage as error:
        print(f"codec-cli eval: error: {error}", file=sys.stderr)
        return 2
    if any(Path(i).exists() for i in args.inputs):
        common.start_engines(args.threads)
    from ..evaluation import evaluate

    with common.counter(args, "file") as progress:
        result = evaluate(
            args.inputs, args.codec, anchor=args.anchor, rows=args.rows, resume=args.resume, force=args.force,
            device=args.device, threads=args.threads, samples=args.samples if args.report else 0, progress=progress,
            **options,
        )  # fmt: skip
    if args.report:
        result.write_report(args.report, force=args.force or args.resume, megabytes=args.report_size)
    return _print(args, result)


def _print(args: argparse.Namespace, result: Evaluation) -> int:
    if args.json:
        print(json.dumps(result.to_json()))
    elif args.csv:
        print(result.csv(), end="")
    else:
        print(result.markdown())
    for path, reason in result.unread:
        print(f"{path}: {reason}", file=sys.stderr)
    for row in result.failed:
        setting = f" {row['setting']}" if row["setting"] else ""
        print(f"{row['input']}: {row['codec']}{setting}: {row['error']}", file=sys.stderr)
    if not args.quiet:
        for path in (args.report, args.rows):
            if path:
                print(f"{path}: {common.size_text(path.stat().st_size)}", file=sys.stderr)
    return 1 if result.failed or result.unread else 0
