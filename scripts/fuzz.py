"""Damaged files of every format, checksums repaired: whatever is in them, the readers answer with a clear error.

    python scripts/fuzz.py --seconds 600 --seed 0

The corpus is made anew from the seed. A finding is kept in ``--out`` and ends the run with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import latentzip as lz
from latentzip import pretrained
from latentzip.data import (
    Archive,
    CodeStore,
    EmbeddingStore,
    EmbeddingTable,
    LatentDataset,
    build_cache,
    check_pack,
    pack,
)
from latentzip.data.cache import Cache
from latentzip.data.writing.sources import read_labels
from latentzip.entropy import container

SLOWEST = 20.0  # seconds of the processor that reading a small file may take
Target = tuple[Path, Callable[[Path], object]]


def _streams(rng: np.random.Generator) -> dict[str, bytes]:
    picture = rng.integers(0, 255, (40, 56, 3), np.uint8)
    sound = (rng.standard_normal((3000, 1)) * 0.1).astype(np.float32)
    tensor = rng.standard_normal((60, 12)).astype(np.float32)
    return {
        "picture": lz.encode(picture, codec="walloc-rgb-linear", quality=50),
        "fast": lz.encode(picture, codec="walloc-rgb-linear", quality=50, coding="fast"),
        "sound": lz.encode((sound, 16000), codec="audio"),
        "tensor": lz.encode(tensor, codec="features", max_error=0.01),
        "lossless": lz.encode(tensor, codec="features"),
        "lossless picture": lz.encode(picture, codec="lossless", effort=2),
        "lossless sound": lz.encode(((sound * 32767).astype(np.int16), 16000), codec="lossless", effort=4),
        "lossless floats": lz.encode((sound[:500], 16000), codec="lossless", effort=1),
    }


def corpus(folder: Path, seed: int) -> list[Target]:
    """Small files of every format, each with what reads it."""
    rng = np.random.default_rng(seed)
    targets: list[Target] = []
    for name, data in _streams(rng).items():
        path = folder / f"{name}.ltz"
        path.write_bytes(data)
        targets.append((path, lambda p: lz.decode(p.read_bytes())))
    for i in range(6):
        place = folder / "source" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        size = (32, 32 + 8 * (i % 2), 3)
        Image.fromarray(rng.integers(0, 255, size, np.uint8)).save(place / f"{i}.png")
    made = folder / "pack"
    pack(folder / "source", made, "walloc-rgb-linear", labels="folders", jobs=1, coding="fast", shard_samples=3)

    def read_pack(_: Path) -> None:
        check_pack(made, deep=True)
        data = LatentDataset(made, tier="archive")
        data.__getitems__(range(len(data)))

    files = ("manifest.json", "columns.npz", "00000.idx.npy", "00000.tar")
    targets += [(made / name, read_pack) for name in files]
    tier = Path(build_cache(Archive(made), folder / "tier", threads=1).path)
    for path in sorted(p for p in tier.iterdir() if p.suffix in (".json", ".rec", ".npy")):
        targets.append((path, lambda _: Cache(tier).gather(range(6))))
    (folder / "labels.csv").write_text("path,label\n" + "".join(f"a/{i}.png,{i % 2}\n" for i in range(6)))
    (folder / "labels.json").write_text(json.dumps({f"a/{i}.png": "ab"[i % 2] for i in range(6)}))
    targets += [(folder / name, lambda p: read_labels(str(p))) for name in ("labels.csv", "labels.json")]
    (folder / "index.json").write_bytes((resources.files("latentzip.pretrained") / "index.json").read_bytes())
    targets.append((folder / "index.json", lambda p: pretrained.read_index(p.read_bytes())))
    rows = rng.standard_normal((300, 8)).astype(np.float32)
    EmbeddingStore.write(folder / "store.ltz", rows, nmse=0.05)
    targets.append((folder / "store.ltz", lambda p: EmbeddingStore(p)[:]))
    CodeStore.write(folder / "codes.ltz", rows, size=2)
    targets.append((folder / "codes.ltz", lambda p: CodeStore(p)[:]))
    EmbeddingTable.write(folder / "table.ltz", rows, size=4)
    targets.append((folder / "table.ltz", lambda p: EmbeddingTable(p)[:]))
    lz.FeatureCodec.fit([torch.from_numpy(rows)], transform="vq", size=4).save(folder / "codebooks.safetensors")
    targets.append((folder / "codebooks.safetensors", lambda p: lz.encode(x, codec=lz.FeatureCodec.load(p))))
    lz.FeatureCodec.fit([torch.from_numpy(rows)]).save(folder / "profile.safetensors")
    x = torch.from_numpy(rows[:40])
    targets.append((folder / "profile.safetensors", lambda p: lz.encode(x, codec=lz.FeatureCodec.load(p))))
    config = lz.BottleneckConfig(outputs=8, latent=4, encoder_width=8, decoder_width=8)
    lz.EntropicBottleneck(config).eval().freeze().save(folder / "bottleneck.safetensors")
    picture = torch.rand(1, 3, 16, 16)
    targets.append((folder / "bottleneck.safetensors", lambda p: lz.load_codec(p).encode(picture, 50)))
    return targets


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut, doubled or put in; numbers of JSON replaced by absurd ones."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, max(1, len(out))))
        kind = int(rng.integers(0, 6))
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"])
        elif kind == 2:
            del out[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            out[at:at] = out[at : at + int(rng.integers(1, 40))]
        elif kind == 4:
            digits = [i for i, c in enumerate(out[:4000]) if 0x30 <= c <= 0x39]
            if digits:
                i = int(rng.choice(digits))
                out[i : i + 1] = rng.choice([b"-1", b"1e308", b"99999999999999999999", b"null", b'"x"', b"[[]]"])
        else:
            out[at : at + 1] = rng.bytes(1)
    return bytes(out)


def stream_mutant(data: bytes, rng: np.random.Generator) -> bytes:
    """A stream with a changed chunk or header, and checksums that fit."""
    box = container.read(data)
    if box.chunks and rng.random() < 0.6:
        chunks = [bytes(c) for c in box.chunks]
        at = int(rng.integers(len(chunks)))
        chunks[at] = mutate(chunks[at], rng)
        return container.write(box.header, chunks, box.boxes)
    length, begin = container.read_varint(data, len(container.SIGNATURE) + 1)
    head = b"\x01" + container.packed_string(mutate(data[begin : begin + length], rng))
    return container.SIGNATURE + head + zlib.crc32(head).to_bytes(4, "little") + data[begin + length + 4 :]


def run(seconds: float, seed: int, out: Path) -> int:
    """Exit status: 0, or 1 with the findings in ``out``."""
    torch.set_num_threads(1)
    rng, tried, findings = np.random.default_rng(seed), 0, []
    with tempfile.TemporaryDirectory() as temporary:
        targets = corpus(Path(temporary), seed)
        for path, read in targets:
            read(path)  # whole files are read; engines are loaded and compiled
        end = time.monotonic() + seconds
        while time.monotonic() < end or tried < len(targets):
            path, read = targets[tried % len(targets)]
            kept = path.read_bytes()
            path.unlink()  # a map of the old file must not see the new one
            damage = stream_mutant if path.suffix == ".ltz" and rng.random() < 0.8 else mutate
            path.write_bytes(damage(kept, rng))
            start = time.process_time()
            problem = None
            try:
                read(path)
            except (lz.CodecError, OSError, IndexError):
                pass
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            if (took := time.process_time() - start) > SLOWEST:
                problem = f"{took:.0f} s"
            if problem:
                findings.append({"file": path.name, "seed": seed, "number": tried, "problem": problem[:300]})
                out.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, out / f"{tried}-{path.name}")
            path.unlink()
            path.write_bytes(kept)
            tried += 1
    print(json.dumps({"tried": tried, "formats": len(targets), "findings": findings}))
    return 1 if findings else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    args = parser.parse_args()
    raise SystemExit(run(args.seconds, args.seed, args.out))
