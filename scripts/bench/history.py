"""Every quick benchmark in one file, and what changed between two such files."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# without arguments, a GPU or minutes a picture
KINDS = ("rd", "speed", "entropy", "audio", "loader", "features", "lossless")
SECONDS = 240  # that one kind may take; a quick one needs less than 50 on a machine that does nothing else
_SCRIPT = Path(__file__).parents[1] / "benchmark.py"

# what a figure's name says about it; the last part of a path counts before those above it
_LESS = (
    "bytes", "pct", "bpp", "kbps", "bits", "nmse", "logmel", "log_mel", "ideal", "s_per_mp", "encode_s", "decode_s",
    "_mb",
)  # fmt: skip
_SPEEDS = ("mp_s", "mb_s", "msym", "x_realtime", "speed", "scaling", "encode", "decode", "_vs_")
_QUALITIES = ("psnr", "snr", "pesq", "ssim", "agreement")
_MORE = (*_SPEEDS, *_QUALITIES)


def run_all(quick: bool, threads: list[int], kinds: tuple[str, ...] = KINDS) -> dict[str, Any]:
    """Each kind in a process of its own, one after the other; one that fails is noted and the next one runs.

    Returns:
        ``runs`` (the JSON of each kind), ``failed`` {kind: the end of what it said}, ``seconds`` of each, a flat
        ``summary``, and ``markdown``.
    """
    runs: dict[str, Any] = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            out, begin = Path(folder) / f"{kind}.json", time.perf_counter()
            command = [sys.executable, str(_SCRIPT), kind, "--json", str(out), "--threads", *map(str, threads)]
            try:
                done = subprocess.run(
                    [*command, "--quick"] if quick else command, capture_output=True, text=True, check=False,
                    timeout=SECONDS if quick else None,
                )  # fmt: skip
                said = (
                    "" if done.returncode == 0 and out.exists() else (done.stderr or done.stdout)[-2000:] or "no word"
                )
            except subprocess.TimeoutExpired:
                said = f"it took more than {SECONDS} s"
            seconds[kind] = round(time.perf_counter() - begin, 1)
            if said:
                failed[kind] = said
            else:
                runs[kind] = json.loads(out.read_text())
            print(f"{kind}: {'failed' if said else 'done'} in {seconds[kind]} s", file=sys.stderr, flush=True)
    summary = dict(flat({kind: run["summary"] for kind, run in runs.items()}))
    lines = ["| figure | value |", "|---|---|", *(f"| {name} | {value:g} |" for name, value in summary.items())]
    lines += [f"\n{kind} failed: {said.strip().splitlines()[-1]}" for kind, said in failed.items()]
    return {"runs": runs, "failed": failed, "seconds": seconds, "summary": summary, "markdown": "\n".join(lines)}


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """(path with dots, number) of every number in nested dicts."""
    for name, value in tree.items():
        path = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from flat(value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield path, float(value)


@dataclass(frozen=True)
class Change:
    """A figure in two runs; ``worse`` and ``better`` beyond what is allowed for."""

    name: str
    before: float | None
    after: float | None
    worse: bool = False
    better: bool = False

    @property
    def text(self) -> str:
        """How much it changed: in points where it is a percentage, in percent otherwise."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        if _points(self.name):
            return f"{self.after - self.before:+.2f}"
        return f"{100 * (self.after / self.before - 1):+.1f} %" if self.before else "-"


def _points(name: str) -> bool:
    return name.endswith("pct") or any(unit in name.rsplit(".", 1)[-1] for unit in ("psnr", "snr", "pesq", "_db"))


def direction(name: str) -> int:
    """1 where more is better, -1 where less is, 0 where the name does not say."""
    for part in reversed(name.split(".")):
        for words, way in ((_LESS, -1), (_MORE, 1)):
            if any(part.endswith(word) for word in words):
                return way
        for words, way in ((_LESS, -1), (_MORE, 1)):
            if any(word in part for word in words):
                return way
    return 0


def timed(name: str) -> bool:
    """Whether a figure hangs on the machine: a speed, or a ratio of two."""
    last = name.rsplit(".", 1)[-1]
    still = last.endswith("pct") or any(word in last for word in ("bytes", "logmel", *_QUALITIES))
    return not still and any(word in name for word in (*_SPEEDS, "s_per_mp"))


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = 10.0, exact: float = 0.5
) -> list[Change]:
    """Figures of two runs, the worse first, then the better, then the rest.

    Args:
        before, after: what `run_all` returned, or the JSON of one kind.
        tolerance: percent by which speeds may differ without a meaning.
        exact: the same for sizes and qualities, in percent, or in points of percentages; a tenth of it in dB.
    """
    old, new = (dict(flat(run["summary"])) for run in (before, after))
    changes = []
    for name in [*old, *(n for n in new if n not in old)]:
        a, b = old.get(name), new.get(name)
        worse = better = False
        if a is not None and b is not None and (way := direction(name)):
            allowed = tolerance if timed(name) else exact
            if _points(name):
                moved = way * (b - a) * (1 if name.endswith("pct") else 10)
            else:
                moved = way * 100 * (b / a - 1) if a else 0.0
            worse, better = moved < -allowed, moved > allowed
        changes.append(Change(name, a, b, worse, better))
    return sorted(changes, key=lambda c: (not c.worse, not c.better))


def report(before: Mapping[str, Any], after: Mapping[str, Any], changes: list[Change]) -> str:
    """Markdown: both machines, what got worse, what got better, what is new or gone."""
    lines = []
    for label, run in (("before", before), ("after", after)):
        where = run.get("machine", {})
        parts = [str(where.get(k, "-")) for k in ("commit", "cpu", "cores", "load_at_start")]
        lines.append("- {}: {}, {}, {} cores, load {}".format(label, *parts))
    if before.get("machine", {}).get("cpu") != after.get("machine", {}).get("cpu"):
        lines.append("- another processor: speeds do not compare, ratios to a peer nearly do")
    for title, chosen in (
        ("worse", [c for c in changes if c.worse]),
        ("better", [c for c in changes if c.better]),
        ("new or gone", [c for c in changes if c.before is None or c.after is None]),
    ):
        lines += ["", f"{len(chosen)} {title}"]
        if chosen:
            lines += ["", "| figure | before | after | change |", "|---|---|---|---|"]
            lines += [f"| {c.name} | {_number(c.before)} | {_number(c.after)} | {c.text} |" for c in chosen]
    kept = sum(not (c.worse or c.better) and None not in (c.before, c.after) for c in changes)
    return "\n".join([*lines, "", f"{kept} within what is allowed for"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
