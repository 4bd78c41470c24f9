"""codec-cli pack: a data set of pictures, sound or tensors -> shards of .ltz streams."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time

from ..defaults import DEFAULT_PACK_CODEC
from . import common, encode, options
from .common import Usage

_OPTIONS = (
    *("quality", "coding", "effort", "max_error", "relative_error", "nmse", "bits", "lossless", "nan", "transform"),
    *("axis", "levels"),
)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="folder, WebDataset (tar, 'x-{000..099}.tar', folder of tars), or Hugging Face "
        "data set on disk")  # fmt: skip
    add("target", metavar="DST", help="folder or URL to write; an unfinished pack in it is gone on with")
    add("-c", "--codec", default=DEFAULT_PACK_CODEC,
        help=f"decides what is packed, see codec-cli list (default: {DEFAULT_PACK_CODEC}); or a .safetensors file of "
        "weights or of a feature profile, which the pack brings along")  # fmt: skip
    options.add_arguments(parser, _OPTIONS)
    add("--labels", metavar="folders|FILE", help="class = first folder of the path, or a .csv or .json file of labels")
    add(
        "--columns", type=_names, default=(), metavar="A,B", help="further columns, of the file of labels or the source"
    )
    add("--pair", action="append", type=_pair, default=[], metavar="NAME=SRC[,CODEC]",
        help="a further stream of every sample, such as mask=masks/ or mask=.mask.png (default: lossless)")  # fmt: skip
    add("--modality", choices=("image", "audio", "tensor"), help="of codecs that take several kinds")
    pictures = parser.add_argument_group("pictures").add_argument
    pictures("--size", type=common.positive, metavar="N", help="resize the shorter side to N pixels")
    pictures(
        "--crop", choices=("center", "none"), help="after resizing: the middle square (default with --size), or nothing"
    )
    pictures("--mirror", action="store_true", help="store every picture mirrored as well: flips for training")
    sound = parser.add_argument_group("sound").add_argument
    sound("--seconds", type=float, metavar="S", help="cut recordings into excerpts of S seconds, in whole frames")
    sound("--short", choices=("pad", "drop"), default="pad", help="the last excerpt: with silence (default), or not")
    sound("--rate", type=common.positive, metavar="HZ", help="resample everything")
    sound(
        "--channels", choices=("keep", "mono", "stereo"), default="keep", help="mix, double, or as they are (default)"
    )
    add(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="pack in random order: mixes the classes of a folder over the shards",
    )
    add("--shard-size", type=num_bytes, default=num_bytes("256MB"), metavar="SIZE", help="at most, about (256MB)")
    add("--shard-samples", type=common.positive, metavar="N", help="samples a shard, instead of --shard-size")
    add("-j", "--jobs", type=common.positive, metavar="N", help="processes (default: all cores)")
    add("--on-error", choices=("skip", "fail"), default="skip",
        help="files that cannot be read: list in errors.jsonl and skip (default), or stop")  # fmt: skip
    add("--engine", choices=("local", "ray"), default="local", help="processes of this machine, or Ray")
    add("--address", metavar="ADDRESS", help="of a running Ray cluster (default: Ray on this machine)")
    add("--shard-index", type=int, metavar="I", help="make part I of --num-shards parts only; merge when all are done")
    add("--num-shards", type=common.positive, metavar="N", help="number of parts, for arrays of batch jobs")
    add("--merge", action="store_true", help="make nothing, write the manifest of parts that were made")
    add("-f", "--force", action="store_true", help="begin anew where DST holds a pack made otherwise")
    add("--json", action="store_true", help="report as a JSON object")
    add("--quiet", action="store_true", help="no progress, no notes; errors still show")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _pair(text: str) -> tuple[str, tuple[str, str]]:
    name, equals, rest = text.partition("=")
    source, _, codec = rest.partition(",")
    if not equals or not source:
        raise argparse.ArgumentTypeError(f"{text} is no pair; write mask=masks/ or mask=masks/,lossless")
    return name, (source, codec or "lossless")


def num_bytes(text: str) -> int:
    """``256MB``, ``1GiB``, ``4096``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    value = float(match[1]) * _UNITS[match[2] or ""] if match else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no size; write 256MB, 1GB or a number of bytes")
    return int(value)


def run(args: argparse.Namespace) -> int:
    try:
        encode.check_codec(args)
        if (args.shard_index is None) != (args.num_shards is None):
            raise Usage("--shard-index and --num-shards belong together")
    except Usage as error:
        print(f"codec-cli pack: error: {error}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    from ..data.writing.folder import ERRORS
    from ..data.writing.packing import pack

    with common.counter(args, "sample") as progress:
        result = pack(
            args.source, args.target, args.codec, **options.given(args), labels=args.labels, columns=args.columns,
            size=args.size, crop=args.crop, mirror=args.mirror, seconds=args.seconds, rate=args.rate,
            channels=args.channels, short=args.short, pairs=dict(args.pair), modality=args.modality,
            shuffle=args.shuffle, shard_size=args.shard_size,
            shard_samples=args.shard_samples, jobs=args.jobs, on_error=args.on_error, engine=args.engine,
            address=args.address, part=None if args.shard_index is None else (args.shard_index, args.num_shards),
            merge=args.merge, force=args.force, progress=progress,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    if args.json:
        print(json.dumps({"output": args.target, **vars(result), "seconds": round(seconds, 3)}))
    elif not args.quiet:
        note = f"; {result.skipped} skipped, see {args.target.rstrip('/')}/{ERRORS}" if result.skipped else ""
        if result.finished:
            what = f"{result.samples} samples, {result.shards} shards, {common.size_text(result.num_bytes)}{note}"
        else:
            what = f"part {args.shard_index} of {args.num_shards}; codec-cli pack ... --merge when all are done"
        print(f"{args.source} -> {args.target}: {what} ({result.made} shards made, {seconds:.1f} s)", file=sys.stderr)
    return 0
