"""Machine perception: how a classifier, edges, segments and speech features fare on decoded data. Codec x rate x task.

--data has train/ and test/ with a folder a class; --segmented has images/ and masks/; --sounds has sounds, of which
log-mel features at 16 kHz are compared. One at least is needed; --limit takes some of each, evenly. --model is a
TorchScript module of one's own (it gets pictures of S x S, uint8) or weights from an earlier run; without it a small
network is trained, 16 epochs, and its weights are kept beside --json. --effort measures what a search brings
to it, by squared error and by its own features.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentzip.evaluation import signals
from latentzip.evaluation.coders import Ours
from latentzip.evaluation.perception.agreement import Perception, SegmentedFolder, class_folders, perceive
from latentzip.evaluation.perception.tasks import Boundaries, LogMel, Network, canny, felzenszwalb, sound_tensor
from latentzip.training.distortion import FeatureDistortion

from . import perception_net

CODECS = (
    "hyperprior-fast@1,10,30,70", "walloc-rgb-linear@10,40,80", "walloc-rgb-16x",
    "jpeg@5,10,25,60", "webp@1,10,40,75", "avif@10,25,40,60",
)  # fmt: skip
SOUND = ("audio@10,20,30,45", "opus@6,12,24,48", "mp3@32,64,128")
QUICK = ("hyperprior-fast@25", "jpeg@10")
SEARCHED, LOW = ("hyperprior-fast",), (1, 5, 10, 20)
GOAL = 0.95
RATE = 16000


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure; see `scripts/benchmark.py`."""
    if not (args.data or args.segmented or args.sounds):
        raise SystemExit(
            "perception needs --data (train/, test/ of class folders), --segmented (images/, masks/) or --sounds"
        )
    torch.set_num_threads(min(args.threads))
    codecs = args.codec or (QUICK if args.quick else CODECS)
    results = {}
    if args.data is not None:
        model = (
            perception_net.load(args.model) if args.model else perception_net.train(args.data, 1 if args.quick else 16)
        )
        if not args.model and args.json:
            perception_net.save(model, args.json.with_name("perception.safetensors"))
        pairs, _ = class_folders(args.data / "test")
        layer = None if isinstance(model, torch.jit.ScriptModule) else perception_net.FEATURES
        task = Network("class", model, perception_net.prepare, layer=layer)
        coders = searched(args, model) if args.effort else codecs
        results["labelled"] = perceive(some(pairs, args), coders, [task], progress=progress)
    if args.segmented is not None:
        tasks = [Boundaries("edges", canny), Boundaries("segments", felzenszwalb)]
        data = SegmentedFolder(args.segmented)
        results["segmented"] = perceive(some(data, args), codecs, tasks, progress=progress)
    if args.sounds is not None:
        sounds = [(path, None) for path in signals.find([args.sounds])]
        task = Network("log_mel", LogMel(RATE), speech, modality="audio", answers="none")
        results["sounds"] = perceive(some(sounds, args), args.codec or SOUND, [task], progress=progress)
    text = "\n\n".join(f"{name}, {r.rows[0]['samples']} samples\n\n{r.markdown()}" for name, r in results.items())
    if set(results) - {"sounds"}:
        text += "\n\n" + goals(results)
    return {"rows": {k: r.rows for k, r in results.items()}, "summary": summary(results), "markdown": text}


class Searched(Ours):
    """A codec that searches towards what a network sees, or towards squared error."""

    def __init__(self, codec: str, effort: int, qualities: Sequence[int], distortion: FeatureDistortion | None) -> None:
        super().__init__(codec, effort=effort)
        self.values = tuple(qualities)
        if distortion is not None:
            self.options["objective"] = distortion
            self.name += ", its features"


def searched(args: argparse.Namespace, model: torch.nn.Module) -> list[Searched]:
    """Codecs at every effort asked for, with both objectives."""
    if isinstance(model, torch.jit.ScriptModule):
        raise SystemExit(
            "perception --effort needs to see a layer: leave --model out, or give weights of an earlier run"
        )
    own = FeatureDistortion(model, [perception_net.FEATURES], prepare=perception_net.window)
    return [
        Searched(name, effort, args.qualities or LOW, distortion)
        for name in args.codec or SEARCHED
        for effort in sorted({0, *args.effort})
        for distortion in ([None, own] if effort else [None])
    ]


def some(data: Any, args: argparse.Namespace) -> Any:
    """Evenly chosen samples: ``--limit`` of them, all of them without it."""
    limit = min(args.limit or (20 if args.quick else len(data)), len(data))
    return [data[i * len(data) // limit] for i in range(limit)]


def speech(sound: tuple[np.ndarray, int]) -> Tensor:
    """The mean of the channels at 16 kHz."""
    from torchaudio.functional import resample

    return resample(sound_tensor(sound), sound[1], RATE)


def progress(done: int, total: int) -> None:
    print(f"\r{done}/{total} settings", end="" if done < total else "\n", file=sys.stderr, flush=True)


def agreements(results: dict[str, Perception]) -> list[tuple[Perception, str]]:
    return [(r, column) for r in results.values() for column in r.columns if column.endswith(".agreement")]


def summary(results: dict[str, Perception]) -> dict[str, Any]:
    """Bits per pixel from which on a task agrees with the original in 95 % of what it says, by codec."""
    found: dict[str, Any] = {}
    for result, column in agreements(results):
        rates = {codec: result.rate_at(codec, column, GOAL) for codec in names(result)}
        key = f"bpp_at_{column.replace('.', '_')}_{round(100 * GOAL)}pct"
        found[key] = {codec: round(rate, 3) for codec, rate in rates.items() if math.isfinite(rate)}
    return found


def names(result: Perception) -> list[str]:
    return list(dict.fromkeys(row["codec"] for row in result.rows[1:]))


def goals(results: dict[str, Perception]) -> str:
    """The summary as a table; codecs whose lowest rate is enough have that rate as a bound."""
    columns = agreements(results)
    codecs = dict.fromkeys(codec for result, _ in columns for codec in names(result))
    lines = [
        f"| bpp for an agreement of {GOAL} | {' | '.join(c.partition('.')[0] for _, c in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for codec in codecs:
        cells = []
        for result, column in columns:
            rows = sorted((r["rate"], r[column]) for r in result.rows[1:] if r["codec"] == codec)
            rate = result.rate_at(codec, column, GOAL)
            enough = bool(rows) and all(value >= GOAL for _, value in rows)
            cells.append(f"{rate:.2f}" if math.isfinite(rate) else f"<= {rows[0][0]:.2f}" if enough else "-")
        lines.append(f"| `{codec}` | {' | '.join(cells)} |")
    return "\n".join(lines)
