"""Published rate-distortion curves in the JSON form of CompressAI's `results` folder; read from disk, never shipped.

Their conventions: Kodak, means over the 24 pictures; PSNR over RGB; bits of the bare streams without a container
(ours count it, about 50 bytes a picture or 0.001 bpp); learned models marked ms-ssim were optimised for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentzip.evaluation.metrics.pictures import ms_ssim_db

MARK = " (published)"
Curve = list[tuple[float, float]]
NOTE = (
    "Curves marked (published) are not measured here: means over Kodak's 24 pictures as their authors give them, RGB "
    "PSNR, bits of bare streams without a container."
)


@dataclass(frozen=True)
class Curves:
    """What is known of one codec: (bpp, dB) points for each metric."""

    label: str
    psnr: Curve
    ms_ssim_db: Curve


def load(paths: list[Path]) -> list[Curves]:
    """Curves of files and folders. Of a model timed on two devices (`..._cpu`, `..._cuda`) one is taken."""
    files = [f for p in paths for f in (sorted(p.glob("*.json")) if p.is_dir() else [p])]
    curves: dict[str, Curves] = {}
    for file in files:
        results = json.loads(file.read_text()).get("results")
        if not results or "bpp" not in results:
            raise SystemExit(f"{file}: no published curve: 'results' with 'bpp' is missing")
        name = file.stem.removesuffix("_cuda").removesuffix("_cpu").removeprefix("compressai-")
        curves[name] = Curves(name + MARK, _psnr(name, results), _ms_ssim(results))
    if not curves:
        raise SystemExit(f"no .json files in {', '.join(map(str, paths))}")
    return list(curves.values())


def _psnr(name: str, results: dict[str, Any]) -> Curve:
    return [] if "ms-ssim" in name else list(zip(results["bpp"], results.get("psnr-rgb", [])))


def _ms_ssim(results: dict[str, Any]) -> Curve:
    values = results.get("ms-ssim-db-rgb") or [ms_ssim_db(v) for v in results.get("ms-ssim-rgb", [])]
    return list(zip(results["bpp"], values))
