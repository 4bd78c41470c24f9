"""What latents are worth as the input of a classifier: accuracy at a fixed budget of multiply-adds, set by set.

DATA (--data) is a folder with train/ and test/, a folder a class, of pictures or of sounds, or a folder of such
folders. Every input gets the widest network that the budget allows, with the first layers and the rate of learning that
are best on a fifth of the training split; then seeds on all of it. Finished runs are kept in --work, and a later call
goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentzip.signals.pictures import SUFFIXES

from . import proof_inputs, proof_sounds
from .proof_nets import Input, train

RATES = (2e-3, 6e-3)
PICTURES = ("shrunk", "shrunk, grey", "latents", "full", "jpeg")
WHY = ("shrunk, as channels", "latents, not rounded", "cosines", "latents, decorrelated", "latents, integers")
WIDE = ("shrunk, 48", "latents, 48")
SOUNDS = ("shrunk", "log-mel", "latents", "full", "latents, not rounded", "latents, decorrelated")
SOUNDS_WIDE = ("shrunk, 108", "log-mel, 108", "latents, 108", "latents, 108, not rounded")
SAME = {  # what takes over the choice that another input has searched for
    "jpeg": "full", "latents, not rounded": "latents", "latents, decorrelated": "latents",
    "latents, integers": "latents", "latents, 108, not rounded": "latents, 108",
    "shrunk, as channels": "latents", "cosines": "latents",
}  # fmt: skip
AGAINST = {
    "latents": "shrunk", "latents, 48": "shrunk, 48", "full": "shrunk", "jpeg": "full", "shrunk, grey": "shrunk",
    "log-mel": "shrunk", "latents, 108": "shrunk, 108", "log-mel, 108": "shrunk, 108", "shrunk, as channels": "shrunk",
    "cosines": "latents", "latents, not rounded": "latents", "latents, decorrelated": "latents",
    "latents, integers": "latents", "latents, 108, not rounded": "latents, 108",
}  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.data is None:
        raise SystemExit("proof needs --data: a folder with train/ and test/, a folder a class, or a folder of those")
    torch.set_num_threads(1)
    roots = [args.data] if (args.data / "train").is_dir() else sorted(p.parent for p in args.data.glob("*/train"))
    if not roots:
        raise SystemExit(f"no train/ in {args.data} or below")
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        tables, summary, lines = {}, {}, []
        for root in roots:
            rows, stored = measure(root, work / root.name, args)
            table = averages(rows, stored)
            tables[root.name] = {"rows": rows, "averages": table}
            summary[root.name] = {r["input"]: r["against"] for r in table if r["against"]}
            lines += [f"### {root.name}", "", markdown(table), ""]
    return {"rows": tables, "summary": summary, "markdown": "\n".join(lines).rstrip()}


def measure(root: Path, work: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All runs of a set, those of earlier calls included, and what its forms take on disk and to load."""
    quick, limit = args.quick, args.limit or (48 if args.quick else None)
    work.mkdir(parents=True, exist_ok=True)
    pictures = any(p.suffix.lower() in SUFFIXES for p in (root / "train").rglob("*"))
    data: Any = proof_inputs.Pictures(root, limit, work) if pictures else proof_sounds.Sounds(root, limit)
    stored: dict[str, Any] = {}
    if pictures:
        path = work / "costs.json"
        if not path.exists():
            path.write_text(json.dumps(proof_inputs.costs(data, work, 16 if quick else 200)))
        stored = json.loads(path.read_text())
    target = stored.get("latents", [0])[0]
    wanted = args.inputs or ((*PICTURES, *WHY, *WIDE) if pictures else (*SOUNDS, *SOUNDS_WIDE))
    if quick and not args.inputs:
        wanted = tuple(wanted)[:3]
    wanted = [name for name in wanted if name != "shrunk, grey" or data.grey]
    settings = {
        "steps": args.steps or (4 if quick else 600 if pictures else 400), "batch": 64 if pictures else 32,
        "budget": round(1e6 * (args.mmac or (4 if pictures else 1))),
    }  # fmt: skip
    seeds = args.seeds or (1 if quick else 3 if pictures else 10)
    log = work / "rows.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    found: list[dict[str, Any]] = []

    def once(name: str, source: Input, labels: Any, text: str, rate: float, seed: int, stage: str) -> dict[str, Any]:
        key = {
            "input": name,
            "stage": stage,
            "stem": text,
            "rate": rate,
            "seed": seed,
            "samples": len(labels[0]),
        } | settings
        row = next((r for r in done if key.items() <= r.items()), None)
        if row is None:
            row = key | {"tests": len(labels[1]), "values": source.values}
            row |= train(source, labels, text, rate, seed, **settings)
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{root.name} {name} {stage} {text} {rate:g} {seed}: {100 * row['accuracy']:.1f} %", flush=True)
        found.append(row)
        return row

    chosen: dict[str, tuple[str, float]] = {}
    for name, source in forms(data, pictures, target, wanted):
        if SAME.get(name) not in chosen:
            part, labels = validation(source, data.labels[0])
            stems = source.stems[:1] if quick else source.stems
            rates, searches = RATES[: 1 if quick else None], 1 if pictures else seeds // 3 or 1
            tries = [
                once(name, part, labels, text, rate, seed, "search")
                for text in stems for rate in rates for seed in range(searches)
            ]  # fmt: skip
            chosen[name] = best(tries)
        choice = chosen[name] = chosen.get(name) or chosen[SAME[name]]
        for seed in range(seeds):
            once(name, source, data.labels, *choice, seed, "final")
    return found, stored


