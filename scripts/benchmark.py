"""Reproduce the figures that README and docs quote: `python scripts/benchmark.py KIND [--data DIR] [--json OUT]`.

    python scripts/benchmark.py all --quick --json today.json
    python scripts/benchmark.py compare yesterday.json today.json

KIND is one of rd, overfit, speed, entropy, audio, loader, features, lossless, perception, vq, proof, gpu. Each prints a
Markdown table; --json writes all rows, the machine, versions, commit and threads, and a flat summary. --quick answers
in under 50 s with less data (overfit takes minutes; gpu takes longer, and a GPU). `all` runs those that need no more
than the package, each in a process of its own; `compare` says what got worse between two files, and ends with status
1 if anything did.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench import history

KINDS = (
    "rd",
    "overfit",
    "speed",
    "entropy",
    "audio",
    "loader",
    "features",
    "lossless",
    "perception",
    "vq",
    "proof",
    "gpu",
)


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "-"

    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()
    packages = ("latentzip", "torch", "numpy", "pillow", "constriction", "compressai", "numba")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_at_start": load,
        "python": platform.python_version(),
        "system": platform.platform(),
        "commit": commit or "-",
        "versions": {name: installed(name) for name in packages},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=(*KINDS, "all", "compare"))
    parser.add_argument("files", type=Path, nargs="*", help="compare: two JSON files, the earlier one first")
    parser.add_argument(
        "--data", type=Path, help="folder of test pictures or sounds (default: pictures that scikit-image brings)"
    )
    parser.add_argument("--json", type=Path, help="write the full result there")
    parser.add_argument("--out", type=Path, help="folder for plots and Markdown")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--codec", action="extend", nargs="+", help="latentzip codecs to measure (default: all for pictures)"
    )
    parser.add_argument("--qualities", type=int, nargs="+", help="rd: of codecs with a variable rate")
    parser.add_argument(
        "--effort", type=int, nargs="+", metavar="N",
        help="rd: what these efforts bring, and their seconds, beside AVIF at its speeds; overfit: one of 1 to 9; "
        "perception: what they bring to the classifier",
    )  # fmt: skip
    parser.add_argument(
        "--objective", default="mse", help="rd --effort: another one of the search, beside mse: ms-ssim"
    )
    parser.add_argument("--speeds", type=int, nargs="+", metavar="N", help="rd --effort: of AVIF, 0 to 10")
    parser.add_argument(
        "--side", type=int, metavar="N", help="rd --effort: only the middle of each picture, N x N pixels"
    )
    parser.add_argument(
        "--published", type=Path, nargs="+", metavar="PATH", default=[],
        help="rd, overfit: published curves to compare with, folders or files in CompressAI's JSON form",
    )  # fmt: skip
    parser.add_argument(
        "--peers", choices=("compressai",), help="rd, speed: also time CompressAI's models (random weights)"
    )
    parser.add_argument(
        "--weights", type=Path, help="features: of the causal transformer that scripts/examples/kv_cache.py trains"
    )
    parser.add_argument(
        "--reuse", type=Path, help="rd, overfit, audio: take the rows that this earlier --json file has"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        nargs="+",
        default=[],
        help="rd: list and draw what these --json files of `overfit` measured",
    )
    parser.add_argument("--segmented", type=Path, help="perception: folder with images/ and masks/")
    parser.add_argument("--sounds", type=Path, help="perception: folder of sounds")
    parser.add_argument("--limit", type=int, metavar="N", help="perception, lossless, rd --effort: samples of each set")
    parser.add_argument("--model", type=Path, help="perception: TorchScript classifier, or weights of an earlier run")
    parser.add_argument("--listening", type=Path, help="audio: folder of sounds, a sub-folder a class")
    parser.add_argument("--work", type=Path, help="proof: folder that keeps finished runs, to go on with")
    parser.add_argument("--inputs", nargs="+", metavar="NAME", help="proof: only these inputs")
    parser.add_argument("--seeds", type=int, metavar="N", help="proof: runs of every input")
    parser.add_argument("--steps", type=int, metavar="N", help="proof: batches of a run")
    parser.add_argument("--mmac", type=float, metavar="N", help="proof: million multiply-adds a sample")
    parser.add_argument("--tolerance", type=float, default=10.0, help="compare: percent by which speeds may differ")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if len(args.files) != 2 * (args.kind == "compare"):
        parser.error("compare takes two files, the other kinds none")
    if args.kind == "compare":
        return compare(args.files, args.tolerance)

    about = machine()
    if args.kind == "all":
        result = history.run_all(args.quick, args.threads)
    else:
        result = importlib.import_module(f"bench.{args.kind}").run(args)
    print(result["markdown"])
    print(json.dumps(result["summary"], indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{args.kind}.md").write_text(result["markdown"] + "\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps({"kind": args.kind, "machine": about, "threads": args.threads, **result}, indent=1)
        )
    return 1 if result.get("failed") else 0


def compare(files: list[Path], tolerance: float) -> int:
    """Print what changed between two files; 1 where anything got worse."""
    before, after = (json.loads(path.read_text()) for path in files)
    changes = history.compare(before, after, tolerance)
    print(history.report(before, after, changes))
    return int(any(change.worse for change in changes))


if __name__ == "__main__":
    raise SystemExit(main())
