"""Measuring codecs: real encoding and decoding, metrics by modality, rate-distortion summaries, reports.

    import latentzip as lz
    result = lz.evaluate(["photos/"], ["hyperprior-fast", "jpeg", "avif@20..80:20"], anchor="jpeg")
    print(result.markdown())
    result.write_report("report.html")

`signals` reads inputs, `coders` turns names into encoders and decoders, `registry` holds the metrics (add your own with
`register`), `runner` measures, `summary` averages and compares, `report` draws one HTML file, `bench` times a machine.
Nothing here is imported with the package, and nothing needs torch before a codec of ours is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .registry import Metric, metrics_for, register
    from .runner import Evaluation, evaluate
    from .signals import Signal

_HOME = {
    "Metric": "registry", "metrics_for": "registry", "register": "registry",
    "Evaluation": "runner", "evaluate": "runner", "Signal": "signals",
}  # fmt: skip
__all__ = ["Evaluation", "Metric", "Signal", "evaluate", "metrics_for", "register"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
