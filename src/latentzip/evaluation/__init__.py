"""Measuring codecs: real encoding and decoding, metrics by modality, rate-distortion summaries, reports.

    import latentzip as lz
    result = lz.evaluate(["photos/"], ["hyperprior-fast", "jpeg", "avif@20..80:20"], anchor="jpeg")
    print(result.markdown())
    result.write_report("report.html")

`signals` reads inputs, `coders` turns names into encoders and decoders (`peers` has the conventional ones), `metrics`
holds the metrics (add your own with `register`), `runner` measures, `summary` averages and compares, `report` draws one
HTML file, `bench` times a machine.
Nothing here is imported with the package, and nothing needs torch before a codec of ours is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..entropy.lazy import exports

if TYPE_CHECKING:
    from .metrics.registry import Metric, metrics_for, register
    from .runner import Evaluation, evaluate
    from .signals import Signal

_HOMES = {
    "metrics.registry": ("Metric", "metrics_for", "register"),
    "runner": ("Evaluation", "evaluate"),
    "signals": ("Signal",),
}
__all__ = ["Evaluation", "Metric", "Signal", "evaluate", "metrics_for", "register"]

__getattr__, __dir__ = exports(__name__, _HOMES)
