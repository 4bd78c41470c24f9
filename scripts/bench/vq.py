"""Pictures as tokens: rate and quality level by level beside JPEG, WebP and release 1, whose levels are all at 1/16;
what the prior saves; finite scalars.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs.vq import from_bytes, residual
from latentzip.codecs.vq.blocks import books_of, grids
from latentzip.entropy import RateMeter
from latentzip.evaluation.metrics.pictures import ms_ssim_db, psnr
from latentzip.evaluation.peers.pictures import CONVENTIONAL

from . import pictures
from .rd import measure

PEERS = {"jpeg": (1, 5, 8, 12, 16, 20, 25, 30), "webp": (0, 1, 3, 5, 10, 20, 40)}  # qualities
RATES = (0.1, 0.15, 0.2, 0.3, 0.4)  # bpp at which they are compared
OLD = "vq of release 1, one grid"
SCALARS = (8, 6, 5)  # steps of the three components that a token of finite scalars holds: 240 of them


def run(args: argparse.Namespace) -> dict[str, Any]:
    codec: Any = lz.load_codec("vq")
    config = codec.config
    images = pictures.load(args.data, args.quick)
    levels = [k for k in (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24) if k <= config.levels]
    levels = levels[::3] if args.quick else levels
    curves: dict[str, list[tuple[float, float, float]]] = {}
    first = pretrained.release("vq", "1")
    for name, one in (("vq", codec), (OLD, from_bytes(first.read()))):
        for level in levels:
            found = [
                measure(
                    x, lambda im, k=level, c=one: lz.encode(im, codec=c, levels=k),
                    lambda b, c=one: np.asarray(lz.decode(b, codec=c)),
                )
                for _, x in images
            ]  # fmt: skip
            curves.setdefault(name, []).append(_mean(found))
    for name, qualities in PEERS.items():
        peer = CONVENTIONAL[name]
        for quality in qualities[:: 3 if args.quick else 1]:
            found = [measure(x, lambda im, p=peer, q=quality: p.encode(im, q), peer.decode) for _, x in images]
            curves.setdefault(name, []).append(_mean(found))
    tokens = [codec.tokens(torch.tensor(x).permute(2, 0, 1)) for _, x in images]
    count = sum(t[0].numel() for t in tokens)
    coded = np.zeros(config.levels)
    for t in tokens:
        bits = [_bits(codec, t, k) for k in range(config.levels + 1)]
        coded += np.diff(bits)
    coded /= count
    usage = [
        residual.usage(torch.cat([g.flatten() for g in book])[None], config.entries)[0]
        for book in zip(*(grids(t, codec.coarse) for t in tokens))
    ]
    plain = math.log2(config.entries)
    rows = []
    for k in range(config.levels):
        # means over the codebooks of a level
        own = usage[books_of(k, codec.coarse) : books_of(k + 1, codec.coarse)]
        used, bits = (sum(values) / len(own) for values in zip(*own))
        rows.append({"level": k + 1, "coded_bits": float(coded[k]), "entropy": bits, "used": round(used)})
    lines = [
        f"{len(images)} pictures, means.", "",
        "| | bpp | PSNR, dB | MS-SSIM, dB |", "|---|---|---|---|",
        *(
            f"| {name}, {k} levels | {b:.4f} | {p:.2f} | {m:.2f} |"
            for name in ("vq", OLD) for k, (b, p, m) in zip(levels, curves[name])
        ),
        *(f"| {name} | {b:.4f} | {p:.2f} | {m:.2f} |" for name in PEERS for b, p, m in curves[name]),
        "", "| level | bits a token, coded | at their frequencies | codewords used |", "|---|---|---|---|",
        *(f"| {r['level']} | {r['coded_bits']:.2f} | {r['entropy']:.2f} | {r['used']} |" for r in rows),
    ]  # fmt: skip
    scalar = finite_scalars(codec, images)
    lines += ["", "| 24 bits a position | error of the components, dB | PSNR, dB |", "|---|---|---|"]
    lines += [f"| {name} | {error:.2f} | {quality:.2f} |" for name, (error, quality) in scalar.items()]
    summary = {
        "saved_against_plain_bits_pct": round(100 * (1 - coded.mean() / plain), 2),
        "saved_against_frequencies_pct": round(100 * (1 - coded.sum() / sum(r["entropy"] for r in rows)), 2),
        **{
            f"{what}_over_{name}": {f"{rate:g}": _over(curves, name, rate, column) for rate in RATES}
            for what, column in (("ms_ssim_db", 2), ("psnr_db", 1))
            for name in PEERS
        },
        "bytes_against_one_grid_pct": {
            f"{what}, {level} levels": _fewer(curves, i, column)
            for what, column in (("ms_ssim", 2), ("psnr", 1)) for i, level in enumerate(levels)
        },
    }  # fmt: skip
    return {"rows": rows, "curves": curves, "scalars": scalar, "summary": summary, "markdown": "\n".join(lines)}


def _mean(found: list[dict[str, Any]]) -> tuple[float, float, float]:
    keys = (lambda r: r["bpp"], lambda r: r["psnr"], lambda r: ms_ssim_db(r["ms_ssim"]))
    bpp, quality, similarity = (float(np.mean([key(r) for r in found])) for key in keys)
    return bpp, quality, similarity


def _over(curves: dict[str, list[tuple[float, float, float]]], peer: str, rate: float, column: int) -> float | None:
    """dB of vq over a peer at a rate. Where vq ends before it, its last point counts: more bits would not make it
    worse; None where either begins after it."""
    both = []
    for name in ("vq", peer):
        points = sorted(curves[name])
        if rate < points[0][0] or (name == peer and rate > points[-1][0]):
            return None
        both.append(float(np.interp(rate, [p[0] for p in points], [p[column] for p in points])))
    return round(both[0] - both[1], 2)


def _fewer(curves: dict[str, list[tuple[float, float, float]]], number: int, column: int) -> float | None:
    """Percent of bytes more (less: negative) than release 1 takes for what a point of vq has; None beyond its curve."""
    rate, quality = curves["vq"][number][0], curves["vq"][number][column]
    points = sorted(curves[OLD])
    values = [p[column] for p in points]
    if not values[0] <= quality <= values[-1]:
        return None
    return round(100 * (rate / float(np.interp(quality, values, [p[0] for p in points])) - 1), 1)


def _bits(codec: Any, tokens: Tensor, levels: int) -> float:
    meter = RateMeter()
    codec.prior.program(meter, tokens[:levels].numpy(), levels, *tokens.shape[1:])
    return float(meter.bits)


@torch.inference_mode()
def finite_scalars(codec: Any, images: list[tuple[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
    """Three tokens of finite scalars (Mentzer et al., arXiv 2309.15505) in the place of three levels of codewords.

    A token holds three principal components, each bounded by a tanh and rounded to 8, 6 or 5 steps, its scale the one
    that suits these pictures best. Of each: error of the components against their energy, and the picture's PSNR.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    steps = torch.tensor(SCALARS * 3)
    data = []
    for _, pixels in images:
        x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
        data.append((pixels, x.shape, codec.components(x)[0]))
    every = torch.cat([y[:, : len(steps)] for _, _, y in data])
    scales = _best_scales(every, steps)
    for pixels, shape, y in data:
        three = lz.decode(lz.encode(pixels, codec="vq", levels=3), to="tokens")
        codewords = (codec.values(three).flatten(1).T - codec.mean) @ codec.to_components
        scalars = torch.zeros_like(y)
        scalars[:, : len(steps)] = _scalars(y[:, : len(steps)], scales, steps)
        for name, back in (("residual codewords, 3 x 8 bits", codewords), ("finite scalars, 3 x 7.9 bits", scalars)):
            error = 10 * math.log10(float(y.square().sum() / (y - back).square().sum()))
            grid = codec.latent_size((shape[2], shape[3]))
            features = (back @ codec.from_components + codec.mean).T.reshape(1, -1, *grid)
            quality = torch.full((1,), float(codec.config.trunk_quality))
            picture = codec.synthesis_transform(features, quality, codec.std)[0] + 0.5
            picture = picture[:, : shape[2], : shape[3]].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
            found.setdefault(name, []).append((error, psnr(pixels, picture)))
    return {name: (float(np.mean([a for a, _ in v])), float(np.mean([b for _, b in v]))) for name, v in found.items()}


def _scalars(y: Tensor, scales: Tensor, steps: Tensor) -> Tensor:
    half = (steps - 1) / 2
    offset = torch.where(steps % 2 == 0, 0.5, 0.0)
    bounded = torch.tanh(y / scales) * (half + 0.499)
    rounded = ((bounded - offset).round() + offset).clamp(-half, half)
    return torch.atanh((rounded / (half + 0.499)).clamp(-0.999, 0.999)) * scales


def _best_scales(y: Tensor, steps: Tensor) -> Tensor:
    deviation = y.std(0)
    tried = [deviation * factor for factor in np.geomspace(0.5, 6, 24)]
    errors = torch.stack([(y - _scalars(y, s, steps)).square().mean(0) for s in tried])
    return torch.stack(tried).gather(0, errors.argmin(0)[None])[0]
