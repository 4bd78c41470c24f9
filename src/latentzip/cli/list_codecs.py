"""codec-cli list: codecs, their rates and what was measured; without torch."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from typing import Any

from ..codecs import registry
from ..codecs.hyperprior.options import DEFAULT_QUALITY
from ..codecs.registry import CodecInfo, family_of, list_codecs
from ..defaults import DEFAULT_CODEC, DEFAULT_PACK_CODEC, DEFAULT_SOUND_CODEC

_SETS = ("kodak", "val")  # whose figures are shown where there are several, best known first
_KEY = re.compile(r"(?:(?P<data>.+?)_)??(?:q(?P<quality>\d+)_)?(?P<what>bpp|kbps|psnr|snr)(?:_db)?")
_RATES = ("bpp", "kbps")
_DEFAULT = 50  # the quality of codecs of variable rate when none is asked for; `hyperprior` codecs have another
_DEFAULT_FOR = {DEFAULT_CODEC: "pictures", DEFAULT_SOUND_CODEC: "sound", DEFAULT_PACK_CODEC: "data sets (pack)"}
_EPILOG = """
RATE and PSNR (SNR of sound) are means over the data set named at the end, measured on files, everything counted: at
the default quality where it varies, the lowest and highest measured in brackets. SPEED is encoding / decoding on one
thread.
codec-cli bench measures the speeds of this machine, codec-cli eval everything on files of your own.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _measured(results: dict[str, Any], default: int = _DEFAULT) -> tuple[str, str, str]:
    """(rate, quality, data set) of the best-known data set that has both; ("", "", "") where none has."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for key, value in results.items():
        if match := _KEY.fullmatch(key):
            points = found.setdefault(match["data"] or "", {}).setdefault(match["what"], {})
            points[int(match["quality"] or default)] = value
    for name in sorted(found, key=lambda n: _SETS.index(n) if n in _SETS else len(_SETS)):
        rate = next((w for w in _RATES if w in found[name]), None)
        quality = next((w for w in found[name] if w not in _RATES), None)
        if rate and quality:
            unit = "bpp" if rate == "bpp" else "kbit/s"
            shape = "{:.2f}" if rate == "bpp" else "{:.0f}"
            both = (found[name][rate], shape, unit), (found[name][quality], "{:.1f}", "dB")
            return _span(*both[0], default), _span(*both[1], default), name
    return "", "", ""


def _span(points: dict[int, float], pattern: str, unit: str, default: int) -> str:
    """A value at the default quality, or at the nearest measured one, and the range."""
    usual = points[min(points, key=lambda quality: abs(quality - default))]
    low, high = pattern.format(min(points.values())), pattern.format(max(points.values()))
    return f"{pattern.format(usual)} {unit}" + (f" ({low}..{high})" if low != high else "")


def _speed(results: dict[str, Any]) -> str:
    """Encoding / decoding on one thread, where it was measured."""
    for unit, text in (("mp_s", "MP/s"), ("x_realtime", "x"), ("mb_s", "MB/s")):
        pair = [results.get(f"{way}_{unit}") for way in ("encode", "decode")]
        if None not in pair:
            return f"{pair[0]:.3g} / {pair[1]:.3g} {text}"
    return ""


def _row(info: CodecInfo) -> tuple[str, ...]:
    if not info.modality:  # a plug-in says more only when it is loaded
        return info.name, "?", "?", "", "", "", f"from {info.source}"
    settings = "fixed" if info.fixed_rate else "1..100"
    family = family_of(info.name)
    usual = DEFAULT_QUALITY if family is not None and family.name == "hyperprior" else _DEFAULT
    rate, quality, data = _measured(info.results, usual)
    text = info.summary + (f" [measured: {data}]" if data else "")
    if info.name in _DEFAULT_FOR:
        text = f"(default for {_DEFAULT_FOR[info.name]}) {text}"
    return info.name, info.modality, settings, rate, quality, _speed(info.results), text


def run(args: argparse.Namespace) -> int:
    infos = list_codecs()
    for problem in registry.plugin_problems:
        print(f"codec-cli list: {problem}", file=sys.stderr)
    if args.json:
        for info in infos:
            print(json.dumps(asdict(info)))
        return 0
    rows = [("NAME", "SIGNAL", "QUALITY", "RATE", "PSNR", "SPEED", "GOOD FOR"), *map(_row, infos)]
    shown = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]  # no column for what nobody has
    widths = {i: max(len(row[i]) for row in rows) for i in shown}
    for row in rows:
        print("  ".join([*(row[i].ljust(widths[i]) for i in shown[:-1]), row[-1]]).rstrip())
    if not infos:
        print("(no codec is installed)")
    return 0
