"""codec-cli decode: .ltz files -> pictures, sound, arrays or latents."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from .. import signals
from ..entropy import container
from ..entropy.errors import CodecError
from . import common, tensors
from .common import STD, Job, Usage, label

_OUTPUTS = {suffix for kind in signals.KINDS.values() for suffix in kind.suffixes}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(parser, ".ltz files, .tar archives of tensors, or folders with -r")
    common.add_output(
        parser,
        "photo.ltz -> photo.png beside it (photo.decoded.png where that exists), sound to .wav; .npy where PNG cannot "
        "hold the signal",
    )
    parser.add_argument(
        "--format",
        metavar="EXT",
        help="png, jpg, tif, webp, wav, flac, ogg, npy, ...: for outputs without a name of their own",
    )
    parser.add_argument(
        "--region", metavar="TOP,LEFT,BOTTOM,RIGHT", type=_region,
        help="decode these pixels only; of tensors START,STOP along the first axis",
    )  # fmt: skip
    parser.add_argument(
        "--span",
        metavar="START-STOP",
        type=_span,
        help="of sound: this part only, in seconds, m:ss or h:mm:ss (1:30-2:00)",
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="PATH",
        help="a feature profile, or weights of one's own, that the inputs were encoded with",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="bf16: up to twice as fast on processors that have it, pixels differ by rounding; auto: where that costs "
        "less than .01 dB (default)",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--latent", action="store_true", help="write the integer latent (L, h, w) as .npy")
    group.add_argument(
        "--to", choices=("signal", "latent", "tokens"), default="signal",
        help="latent: as --latent; tokens: the numbers of codewords, uint16, as .npy",
    )  # fmt: skip


def _region(text: str) -> tuple[int, ...]:
    try:
        parts = [int(p) for p in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) == 2 and 0 <= parts[0] < parts[1]:
        return parts[0], parts[1]
    if len(parts) != 4 or not (0 <= parts[0] < parts[2] and 0 <= parts[1] < parts[3]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not TOP,LEFT,BOTTOM,RIGHT with TOP < BOTTOM and LEFT < RIGHT, nor START,STOP"
        )
    return parts[0], parts[1], parts[2], parts[3]


def _seconds(text: str) -> float:
    parts = [float(p) for p in text.split(":")]
    if len(parts) > 3 or any(p < 0 for p in parts) or any(p >= 60 for p in parts[1:]):
        raise ValueError(text)
    return sum(p * 60**i for i, p in enumerate(reversed(parts)))


def _span(text: str) -> tuple[float, float]:
    try:
        start, stop = (_seconds(part) for part in text.split("-"))
        if start < stop:
            return start, stop
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not START-STOP with START < STOP, such as 1:30-2:00 or 90-120.5")


def suffix_of(header: container.Header) -> str:
    """The extension that a stream's header suggests."""
    return signals.of(header).suffix(header)


def beside_original(job: Job) -> Job:
    """photo.ltz -> photo.decoded.png where photo.png, most likely the original, is in the way."""
    target = Path(job.target)
    if job.target == STD or not target.exists():
        return job
    return Job(job.source, str(target.with_suffix(f".decoded{target.suffix}")))


def read_index(source: bytes | str) -> container.Index:
    """Header and tables of bytes or of a file."""
    if isinstance(source, bytes):
        return container.read_header(source)
    with open(source, "rb") as file:
        return container.read_header(file)


def planned(args: argparse.Namespace, read: Callable[[str], bytes]) -> list[Job]:
    """What goes where; raises Usage. ``read`` gives the bytes of a pipe."""

    def suffix(source: str) -> str:
        try:
            return asked_suffix(args) or (
                tensors.decoded_suffix(source)
                if not common.is_pipe(source) and tensors.is_archive(source)
                else suffix_of(read_index(read(source) if common.is_pipe(source) else source).header)
            )
        except (CodecError, OSError):
            return ".png"  # the error is reported when the file's turn comes

    if all(Path(item).suffix.lower() in (container.EXTENSION, ".tar") for item in args.inputs[:-1]):
        common.split_output(args, _OUTPUTS)
    flag = "--latent" if args.latent else f"--to {args.to}"
    if wanted(args) != "signal" and args.format not in (None, "npy", ".npy"):
        raise Usage(f"{flag} writes .npy; leave --format out")
    jobs = common.plan(args, {container.EXTENSION}, suffix)
    if args.output is None and not args.force:
        jobs = [beside_original(job) for job in jobs]
    if args.output not in (None, STD) and wanted(args) != "signal" and Path(jobs[0].target).suffix.lower() != ".npy":
        raise Usage(f"{flag} writes .npy files; name the output so")
    return jobs


def wanted(args: argparse.Namespace) -> str:
    """What is to be written: signal, latent or tokens."""
    return "latent" if args.latent else args.to


def asked_suffix(args: argparse.Namespace) -> str:
    """The extension that the arguments ask for; empty where they leave it to the stream."""
    if wanted(args) != "signal":
        return ".npy"
    return "." + args.format.lower().removeprefix(".") if args.format else ""


def run(args: argparse.Namespace) -> int:
    piped = cache(common.read_input)  # what can be read once only
    jobs = common.begin("decode", args, lambda: planned(args, piped))
    if jobs is None:
        return 2
    from ..files import write_decoded

    taken: dict[str, str] = {}
    codec = common.profile_of(args)

    def work(job: Job) -> dict[str, Any]:
        if job.target != STD:
            common.prepare_target(job, taken, args.force, make_parents=args.output is not None)
        if not common.is_pipe(job.source) and tensors.is_archive(job.source):
            return tensors.decode(job, codec, args)
        source: Any = piped(job.source) if common.is_pipe(job.source) else job.source
        index = read_index(source)
        header = index.header
        options: dict[str, Any] = {"to": wanted(args), "region": args.region, "device": args.device, "codec": codec}
        options |= {"precision": args.precision, "span": args.span, "progress": common.show_seconds}
        suffix = asked_suffix(args) or suffix_of(header) if job.target == STD else Path(job.target).suffix
        with common.opened_output(job.target, args.force) as out:
            write_decoded(source, out, suffix, **options)
        row = {
            "output": job.target, "codec": header.codec, "modality": header.modality,
            "shape": signals.of(header).shape(header, args.region, args.span), "num_bytes": index.num_bytes,
        }  # fmt: skip
        if header.sample_rate:
            row |= {"sample_rate": header.sample_rate}
        return row

    return common.run_all(args, jobs, work, describe, name=lambda job: job.source)


def describe(row: dict[str, Any]) -> str:
    """A file that was decoded, in words."""
    if "tensors" in row:
        size = f"{row['tensors']} tensors"
    else:
        size = signals.KINDS[row["modality"]].words(row["shape"], row.get("sample_rate", 0))
    return f"{label(row['input'])} -> {label(row['output'], '<stdout>')}: {size}, {row['seconds']:.2f} s"
