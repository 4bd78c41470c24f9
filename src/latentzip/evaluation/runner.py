"""`evaluate`: every input through every codec at every setting, really encoded and really decoded."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ..entropy import schema
from ..entropy.errors import CodecError, FormatError, InputError
from ..entropy.opening import read_file
from ..files import atomic_writer
from ..version import __version__
from . import memory
from .coders import Coder, Setting, coder, default_codecs
from .metrics.registry import Metric, metrics_for
from .result import CACHED_BYTES, Input, Inputs, Results, Row, reason
from .signals import RATE_OF, SPEED_UNIT, Signal

Progress = Callable[[int, int], None]
_ANCHORS = ("jpeg", "opus")  # what curves are compared with when nothing is asked for
_MAX_ROWS = 1 << 30  # bytes of a file of rows

_TEXT = schema.text(most=1 << 16)
_FIGURE = schema.nullable(schema.number(-1e300, 1e300))
_ROW_FIELDS = {
    **dict.fromkeys(("input", "input_id", "modality", "codec", "kind", "setting", "weights"), _TEXT),
    "value": lambda value, where: value if isinstance(value, str) else _FIGURE(value, where),
    "shape": schema.array(schema.integer(1, 1 << 40), 64), "num_bytes": schema.integer(0, 1 << 50),
    "lossless": schema.boolean, "speed_unit": _TEXT,
    **dict.fromkeys(("encode_s", "decode_s", "encode_speed", "decode_speed"), schema.number(0, 1e300)),
}  # fmt: skip


def _row(value: Any, where: str) -> Row:
    """A row of measurements: the fields above, and figures."""
    row = schema.record(_ROW_FIELDS)(value, where)
    for name, figure in row.items():
        if name not in _ROW_FIELDS:
            _FIGURE(figure, f"{where}{name}")
    return row


class Evaluation(Results):
    """What `evaluate` found, and what can be made of it."""

    def markdown(self) -> str:
        """Averages and comparisons as tables."""
        from .report.tables import markdown

        return markdown(self)

    def write_report(self, path: str | os.PathLike[str], *, force: bool = False, megabytes: float = 24.0) -> Path:
        """One self-contained HTML file: curves, table, side-by-side viewer, maps, players.

        Args:
            force: replace an existing file.
            megabytes: bound on the signals that are embedded.
        """
        from .report.page import render

        target = Path(path)
        text = render(self, megabytes)
        with atomic_writer(target, force) as file:
            file.write(text.encode())
        return target


def evaluate(
    inputs: Any,
    codecs: Sequence[Any] | None = None,
    *,
    quality: Sequence[float] | None = None,
    metrics: Sequence[str] | None = None,
    anchor: str | None = None,
    rows: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    weights: Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    samples: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Encode and decode every input with every codec, and measure.

    Args:
        inputs: paths (folders stand for what is in them), Pillow images, arrays (H, W, 3) uint8, pairs (samples, rate),
            float arrays, or `Signal` objects; one or a list.
        codecs: names as `coders` takes them (``"jpeg"``, ``"avif@20,50,80"``, a codec of `list_codecs`,
            ``"compressai:MODEL"``), or loaded codecs. None: ours and the usual conventional ones.
        quality: settings for codecs with a quality of 1 to 100.
        metrics: names; None takes all that are installed.
        anchor: the codec that others are compared with; it is measured too.
        rows: a JSON-lines file that every measurement is appended to at once.
        resume: take what ``rows`` holds already; without it an existing file is refused, unless ``force``.
        weights: checkpoints of CompressAI's models, ``{"compressai:MODEL": path}``.
        threads: of torch; Pillow and libsndfile choose their own.
        samples: this many inputs a modality can be looked at, or listened to, in `Evaluation.write_report`.
        progress: called with (done, total).

    Returns:
        An `Evaluation`. A codec that fails on an input makes a row with an ``error``, nothing more.

    Raises:
        InputError: unknown codecs, metrics or inputs, or codecs that suit none of the inputs.
        OSError: an input cannot be read, or ``rows`` not be written.
    """
    found = Inputs(_several(inputs))
    modalities = dict.fromkeys(item.modality for item in found.items)
    named = list(codecs) if codecs else default_codecs(set(modalities))
    if anchor and anchor.partition("@")[0] not in (str(getattr(c, "name", c)).partition("@")[0] for c in named):
        named.append(anchor)
    if threads:
        import torch

        torch.set_num_threads(threads)
    coders = [coder(spec, quality, weights, device) for spec in named]
    _check(coders, list(modalities))
    chosen = {m: metrics_for(m, metrics) for m in modalities}
    known = _open_rows(rows, resume, force) if rows else {}
    result = Evaluation([], {}, chosen, _about(threads), {c.name: c for c in coders}, found, found.unread)
    plan = [(c, s, i) for c in coders for s in c.settings for i in found.items if i.modality in c.modalities]
    seen: set[str] = set()
    room = CACHED_BYTES  # beyond it, what a report needs is decoded once more
    kept = [i.digest for m in modalities for i in [j for j in found.items if j.modality == m][:samples]]
    result.kept = frozenset(kept)
    for done, (made, setting, item) in enumerate(plan):
        if progress:
            progress(done, len(plan))
        base = _identity(made, setting, item)
        row = known.get(_key(base))
        if row is None or any(m.name not in row for m in chosen[item.modality]):
            metrics_of = chosen[item.modality]
            row, pair = _measure(base, made, setting, lambda i=item: found.signal(i), metrics_of, made.name not in seen)
            seen.add(made.name)
            if pair is not None and item.digest in result.kept and pair[1].nbytes < room:
                result._kept[item.digest, made.name, setting.label] = pair
                room -= pair[1].nbytes
            if rows:
                with open(rows, "a") as file:
                    file.write(json.dumps(row) + "\n")
        result.rows.append(row)
    if progress:
        progress(len(plan), len(plan))
    for modality in modalities:
        if name := _anchor(anchor, [c for c in coders if modality in c.modalities]):
            result.anchors[modality] = name
    return result


