"""What a split classifier recognises at how many bytes a picture: `python scripts/examples/bottleneck.py DATA`.

DATA has folders train/ and test/ with a folder for each class. A small CNN is trained as the teacher, then a bottleneck
in place of its first layers with the tail that goes with it (`scripts/train.py bottleneck`; a run in --run goes on
where it stopped). Compared on the test pictures, 128 x 128, by the accuracy of the decision and the mean bytes of real
files:

    bottleneck   streams of the bottleneck into its tail, at several qualities
    jpeg, webp   the pictures through Pillow into the teacher (JPEG optimised, 4:2:0)
    features     the teacher's own activations at the same split through the codec `features`, with a profile of the
                 training pictures, into the rest of the teacher
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import latentzip as lz
from latentzip.codecs.bottleneck.codec import tail
from latentzip.training.bottleneck import SmallCNN, centred, label_of
from latentzip.training.data import list_images, load_rgb
from latentzip.training.distortion import taps
from latentzip.training.recipes import RECIPES, make_trainer

QUALITIES = (1, 5, 10, 20, 30, 45, 60, 80, 100)
JPEG, WEBP = (1, 3, 5, 8, 12, 18, 25, 40, 60, 85), (0, 3, 6, 10, 20, 35, 50, 75, 90)
NMSE = (0.8, 0.6, 0.45, 0.3, 0.2, 0.1, 0.03, 0.01)


def pictures(folder: Path, classes: list[str], size: int) -> tuple[np.ndarray, Tensor]:
    """Middle squares (N, size, size, 3) uint8, and their labels (N,)."""
    paths = list_images(folder)
    labels = torch.tensor([label_of(p, folder, classes) for p in paths])
    return np.stack([centred(load_rgb(p), size) for p in paths]), labels


def to_input(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    answers = torch.cat([model(part).argmax(1) for part in x.split(32)])
    return (answers == labels).float().mean().item()


def pillow(images: np.ndarray, kind: str, **options: Any) -> tuple[float, Tensor]:
    """Mean bytes a picture, and what they decode to."""
    sizes, decoded = [], []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        sizes.append(buffer.tell())
        decoded.append(np.asarray(Image.open(buffer).convert("RGB")))
    return float(np.mean(sizes)), to_input(np.stack(decoded))


def measure(trainer: Any, train: np.ndarray, test: np.ndarray, labels: Tensor) -> list[dict[str, Any]]:
    teacher, bottleneck, rest = trainer.networks()
    x, rows = to_input(test), []

    def add(coder: str, setting: float, size: float, right: float) -> None:
        rows.append({"coder": coder, "setting": setting, "bytes": size, "accuracy": right})
        print(f"{coder:10s} {setting:6g}  {size:8.1f} bytes  {100 * right:5.1f} %", flush=True)

    add("teacher", 0, float(x[0].numel()), accuracy(teacher, x, labels))
    for quality in QUALITIES:
        streams = [s for part in x.split(32) for s in bottleneck.encode(part, quality)]
        features = torch.stack(bottleneck.decode(streams))
        add("bottleneck", quality, float(np.mean([len(s) for s in streams])), accuracy(rest, features, labels))
    for kind, settings in (("jpeg", JPEG), ("webp", WEBP)):
        for quality in settings:
            options = {"optimize": True} if kind == "jpeg" else {"method": 6}
            size, decoded = pillow(test, kind, quality=quality, **options)
            add(kind, quality, size, accuracy(teacher, decoded, labels))
    # the teacher cut at the same layer: channels last, as the codec sees them
    split, remainder = SmallCNN.SPLIT[-1], tail(teacher, SmallCNN.SPLIT)

    @torch.no_grad()
    def activations(images: np.ndarray) -> Tensor:
        parts = [taps(teacher, [split], part)[0] for part in to_input(images).split(32)]
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous()

    profile, given = lz.FeatureCodec.fit(activations(train[::4])), activations(test)
    for goal in NMSE:
        streams = [lz.encode(a, codec=profile, nmse=goal) for a in given]
        decoded = torch.stack([lz.decode(s, codec=profile) for s in streams]).permute(0, 3, 1, 2)
        add("features", goal, float(np.mean([len(s) for s in streams])), accuracy(remainder, decoded, labels))
    return rows


def bytes_for(rows: list[dict[str, Any]], coder: str, wanted: float) -> float | None:
    """Bytes at which a coder first gets an accuracy, on the upper envelope of its settings; None: never."""
    points = sorted((r["bytes"], r["accuracy"]) for r in rows if r["coder"] == coder)
    before: tuple[float, float] | None = None
    for size, right in points:
        if right >= wanted:
            if before is None or right == before[1]:
                return size
            share = (wanted - before[1]) / (right - before[1])
            return float(np.exp(np.log(before[0]) * (1 - share) + np.log(size) * share))
        if before is None or right > before[1]:
            before = (size, right)
    return None


def table(rows: list[dict[str, Any]]) -> str:
    """Bytes a picture that each coder takes for some accuracies, as Markdown."""
    best = next(r["accuracy"] for r in rows if r["coder"] == "teacher")
    coders = ["bottleneck", "webp", "jpeg", "features"]
    lines = [f"Teacher on uncompressed pictures: {100 * best:.1f} %.", "", f"| accuracy | {' | '.join(coders)} |"]
    lines.append("|---" * (len(coders) + 1) + "|")
    for wanted in (0.6 * best, 0.7 * best, 0.8 * best, 0.9 * best, 0.95 * best):
        sizes = [bytes_for(rows, coder, wanted) for coder in coders]
        cells = ["-" if size is None else f"{size:.0f} B" for size in sizes]
        lines.append(f"| {100 * wanted:.0f} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for coder in ("bottleneck", "webp", "jpeg", "features"):
        points = sorted((r["bytes"], 100 * r["accuracy"]) for r in rows if r["coder"] == coder)
        axes.plot(*zip(*points), marker="o", markersize=4, label=coder)
    best = next(100 * r["accuracy"] for r in rows if r["coder"] == "teacher")
    axes.axhline(best, color="grey", linewidth=1, linestyle="--", label="teacher, uncompressed")
    axes.set(xscale="log", xlabel="bytes a picture", ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--run", type=Path, default=Path("runs/bottleneck"), help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, help="length of the run (default: that of the recipe)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="write a figure there")
    parser.add_argument("--json", type=Path, help="write all rows there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = RECIPES["bottleneck"]
    recipe = replace(recipe, steps=args.steps) if args.steps else recipe
    trainer: Any = make_trainer(recipe, str(args.data / "train"), args.run)
    trainer.train(str(args.data / "test"), log=lambda line: print(line, flush=True))
    trainer.save()
    size = trainer.recipe.crop
    train, _ = pictures(args.data / "train", trainer.classes, size)
    test, labels = pictures(args.data / "test", trainer.classes, size)
    rows = measure(trainer, train, test, labels)
    print("\n" + table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
