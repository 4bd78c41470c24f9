"""codec-cli encode: pictures and tensors -> .ltz files."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from .. import DEFAULT_CODEC
from ..entropy.container import EXTENSION
from . import common
from .common import STD, Job, Usage, label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(parser, "pictures (whatever Pillow reads), .npy arrays, or folders with -r")
    common.add_output(parser, "photo.png -> photo.ltz beside it")
    parser.add_argument("-c", "--codec", default=DEFAULT_CODEC, help=f"see codec-cli list (default: {DEFAULT_CODEC})")
    parser.add_argument(
        "-q", "--quality", type=quality, metavar="1..100", help="for codecs of variable rate; 100 is best"
    )
    parser.add_argument(
        "--coding", choices=("default", "fast"), default="default",
        help="fast: some percent more bytes, entropy decoding many times faster (walloc codecs)",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", choices=("auto", "all", "none"), default="auto",
        help="keep the ICC profile (auto), also EXIF and XMP (all), or nothing; orientation is applied always",
    )  # fmt: skip
    goal = parser.add_argument_group("tensors (-c features: float arrays in .npy files; lossless by default)")
    one = goal.add_mutually_exclusive_group()
    one.add_argument("--max-error", type=float, metavar="E", help="no value is further off than this")
    one.add_argument("--relative-error", type=float, metavar="E", help="the same, as a part of the largest magnitude")
    one.add_argument("--nmse", type=float, metavar="E", help="mean squared error over the variance")
    one.add_argument("--bits", type=float, metavar="B", help="bits a value, everything counted")
    one.add_argument("--lossless", action="store_true", default=None, help="every bit is kept")
    goal.add_argument("--profile", type=Path, metavar="PATH", help="what FeatureCodec.fit learned and saved")


def goal_of(args: argparse.Namespace) -> dict[str, Any]:
    """The goal for tensors, as `encode` takes it."""
    names = ("max_error", "relative_error", "nmse", "bits", "lossless")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def quality(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} does not lie in 1..100")
    return value


def check_goal(args: argparse.Namespace) -> None:
    """What only tensors have is refused for pictures; `check_codec` comes first."""
    from ..codecs.registry import list_codecs

    goal = [*goal_of(args), *(["profile"] if args.profile else [])]
    if goal and any(i.modality == "image" for i in list_codecs() if i.name == args.codec):
        raise Usage(f"--{goal[0].replace('_', '-')} is for tensors; add -c features")


def check_codec(args: argparse.Namespace) -> None:
    """Wrong names and refused qualities are wrong usage, found before torch is loaded."""
    from ..codecs.registry import check_name, list_codecs
    from ..entropy.errors import InputError

    try:
        check_name(args.codec)
    except InputError as error:
        raise Usage(str(error)) from error
    info = next(i for i in list_codecs() if i.name == args.codec)
    if args.quality is not None and info.modality == "tensor":
        raise Usage(f"{args.codec} takes no quality: say --max-error, --relative-error, --nmse, --bits or --lossless")
    if args.quality is not None and info.fixed_rate and info.modality:
        variable = [i.name for i in list_codecs() if not i.fixed_rate]
        hint = f", or choose {' or '.join(variable)}" if variable else ""
        raise Usage(f"{args.codec} has one fixed rate: leave --quality out{hint}")


def run(args: argparse.Namespace) -> int:
    try:
        check_codec(args)
        check_goal(args)
        jobs = common.plan(args, common.PICTURES, lambda _: EXTENSION)
    except Usage as error:
        print(f"codec-cli encode: error: {error}", file=sys.stderr)
        return 2
    if common.any_readable(jobs):
        common.start_engines(args.threads)
        from .. import api  # noqa: F401  here, so that its loading is not taken for the first file's time
    from ..files import atomic_writer
    from ..info import inspect

    taken: dict[str, str] = {}
    codec: Any = args.codec
    if args.profile:
        from ..codecs.features import FeatureCodec

        codec = FeatureCodec.load(args.profile)

    def work(job: Job) -> dict[str, Any]:
        if job.target != STD:
            common.prepare_target(job, taken, args.force, make_parents=args.output is not None)
        size = None if job.source == STD else Path(job.source).stat().st_size  # fails first where there is no file
        from ..api import encode
        from ..images import open_picture
        from ..tensors import read_array

        if job.source == STD:
            data = io.BytesIO(common.read_input(STD))
            picture: Any = read_array(data) if args.codec == "features" else open_picture(data, "stdin")
        else:
            picture = Path(job.source)
        blob = encode(picture, codec, args.quality, args.device, args.metadata, coding=args.coding, **goal_of(args))
        if job.target == STD:
            common.write_stdout(blob)
        else:
            with atomic_writer(job.target, args.force) as file:
                file.write(blob)
        info = inspect(blob)
        return {
            "output": job.target, "codec": info.codec, "quality": info.quality, "shape": list(info.shape),
            "input_bytes": size, "num_bytes": len(blob), "bpp": round(info.bpp, 4),
        }  # fmt: skip

    def describe(row: dict[str, Any]) -> str:
        before = f"{common.size_text(row['input_bytes'])} -> " if row["input_bytes"] else ""
        paths = f"{label(row['input'])} -> {label(row['output'], '<stdout>')}"
        after = f"{common.size_text(row['num_bytes'])}, {row['bpp']:.3f} bpp, {row['seconds']:.2f} s"
        return f"{paths}: {before}{after}"

    return common.run_all(args, jobs, work, describe, name=lambda job: job.source)
