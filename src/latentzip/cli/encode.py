"""codec-cli encode: pictures, sound and tensors -> .ltz files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import DEFAULT_CODEC, DEFAULT_SOUND_CODEC
from ..entropy import container
from . import common, tensors
from .common import STD, Job, Usage, label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(
        parser,
        "pictures (whatever Pillow reads), sound (WAV, FLAC, Ogg, Opus, MP3, ...), .npy arrays, or folders with -r",
    )
    common.add_output(parser, "photo.png -> photo.ltz beside it")
    parser.add_argument(
        "-c", "--codec", help=f"see codec-cli list (default: {DEFAULT_CODEC}, for sound {DEFAULT_SOUND_CODEC})"
    )
    parser.add_argument(
        "-q", "--quality", type=quality, metavar="1..100", help="for codecs of variable rate; 100 is best"
    )
    parser.add_argument(
        "--coding", choices=("default", "fast"), default="default",
        help="fast: some percent more bytes, entropy decoding many times faster (walloc codecs)",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", choices=("auto", "all", "none"), default="auto",
        help="keep the ICC profile (auto), also EXIF and XMP (all), or nothing; orientation is applied always; "
        "tags of sound files are kept unless none",
    )  # fmt: skip
    goal = parser.add_argument_group(
        "tensors (-c features: .npy to .ltz, .safetensors and .npz to a .tar; lossless by default)"
    )
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
    """What only tensors have is refused for others; `check_codec` comes first."""
    goal = [*goal_of(args), *(["profile"] if args.profile else [])]
    if goal and (args.codec is None or _modality(args.codec) in ("image", "audio")):
        raise Usage(f"--{goal[0].replace('_', '-')} is for tensors; add -c features")


def _modality(name: str) -> str:
    from ..codecs.registry import list_codecs

    return next((i.modality for i in list_codecs() if i.name == name), "")


def suffixes_of(codec: str | None) -> set[str]:
    """What a folder is searched for."""
    modality = _modality(codec) if codec else ""
    if modality == "tensor":
        return {".npy", *tensors.SUFFIXES}
    sounds, pictures = set(common.SOUNDS), set(common.PICTURES)
    return {"image": pictures, "audio": sounds}.get(modality, pictures | sounds)


def check_codec(args: argparse.Namespace) -> None:
    """Wrong names and refused qualities are wrong usage, found before torch is loaded."""
    from ..codecs.registry import check_name, list_codecs
    from ..entropy.errors import InputError

    name = args.codec
    if name is None:
        if not all(Path(item).suffix.lower() in common.PICTURES for item in args.inputs):
            return  # what the inputs are shows when they are opened
        name = DEFAULT_CODEC
    try:
        check_name(name)
    except InputError as error:
        raise Usage(str(error)) from error
    info = next(i for i in list_codecs() if i.name == name)
    if args.quality is not None and info.modality == "tensor":
        raise Usage(f"{name} takes no quality: say --max-error, --relative-error, --nmse, --bits or --lossless")
    if args.quality is not None and info.fixed_rate and info.modality:
        variable = [i.name for i in list_codecs() if not i.fixed_rate and i.modality == info.modality]
        hint = f", or choose {' or '.join(variable)} with --codec" if variable else ""
        raise Usage(f"{name} has one fixed rate: leave --quality out{hint}")


def run(args: argparse.Namespace) -> int:
    try:
        check_codec(args)
        check_goal(args)
        jobs = common.plan(args, suffixes_of(args.codec), tensors.target_suffix)
        tensors.check_codec(args, jobs)
    except Usage as error:
        print(f"codec-cli encode: error: {error}", file=sys.stderr)
        return 2
    if common.any_readable(jobs):
        common.start_engines(args.threads)
        from .. import api  # noqa: F401  here, so that its loading is not taken for the first file's time
    from ..files import write_encoded
    from ..info import from_index

    taken: dict[str, str] = {}
    codec: Any = args.codec
    if args.profile:
        from ..codecs.features.codec import FeatureCodec

        codec = FeatureCodec.load(args.profile)

    def work(job: Job) -> dict[str, Any]:
        if job.target != STD:
            common.prepare_target(job, taken, args.force, make_parents=args.output is not None)
        size = None if job.source == STD else Path(job.source).stat().st_size  # fails first where there is no file
        if tensors.is_set(job.source):
            return tensors.encode(job, codec, args, goal_of(args))
        options = {"coding": args.coding, "progress": common.show_seconds, **goal_of(args)}
        with common.opened_input(job.source) as source, common.opened_output(job.target, args.force) as out:
            write_encoded(
                source, out, codec, args.quality, args.device, args.metadata, name=label(job.source), **options
            )
            out.seek(0)
            info = from_index(container.read_header(out))
        row = {
            "output": job.target, "codec": info.codec, "quality": info.quality, "shape": list(info.shape),
            "input_bytes": size, "num_bytes": info.num_bytes, "bpp": round(info.bpp, 4),
        }  # fmt: skip
        if info.modality == "audio":
            row |= {"sample_rate": info.sample_rate, "kbps": info.kbps}
        return row

    def describe(row: dict[str, Any]) -> str:
        before = f"{common.size_text(row['input_bytes'])} -> " if row["input_bytes"] else ""
        paths = f"{label(row['input'])} -> {label(row['output'], '<stdout>')}"
        rate = f"{row['kbps']:.1f} kb/s" if "kbps" in row else f"{row['bpp']:.3f} bpp"
        after = f"{common.size_text(row['num_bytes'])}, {rate}, {row['seconds']:.2f} s"
        return f"{paths}: {before}{after}"

    return common.run_all(args, jobs, work, describe, name=lambda job: job.source)
