"""Epochs over a pack, one after the other, for as long as asked for: memory and open files stay flat.

python scripts/soak.py --seconds 3600 [--data PACK]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import latentzip as lz

ROOM = 64 << 20  # bytes that memory may grow by after the first epochs


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _pack(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "in").mkdir()
    for i in range(48):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "in" / f"{i:02d}.png")
    lz.data.pack(folder / "in", folder / "pack", "walloc-rgb-linear", coding="fast", jobs=1, shard_samples=8)
    return folder / "pack"


def soak(path: str | Path, seconds: float) -> dict[str, int]:
    """Loop over a pack; returns epochs and batches, bytes by which memory grew, file handles that were added."""
    stream = lz.data.LatentStream(path, batch_size=8, epochs=1, seed=0)
    epochs = batches = 0
    memory = handles = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or epochs < 6:
        batches += sum(1 for _ in stream)
        epochs += 1
        if epochs == 3:  # engines are loaded, files are open
            memory, handles = _resident(), len(os.listdir("/proc/self/fd"))
    return {
        "epochs": epochs, "batches": batches, "grown": _resident() - memory,
        "handles": len(os.listdir("/proc/self/fd")) - handles,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--data", type=Path, help="a pack; by default a small one is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = soak(args.data or _pack(Path(temporary)), args.seconds)
    print(json.dumps(found))
    raise SystemExit(int(found["grown"] > ROOM or found["handles"] > 0))
