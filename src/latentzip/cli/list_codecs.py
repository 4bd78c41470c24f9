"""codec-cli list: codecs, their rates and what was measured; without torch."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ..codecs.registry import CodecInfo, list_codecs

_SETS = ("kodak", "val")  # whose figures are shown, best known first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _measured(results: dict[str, Any]) -> tuple[str, str, str]:
    """(bpp, PSNR, data set); a range where the rate varies."""
    for name in _SETS:
        bpp = [v for k, v in results.items() if k.startswith(name) and k.endswith("_bpp")]
        psnr = [v for k, v in results.items() if k.startswith(name) and k.endswith("_psnr")]
        if bpp and psnr:
            return _range(bpp, "{:.2f}"), _range(psnr, "{:.1f}"), name
    return "", "", ""


def _range(values: list[float], pattern: str) -> str:
    low, high = pattern.format(min(values)), pattern.format(max(values))
    return low if low == high else f"{low}..{high}"


def _row(info: CodecInfo) -> tuple[str, ...]:
    if not info.modality:  # a plug-in says more only when it is loaded
        return info.name, "?", "?", "", "", f"from {info.source}"
    rate = "fixed" if info.fixed_rate else "1..100"
    bpp, psnr, data = _measured(info.results)
    return info.name, info.modality, rate, bpp, psnr, info.summary + (f" [measured: {data}]" if data else "")


def run(args: argparse.Namespace) -> int:
    infos = list_codecs()
    if args.json:
        for info in infos:
            print(json.dumps(asdict(info)))
        return 0
    rows = [("NAME", "SIGNAL", "QUALITY", "BPP", "PSNR dB", "GOOD FOR"), *map(_row, infos)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[-1]]).rstrip())
    if not infos:
        print("(no codec is installed)")
    return 0
