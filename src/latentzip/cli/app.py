"""Dispatch: finds the command, imports its module, turns errors into one line and an exit status.

Exit status: 0 all good, 1 some input failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from ..entropy.errors import CodecError
from ..version import __version__

# command -> (module with add_arguments(parser) and run(args) -> exit status, help)
COMMANDS = {
    "encode": (".encode", "pictures, sound and tensors -> .ltz files"),
    "decode": (".decode", ".ltz files -> pictures, sound, arrays or latents"),
    "info": (".info", "what .ltz files contain, without decoding"),
    "list": (".list_codecs", "codecs, with their rates and measured quality"),
    "verify": (".verify", "check .ltz files and packed data sets from the first byte to the last"),
    "pack": (".pack", "a data set of pictures -> shards of .ltz streams, for training"),
    "unpack": (".unpack", "a packed data set -> a file a sample"),
    "cache": (".cache", "decode the latents of a packed data set for training"),
    "eval": (".eval", "measure codecs on your own files: rates, metrics, speeds, an HTML report"),
    "bench": (".bench", "measure how fast codecs are on this machine"),
    "train": ("..training.cli", "train a codec from a folder of pictures"),
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen command's module is imported and asked for its arguments."""
    parser = argparse.ArgumentParser(
        prog="codec-cli",
        description="Neural codecs on the command line: codec-cli encode photo.png; codec-cli decode photo.ltz",
        epilog="codec-cli COMMAND --help explains a command. Set LATENTZIP_DEBUG=1 for tracebacks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"codec-cli (latentzip) {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == chosen:
            loaded = import_module(module, __package__)
            loaded.add_arguments(sub)
            sub.set_defaults(run_command=loaded.run)  # no option's name
    return parser


def _terminate(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)  # unwinds like an interrupt, so that temporary files are removed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((a for a in arguments if a in COMMANDS), None)
    if argv is None:
        signal.signal(signal.SIGTERM, _terminate)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by who started us
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        args = _parser(chosen).parse_args(arguments)
        status = args.run_command(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        if argv is None:  # what is left is waiting for threads: who interrupts that as well is gone at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whoever read our output has gone; keep Python from complaining again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CodecError, OSError) as error:
        if debugging():
            raise
        print(f"codec-cli: {one_line(error)}", file=sys.stderr)
        return 1


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("LATENTZIP_DEBUG", "0") not in ("", "0")


def one_line(error: BaseException) -> str:
    """An error as users read it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f": {error.filename}" if error.filename is not None else "")
    return " ".join(str(error).split()) or type(error).__name__
