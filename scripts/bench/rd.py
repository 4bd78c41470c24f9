"""Rate-distortion on real files: bits per pixel with the container, PSNR and MS-SSIM of what decodes, and throughput.

Published curves can be drawn in and compared with; they are marked, for their conventions differ a little.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import latentzip as lz
from latentzip.evaluation.metrics.bdrate import bd_rate, quality_at_rate
from latentzip.evaluation.metrics.pictures import ms_ssim, ms_ssim_db, psnr
from latentzip.evaluation.peers.pictures import CONVENTIONAL

from . import effort, figures, peers, pictures, published
from .published import Curves
from .rows import Rows
from .speed import timed

Point = tuple[str, str, Callable[[Image.Image], bytes], Callable[[bytes], np.ndarray]]
TICKS = (0.1, 0.2, 0.5, 1, 2, 4)
KEY = ("codec", "setting", "image")
QUALITIES = (5, 15, 25, 35, 45, 55, 65, 75, 85, 100)


def points(names: list[str], quick: bool, qualities: list[int] | None = None) -> Iterator[Point]:
    """(codec, setting, encode, decode) of everything measured, each codec's settings from small files to large."""
    infos = {info.name: info for info in lz.list_codecs()}
    ladder = sorted(qualities or QUALITIES[:: 3 if quick else 1])
    for name in names:
        for q in (None,) if infos[name].fixed_rate else ladder:
            yield (
                name,
                "" if q is None else f"q{q}",
                lambda im, name=name, q=q: lz.encode(im, codec=name, quality=q),
                lambda data: np.asarray(lz.decode(data)),
            )
    for codec in CONVENTIONAL.values():
        for step in codec.ladder[:: 3 if quick else 1]:
            yield codec.name, f"{step:g}", lambda im, c=codec, s=step: c.encode(im, s), codec.decode


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.effort is not None:
        return effort.run(args)
    names = args.codec or [
        i.name for i in lz.list_codecs() if i.modality == "image" and not i.slow and i.name != "lossless"
    ]
    images = pictures.load(args.data, args.quick)
    kept = Rows(KEY, args.reuse)
    settings = list(points(names, args.quick, args.qualities))
    for codec, setting, encode, decode in settings:
        for title, pixels in images:
            kept.take(pixels, (codec, setting, title), partial(measure, pixels, encode, decode))
    rows = beside(args.beside, [title for title, _ in images], kept.rows) + kept.rows
    table = averages(rows)
    summary = summarise(table, names)
    summary["files_vs_lossless_webp_of_latents_pct"] = latents_against_webp(names, images)
    curves = published.load(args.published) if args.published else []
    kodak = all(title.startswith("kodim") for title, _ in images)
    if curves and kodak:
        summary.update(against_published(table, names, curves))
    speeds = throughput(settings, images[0][1], args.threads, 0.1 if args.quick else 2.0, args.peers, args.quick)
    summary["throughput"] = peers.ratios(speeds, names)
    if args.out:
        fitted = [r["codec"] for r in rows if r["codec"].startswith("overfit")]
        plot(table, [*names, *fitted], curves, args.out)
    text = [markdown(table, summary, len(images)), compared(table, names, curves if kodak else [], len(images))]
    if curves and not kodak:
        text.append("Published curves are of Kodak and these pictures are not: drawn, but not compared with.")
    text.append(speed_table(speeds))
    return {
        "rows": rows, "averages": table, "throughput": speeds, "summary": summary, "markdown": "\n\n".join(text),
    }  # fmt: skip


