"""Train one small classifier three ways from the same pictures: `python scripts/examples/train_on_latents.py DATA`.

DATA has folders train/ and test/ with a folder for each class. The three inputs are

    small     pixels, resized to as many values as the latent has
    latents   the latent of the full-size picture, from a packed data set
    full      pixels at full size

All share the network but for its first layers, the augmentation (the same windows of the picture, mirrored half of the
time), the schedule and the seeds. Reported are test accuracy, samples/s of the loader alone and of the whole training
loop (a second is one of CPU time, so that a busy machine does not count), and the bytes on disk that the loader reads.
One process, one thread of torch; batches are read in the calling thread in all three.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import latentzip as lz
from latentzip.data.reading import transforms
from latentzip.signals.pictures import SUFFIXES

CODEC = "walloc-rgb-16x"  # 12 channels at stride 8: a quarter of the side in RGB pixels has as many values
STRIDE, MARGIN = 8, 3  # latent positions that random windows leave out
INPUTS = ("small", "latents", "full")


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


def stem(kind: str, width: int) -> nn.Sequential:
    """First layers: to `width` channels at a grid of one position for 8 x 8 pixels of the full picture."""
    widths = {"small": (3, width), "latents": (12, width), "full": (3, 16, 32, width)}[kind]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:]):
        stride = 1 if kind == "latents" else 2
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Pixels(nn.Module):
    """uint8 (B, 3, H, W) -> floats of about unit deviation."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - 118) / 64


def classifier(kind: str, classes: int, width: int = 48) -> nn.Sequential:
    """The network; only input and stem differ."""
    return nn.Sequential(
        lz.data.Dequantize(CODEC) if kind == "latents" else Pixels(),
        stem(kind, width),
        Block(width, width, 2),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * width, classes),
    )


# --- loaders -----------------------------------------------------------------------------------------------------


