"""Command line of training: `scripts/train.py` and `codec-cli train`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..entropy.errors import CodecError

_WORK = 0.9  # share of the time that is steps; the rest is optimiser, validation and checkpoints


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="+", help="what to train, one after the other: names such as walloc-rgb-16x or hyperprior-fast"
    )
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        help="folders of training images or sounds (searched recursively), or zip files of such",
    )
    parser.add_argument("--val", help="folder of validation images")
    parser.add_argument("--run", type=Path, help="folder for the checkpoint (of several recipes: of their folders)")
    parser.add_argument(
        "--from",
        "--init",
        dest="init",
        metavar="WEIGHTS",
        help="where a new run starts: 'release' (the shipped weights of that codec) or the checkpoint of another run",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--threads", type=int, help="torch threads (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop (and save) after this long; recipes share it"
    )
    parser.add_argument(
        "--fit", action="store_true", help="as many steps as --minutes has room for, so that the schedule ends in time"
    )
    parser.add_argument(
        "--by-clock", action="store_true", help="the schedule follows the time of --minutes: for one sitting on a GPU"
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks")
    parser.add_argument(
        "--probe-batch", action="store_true", help="the batch that gives the most crops a second on this device"
    )
    parser.add_argument("--report", action="store_true", help="at the end, crops a second and the share of each part")
    parser.add_argument("--export", type=Path, metavar="DIR", help="then write weights, card and index entry there")
    parser.add_argument("--about-data", help="sentence for the model card: sources and licences of the pictures")
    parser.add_argument("--version", default="1", help="release number of the exported weights")
    parser.add_argument("--test", help="folder of test images for the figures of the card")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a field of the recipe, e.g. steps=9000",
    )


def run(args: argparse.Namespace) -> int:
    # threads that wait must not spin: the machine may be shared. Read when torch is first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from .recipes import RECIPES
    from .trainer import RELEASE

    if args.threads:
        torch.set_num_threads(args.threads)
    unknown = [name for name in args.recipe if name not in RECIPES]
    if unknown:
        return _usage(f"unknown recipe {unknown[0]!r}; one of {', '.join(RECIPES)}")
    for name in ("fit", "by_clock"):
        if getattr(args, name) and args.minutes == float("inf"):
            return _usage(f"--{name.replace('_', '-')} needs --minutes")
    for name in args.recipe:
        if args.by_clock and not RECIPES[name].by_clock:
            return _usage(f"--by-clock: the schedule of {name} is its own; leave it out")
    if args.init not in (None, RELEASE) and len(args.recipe) > 1:
        return _usage("--from CHECKPOINT is for one recipe")
    try:
        device = torch.device(args.device)
    except RuntimeError:
        return _usage(f"{args.device!r} is no device of torch, such as cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        return _usage("no CUDA device here: leave --device out to train on the CPU")
    recipes = []
    for name in args.recipe:
        recipe = RECIPES[name]
        types = {f.name: type(getattr(recipe, f.name)) for f in fields(recipe) if f.name != "model"}
        for item in args.set:
            key, _, value = item.partition("=")
            if key not in types:
                return _usage(f"no recipe field {key!r}; one of {', '.join(types)}")
            try:
                recipe = replace(recipe, **{key: _value(types[key], value)})
            except (ValueError, TypeError):
                return _usage(f"--set {item}: {key} of {name} is a {types[key].__name__}")
            if isinstance(getattr(recipe, key), (int, float)) and getattr(recipe, key) < 0:
                return _usage(f"--set {item}: {key} must not be negative")
        recipes.append(recipe)
    end = time.time() + args.minutes * 60
    for i, recipe in enumerate(recipes):
        if len(recipes) > 1:
            print(f"{recipe.name}:", flush=True)
        _train(args, recipe, time.time() + (end - time.time()) / (len(recipes) - i))
    return 0


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return kind(text)


def _usage(text: str) -> int:
    print(f"train: error: {text}", file=sys.stderr)
    return 2


def _train(args: argparse.Namespace, recipe: Any, end: float) -> None:
    from .probe import best_batch
    from .recipes import make_trainer
    from .trainer import Trainer

    folder = args.run or Path("runs") / recipe.name
    if args.run and len(args.recipe) > 1:
        folder = args.run / recipe.name
    options = {"device": args.device, "compiled": args.compile, "init": args.init}
    data = args.data[0] if len(args.data) == 1 else args.data
    if args.probe_batch and not any((folder / name).exists() for name in ("checkpoint.pt", "checkpoint.npz")):
        recipe = best_batch(recipe, data, args.device, log=lambda line: print(line, flush=True))
    trainer = make_trainer(recipe, data, folder, **options)
    if isinstance(trainer, Trainer):
        for number in (signal.SIGINT, signal.SIGTERM):
            _stop_on(number, trainer)
        if args.report and trainer.graphed is None:  # a graph's parts cannot be told apart, and must not be waited for
            trainer.parts.wait = trainer.wait
    if args.fit:
        steps = trainer.steps_at_start()
        if steps is None and recipe.steps:
            steps = max(1, int((end - time.time()) * _WORK / trainer.seconds_a_step()))
        trainer.recipe = replace(trainer.recipe, steps=recipe.steps if steps is None else steps)
        print(f"{trainer.recipe.steps} steps", flush=True)
    clock = {"by_clock": True} if args.by_clock else {}
    trainer.train(args.val, log=lambda line: print(line, flush=True), until=end - time.time(), **clock)
    trainer.save()
    if args.report and isinstance(trainer, Trainer):
        if trainer.graphed is not None and trainer.graphed.failed:
            print(f"no graph of a step: {trainer.graphed.failed}", flush=True)
        print("\n".join(trainer.parts.lines()), flush=True)
    if args.export:
        extra = {"about_data": args.about_data} if args.about_data else {}
        folders = {"data": data, "val": args.val, "test": args.test}
        trainer.export(args.export, version=args.version, **folders, **extra)


def _stop_on(number: int, trainer: Any) -> None:
    """Let a signal end the run after its step, with a checkpoint; a second one ends it at once."""

    def handle(received: int, _frame: Any) -> None:
        print("stopping after this step", flush=True)
        trainer.stop()
        signal.signal(received, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handle)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (CodecError, OSError) as error:
        print(f"train: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
