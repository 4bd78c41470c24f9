"""Write measured figures into the index of weights, where `codec-cli list` finds them.

    codec-cli bench -c hyperprior-fast -c walloc-rgb-16x --threads 1 --json > speed.json
    python scripts/record_figures.py speed.json
    python scripts/benchmark.py overfit --data KODAK --effort 1 --json overfit.json
    python scripts/record_figures.py overfit.json --set "kodak at effort 1"

Speeds are for a machine that does nothing else; those of one thread are kept, with the processor's name. Rates and
qualities of trained codecs come from their export (`scripts/train.py`); those of a fitted one from the benchmark.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from latentzip.files import atomic_writer

INDEX = Path(__file__).parents[1] / "pretrained" / "index.json"
UNITS = {"MP/s": "mp_s", "x real time": "x_realtime", "MB/s": "mb_s"}


def speeds(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{codec: what its results get}, of rows on one thread."""
    found = {}
    for row in report["rows"]:
        if "error" not in row and row["threads"] == 1:
            unit = UNITS[row["speed_unit"]]
            values = {f"{way}_{unit}": row[f"{way}_speed"] for way in ("encode", "decode")}
            found[row["codec"]] = {**values, "speed_machine": report["machine"]["cpu"]}
    return found


def fitted(report: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The same of `benchmark.py overfit`: rate and PSNR at each quality, and the speeds there."""
    summary = report["summary"]
    codec = f"overfit effort {summary['effort']}"
    results: dict[str, Any] = {}
    for row in report["averages"]:
        if row["codec"] == codec:
            results[f"{name}_{row['setting']}_bpp"] = round(row["bpp"], 4)
            results[f"{name}_{row['setting']}_psnr"] = round(row["psnr"], 3)
    encode = float(f"{1 / summary['encode_s_per_mp']:.3g}")
    return {"overfit": {**results, "encode_mp_s": encode, "decode_mp_s": summary["decode_mp_s"]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="JSON of codec-cli bench or of benchmark.py overfit")
    parser.add_argument("--set", default="kodak", help="of benchmark.py overfit: the pictures, as list names them")
    args = parser.parse_args()
    report = json.loads(args.report.read_text())
    found = fitted(report, args.set) if report.get("kind") == "overfit" else speeds(report)
    index = json.loads(INDEX.read_text())
    for entry in index["codecs"]:
        if entry["current"] and entry["name"] in found:
            entry["results"].update(found[entry["name"]])
            print(entry["name"], found[entry["name"]])
    with atomic_writer(INDEX, force=True) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
