"""What an evaluation found: rows, the inputs and coders that they name, and sums over them."""

from __future__ import annotations

import csv
import io
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..entropy.errors import InputError
from . import summary
from .coders import Coder, Setting
from .metrics.registry import Metric
from .signals import Signal, find, load

Row = dict[str, Any]
CACHED_BYTES = 256_000_000  # of inputs held in memory; more are read again for the next codec


@dataclass(frozen=True)
class Input:
    source: Any
    name: str
    modality: str
    digest: str


class Inputs:
    """The inputs, read again when they are needed once they no longer fit into memory together."""

    def __init__(self, sources: Iterable[Any]) -> None:
        self._cache: OrderedDict[str, Signal] = OrderedDict()
        self.items: list[Input] = []
        self.unread: list[tuple[str, str]] = []
        names: dict[str, int] = {}
        found = find(sources)
        for source in found:
            try:
                signal = load(source)
            except Exception as error:  # a reader may raise anything; the other files are measured all the same
                if len(found) == 1 or not isinstance(source, (str, os.PathLike)):
                    raise
                self.unread.append((os.fspath(source), reason(error, os.fspath(source))))
                continue
            names[signal.name] = names.get(signal.name, 0) + 1
            name = signal.name if names[signal.name] == 1 else f"{signal.name} ({names[signal.name]})"
            self.items.append(Input(source, name, signal.modality, signal.digest))
            self._keep(signal)
        if not self.items:
            raise InputError(f"none of {len(found)} files can be read; the first: {': '.join(self.unread[0])}")

    def _keep(self, signal: Signal) -> None:
        self._cache[signal.digest] = signal
        while len(self._cache) > 1 and sum(s.data.nbytes for s in self._cache.values()) > CACHED_BYTES:
            self._cache.popitem(last=False)

    def signal(self, item: Input) -> Signal:
        if item.digest not in self._cache:
            self._keep(load(item.source))
        return self._cache[item.digest]


@dataclass
class Results:
    """What `evaluate` found, as reports read it.

    Attributes:
        rows: one a input, codec and setting: rate (``bpp``, ``kbps`` or ``bits``), metrics, seconds, throughput
            (``encode_speed``, ``decode_speed`` in MP/s, x real time or MB/s), ``latent_ratio`` (latent values over
            signal values), ``peak_mb``; ``error`` instead where a codec failed. A metric that is infinite (equal
            signals: ``lossless``) or undefined is None.
        anchors: codec that curves are compared with, by modality.
        metrics: by modality.
        about: time, machine, versions, threads.
    """

    rows: list[Row]
    anchors: dict[str, str]
    metrics: dict[str, list[Metric]]
    about: dict[str, Any]
    _coders: dict[str, Coder] = field(repr=False, default_factory=dict)
    _inputs: Inputs | None = field(repr=False, default=None)
    unread: list[tuple[str, str]] = field(default_factory=list)  # (path, reason) of files that could not be read
    kept: frozenset[str] = frozenset()  # digests of the inputs that a report shows
    _kept: dict[tuple[str, str, str], tuple[bytes, np.ndarray]] = field(repr=False, default_factory=dict)

    @property
    def failed(self) -> list[Row]:
        """Rows with an error."""
        return [r for r in self.rows if "error" in r]

    def averages(self, modality: str) -> list[Row]:
        """One row a codec and setting, see `summary.averages`."""
        return summary.averages(self.rows, modality, self.metrics[modality])

    def comparisons(self, modality: str, anchor: str | None = None) -> dict[str, Any]:
        """{metric: {codec: {"bd_rate_pct" or "gain": number}}} against the anchor."""
        anchor = anchor or self.anchors.get(modality)
        return summary.comparisons(self.rows, anchor, modality, self.metrics[modality]) if anchor else {}

    def to_json(self) -> dict[str, Any]:
        """Plain data: about, rows, and by modality the averages and comparisons."""
        parts = {
            m: {"averages": self.averages(m), "anchor": self.anchors.get(m), "comparisons": self.comparisons(m)}
            for m in self.metrics
        }
        return {"about": self.about, "modalities": parts, "rows": self.rows}

    def csv(self) -> str:
        """The rows as comma-separated values with a header line."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            shape = "x".join(map(str, row["shape"])) if "shape" in row else ""
            writer.writerow(row | {"shape": shape})
        return text.getvalue()

    def decoded(self, row: Row) -> tuple[bytes, np.ndarray]:
        """The stream and the decoded signal of a row, kept from the run or made again."""
        key = row["input_id"], row["codec"], row["setting"]
        if key not in self._kept:
            made, setting = self._coders[row["codec"]], Setting(row["setting"], row["value"])
            signal = self.signal(row["input_id"])
            data = made.encode(signal, setting)
            return data, made.decode(data, signal, setting)
        return self._kept[key]

    def signal(self, input_id: str) -> Signal:
        """The input that a row names."""
        assert self._inputs is not None
        return self._inputs.signal(next(i for i in self._inputs.items if i.digest == input_id))

    def coder(self, name: str) -> Coder:
        """The coder that a row names."""
        return self._coders[name]


def reason(error: BaseException, name: str = "") -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return text.removeprefix(f"{name}: ")
