"""Write measured speeds into the index of weights, where `codec-cli list` finds them.

    codec-cli bench -c hyperprior-fast -c walloc-rgb-16x --threads 1 --json > speed.json
    python scripts/record_speed.py speed.json

Run it on a machine that does nothing else; the speeds of one thread are kept, with the processor's name.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="what codec-cli bench --json printed")
    found = speeds(json.loads(parser.parse_args().report.read_text()))
    index = json.loads(INDEX.read_text())
    for entry in index["codecs"]:
        if entry["current"] and entry["name"] in found:
            entry["results"].update(found[entry["name"]])
            print(entry["name"], found[entry["name"]])
    with atomic_writer(INDEX, force=True) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