class PictureFolder:
    """JPEG files of class folders: decode, resize, window, mirror, as such loops usually do."""

    def __init__(self, root: Path, side: int, margin: int) -> None:
        self.classes = sorted(p.name for p in root.iterdir() if p.is_dir())
        self.files = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((root / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        self.side, self.window = side, side - margin
        self.num_bytes = sum(path.stat().st_size for path, _ in self.files)

    def picture(self, path: Path) -> np.ndarray:
        """The middle square, `side` pixels wide: (side, side, 3) uint8."""
        with Image.open(path) as image:
            image = image.convert("RGB")
            edge = min(image.size)
            left, top = (image.width - edge) // 2, (image.height - edge) // 2
            box = (left, top, left + edge, top + edge)
            return np.asarray(image.resize((self.side, self.side), Image.Resampling.BICUBIC, box))

    def batches(self, size: int, rng: np.random.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch; without a generator in order, whole, from the middle window."""
        order = np.arange(len(self.files)) if rng is None else rng.permutation(len(self.files))
        end = len(order) if rng is None else len(order) - len(order) % size
        room = self.side - self.window
        for at in range(0, end, size):
            chosen = [self.files[i] for i in order[at : at + size]]
            x = np.empty((len(chosen), self.window, self.window, 3), np.uint8)
            for row, (path, _) in enumerate(chosen):
                top, left, flip = (room // 2, room // 2, 0) if rng is None else rng.integers((room + 1, room + 1, 2))
                picture = self.picture(path)[top : top + self.window, left : left + self.window]
                x[row] = picture[:, ::-1] if flip else picture
            labels = torch.tensor([label for _, label in chosen])
            yield torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last), labels


class LatentFolder:
    """The same from a packed data set."""

    def __init__(self, pack: Path, side: int, margin: int) -> None:
        window = side - margin
        mirror = 0.5 if lz.data.Archive(pack).variants == 2 else 0.0
        self.train = lz.data.LatentDataset(
            pack, tier="archive", transform=transforms.RandomCrop(window), mirror=mirror, threads=1
        )
        self.test = lz.data.LatentDataset(pack, tier="archive", transform=transforms.CenterCrop(window), threads=1)
        self.classes, self.files = self.train.classes, range(len(self.train))
        self.num_bytes = sum(shard["bytes"] for shard in self.train.archive.manifest["shards"])

    def batches(self, size: int, rng: np.random.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch."""
        shuffle = rng is not None
        seed = 0 if rng is None else int(rng.integers(1 << 31))
        data = self.train if shuffle else self.test
        stream = lz.data.LatentStream(
            data, size, epochs=1, seed=seed, shuffle=shuffle, drop_last=shuffle, rank=0, world=1, prefetch=0
        )
        for batch in stream:
            yield batch["latent"], batch["label"]


def open_set(kind: str, data: Path, packs: Path, split: str, size: int) -> PictureFolder | LatentFolder:
    positions = size // STRIDE
    if kind == "latents":
        return LatentFolder(packs / split, positions, MARGIN)
    scale = STRIDE if kind == "full" else 2
    return PictureFolder(data / split, positions * scale, MARGIN * scale)


# --- one run -----------------------------------------------------------------------------------------------------


def train(kind: str, sets: dict[str, Any], seed: int, epochs: int, batch: int, rate: float) -> dict[str, float]:
    """Train once; returns accuracy and costs."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = classifier(kind, len(sets["train"].classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = epochs * (len(sets["train"].files) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    wall, cpu, seen = time.perf_counter(), time.process_time(), 0
    for _ in range(epochs):
        model.train()
        for x, label in sets["train"].batches(batch, rng):
            loss = F.cross_entropy(model(x), label, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += len(label)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    model.eval()
    right = total = 0
    with torch.inference_mode():
        for x, label in sets["test"].batches(batch, None):
            right += int((model(x).argmax(1) == label).sum())
            total += len(label)
    return {
        "accuracy": right / total, "wall_samples_s": seen / wall, "cpu_ms_per_sample": 1e3 * cpu / seen, "cpu_s": cpu
    }  # fmt: skip


def loader_speed(data: Any, batch: int, seconds: float = 3.0) -> float:
    """Training samples a second of CPU time, from files to batches."""
    rng = np.random.default_rng(0)
    for _ in data.batches(batch, rng):  # files in the page cache, loops compiled
        pass
    seen, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        for _, label in data.batches(batch, rng):
            seen += len(label)
    return seen / (time.process_time() - start)


# --- report ------------------------------------------------------------------------------------------------------


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [
        ("test accuracy, %", [100 * r["accuracy"] for r in rows], [100 * r["accuracy_sd"] for r in rows]),
        ("loader alone, samples/s", [r["loader_samples_s"] for r in rows], None),
        ("CPU time of training, ms/sample", [r["cpu_ms_per_sample"] for r in rows], None),
        ("training files, MB", [r["train_mb"] for r in rows], None),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.2), constrained_layout=True)
    for axis, (title, values, deviation) in zip(axes, panels):
        bars = axis.bar([r["label"] for r in rows], values, yerr=deviation, color=["#b0b0b0", "#2a6fbb", "#d9a441"])
        axis.bar_label(bars, [f"{v:.3g}" for v in values], padding=2)
        axis.set_title(title, fontsize=10)
        axis.margins(y=0.18)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| input | values | accuracy % | loader samples/s | loop samples/s | CPU ms/sample | training files MB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['label']} {r['shape']} | {r['values']} | {100 * r['accuracy']:.1f} ± {100 * r['accuracy_sd']:.1f} | "
        f"{r['loader_samples_s']:.0f} | {1e3 / r['cpu_ms_per_sample']:.0f} | {r['cpu_ms_per_sample']:.1f} | "
        f"{r['train_mb']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def median_side(root: Path) -> int:
    """The largest multiple of the stride within the median shorter side of the pictures."""
    sides = []
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            with Image.open(path) as image:
                sides.append(min(image.size))
    return int(np.median(sides)) // STRIDE * STRIDE


def write(args: argparse.Namespace, size: int, rows: list[dict[str, Any]]) -> None:
    """JSON and plot of the runs so far."""
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in ("seeds", "epochs", "batch", "rate", "coding")}
    settings |= {"size": size, "codec": CODEC, "versions": {"latentzip": lz.__version__, "torch": torch.__version__}}
    result = json.dumps({"settings": settings, "rows": rows}, indent=1)
    (args.out / "train_on_latents.json").write_text(result + "\n")
    plot(rows, args.out / "train_on_latents.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and test/, each with a folder a class")
    parser.add_argument("--out", type=Path, default=Path("train_on_latents"), help="folder for the JSON and the plot")
    parser.add_argument("--packs", type=Path, help="where to pack (default: a temporary folder)")
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=INPUTS)
    parser.add_argument(
        "--size", type=int, help="side of the full-size square in pixels (default: what the files have)"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--coding", choices=("default", "fast"), default="fast")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = args.size or median_side(args.data / "train")
    with tempfile.TemporaryDirectory() as scratch:
        packs = args.packs or Path(scratch)
        if "latents" in args.inputs:
            for split in ("train", "test"):
                lz.data.pack(
                    args.data / split, packs / split, CODEC, labels="folders", size=size, mirror=split == "train",
                    coding=args.coding,
                )  # fmt: skip
        rows = []
        for kind in args.inputs:
            sets = {split: open_set(kind, args.data, packs, split, size) for split in ("train", "test")}
            x, _ = next(sets["train"].batches(2, np.random.default_rng(0)))
            row: dict[str, Any] = {
                "label": kind, "shape": "x".join(map(str, x.shape[1:])), "values": x[0].numel(),
                "train_mb": sets["train"].num_bytes / 1e6,
                "loader_samples_s": loader_speed(sets["train"], args.batch),
            }  # fmt: skip
            row["runs"] = []
            rows.append(row)
            for seed in range(args.seeds):
                run = train(kind, sets, seed, args.epochs, args.batch, args.rate)
                row["runs"].append(run)
                for name in run:
                    row[name] = float(np.mean([r[name] for r in row["runs"]]))
                row["accuracy_sd"] = float(np.std([r["accuracy"] for r in row["runs"]], ddof=int(seed > 0)))
                print(f"{kind} seed {seed}: {run['accuracy']:.3f}, {run['cpu_s']:.0f} s", flush=True)
                write(args, size, rows)  # what is done is kept
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
