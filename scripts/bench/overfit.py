"""The codec fitted to each picture, at one effort, beside AVIF, `hyperprior` and published curves: rate, quality, time.

Real files, container included. Published curves that hold points of every picture (Cool-chic) are compared on the
pictures at hand; those that hold means over Kodak only when all 24 are. `--reuse` keeps the rows of an earlier run, so
that a long one can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentzip as lz
from latentzip.evaluation.metrics.bdrate import bd_rate
from latentzip.evaluation.peers.pictures import Conventional

from . import pictures
from .rd import KEY, averages, curve, markdown, measure
from .rows import Rows

QUALITIES = (10, 30, 50, 70, 90)
QUICK_QUALITIES = (20, 50, 80)
PEERS = ("hyperprior",)
LADDER = (15, 30, 45, 55, 65, 75, 85, 92)


def _avif(speed: int, subsampling: str) -> Conventional:
    name = f"avif speed {speed} {subsampling}"
    return Conventional(
        name, "AVIF", lambda q: {"quality": int(q), "speed": speed, "subsampling": subsampling}, LADDER
    )  # fmt: skip


AVIF = [_avif(speed, s) for speed in (6, 0) for s in ("4:4:4", "4:2:0")]


def settings(
    args: argparse.Namespace, name: str, effort: int
) -> Iterator[tuple[str, str, Callable[..., bytes], Callable[..., Any]]]:
    """(codec, setting, encode, decode) of everything measured."""
    ladder = args.qualities or (QUICK_QUALITIES if args.quick else QUALITIES)
    for q in ladder:
        yield (
            name,
            f"q{q}",
            lambda im, q=q: lz.encode(im, codec="overfit", quality=q, effort=effort),
            lambda data: np.asarray(lz.decode(data)),
        )
    for peer in PEERS:
        for q in sorted({5, 15, *ladder, 100}):
            yield (
                peer,
                f"q{q}",
                lambda im, q=q, peer=peer: lz.encode(im, codec=peer, quality=q),
                lambda data: np.asarray(lz.decode(data)),
            )
    for codec in AVIF[:: 2 if args.quick else 1]:
        for step in LADDER[:: 2 if args.quick else 1]:
            yield codec.name, f"{step:g}", lambda im, c=codec, s=step: c.encode(im, s), codec.decode


def run(args: argparse.Namespace) -> dict[str, Any]:
    effort = (args.effort or [4])[0]
    name = f"overfit effort {effort}"
    images = pictures.load(args.data, args.quick)
    if args.quick:
        images = images[:2]
    kept = Rows(KEY, args.reuse, {name: "overfit"})
    rows = kept.rows
    for codec, setting, encode, decode in settings(args, name, effort):
        for title, pixels in images:
            kept.take(pixels, (codec, setting, title), partial(measure, pixels, encode, decode))
            if args.json:  # a long run keeps what it has
                args.json.with_suffix(".rows").write_text(json.dumps({"rows": rows}))
    table = averages(rows)
    summary: dict[str, Any] = {"effort": effort, "pictures": len(images)}
    ours = curve(table, name)
    for peer in dict.fromkeys(r["codec"] for r in table):
        if peer != name:
            summary[f"bd_rate_vs_{peer.replace(' ', '_')}_pct"] = _round(bd_rate(curve(table, peer), ours))
    summary["bd_rate_vs_avif_pct"] = summary["bd_rate_vs_avif_speed_6_4:4:4_pct"]
    against = {peer: curve(table, peer) for peer in dict.fromkeys(r["codec"] for r in table) if peer != name}
    titles = [title for title, _ in images]
    for label, points in published_curves(args.published, titles):
        summary[f"bd_rate_vs_{label}_pct"] = _round(bd_rate(points, ours))
        against[label] = points
    for row in (r for r in table if r["codec"] == name):
        summary[f"bytes_at_{row['setting']}_pct"] = {
            peer: _round(bytes_at_equal_psnr(points, row["bpp"], row["psnr"])) for peer, points in against.items()
        }
    own = [r for r in rows if r["codec"] == name]
    summary["encode_s_per_mp"] = round(1e6 * sum(r["encode_s"] for r in own) / sum(r["pixels"] for r in own), 1)
    summary["decode_mp_s"] = decode_speed(images[0][1])
    return {"rows": rows, "averages": table, "summary": summary, "markdown": markdown(table, summary, len(images))}


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 1)


def bytes_at_equal_psnr(curve: list[tuple[float, float]], bpp: float, psnr: float) -> float:
    """Percent that a point needs more than a curve (bpp, dB) of the same PSNR, straight in log bpp between its points;
    NaN beyond them."""
    points = sorted(curve, key=lambda p: p[1])
    if not points[0][1] <= psnr <= points[-1][1]:
        return float("nan")
    theirs = np.exp(np.interp(psnr, [p[1] for p in points], np.log([p[0] for p in points])))
    return 100 * (bpp / float(theirs) - 1)


def published_curves(paths: list[Path], titles: list[str]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """(label, points) of curves that can be compared on these pictures."""
    files = [f for p in paths for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])]
    for file in files:
        data = json.loads(file.read_text())
        each, whole = data.get("per_image") or {}, data.get("results") or {}
        if all(t in each for t in titles):
            parts = [list(zip(each[t]["bpp"], each[t]["psnr-rgb"])) for t in titles]
            if len({len(p) for p in parts}) == 1:
                yield file.stem, [tuple(p) for p in np.mean(parts, axis=0).tolist()]
        elif len(titles) == 24 and all(t.startswith("kodim") for t in titles) and whole.get("psnr-rgb"):
            yield file.stem, list(zip(whole["bpp"], whole["psnr-rgb"]))


def decode_speed(pixels: np.ndarray, seconds: float = 2.0) -> float:
    """Megapixels a second that one core decodes, of a file in the middle of the range."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = lz.encode(pixels, codec="overfit", quality=50, effort=1)
        lz.decode(data)
        best, begin = float("inf"), time.perf_counter()
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            lz.decode(data)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return round(pixels.shape[0] * pixels.shape[1] / best / 1e6, 2)
