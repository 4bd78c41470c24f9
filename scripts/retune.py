"""Fit the lambda of an effort so that a quality keeps the rate of one pass, and store it for `codecs.search.retuning`.

    python scripts/retune.py --data TRAINING_PICTURES --codec hyperprior-fast --effort 1 3 6

Of each picture the middle is searched, at the lambda of the quality and at another; the factor is where the rate of all
together is that of one pass, on a line through both. Stored are logarithms of factors, at each quality and effort.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import latentzip as lz
from latentzip.codecs.search import retuning
from latentzip.files import atomic_writer
from latentzip.training.data import list_images, load_rgb

TABLE = Path(__file__).parents[1] / "codecs" / "search" / retuning.TABLE
QUALITIES = (10, 40, 70, 95)
_SLOPE = 3.0  # of log factor by log rate, for the second try: more weight of the distortion costs bytes
_FLATTEST, _STEEPEST = 1.0, 8.0
_NEAR = 0.002  # a rate as near as this needs no second try


def crops(folder: Path, count: int, side: int) -> list[Tensor]:
    """The middles of ``count`` pictures, evenly chosen, (3, S, S) in [0, 1]."""
    paths = list_images(folder)
    found = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        pixels = load_rgb(path)
        top, left = (max(0, n - side) // 2 for n in pixels.shape[:2])
        cut = pixels[top : top + side, left : left + side].copy()
        found.append(torch.from_numpy(cut).permute(2, 0, 1).float() / 255)
    return found


def rate(codec: Any, pictures: list[Tensor], quality: int, effort: int = 0, thrift: float = 1.0) -> float:
    """Logarithm of the bytes of all pictures."""
    options = {"effort": effort, "thrift": thrift} if effort else {}
    return math.log(sum(len(c) for x in pictures for c in codec.compress(x, quality or None, **options).chunks))


def fit(codec: Any, pictures: list[Tensor], quality: int, effort: int) -> float:
    """Logarithm of the factor of lambda (thrift is its inverse) at which rates are those of one pass."""
    goal = rate(codec, pictures, quality)
    points: list[tuple[float, float]] = []
    slope, found = _SLOPE, 0.0
    for _ in range(2):
        points.append((rate(codec, pictures, quality, effort, math.exp(-found)) - goal, found))
        if abs(points[-1][0]) < _NEAR:
            break
        if len(points) > 1 and points[1][0] != points[0][0]:
            slope = (points[1][1] - points[0][1]) / (points[1][0] - points[0][0])
            slope = min(_STEEPEST, max(_FLATTEST, slope))
        found = points[-1][1] - slope * points[-1][0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of training pictures")
    parser.add_argument("--codec", nargs="+", required=True)
    parser.add_argument("--effort", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--qualities", type=int, nargs="+", default=QUALITIES)
    parser.add_argument("--count", type=int, default=6, help="pictures")
    parser.add_argument("--side", type=int, default=192, help="pixels of the middle")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pictures = crops(args.data, args.count, args.side)
    for name in args.codec:
        codec = lz.load_codec(name)
        for effort in args.effort:
            points = []
            for quality in args.qualities if codec.variable_rate else [0]:
                before = math.log(retuning.retuned(name, effort, quality))
                points.append((quality, round(before + fit(codec, pictures, quality, effort), 3)))
                print(f"{name} effort {effort} quality {quality}: {points[-1][1]:+.3f}", flush=True)
            store(name, effort, points)


def store(name: str, effort: int, points: list[tuple[int, float]]) -> None:
    """Put a line into the table."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    line = {**table.get(name, {}), str(effort): points}
    table[name] = {e: line[e] for e in sorted(line, key=int)}
    lines = []
    for codec, efforts in sorted(table.items()):
        rows = ",\n".join(f'  "{e}": {json.dumps(p)}' for e, p in efforts.items())
        lines.append(f' "{codec}": {{\n{rows}\n }}')
    with atomic_writer(TABLE, force=True) as out:
        out.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


if __name__ == "__main__":
    main()
