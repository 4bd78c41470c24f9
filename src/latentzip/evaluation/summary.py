"""From rows to averages and comparisons. A row is one input through one codec at one setting (see `runner`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .metrics.bdrate import bd_rate, overlap, quality_at_rate
from .metrics.registry import Metric
from .signals import RATE_OF

Row = dict[str, Any]
Point = tuple[float, float]


def good(rows: Iterable[Row], modality: str) -> list[Row]:
    """Rows of a modality that hold measurements."""
    return [r for r in rows if r["modality"] == modality and "error" not in r]


def groups(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by (codec, setting), in the order of their coming."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["codec"], row["setting"]), []).append(row)
    return found


def _mean(rows: Sequence[Row], name: str) -> float | None:
    """Mean over the rows that have a value; None where one is infinite (lossless), or where there is none."""
    values = [r.get(name) for r in rows]
    if any(v is None and r.get("lossless") for v, r in zip(values, rows)):
        return None
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def averages(rows: Iterable[Row], modality: str, metrics: Sequence[Metric]) -> list[Row]:
    """One row a codec and setting: arithmetic means of rate and metrics over the inputs, throughput of the total.

    Curve values (``metric + "_curve"``) are made of the means: MS-SSIM in dB is -10 log10(1 - mean).
    """
    table = []
    rate = RATE_OF[modality]
    for (codec, setting), part in groups(good(rows, modality)).items():
        row: Row = {"codec": codec, "kind": part[0]["kind"], "setting": setting, "value": part[0]["value"]}
        row["inputs"] = len(part)
        row[rate] = _mean(part, rate)
        for metric in metrics:
            mean = row[metric.name] = _mean(part, metric.name)
            curve = math.nan if mean is None else metric.curve_value(mean)
            row[f"{metric.name}_curve"] = None if math.isnan(curve) else curve
        for way in ("encode", "decode"):
            # a speed is amount / time: summing both weighs large inputs as they weigh in practice
            amount = sum(r[f"{way}_speed"] * r[f"{way}_s"] for r in part)
            row[f"{way}_speed"] = amount / max(sum(r[f"{way}_s"] for r in part), 1e-12)
        row["lossless"] = all(r.get("lossless") for r in part)
        row["latent_ratio"] = part[0].get("latent_ratio")
        peaks = [r["peak_mb"] for r in part if r.get("peak_mb") is not None]
        row["peak_mb"] = max(peaks) if peaks else None
        table.append(row)
    return table


def curve(table: Iterable[Row], codec: str, modality: str, metric: Metric) -> list[Point]:
    """(rate, quality) of a codec's averages; quality grows with what is better."""
    sign = 1 if metric.higher_is_better else -1
    points = [(r[RATE_OF[modality]], r[f"{metric.name}_curve"]) for r in table if r["codec"] == codec]
    return [(rate, sign * q) for rate, q in points if rate and q is not None]


def compare(rows: Iterable[Row], anchor: str, codec: str, modality: str, metric: Metric) -> dict[str, float]:
    """What ``codec`` saves or gains against ``anchor``, over the inputs that both have measured at all settings.

    Returns:
        ``bd_rate_pct``: per cent of rate at equal quality (negative: fewer bits) where the curves overlap, with
        ``overlap``, the part of the shorter curve's range of quality that it rests on; else
        ``gain``: quality over the anchor at equal rate (positive: better), in the unit of the metric's curve, where
        the codec has one rate inside the anchor's range; else nothing.
    """
    own = [r for r in good(rows, modality) if r["codec"] in (anchor, codec)]
    sets = [{r["input_id"] for r in part} for part in groups(own).values()]
    common = set.intersection(*sets) if sets else set()
    table = averages([r for r in own if r["input_id"] in common], modality, [metric])
    a, b = (curve(table, name, modality, metric) for name in (anchor, codec))
    if len(a) < 2 or not b:
        return {}
    if len(b) > 1:
        value = bd_rate(a, b)
        return {} if math.isnan(value) else {"bd_rate_pct": value, "overlap": overlap(a, b)}
    gain = b[0][1] - quality_at_rate(a, b[0][0])
    return {} if math.isnan(gain) else {"gain": gain}


def comparisons(rows: Sequence[Row], anchor: str, modality: str, metrics: Sequence[Metric]) -> dict[str, Any]:
    """{metric: {codec: what `compare` found}} of all codecs but the anchor."""
    codecs = dict.fromkeys(r["codec"] for r in good(rows, modality))
    result: dict[str, Any] = {}
    for metric in metrics:
        found = {c: compare(rows, anchor, c, modality, metric) for c in codecs if c != anchor}
        if any(found.values()):
            result[metric.name] = {c: v for c, v in found.items() if v}
    return result
