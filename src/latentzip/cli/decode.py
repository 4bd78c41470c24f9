"""codec-cli decode: .ltz files -> pictures, arrays or latents."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from ..entropy import container
from ..entropy.errors import CodecError
from . import common
from .common import STD, Job, Usage, label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(parser, ".ltz files, or folders with -r")
    common.add_output(
        parser,
        "photo.ltz -> photo.png beside it (photo.decoded.png where that exists); .npy where PNG cannot hold the signal",
    )
    parser.add_argument(
        "--format",
        metavar="EXT",
        help="png, jpg, tif, webp, npy, ...: for outputs without a name of their own",
    )
    parser.add_argument(
        "--region", metavar="TOP,LEFT,BOTTOM,RIGHT", type=_region,
        help="decode these pixels only; of tensors START,STOP along the first axis",
    )  # fmt: skip
    parser.add_argument("--profile", type=Path, metavar="PATH", help="of tensors that were encoded with one")
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16: up to twice as fast on processors that have it, pixels differ by rounding",
    )
    parser.add_argument("--latent", action="store_true", help="write the integer latent (L, h, w) as .npy")


def _region(text: str) -> tuple[int, ...]:
    parts = [int(p) for p in text.split(",")]
    if len(parts) == 2 and 0 <= parts[0] < parts[1]:
        return parts[0], parts[1]
    if len(parts) != 4 or not (0 <= parts[0] < parts[2] and 0 <= parts[1] < parts[3]):
        raise argparse.ArgumentTypeError(f"{text!r} is not TOP,LEFT,BOTTOM,RIGHT with TOP < BOTTOM and LEFT < RIGHT")
    return parts[0], parts[1], parts[2], parts[3]


def beside_original(job: Job) -> Job:
    """photo.ltz -> photo.decoded.png where photo.png, most likely the original, is in the way."""
    target = Path(job.target)
    if job.target == STD or not target.exists():
        return job
    return Job(job.source, str(target.with_suffix(f".decoded{target.suffix}")))


def run(args: argparse.Namespace) -> int:
    from ..files import atomic_writer, default_suffix, write_decoded

    def suffix(source: str) -> str:
        """The extension an output gets: asked for, or what the stream's header suggests."""
        if args.latent:
            return ".npy"
        if args.format:
            return "." + args.format.lower().removeprefix(".")
        try:
            with open(source, "rb") as file:
                return default_suffix(container.read_header(file).header)
        except (CodecError, OSError):
            return ".png"  # the error is reported when the file's turn comes

    try:
        if args.latent and args.format not in (None, "npy", ".npy"):
            raise Usage("--latent writes .npy; leave --format out")
        jobs = common.plan(args, {container.EXTENSION}, suffix)
        if args.output is None and not args.force:
            jobs = [beside_original(job) for job in jobs]
        if args.output not in (None, STD) and args.latent and Path(jobs[0].target).suffix.lower() != ".npy":
            raise Usage("--latent writes .npy files; name the output so")
    except Usage as error:
        print(f"codec-cli decode: error: {error}", file=sys.stderr)
        return 2
    if common.any_readable(jobs):
        common.start_engines(args.threads)
        from .. import api  # noqa: F401  here, so that its loading is not taken for the first file's time

    taken: dict[str, str] = {}
    codec = None
    if args.profile:
        from ..codecs.features import FeatureCodec

        codec = FeatureCodec.load(args.profile)

    def work(job: Job) -> dict[str, Any]:
        if job.target != STD:
            common.prepare_target(job, taken, args.force, make_parents=args.output is not None)
        blob = common.read_input(job.source)
        header = container.read_header(blob).header
        options: dict[str, Any] = {"latent": args.latent, "region": args.region, "device": args.device, "codec": codec}
        options["precision"] = args.precision
        if job.target == STD:
            kind = ".npy" if args.latent else "." + args.format.lstrip(".") if args.format else default_suffix(header)
            buffer = io.BytesIO()  # nothing reaches the pipe before all of it is there
            write_decoded(blob, buffer, kind, **options)
            common.write_stdout(buffer.getvalue())
        else:
            with atomic_writer(job.target, args.force) as file:
                write_decoded(blob, file, Path(job.target).suffix, **options)
        return {
            "output": job.target, "codec": header.codec, "modality": header.modality, "shape": list(header.shape),
            "num_bytes": len(blob),
        }  # fmt: skip

    def describe(row: dict[str, Any]) -> str:
        size = " x ".join(map(str, row["shape"][:0:-1] if row["modality"] == "image" else row["shape"]))
        return f"{label(row['input'])} -> {label(row['output'], '<stdout>')}: {size}, {row['seconds']:.2f} s"

    return common.run_all(args, jobs, work, describe, name=lambda job: job.source)