def forms(data: Any, pictures: bool, target: float, wanted: list[str]) -> Iterator[tuple[str, Input]]:
    if pictures:
        yield from proof_inputs.inputs(data, target, wanted)
    else:
        yield from proof_sounds.inputs(data, wanted)


def best(tries: list[dict[str, Any]]) -> tuple[str, float]:
    """(stem, rate) of the highest mean accuracy; the lower loss at the end breaks ties."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for r in tries:
        groups.setdefault((r["stem"], r["rate"]), []).append(r)
    return max(groups, key=lambda k: tuple(np.mean([(r["accuracy"], -r["final_loss"]) for r in groups[k]], 0)))


def validation(source: Input, labels: Tensor) -> tuple[Input, tuple[Tensor, Tensor]]:
    """Every fifth sample of each class held back from training."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        held[(labels == label).nonzero()[::5, 0]] = True
    return replace(source, train=source.train[~held], test=source.train[held]), (labels[~held], labels[held])


# --- report ------------------------------------------------------------------------------------------------------


def averages(rows: list[dict[str, Any]], stored: dict[str, Any]) -> list[dict[str, Any]]:
    """A line an input: mean over seeds, its standard error, and the difference to what it is measured against."""
    final: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        if r["stage"] == "final":
            final.setdefault(r["input"], []).append(r)
    table = []
    for name, runs in final.items():
        other = final.get(AGAINST.get(name, ""))
        mean, error = spread(answers(runs))
        table.append({
            "input": name, "values": runs[0]["values"], "stem": runs[0]["stem"], "rate": runs[0]["rate"],
            "mmac": runs[0]["mmac"], "seeds": len(runs), "accuracy": mean, "standard_error": error,
            **{k: float(np.mean([r[k] for r in runs])) for k in ("train_ms", "test_ms")},
            "bytes": stored.get(name, [None, None])[0], "loader_samples_s": stored.get(name, [None, None])[1],
            "against": None if other is None else difference(name, runs, other),
        })  # fmt: skip
    return table


def answers(runs: list[dict[str, Any]]) -> np.ndarray:
    """(seeds, tests) 1 where the answer was right."""
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(r["right"]), np.uint8), count=r["tests"]) for r in runs]
    return np.stack(bits).astype(float)


def spread(right: np.ndarray) -> tuple[float, float]:
    """(mean, standard error) of a mean over seeds and test samples, both taken as drawn at random."""
    seeds, tests = right.shape
    samples = right.mean(0).var(ddof=1) / tests
    draws = right.mean(1).var(ddof=1) / seeds if seeds > 1 else 0.0
    return float(right.mean()), float(np.sqrt(samples + draws))


def difference(name: str, runs: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """In points of accuracy: on the same test samples, so that only what they answer differently counts."""
    a, b = answers(runs), answers(other)
    samples = (a.mean(0) - b.mean(0)).var(ddof=1) / a.shape[1]
    draws = sum(x.mean(1).var(ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (a, b))
    points, error = 100 * float(a.mean() - b.mean()), 100 * float(np.sqrt(samples + draws))
    return {
        "input": AGAINST[name], "points": round(points, 2), "standard_error": round(error, 2),
        "errors_of_it": round(points / error, 2) if error else None,
    }  # fmt: skip


def markdown(table: list[dict[str, Any]]) -> str:
    lines = [
        "| input | values | first layers | MMAC | right, % | difference, points | CPU ms to train, to answer | bytes "
        "| loader samples/s |",
        "|---" * 9 + "|",
    ]
    for r in table:
        other = r["against"]
        said = (
            ""
            if other is None
            else f"{other['points']:+.1f} ± {1.96 * other['standard_error']:.1f} to {other['input']}"
        )
        size, speed = ["", ""] if r["bytes"] is None else [f"{r['bytes']:.0f}", f"{r['loader_samples_s']:.0f}"]
        lines.append(
            f"| {r['input']} | {r['values']} | {r['stem']} | {r['mmac']:.1f} | {100 * r['accuracy']:.1f} ± "
            f"{196 * r['standard_error']:.1f} | {said} | {r['train_ms']:.2f}, {r['test_ms']:.2f} | {size} | {speed} |"
        )
    return "\n".join(lines)
