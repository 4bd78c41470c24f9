"""codec-cli encode: pictures, sound and tensors -> .ltz files."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .. import targets
from ..entropy import container
from ..entropy.errors import InputError
from ..signals import KINDS
from ..signals.coding import METADATA
from ..signals.pictures import PICTURES
from ..signals.sound import SOUND
from . import common, options, tensors
from .common import STD, Job, Usage, label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_common(
        parser,
        "pictures (whatever Pillow reads), sound (WAV, FLAC, Ogg, Opus, MP3, ...), .npy arrays, or folders with -r",
    )
    common.add_output(parser, "photo.png -> photo.ltz beside it")
    parser.add_argument(
        "-c", "--codec", help=f"see codec-cli list (default: {PICTURES.codec}, for sound {SOUND.codec}); or a "
        ".safetensors file of weights of one's own, which decoding needs again (--profile)",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", choices=METADATA, default="auto",
        help="keep the ICC profile (auto), also EXIF and XMP (all), or nothing; orientation is applied always; "
        "tags of sound files are kept unless none",
    )  # fmt: skip
    parser.add_argument(
        "--value-range", type=value_range, metavar="auto|LOW,HIGH",
        help="of pictures of floats or 16 bits: the values that count as full scale (auto: the lowest and the highest)",
    )  # fmt: skip
    options.add_arguments(parser)
    parser.add_argument(
        "--target", type=target, action=Once, metavar="60KB|0.5bpp|38dB|64kbps",
        help="instead of a quality: at most this size or rate (bpp: pictures, kbps: sound), or at least this PSNR",
    )  # fmt: skip
    parser.add_argument(
        "--tokens", action="store_true", help="the inputs are .npy files of tokens, for -c vq, vq-audio and features"
    )
    parser.add_argument(
        "--size", type=size, metavar="H,W|SAMPLES", help="with --tokens: of the signal (default: all that they cover)"
    )
    parser.add_argument("--rate", type=common.positive, metavar="HZ", help="with --tokens of sound (default: 44100)")
    parser.add_argument("--mono", action="store_true", help="with --tokens of sound: one channel instead of two")
    parser.add_argument("--profile", type=Path, metavar="PATH", help="what FeatureCodec.fit learned and saved")


class Once(argparse.Action):
    """An option that may not be repeated: the last one would count, and nobody would know."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given twice: there is one goal at a time")
        setattr(namespace, self.dest, values)


def value_range(text: str) -> Any:
    """``auto``, or ``LOW,HIGH``."""
    if text == "auto":
        return text
    try:
        low, high = (float(part) for part in text.split(","))
        if low < high:
            return low, high
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor LOW,HIGH with LOW < HIGH")


def size(text: str) -> tuple[int, ...]:
    """``H,W`` of a picture or ``SAMPLES`` of a sound."""
    try:
        parts = tuple(int(part) for part in text.split(","))
        if len(parts) <= 2 and min(parts) >= 1:
            return parts
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is neither H,W nor SAMPLES")


def check_tokens(args: argparse.Namespace) -> None:
    """What goes with ``--tokens`` and what does not."""
    kind = _modality(args.codec or "")
    if not args.tokens:
        if args.size or args.rate or args.mono:
            raise Usage("--size, --rate and --mono belong to --tokens")
        return
    if args.codec is None:
        raise Usage("--tokens needs a codec that has them: -c vq or -c vq-audio, or -c features with --profile")
    if options.given(args) or args.target is not None:
        raise Usage("tokens are what is coded: leave qualities, levels and targets out")
    if kind == "image" and (args.rate or args.mono or (args.size and len(args.size) != 2)):
        raise Usage("tokens of a picture take --size H,W")
    if kind == "audio" and args.size and len(args.size) != 1:
        raise Usage("tokens of sound take --size SAMPLES, --rate and --mono")
    if kind == "tensor" and (args.rate or args.mono or args.size):
        raise Usage("tokens of a tensor take no --size, --rate or --mono: a profile knows what they stand for")


def of_tokens(source: Any, name: str, args: argparse.Namespace) -> bytes:
    """The stream of tokens in a ``.npy`` file, a path or open."""
    from ..codecs.contract import TOKENS
    from ..codecs.registry import load_codec
    from ..signals.npy import read_npy

    model: Any = common.profile_of(args) or load_codec(args.codec)
    if TOKENS not in model.capabilities:
        raise InputError(f"{model.name} has no tokens; vq and vq-audio have, and features with a profile of codebooks")
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        tokens = read_npy(file, name)
    if model.modality == "tensor":
        return model.encode_tokens(tokens)
    if model.modality == "image":
        return model.encode_tokens(tokens, args.size)
    samples = args.size[0] if args.size else None
    return model.encode_tokens(tokens, args.rate or 44100, 1 if args.mono else 2, samples)