def beside(files: list[Path], titles: list[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of other runs, of codecs that ``rows`` lack, at settings that have every one of these pictures."""
    measured, found = {r["codec"] for r in rows}, []
    for file in files:
        others = [
            r for r in json.loads(file.read_text())["rows"] if r["image"] in titles and r["codec"] not in measured
        ]
        for key in dict.fromkeys((r["codec"], r["setting"]) for r in others):
            part = [r for r in others if (r["codec"], r["setting"]) == key]
            found += part if {r["image"] for r in part} == set(titles) else []
    return found


def measure(
    pixels: np.ndarray, encode: Callable[[Image.Image], bytes], decode: Callable[[bytes], np.ndarray]
) -> dict[str, Any]:
    """One picture through one codec at one setting."""
    picture = Image.fromarray(pixels)
    start = time.perf_counter()
    data = encode(picture)
    middle = time.perf_counter()
    decoded = decode(data)
    end = time.perf_counter()
    return {
        "bytes": len(data),
        "bpp": 8 * len(data) / (pixels.shape[0] * pixels.shape[1]),
        "psnr": psnr(pixels, decoded),
        "ms_ssim": ms_ssim(pixels, decoded),
        "encode_s": middle - start,
        "decode_s": end - middle,
    }


def latents_against_webp(names: list[str], images: list[tuple[str, np.ndarray]]) -> dict[str, float]:
    """Per cent that our files (container included) are larger than lossless WebP of the very same latents.

    The packing is the one that WaLLoC's users have: channels as an RGB mosaic, method 6 at full effort.
    """
    result = {}
    for name in names:
        codec = lz.load_codec(name)
        side = round((codec.latent_channels / 3) ** 0.5)
        if not name.startswith("walloc") or 3 * side**2 != codec.latent_channels:
            continue
        ours = theirs = 0
        for _, pixels in images:
            blob = lz.encode(pixels, codec=name)
            ours += len(blob)
            z = (np.asarray(lz.decode(blob, to="latent"), np.int16) + 128).astype(np.uint8)
            h, w = z.shape[1:]
            plane = z.reshape(3, side, side, h, w).transpose(1, 3, 2, 4, 0).reshape(side * h, side * w, 3)
            buffer = io.BytesIO()
            Image.fromarray(plane).save(buffer, "WEBP", lossless=True, method=6, quality=100)
            theirs += buffer.tell()
        result[name] = round(100 * (ours / theirs - 1), 2)
    return result


def averages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the pictures, the literature's convention for this kind of table."""
    keys = list(dict.fromkeys((r["codec"], r["setting"]) for r in rows))
    table = []
    for codec, setting in keys:
        part = [r for r in rows if (r["codec"], r["setting"]) == (codec, setting)]
        mean = {k: float(np.mean([r[k] for r in part])) for k in ("bpp", "psnr", "ms_ssim")}
        table.append({"codec": codec, "setting": setting, **mean, "ms_ssim_db": ms_ssim_db(mean["ms_ssim"])})
    return table


def curve(table: list[dict[str, Any]], codec: str, metric: str = "psnr") -> list[tuple[float, float]]:
    return [(r["bpp"], r[metric]) for r in table if r["codec"] == codec]


def summarise(table: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """BD-rates for codecs with a curve; for one fixed rate, dB over each peer at equal bytes."""
    summary: dict[str, Any] = {}
    variable = [n for n in names if len(curve(table, n)) > 1]
    for peer in ("jpeg", "webp", "avif", "jpeg2000"):
        summary[f"bd_rate_vs_{peer}_pct"] = {
            n: round(bd_rate(curve(table, peer), curve(table, n)), 1) for n in variable
        }
    peers = [*CONVENTIONAL, *variable]
    for name in (n for n in names if n not in variable):
        ((rate, quality),) = curve(table, name)
        gains = {p: quality - quality_at_rate(curve(table, p), rate) for p in peers}
        ((_, similarity),) = curve(table, name, "ms_ssim_db")
        ms = {p: similarity - quality_at_rate(curve(table, p, "ms_ssim_db"), rate) for p in peers}
        summary[name] = {
            "bpp": round(rate, 4),
            "psnr": round(quality, 3),
            "db_at_equal_bytes": {p: round(g, 2) for p, g in gains.items()},
            "ms_ssim_db_at_equal_bytes": {p: round(g, 2) for p, g in ms.items()},
        }
    return summary


def difference(ours: Curves, peer: Curves, metric: str = "psnr") -> float:
    """Per cent of rate against a peer where both are curves; dB at equal bytes where ours is one point; else NaN."""
    a, b = getattr(peer, metric), getattr(ours, metric)
    if len(a) < 2 or not b:
        return math.nan
    return bd_rate(a, b) if len(b) > 1 else b[0][1] - quality_at_rate(a, b[0][0])


def measured(table: list[dict[str, Any]], codec: str) -> Curves:
    return Curves(codec, curve(table, codec), curve(table, codec, "ms_ssim_db"))


def against_published(table: list[dict[str, Any]], names: list[str], curves: list[Curves]) -> dict[str, Any]:
    """By PSNR: {"bd_rate_vs_published_pct" or "db_vs_published_at_equal_bytes": {codec: {published: number}}}."""
    result: dict[str, Any] = {}
    for name in names:
        ours = measured(table, name)
        key = "bd_rate_vs_published_pct" if len(ours.psnr) > 1 else "db_vs_published_at_equal_bytes"
        values = {c.label.removesuffix(published.MARK): round(difference(ours, c), 2) for c in curves}
        result.setdefault(key, {})[name] = {k: v for k, v in values.items() if not math.isnan(v)}
    return result


def compared(table: list[dict[str, Any]], names: list[str], curves: list[Curves], count: int) -> str:
    """Our codecs against every peer, measured and published, by PSNR and MS-SSIM."""
    lines = ["Rate against each peer at equal quality (BD-rate, negative: fewer bytes); of a codec with one fixed rate"]
    lines += ["instead the dB over the peer at equal bytes. PSNR / MS-SSIM in dB.", ""]
    if curves:
        lines[1:2] = [lines[1], published.NOTE]
        if count != 24:
            lines[2] += f" Measured on {count} of the 24 only: indicative."
    lines += ["| against | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    rivals = [measured(table, n) for n in (*CONVENTIONAL, *names)]
    for peer in (*rivals, *curves):
        cells = [cell(measured(table, name), peer) for name in names]
        if any(cells):
            lines.append(f"| {peer.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(ours: Curves, peer: Curves) -> str:
    if ours.label == peer.label:
        return ""
    unit, digits = ("%", 1) if len(ours.psnr) > 1 else ("dB", 2)
    values = [difference(ours, peer, m) for m in ("psnr", "ms_ssim_db")]
    if all(math.isnan(v) for v in values):
        return ""
    return " / ".join("-" if math.isnan(v) else f"{v:+.{digits}f} {unit}" for v in values)


def throughput(
    settings: list[Point], pixels: np.ndarray, threads: list[int], seconds: float, rivals: str | None, quick: bool
) -> list[dict[str, Any]]:
    """MP/s of each codec at the middle of its settings, on one picture; ``rivals`` adds CompressAI's models."""
    picture = Image.fromarray(pixels)
    middle = {}
    for codec in dict.fromkeys(s[0] for s in settings):
        own = [s for s in settings if s[0] == codec]
        middle[codec] = own[len(own) // 2]
    rows, before = [], torch.get_num_threads()
    for count in threads:
        torch.set_num_threads(count)
        for codec, setting, encode, decode in middle.values():
            if codec in CONVENTIONAL and count != threads[0]:
                continue
            row = timed(codec, lambda e=encode: e(picture), decode, pixels, count, seconds)
            rows.append({**row, "setting": setting})
        if rivals:
            rows += [timed(*pair, pixels, count, seconds) for pair in peers.pairs(pixels, quick)]
    torch.set_num_threads(before)
    return rows


def speed_table(rows: list[dict[str, Any]]) -> str:
    lines = [f"Throughput on one picture of {rows[0]['size']}, memory to memory. Pillow's codecs choose their own"]
    lines += ["number of threads. CompressAI's models have random weights.", ""]
    lines += ["| codec | setting | threads | encode MP/s | decode MP/s |", "|---|---|---|---|---|"]
    for r in rows:
        speeds = f"{r['encode_mp_s']:.3g} | {r['decode_mp_s']:.3g}"
        lines.append(f"| {r['name']} | {r.get('setting', '')} | {r['threads']} | {speeds} |")
    return "\n".join(lines)


def markdown(table: list[dict[str, Any]], summary: dict[str, Any], count: int) -> str:
    lines = [f"Means over {count} pictures, container included.", ""]
    lines += ["| codec | setting | bpp | PSNR dB | MS-SSIM | MS-SSIM dB |", "|---|---|---|---|---|---|"]
    for r in table:
        lines.append(
            f"| {r['codec']} | {r['setting']} | {r['bpp']:.4f} | {r['psnr']:.2f} | {r['ms_ssim']:.4f} "
            f"| {r['ms_ssim_db']:.2f} |"
        )
    return "\n".join(lines)


def plot(table: list[dict[str, Any]], names: list[str], curves: list[Curves], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    crowded = len(curves) > 4  # their names need a column of their own
    fig, axes = plt.subplots(1, 2, figsize=(16 if crowded else 12, 5))
    for ax, metric, label in ((axes[0], "psnr", "PSNR, dB"), (axes[1], "ms_ssim_db", "MS-SSIM, dB")):
        for number, c in enumerate(curves):
            if points := sorted(getattr(c, metric)):
                ax.plot(
                    *zip(*points), ":", label=c.label, lw=1, color=plt.get_cmap("nipy_spectral")(number / len(curves))
                )
        for number, codec in enumerate(dict.fromkeys(r["codec"] for r in table)):
            ours = codec in names
            x, y = zip(*sorted(curve(table, codec, metric)))
            look = {"lw": 2 if ours else 1, "ms": 7 if len(x) == 1 else 4, "color": f"C{number}"}
            if number >= 10:
                look["color"] = "black"
            ax.plot(x, y, "o-" if ours else ".--", label=codec, **look)
        ax.set(xlabel="bits per pixel", ylabel=label, xscale="log")
        ax.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        if crowded:
            ax.legend(fontsize=5, loc="center left", bbox_to_anchor=(1, 0.5))
    if not crowded:
        axes[0].legend(fontsize=8)
    fig.tight_layout()
    figures.save(fig, out / "rd.png")
    plt.close(fig)
