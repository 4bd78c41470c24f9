"""Rows of a benchmark, each measured once: those that an earlier run has (--reuse) are taken from its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentzip import pretrained


class Rows:
    """Rows under way.

    Args:
        names: of what a row is of: codec, settings, signal; its size and weights come after them.
        earlier: a file of the same benchmark.
        weights: of codecs by other names: whose weights they have.
        size: what a signal has: "pixels" of pictures (H, W, 3) or "samples" of sounds (T, C).

    Attributes:
        key: names of all that tells rows apart.
        rows: in the order in which they were asked for.
    """

    def __init__(
        self, names: Sequence[str], earlier: Path | None, weights: dict[str, str] | None = None, size: str = "pixels"
    ) -> None:
        self.key = (*names, size, "weights")
        self.rows: list[dict[str, Any]] = []
        found = json.loads(earlier.read_text())["rows"] if earlier else []
        self._known = {tuple(r.get(k) for k in self.key): r for r in found}
        self._weights = {entry.name: entry.fingerprint for entry in pretrained.index() if entry.current}
        self._weights |= {name: self._weights.get(other, "") for name, other in (weights or {}).items()}

    def take(
        self, signal: np.ndarray, values: Sequence[Any], measure: Callable[[], dict[str, Any]],
        needed: Iterable[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """The row of a signal: as it is known, if it has all that is needed, or measured; ``values`` of the names, the
        codec first."""
        key = (*values, signal[..., 0].size, self._weights.get(values[0], ""))
        row = self._known.get(key)
        if not row or not set(needed) <= row.keys():
            row = {**dict(zip(self.key, key)), **measure()}
        self.rows.append(row)
        return row
