"""Command line of training: `scripts/train.py` and `codec-cli train`."""

from __future__ import annotations

import argparse
import sys
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
    parser.add_argument("--data", required=True, help="folder of training images (searched recursively)")
    parser.add_argument("--val", help="folder of validation images")
    parser.add_argument("--run", type=Path, help="folder for the checkpoint (of several recipes: of their folders)")
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT", help="weights that a new run starts from")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--threads", type=int, help="torch threads (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop (and save) after this long; recipes share it"
    )
    parser.add_argument(
        "--fit", action="store_true", help="as many steps as --minutes has room for, so that the schedule ends in time"
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks")
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
    import torch

    from .recipes import RECIPES

    if args.threads:
        torch.set_num_threads(args.threads)
    unknown = [name for name in args.recipe if name not in RECIPES]
    if unknown:
        return _usage(f"unknown recipe {unknown[0]!r}; one of {', '.join(RECIPES)}")
    if args.fit and args.minutes == float("inf"):
        return _usage("--fit needs --minutes")
    if args.init and len(args.recipe) > 1:
        return _usage("--init is for one recipe")
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
    from .recipes import make_trainer

    folder = args.run or Path("runs") / recipe.name
    if args.run and len(args.recipe) > 1:
        folder = args.run / recipe.name
    options = {"device": args.device, "compiled": args.compile, "init": args.init}
    trainer = make_trainer(recipe, args.data, folder, **options)
    if args.fit:
        steps = trainer.steps_at_start()
        if steps is None and recipe.steps:
            steps = max(1, int((end - time.time()) * _WORK / trainer.seconds_a_step()))
        trainer.recipe = replace(trainer.recipe, steps=recipe.steps if steps is None else steps)
        print(f"{trainer.recipe.steps} steps", flush=True)
    trainer.train(args.val, log=lambda line: print(line, flush=True), until=end - time.time())
    trainer.save()
    if args.export:
        extra = {"about_data": args.about_data} if args.about_data else {}
        folders = {"data": args.data, "val": args.val, "test": args.test}
        trainer.export(args.export, version=args.version, **folders, **extra)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (CodecError, OSError) as error:
        print(f"train: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
