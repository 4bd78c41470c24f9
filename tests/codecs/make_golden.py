"""Write golden `.ltz` streams of the current weights: `python tests/codecs/make_golden.py`. Existing ones stay."""

import hashlib
import json
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

import latentzip as lz
from latentzip.codecs.base import CODINGS

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "ltz"


def pictures():
    """Small, generated, and different in kind: colour, grey, transparency, 16 bits, one pixel."""
    y, x = np.mgrid[:56, :72] / 8
    rgb = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
    rgb = ((rgb + 1) * 127.5).round().astype(np.uint8)
    alpha = ((np.hypot(x - 4, y - 3) < 3) * 255).astype(np.uint8)
    return {
        "rgb": Image.fromarray(rgb),
        "grey": Image.fromarray(rgb[..., 0]),
        "rgba": Image.fromarray(np.dstack([rgb, alpha])),
        "uint16": rgb.astype(np.uint16) * 257,
        "pixel": Image.fromarray(rgb[:1, :1]),
    }


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    index = FOLDER / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else {}
    for info, coding in product(lz.list_codecs(), CODINGS):
        if coding == "fast" and not lz.load_codec(info.name).fast_coding:
            continue
        for kind, picture in pictures().items():
            blob = lz.encode(picture, codec=info.name, coding=coding)
            name = f"{info.name}-{lz.inspect(blob).fingerprint[:8]}-{kind}" + ("-fast" if coding == "fast" else "")
            if name in entries:
                continue
            latent = np.ascontiguousarray(np.asarray(lz.decode(blob, to="latent")))
            decoded = np.asarray(lz.decode(blob))
            (FOLDER / f"{name}.ltz").write_bytes(blob)
            np.save(FOLDER / f"{name}.npy", decoded)
            entries[name] = {"latent": list(latent.shape), "sha256": hashlib.sha256(latent.tobytes()).hexdigest()}
    index.write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
