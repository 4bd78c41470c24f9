"""What searching at encode time brings, and what it takes: rate-distortion and seconds of every effort, in one run with
AVIF at its own speeds. --limit takes some pictures, evenly, --side their middles; --objective another one as well;
--reuse the rows that an earlier --json has, so that a long run can be made in pieces."""

from __future__ import annotations

import argparse
import io
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

import latentzip as lz
from latentzip.evaluation.metrics.bdrate import bd_rate
from latentzip.evaluation.metrics.pictures import ms_ssim, ms_ssim_db, psnr

from . import pictures
from .rows import Rows

NAMES = ("hyperprior-fast", "hyperprior")
QUALITIES = (20, 50, 80)
AVIF_SPEEDS = (8, 6, 4, 2, 0)
AVIF_QUALITIES = (25, 45, 60, 75)
ANCHOR = ("avif", "speed 6")


def run(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(args.threads[-1])
    images = chosen(pictures.load(args.data, args.quick), args.limit, args.side)
    qualities = args.qualities or QUALITIES
    levels = [
        (0, "mse"),
        *((e, o) for e in sorted({*args.effort} - {0}) for o in dict.fromkeys(("mse", args.objective))),
    ]
    kept = Rows(("codec", "level", "quality", "image"), args.reuse)
    for title, pixels in images:
        for name in args.codec or NAMES:
            codec = lz.load_codec(name)
            for quality in qualities if codec.variable_rate else (None,):
                for effort, objective in levels:
                    level = f"effort {effort}" + f", {objective}" * (objective != "mse")
                    measure = partial(ours, codec, pixels, quality, effort, objective)
                    kept.take(pixels, (name, level, quality, title), measure)
        for speed in args.speeds or AVIF_SPEEDS[:: 2 if args.quick else 1]:
            for quality in AVIF_QUALITIES:
                kept.take(pixels, ("avif", f"speed {speed}", quality, title), partial(avif, pixels, quality, speed))
    table = averages(kept.rows)
    summary = {f"{r['codec']} {r['level']}": {k: r[k] for k in FIGURES} for r in table}
    return {"rows": kept.rows, "averages": table, "summary": summary, "markdown": markdown(table, len(images))}


def chosen(images: list[tuple[str, np.ndarray]], limit: int | None, side: int | None) -> list[tuple[str, np.ndarray]]:
    """Evenly chosen pictures, and the middle square of each."""
    count = min(limit or len(images), len(images))
    found = [images[i * len(images) // count] for i in range(count)]
    if side is None:
        return found
    starts = [[max(0, n - side) // 2 for n in pixels.shape[:2]] for _, pixels in found]
    return [
        (title, np.ascontiguousarray(pixels[top : top + side, left : left + side]))
        for (title, pixels), (top, left) in zip(found, starts)
    ]


def ours(codec: Any, pixels: np.ndarray, quality: int | None, effort: int, objective: str = "mse") -> dict[str, Any]:
    """One picture at one quality and effort, through a real stream."""
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    codec.compress(x[:, :64, :64], quality, effort=min(effort, 1))  # what is made once
    start = time.perf_counter(), time.process_time()
    packed = codec.compress(x, quality, effort=effort, objective=objective)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    found = codec.decompress(packed.params, packed.chunks, pixels.shape[:2])
    decoded = (found * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    size = sum(map(len, packed.chunks)) + 60  # of the container
    return _figures(pixels, size, decoded, wall, cpu)


def avif(pixels: np.ndarray, quality: int, speed: int) -> dict[str, Any]:
    """One picture through AVIF as Pillow has it, 4:4:4 as our codecs are."""
    out = io.BytesIO()
    start = time.perf_counter(), time.process_time()
    Image.fromarray(pixels).save(out, "AVIF", quality=quality, speed=speed, subsampling="4:4:4")
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    decoded = np.asarray(Image.open(io.BytesIO(out.getvalue())).convert("RGB"))
    return _figures(pixels, out.tell(), decoded, wall, cpu)


def _figures(pixels: np.ndarray, size: int, decoded: np.ndarray, wall: float, cpu: float) -> dict[str, Any]:
    return {
        "bytes": size, "bpp": 8 * size / (pixels.shape[0] * pixels.shape[1]), "psnr": psnr(pixels, decoded),
        "ms_ssim_db": ms_ssim_db(ms_ssim(pixels, decoded)), "encode_s": wall, "encode_cpu_s": cpu,
    }  # fmt: skip


FIGURES = (
    "bd_rate_vs_one_pass_pct", "bd_rate_ms_ssim_vs_one_pass_pct", "bd_rate_vs_avif_pct", "rate_vs_one_pass_pct",
    "s_per_mp", "cpu_s_per_mp",
)  # fmt: skip


def averages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a codec and level: BD-rate by PSNR, change of rate at the same quality, seconds a megapixel."""
    levels = list(dict.fromkeys((r["codec"], r["level"]) for r in rows))
    curves = {key: _curve(rows, key) for key in levels}
    structure = {key: _curve(rows, key, "ms_ssim_db") for key in levels}
    table = []
    for codec, level in levels:
        part = [r for r in rows if (r["codec"], r["level"]) == (codec, level)]
        first = ANCHOR if codec == "avif" else (codec, "effort 0")
        rates = {(r["image"], r["quality"]): r["bpp"] for r in rows if (r["codec"], r["level"]) == first}
        megapixels = sum(r["pixels"] for r in part) / 1e6
        change = np.mean([r["bpp"] / rates[r["image"], r["quality"]] - 1 for r in part]) if rates else np.nan
        table.append({
            "codec": codec, "level": level,
            "bd_rate_vs_one_pass_pct": _bd(curves.get(first), curves[codec, level]),
            "bd_rate_ms_ssim_vs_one_pass_pct": _bd(structure.get(first), structure[codec, level]),
            "bd_rate_vs_avif_pct": _bd(curves.get(ANCHOR), curves[codec, level]),
            "rate_vs_one_pass_pct": round(100 * float(change), 2),
            "s_per_mp": round(sum(r["encode_s"] for r in part) / megapixels, 2),
            "cpu_s_per_mp": round(sum(r["encode_cpu_s"] for r in part) / megapixels, 2),
        })  # fmt: skip
    return table


def _curve(rows: list[dict[str, Any]], key: tuple[str, str], metric: str = "psnr") -> list[tuple[float, float]]:
    part = [r for r in rows if (r["codec"], r["level"]) == key]
    qualities = sorted({r["quality"] for r in part})
    return [
        tuple(float(np.mean([r[k] for r in part if r["quality"] == q])) for k in ("bpp", metric))  # type: ignore[misc]
        for q in qualities
    ]


def _bd(anchor: list[tuple[float, float]] | None, curve: list[tuple[float, float]]) -> float:
    if anchor is None or min(len(anchor), len(curve)) < 2:
        return float("nan")
    return round(bd_rate(anchor, curve), 2)


def markdown(table: list[dict[str, Any]], count: int) -> str:
    lines = [
        f"{count} pictures. BD-rate (negative: fewer bytes) by PSNR and by MS-SSIM against the same codec in one pass "
        "(AVIF: speed 6), by PSNR against AVIF at speed 6, 4:4:4; change of the rate at the same quality; seconds a "
        "megapixel.",
        "",
        "| codec | level | BD-rate, one pass | by MS-SSIM | BD-rate, AVIF | rate | s/MP | CPU s/MP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in table:
        figures = " | ".join("" if np.isnan(r[k]) else f"{r[k]:+.1f} %" for k in FIGURES[:4])
        lines.append(f"| {r['codec']} | {r['level']} | {figures} | {r['s_per_mp']:.1f} | {r['cpu_s_per_mp']:.1f} |")
    return "\n".join(lines)
