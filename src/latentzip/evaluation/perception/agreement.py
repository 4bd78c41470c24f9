"""How machine perception fares on decoded data: codec x rate x task.

    from latentzip.evaluation.perception import perceive
    from latentzip.evaluation.perception import Network

    task = Network("classifier", my_module, my_transform, layer="avgpool")
    result = perceive(dataset, ["hyperprior-fast@10..90:20", "jpeg", "avif"], [task])
    print(result.markdown())

``dataset`` holds (picture, label) pairs, as the data sets of torchvision do; networks, transforms and data are the
user's own. Every figure is from real files, decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import CodecError, InputError
from ...signals import pictures
from ..coders import Coder, Setting, coder
from ..metrics.registry import Metric
from ..signals import RATE_LABEL, Signal, load
from .tasks import BATCH, Task

Row = dict[str, Any]
ORIGINAL = "original"


@dataclass
class Perception:
    """What `perceive` found.

    Attributes:
        rows: one for the originals, then one a codec and setting: ``codec``, ``setting``, ``rate`` (mean over the
            signals, None for the originals), ``samples``, and a figure ``TASK.SCORE`` for each score of each task.
        modality: of the data.
        columns: the figures' names.
    """

    modality: str
    rows: list[Row] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)

    def rate_at(self, codec: str, column: str, value: float) -> float:
        """The rate from which on a codec's figure stays at or above ``value``: linear between the settings in the
        logarithm of the rate; NaN where the settings do not reach it, or begin above it.

        Raises:
            InputError: no rows of this codec, or no such column.
        """
        points = sorted((r["rate"], r[column]) for r in self.rows if r["codec"] == codec and column in r)
        if not points:
            raise InputError(f"nothing was measured of {codec!r} under {column!r}")
        for (low, below), (high, above) in reversed(list(zip(points, points[1:]))):
            if above < value:
                return math.nan
            if below < value:
                part = (value - below) / (above - below)
                return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
        return math.nan

    def markdown(self) -> str:
        """One table: codec, setting, rate, and every figure."""
        unit = {"image": "bpp", "audio": "kbit/s"}.get(self.modality, RATE_LABEL[self.modality])
        lines = [f"| codec | setting | {unit} | {' | '.join(self.columns)} |", "|---" * (3 + len(self.columns)) + "|"]
        for row in self.rows:
            rate = "" if row["rate"] is None else f"{row['rate']:.3f}" if row["rate"] < 10 else f"{row['rate']:.1f}"
            figures = [f"{row[c]:.3f}" if row.get(c) is not None else "" for c in self.columns]
            lines.append(f"| {row['codec']} | {row['setting']} | {rate} | {' | '.join(figures)} |")
        return "\n".join(lines)


def perceive(
    data: Any,
    codecs: Iterable[Any],
    tasks: Sequence[Task],
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Perception:
    """Let every task look at the originals and at what each codec makes of them at each of its settings.

    Args:
        data: (signal, label) pairs: a sequence or data set (``len`` and indices), or an iterable, which is read once
            and kept. Signals are paths, Pillow images, arrays (H, W, 3) uint8, tensors (3, H, W) in [0, 1] or uint8,
            pairs (samples, rate) of sounds, or `Signal`. Labels are what the tasks take; None where there is none.
        codecs: names with or without settings (``"jpeg"``, ``"avif@20,50,80"``), or loaded codecs.
        tasks: all of the data's modality.
        progress: called with (done, total) codec settings.

    Raises:
        InputError: no data, an unknown codec, or tasks, codecs and data of different modalities.
        CodecError: a codec failed; the text names it, its setting and the signal.
    """
    pairs = data if hasattr(data, "__getitem__") and hasattr(data, "__len__") else list(data)
    if not len(pairs) or not tasks:
        raise InputError("there is no data" if tasks else "there is no task")
    names = [t.name for t in tasks]
    if len(set(names)) < len(names):
        raise InputError(f"two tasks have one name: {', '.join(names)}")
    makers = [coder(c, device=device) for c in codecs]
    modality = _signal(pairs, 0)[0].modality
    taken = [((t.modality,), f"task {t.name}") for t in tasks] + [(m.modalities, m.name) for m in makers]
    for kinds, name in taken:
        if modality not in kinds:
            raise InputError(f"{name} is for {' and '.join(kinds)} signals; the data are {modality} signals")
    plan: list[tuple[Coder, Setting] | None] = [None, *((m, s) for m in makers for s in m.settings)]
    result = Perception(modality)
    originals: list[list[Any]] = []
    for done, step in enumerate(plan):
        if progress:
            progress(done, len(plan))
        seen, targets, rates = _look(pairs, step, tasks)
        originals = originals or seen
        name, setting = (ORIGINAL, "") if step is None else (step[0].name, step[1].label)
        row: Row = {"codec": name, "setting": setting, "rate": float(np.mean(rates)) if rates else None}
        row["samples"] = len(targets)
        for task, before, now in zip(tasks, originals, seen):
            row |= {f"{task.name}.{score}": value for score, value in task.score(before, now, targets).items()}
        result.rows.append(row)
    if progress:
        progress(len(plan), len(plan))
    fixed = {"codec", "setting", "rate", "samples"}
    result.columns = [key for key in result.rows[0] if key not in fixed]
    return result


def as_metric(task: Task, score: str = "agreement") -> Metric:
    """A task's score of one signal at a time, as a metric for `evaluate` and its report once it is registered.

    Scores over a data set (``cka``) and against labels are none.
    """

    def compute(signal: Signal, decoded: np.ndarray) -> float:
        after = replace(signal, data=decoded)
        return task.score(task.observe([signal]), task.observe([after]), [None])[score]

    return Metric(f"{task.name}.{score}", task.modality, compute, f"{task.name}: {score}")


def _look(
    pairs: Any, step: tuple[Coder, Setting] | None, tasks: Sequence[Task]
) -> tuple[list[list[Any]], list[Any], list[float]]:
    """Observations by task, labels and rates, a batch of signals in memory at a time."""
    seen: list[list[Any]] = [[] for _ in tasks]
    targets: list[Any] = []
    rates: list[float] = []
    for at in range(0, len(pairs), BATCH):
        batch = []
        for index in range(at, min(at + BATCH, len(pairs))):
            signal, target = _signal(pairs, index)
            targets.append(target)
            if step is not None:
                signal, rate = _through(*step, signal)
                rates.append(rate)
            batch.append(signal)
        for found, task in zip(seen, tasks):
            found += task.observe(batch)
    return seen, targets, rates


def _through(made: Coder, setting: Setting, signal: Signal) -> tuple[Signal, float]:
    """The signal decoded, and its rate."""
    try:
        data = made.encode(signal, setting)
        decoded = made.decode(data, signal, setting)
    except Exception as error:  # a plug-in may raise anything
        what = " ".join(filter(None, (made.name, setting.label)))
        raise CodecError(f"{what} failed on {signal.name}: {error}") from error
    return Signal(signal.name, signal.modality, decoded, signal.rate), 8 * len(data) / signal.units


def _signal(pairs: Any, index: int) -> tuple[Signal, Any]:
    pair = pairs[index]
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InputError(f"sample {index} of the data is no pair (signal, label)")
    x, target = pair
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.clamp(0, 1) * 255).round() if x.is_floating_point() else x
        x = np.ascontiguousarray(x.to(dtype=torch.uint8).permute(1, 2, 0).numpy()) if x.ndim == 3 else x.numpy()
    name = Path(x).name if isinstance(x, (str, Path)) else f"sample {index}"
    return load(x, name), target


def class_folders(root: str | Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """(path, class) of every picture in ``root``/CLASS/, and the names of the classes in the order of their numbers.

    Raises:
        InputError: no folder with pictures.
    """
    folders = sorted(p for p in Path(root).glob("*") if p.is_dir())
    found = [(path, label) for label, folder in enumerate(folders) for path in _pictures(folder)]
    if not found:
        raise InputError(f"{root}: no folders of pictures, one a class")
    return found, [folder.name for folder in folders]


class SegmentedFolder(Sequence[tuple[Path, np.ndarray]]):
    """(picture, segments) of ``root``/images and ``root``/masks; a mask has its picture's name, its pixels are numbers.

    Raises:
        InputError: no pictures, or one without a mask.
    """

    def __init__(self, root: str | Path) -> None:
        masks = {p.stem: p for p in _pictures(Path(root) / "masks")}
        self.pictures = list(_pictures(Path(root) / "images"))
        missing = [p.name for p in self.pictures if p.stem not in masks]
        if missing or not self.pictures:
            raise InputError(f"{root}/images: {missing[0] + ' has no mask' if missing else 'no pictures'}")
        self.masks = [masks[p.stem] for p in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: Any) -> Any:
        from PIL import Image

        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with Image.open(self.masks[index]) as mask:
            return self.pictures[index], np.asarray(mask)


def _pictures(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in pictures.SUFFIXES)
