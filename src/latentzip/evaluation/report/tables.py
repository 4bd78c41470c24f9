"""An evaluation as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...signals import KINDS
from ..signals import RATE_LABEL, RATE_OF, SPEED_UNIT

if TYPE_CHECKING:
    from ..result import Results


LITTLE = 0.5  # BD-rates that rest on less of a curve than this are marked


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits, without exponents where people read; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:]))]) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, rows)])


def difference(found: dict[str, float], unit: str) -> str:
    """What `summary.compare` found, in words."""
    if "bd_rate_pct" in found:
        return f"{found['bd_rate_pct']:+.1f} %" + " ~" * (found["overlap"] < LITTLE)
    return f"{found['gain']:+.2f} {unit}".rstrip() if "gain" in found else "-"


def markdown(result: Results) -> str:
    """Averages of every modality, then what each codec saves against the anchor."""
    parts = []
    for modality, metrics in result.metrics.items():
        rate, unit = RATE_OF[modality], SPEED_UNIT[modality]
        head = ["codec", "setting", rate, *(f"{m.label} {m.unit}".strip() for m in metrics)]
        head += [f"encode {unit}", f"decode {unit}"]
        rows = []
        averages = result.averages(modality)
        for r in averages:
            cells = [r["codec"], r["setting"], number(r[rate])]
            cells += ["lossless" if r["lossless"] and r[m.name] is None else number(r[m.name]) for m in metrics]
            rows.append([*cells, number(r["encode_speed"], 3), number(r["decode_speed"], 3)])
        count = max((r["inputs"] for r in averages), default=0)
        noun = KINDS[modality].one + "s" * (count != 1)
        parts.append(f"Means over {count} {noun}, everything in the file counted ({RATE_LABEL[modality]}).")
        parts.append(table(head, rows))
        compared: dict[str, Any] = result.comparisons(modality)
        if compared:
            anchor = result.anchors[modality]
            codecs = list(dict.fromkeys(c for found in compared.values() for c in found))
            shown = [m for m in metrics if m.name in compared]
            parts.append(
                f"Against {anchor}: rate at equal quality (BD-rate, negative is smaller); of a codec with one rate, "
                "quality at equal rate (positive is better). ~: the curves share less than half of the shorter one."
            )
            parts.append(table(
                ["codec", *(m.curve_label or m.label for m in shown)],
                [[c, *(difference(compared[m.name].get(c, {}), "dB" if "dB" in (m.unit + m.curve_label) else m.unit)
                       for m in shown)] for c in codecs],
            ))  # fmt: skip
    return "\n\n".join(parts)