def _several(inputs: Any) -> list[Any]:
    """A list, of one input too: a path, an array, or a pair (samples, rate)."""
    pair = isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], (int, float, np.integer))
    if pair or isinstance(inputs, (str, os.PathLike, np.ndarray, Signal)):
        return [inputs]
    several: Any = inputs if isinstance(inputs, Iterable) else [inputs]
    return list(several)


def _check(coders: Sequence[Coder], modalities: Sequence[str]) -> None:
    names = [c.name for c in coders]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"codec {name} is named twice; give all its settings at once: {name}@10,50,90")
    for made in coders:
        if not set(modalities) & set(made.modalities):
            own, there = " and ".join(made.modalities), " and ".join(modalities)
            raise InputError(f"{made.name} codes {own} signals; the inputs are {there} signals")
    for modality in modalities:
        if all(modality not in c.modalities for c in coders):
            raise InputError(f"there are {modality} inputs, and no codec for them was named")


def _anchor(wanted: str | None, coders: Sequence[Coder]) -> str | None:
    names = [c.name for c in coders]
    if wanted and wanted.partition("@")[0] in names:
        return wanted.partition("@")[0]
    curved = [c.name for c in coders if len(c.settings) > 1]
    return next((a for a in _ANCHORS if a in curved), curved[0] if curved else None)


def _identity(made: Coder, setting: Setting, item: Input) -> Row:
    try:
        weights = made.weights
    except (CodecError, OSError):
        weights = ""  # measuring will say what is wrong
    return {
        "input": item.name, "input_id": item.digest, "modality": item.modality, "codec": made.name,
        "kind": made.kind, "setting": setting.label, "value": setting.value, "weights": weights,
    }  # fmt: skip


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(k) for k in ("input_id", "codec", "setting", "weights"))


def _open_rows(path: str | os.PathLike[str], resume: bool, force: bool) -> dict[tuple[Any, ...], Row]:
    """Measurements that a file holds, by key; an interrupted last line is cut off."""
    target = Path(path)
    if not resume or not target.exists():
        if target.exists() and not force:
            raise InputError(f"{target} exists already; go on with it (--resume) or begin anew (--force)")
        with atomic_writer(target, force=True):
            return {}
    known = {}
    lines = []
    for line in read_file(target, _MAX_ROWS).decode("utf-8", "replace").splitlines():
        try:
            row = schema.parse(line, f"{target}: a row", _row)
        except FormatError:
            continue  # what an interrupted or foreign hand left is measured anew
        if "error" not in row:
            known[_key(row)] = row
            lines.append(line + "\n")
    with atomic_writer(target, force=True) as file:
        file.write("".join(lines).encode())
    return known


def _warm_up(made: Coder, setting: Setting, signal: Signal) -> None:
    """A small piece first, so that loading and compiling are nobody's encoding time."""
    limit = {"image": 96, "audio": signal.rate // 2, "tensor": 64}[signal.modality]
    part = signal.data[:limit, :limit] if signal.modality == "image" else signal.data[:limit]
    small = Signal(signal.name, signal.modality, np.ascontiguousarray(part), signal.rate)
    made.decode(made.encode(small, setting), small, setting)


def _measure(
    base: Row, made: Coder, setting: Setting, read: Callable[[], Signal], metrics: Sequence[Metric], first: bool
) -> tuple[Row, tuple[bytes, np.ndarray] | None]:
    try:
        signal = read()
        if first:
            _warm_up(made, setting, signal)
        peak = memory.reset_peak()
        start = time.perf_counter()
        data = made.encode(signal, setting)
        middle = time.perf_counter()
        decoded = made.decode(data, signal, setting)
        end = time.perf_counter()
        highest = memory.peak_mb() if peak else None
        if decoded.shape != signal.data.shape:
            raise CodecError(f"decoded {decoded.shape} where {signal.data.shape} was encoded")
        row = base | {"shape": list(signal.data.shape), "num_bytes": len(data)}
        row[RATE_OF[signal.modality]] = round(8 * len(data) / signal.units, 6)
        row["lossless"] = bool(np.array_equal(decoded, signal.data))
        ratio = made.latent_ratio(signal)
        for metric in metrics:
            value = float(metric.compute(signal, decoded))
            row[metric.name] = round(value, 7) if math.isfinite(value) else None
    except Exception as error:  # a plug-in may raise anything; the other codecs are measured all the same
        return base | {"error": reason(error)}, None
    encode_s, decode_s = middle - start, end - middle
    row |= {
        "encode_s": round(encode_s, 6), "decode_s": round(decode_s, 6),
        "encode_speed": round(signal.throughput(encode_s), 4), "decode_speed": round(signal.throughput(decode_s), 4),
        "speed_unit": SPEED_UNIT[signal.modality],
        "latent_ratio": ratio, "peak_mb": None if highest is None else round(highest, 1),
    }  # fmt: skip
    return row, (data, decoded)


def _installed(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def cpu_name() -> str:
    """The processor's name as the system has it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def machine() -> dict[str, Any]:
    """What a reader needs to judge speeds."""
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()}


def _about(threads: int | None) -> dict[str, Any]:
    packages = ("torch", "numpy", "pillow", "soundfile", "compressai", "pytorch-msssim", "ssimulacra2")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "latentzip": __version__,
        "machine": machine(),
        "threads": threads or "default",
        "versions": {"python": platform.python_version(), **dict(_installed(packages))},
    }  # fmt: skip
