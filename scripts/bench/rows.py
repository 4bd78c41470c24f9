"""Rows of a benchmark, each measured once: those that an earlier run has (--reuse) are taken from its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentzip import pretrained


class Rows:
    """Rows under way.

    Args:
        names: of what a row is of: codec, settings, picture; pixels and weights come after them.
        earlier: a file of the same benchmark.
        weights: of codecs by other names: whose weights they have.

    Attributes:
        key: names of all that tells rows apart.
        rows: in the order in which they were asked for.
    """

    def __init__(self, names: Sequence[str], earlier: Path | None, weights: dict[str, str] | None = None) -> None:
        self.key = (*names, "pixels", "weights")
        self.rows: list[dict[str, Any]] = []
        found = json.loads(earlier.read_text())["rows"] if earlier else []
        self._known = {tuple(r[k] for k in self.key): r for r in found}
        self._weights = {entry.name: entry.fingerprint for entry in pretrained.index() if entry.current}
        self._weights |= {name: self._weights.get(other, "") for name, other in (weights or {}).items()}

    def take(self, pixels: np.ndarray, values: Sequence[Any], measure: Callable[[], dict[str, Any]]) -> None:
        """The row of a picture (H, W, 3): as it is known, or measured; ``values`` of the names, the codec first."""
        key = (*values, pixels.shape[0] * pixels.shape[1], self._weights.get(values[0], ""))
        self.rows.append(self._known.get(key) or {**dict(zip(self.key, key)), **measure()})
