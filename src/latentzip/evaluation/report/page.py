"""One self-contained HTML file of an evaluation: no network, no library. Style and scripts lie in ``web/``."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .. import summary
from ..signals import RATE_LABEL, RATE_OF, SPEED_UNIT
from . import embed

if TYPE_CHECKING:
    from ..result import Results

_SCRIPTS = ("base.js", "chart.js", "table.js", "viewer.js", "player.js", "main.js")


def render(result: Results, megabytes: float = 24.0) -> str:
    """The page; ``megabytes`` bounds the pictures and sounds in it."""
    web = files("latentzip.evaluation.report") / "web"
    data = json.dumps(_data(result, megabytes), separators=(",", ":"))
    page = (web / "report.html").read_text("utf-8")
    script = "\n".join((web / name).read_text("utf-8") for name in _SCRIPTS)
    parts = {
        "{{title}}": html.escape(_title(result)),
        "{{style}}": (web / "report.css").read_text("utf-8"),
        "{{data}}": data.replace("<", "\\u003c"),  # nothing in it can end the script element
        "{{script}}": script,
    }
    # once over the template: marks in what is put in are text like any other
    return re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], page)


def _title(result: Results) -> str:
    names = list(dict.fromkeys(r["codec"] for r in result.rows))
    return "Codecs compared: " + ", ".join(names[:6]) + (" and others" if len(names) > 6 else "")


def _data(result: Results, megabytes: float) -> dict[str, Any]:
    budget = embed.Budget(megabytes)
    modalities = {m: _modality(result, m, budget) for m in result.metrics}
    return {"about": result.about, "modalities": modalities, "leftOut": budget.left_out, "megabytes": megabytes}


def _modality(result: Results, modality: str, budget: embed.Budget) -> dict[str, Any]:
    metrics = result.metrics[modality]
    rows = [r for r in result.rows if r["modality"] == modality]
    table = result.averages(modality)
    shown = []
    for row in rows:
        curves = {}
        for metric in metrics:
            if row.get(metric.name) is not None:
                value = metric.curve_value(row[metric.name])
                curves[f"{metric.name}_curve"] = value if value == value else None
        shown.append({k: v for k, v in row.items() if k not in ("weights", "speed_unit", "modality")} | curves)
    curved = [c for c in dict.fromkeys(r["codec"] for r in table) if sum(r["codec"] == c for r in table) > 1]
    return {
        "rate": RATE_OF[modality],
        "rateLabel": RATE_LABEL[modality],
        "speedUnit": SPEED_UNIT[modality],
        "metrics": [
            {
                "name": m.name, "label": m.label or m.name, "unit": m.unit, "higher": m.higher_is_better,
                "curveLabel": m.curve_label or f"{m.label or m.name}{', ' if m.unit else ''}{m.unit}", "about": m.about,
            }
            for m in metrics
        ],
        "codecs": [
            {"name": c, "kind": next(r["kind"] for r in rows if r["codec"] == c)}
            for c in dict.fromkeys(r["codec"] for r in rows)
        ],
        "averages": table,
        "rows": shown,
        "anchor": result.anchors.get(modality),
        "comparisons": {a: summary.comparisons(rows, a, modality, metrics) for a in curved},
        "samples": embed.samples(result, modality, budget),
    }  # fmt: skip