def target(text: str) -> targets.Target:
    """What ``--target`` says."""
    try:
        return targets.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _modality(name: str) -> str:
    from ..codecs.registry import list_codecs

    return next((i.modality for i in list_codecs() if i.name == name), "")


def suffixes_of(codec: str | None) -> set[str]:
    """What a folder is searched for."""
    named = _modality(codec).split(", ") if codec else []
    wanted = [KINDS[name] for name in named if name in KINDS] or [kind for kind in KINDS.values() if kind.codec]
    return set().union(*(kind.suffixes for kind in wanted))


def check_codec(args: argparse.Namespace) -> None:
    """Wrong names and refused qualities are wrong usage, found before torch is loaded."""
    from ..codecs.registry import check_name, is_weights

    name = args.codec
    if name is not None and is_weights(name):
        if getattr(args, "profile", None):
            raise Usage(f"--codec {name} and --profile contradict each other: leave one of them out")
        return  # its options show when it is loaded
    if name is None:
        if not all(Path(item).suffix.lower() in PICTURES.suffixes for item in args.inputs):
            options.check_any(args, [kind.codec for kind in KINDS.values() if kind.codec])
            return  # what the inputs are shows when they are opened
        name = PICTURES.codec
    try:
        check_name(name)
    except InputError as error:
        raise Usage(str(error)) from error
    options.check(args, name)


def planned(args: argparse.Namespace) -> list[Job]:
    """What goes where; raises Usage."""
    common.split_output(args, {container.EXTENSION, ".tar"})
    check_codec(args)
    check_tokens(args)
    if args.target is not None and args.option_quality is not None:
        raise Usage("--quality and --target contradict each other: leave one of them out")
    jobs = common.plan(args, {".npy"} if args.tokens else suffixes_of(args.codec), tensors.target_suffix)
    tensors.check_codec(args, jobs)
    return jobs


def run(args: argparse.Namespace) -> int:
    jobs = common.begin("encode", args, lambda: planned(args))
    if jobs is None:
        return 2
    from ..files import write_encoded
    from ..info import from_index

    taken: dict[str, str] = {}
    codec: Any = common.profile_of(args) or args.codec
    chosen = options.given(args)
    if args.target is not None:
        chosen[f"target_{args.target.kind}"] = args.target.value

    def work(job: Job) -> dict[str, Any]:
        if job.target != STD:
            common.prepare_target(job, taken, args.force, make_parents=args.output is not None)
        piped = common.is_pipe(job.source)
        size = None if piped else Path(job.source).stat().st_size  # fails first where there is no file
        if not piped and tensors.is_set(job.source):
            return tensors.encode(job, codec, args, chosen)
        with common.opened_input(job.source) as source, common.opened_output(job.target, args.force) as out:
            about = {"name": label(job.source), "progress": common.show_seconds, "steps": common.show_steps, **chosen}
            if args.value_range is not None:
                about["value_range"] = args.value_range
            if args.tokens:
                out.write(of_tokens(source, label(job.source), args))
            else:
                write_encoded(source, out, codec, device=args.device, metadata=args.metadata, **about)
            out.seek(0)
            info = from_index(container.read_header(out))
        row = {
            "output": job.target, "codec": info.codec, "quality": info.quality, "shape": list(info.shape),
            "input_bytes": size, "num_bytes": info.num_bytes, "bpp": round(info.bpp, 4),
        }  # fmt: skip
        if info.sample_rate:
            row |= {"sample_rate": info.sample_rate, "kbps": info.kbps}
        return row

    return common.run_all(args, jobs, work, describe, name=lambda job: job.source)


def describe(row: dict[str, Any]) -> str:
    """A file that was encoded, in words."""
    before = f"{common.size_text(row['input_bytes'])} -> " if row["input_bytes"] else ""
    paths = f"{label(row['input'])} -> {label(row['output'], '<stdout>')}"
    rate = f"{row['kbps']:.1f} kb/s" if "kbps" in row else f"{row['bpp']:.3f} bpp"
    after = f"{common.size_text(row['num_bytes'])}, {rate}, {row['seconds']:.2f} s"
    return f"{paths}: {before}{after}"
