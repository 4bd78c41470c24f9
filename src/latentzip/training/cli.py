"""Command line of training: `scripts/train.py` and `codec-cli train`."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="the codec to train: a name such as walloc-rgb-16x or hyperprior-fast")
    parser.add_argument("--data", required=True, help="folder of training images (searched recursively)")
    parser.add_argument("--val", help="folder of validation images")
    parser.add_argument("--run", type=Path, help="folder for the checkpoint; an existing one is resumed")
    parser.add_argument("--init", type=Path, metavar="CHECKPOINT", help="weights that a new run starts from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="torch threads (default: all)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop (and save) after this long")
    parser.add_argument("--compile", action="store_true", help="compile the decoder network")
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

    from .recipes import RECIPES, make_trainer

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.recipe not in RECIPES:
        print(f"unknown recipe {args.recipe!r}; one of {', '.join(RECIPES)}")
        return 2
    recipe = RECIPES[args.recipe]
    types = {f.name: type(getattr(recipe, f.name)) for f in fields(recipe) if f.name != "model"}
    for item in args.set:
        key, _, value = item.partition("=")
        if key not in types:
            print(f"no recipe field {key!r}; one of {', '.join(types)}")
            return 2
        recipe = replace(recipe, **{key: types[key](value)})
    folder = args.run or Path("runs") / recipe.name
    trainer = make_trainer(recipe, args.data, folder, device=args.device, compiled=args.compile, init=args.init)
    trainer.train(args.val, log=lambda line: print(line, flush=True), until=args.minutes * 60)
    trainer.save()
    if args.export:
        extra = {"about_data": args.about_data} if args.about_data else {}
        folders = {"data": args.data, "val": args.val, "test": args.test}
        trainer.export(args.export, version=args.version, **folders, **extra)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))
