"""Release a candidate only if it is better: `python scripts/release.py NAME --candidate DIR --set kodak=PICTURES`.

DIR is a folder that `scripts/train.py NAME --export DIR` wrote. Candidate and shipped weights code every file of every
set (beside those named, one of odd signals: documents, screens, 16 bits; bells, clicks, tones). A candidate that loses
more than .05 dB at equal bytes on any set, or needs 10 % more time (--slower: where a larger model is meant), is
refused: exit status 1. --install then puts weights, card with the table, and index entry where they ship; a new version
stands beside the old one, which is packed; of weights that were trained on from it the differences are stored.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs import storage
from latentzip.entropy import opening
from latentzip.files import atomic_writer
from latentzip.training import gate, odd
from latentzip.training.audio_data import list_sounds, load_stereo
from latentzip.training.data import list_images, load_rgb
from latentzip.training.recipes import RECIPES

HOME = Path(__file__).resolve().parents[1] / "pretrained"
SHORTER = 0.75  # of the plain length, where differences are stored
HEADING = "## Against the weights before"


def load_set(folder: Path, sound: bool, limit: int | None) -> list[torch.Tensor]:
    """Pictures (3, H, W) in [0, 1] or sounds (2, T) at 44.1 kHz of a folder."""
    if sound:
        return [torch.from_numpy(x[:, : 12 * 44100]) for x, _ in map(load_stereo, list_sounds(folder)[:limit])]
    paths = list_images(folder)[:limit]
    return [torch.tensor(load_rgb(p)).permute(2, 0, 1).float() / 255 for p in paths]


def with_table(card: str, table: str) -> str:
    """A model card that ends with the comparison; an earlier one is replaced."""
    kept = re.split(rf"\n*{re.escape(HEADING)}\n", card)[0].rstrip("\n")
    return f"{kept}\n\n{HEADING}\n\n{table}\n"


def install(source: Path, entry: dict[str, Any], table: str, home: Path) -> None:
    """Copy weights and card and make the entry the current one of its codec; the same version is replaced, others are
    packed."""
    shutil.copy(source / entry["file"], home / entry["file"])
    card = Path(entry["file"]).with_suffix(".md").name
    (home / card).write_text(with_table((source / card).read_text(), table))
    shorten(entry, home)
    index = json.loads((home / "index.json").read_text())
    entries, found = index["codecs"], False
    for i, other in enumerate(entries):
        if other["name"] != entry["name"]:
            continue
        if other["version"] == entry["version"]:
            speeds = {k: v for k, v in other["results"].items() if k.startswith(("encode_", "decode_", "speed_"))}
            entries[i], found = {**entry, "current": True, "results": entry["results"] | speeds}, True
        else:
            other["current"] = False
            pack(other, home)
    if not found:
        entries.append({**entry, "current": True})
    with atomic_writer(home / "index.json", force=True) as file:
        file.write((json.dumps(index, indent=1) + "\n").encode())


def pack(entry: dict[str, Any], home: Path) -> None:
    """Compress the weights of an entry, if they are not."""
    plain = home / entry["file"]
    if plain.suffix != pretrained.PACKED:
        entry["file"] += pretrained.PACKED
        (home / entry["file"]).write_bytes(gzip.compress(plain.read_bytes(), 9, mtime=0))
        plain.unlink()


def shorten(entry: dict[str, Any], home: Path) -> None:
    """Store by how much the weights of an entry differ from an older release of its codec, where that is shorter."""
    plain = (home / entry["file"]).read_bytes()
    for base in (e for e in pretrained.index() if e.name == entry["name"] and e.version != entry["version"]):
        tensors, metadata = load(plain), opening.metadata(plain)
        if "base" not in metadata and storage.differ(tensors, metadata, base):
            storage.share(tensors, metadata, base)
            blob = save(tensors, metadata)
            if len(gzip.compress(blob, 9)) < SHORTER * len(plain):
                (home / entry["file"]).write_bytes(blob)
                entry["sha256"] = hashlib.sha256(blob).hexdigest()
                pack(entry, home)
                return


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="codec")
    parser.add_argument("--candidate", type=Path, required=True, help="folder with weights, card and index.json")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=DIR", help="a set of test signals")
    parser.add_argument("--limit", type=int, help="files of each set")
    parser.add_argument("--qualities", type=int, nargs="+", default=gate.QUALITIES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slower", type=float, default=gate.TOLERANCE_TIME, help="times the time that it may take")
    parser.add_argument("--json", type=Path, help="write the curves there")
    parser.add_argument("--install", action="store_true", help="where it is better, put it where weights ship")
    parser.add_argument("--home", type=Path, default=HOME, help="where weights ship")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.name not in RECIPES:
        parser.error(f"no recipe {args.name!r}; one of {', '.join(RECIPES)}")
    entries = json.loads((args.candidate / "index.json").read_text())["codecs"]
    entry = next((e for e in entries if e["name"] == args.name and e["current"]), None)
    if entry is None:
        parser.error(f"{args.candidate} holds no weights of {args.name}")
    module = importlib.import_module(entry["loader"].partition(":")[0])
    candidate = module.from_bytes((args.candidate / entry["file"]).read_bytes())
    shipped = lz.load_codec(args.name)
    sound = shipped.modality == "audio"
    sets = {name: load_set(Path(d), sound, args.limit) for name, _, d in (s.partition("=") for s in args.set)}
    sets["odd"] = list((odd.sounds() if sound else odd.pictures()).values())[: args.limit]
    peer = None if shipped.variable_rate else lz.load_codec("audio" if sound else "walloc-rgb-linear")
    verdict = gate.compare(shipped, candidate, sets, peer, qualities=args.qualities, slower=args.slower)
    print(f"\n{verdict.table()}\n")
    if args.json:
        found = {"codec": args.name, "passed": verdict.passed, **asdict(verdict)}
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    if not verdict.passed:
        print("not released: " + "; ".join(verdict.reasons()))
        return 1
    before = pretrained.find(args.name).fingerprint
    if args.install:
        install(args.candidate, entry, verdict.table(), args.home)
        print(f"installed {args.name} {entry['version']}, fingerprint {entry['fingerprint']}; before {before}")
    else:
        print("better, or as good: --install puts it where weights ship")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
