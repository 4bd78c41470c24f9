"""What a training loop gets to see: samples a second from latents and from JPEG files, same pictures, same run.

Every reader gives batches of 256 samples from files in the page cache. Three forms of the pictures: as they are
("full"), resized and cropped to 256 x 256 pixels ("256"; JPEG of quality 90), and packed by latentzip in both forms.
JPEG readers decode and resize, full pictures to a 256 square, the 256 ones to 224 as a training loop does; latent
readers give integer latents. The speed of a core is samples a second of process CPU time on one thread; threads are
timed by the clock. Rounds go over all readers in turn and the best one counts, so that a busy machine hits all alike.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import latentzip as lz
from latentzip.data import Archive, LatentDataset, build_cache
from latentzip.data.archive import COLUMNS, INDEX_DTYPE, MANIFEST, index_name
from latentzip.data.shards import ShardWriter, manifest_bytes, npz_bytes
from latentzip.training.data import list_images

from . import pictures

CODEC = "walloc-rgb-16x"
BATCH, SIDE, VIEW = 256, 256, 224
BILINEAR = Image.Resampling.BILINEAR


class Reader(NamedTuple):
    """A way to get samples: `read(indices, threads)` returns when the batch is in memory."""

    name: str
    read: Callable[[np.ndarray, int], Any]
    samples: int
    megapixels: float  # that a sample stands for
    num_bytes: float  # a sample on disk
    batch: int = BATCH


# --- pictures ----------------------------------------------------------------------------------------------------


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def originals(folder: Path | None, count: int) -> list[bytes]:
    """JPEG files: those of a folder as they are, or windows of 500 x 375 from the bundled photographs."""
    if folder is not None:
        paths = list_images(folder)
        if not paths:
            raise SystemExit(f"no pictures in {folder}")
        out = []
        for path in paths[:: max(1, len(paths) // count)][:count]:
            data = path.read_bytes()
            out.append(data if data[:3] == b"\xff\xd8\xff" else jpeg(Image.open(path).convert("RGB")))
        return out
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(p) for _, p in pictures.load(None, False)]
    photos = [p for p in photos if p.width >= 400 and p.height >= 300]
    out = []
    for i in range(count):
        photo = photos[i % len(photos)]
        w, h = min(500, photo.width), min(375, photo.height)
        left, top = int(rng.integers(photo.width - w + 1)), int(rng.integers(photo.height - h + 1))
        out.append(jpeg(photo.crop((left, top, left + w, top + h))))
    return out


def to_square(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Shorter side resized, middle square."""
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    return image.resize((side, side), resample, (left, top, left + edge, top + edge))


# --- readers of JPEG files ---------------------------------------------------------------------------------------


def spread(function: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray, int], Any]:
    """A reader of parts of a batch over threads."""

    def read(indices: np.ndarray, threads: int) -> Any:
        if threads == 1:
            return function(indices)
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(function, np.array_split(indices, threads))))

    return read


def pillow(blobs: list[bytes], side: int, draft: bool = False) -> Callable[[np.ndarray, int], Any]:
    def part(indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), side, side, 3), np.uint8)
        for row, i in enumerate(indices):
            image = Image.open(io.BytesIO(blobs[i % len(blobs)]))
            if draft:
                image.draft("RGB", (side, side))
            out[row] = np.asarray(to_square(image.convert("RGB"), side, BILINEAR))
        return out

    return spread(part)


def torchvision_jpeg(blobs: list[bytes], side: int) -> Callable[[np.ndarray, int], Any]:
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2.functional import center_crop, resize

    tensors = [torch.frombuffer(bytearray(b), dtype=torch.uint8) for b in blobs]

    def part(indices: np.ndarray) -> np.ndarray:
        out = torch.empty(len(indices), 3, side, side, dtype=torch.uint8)
        for row, i in enumerate(indices):
            image: Any = decode_jpeg(tensors[i % len(tensors)], ImageReadMode.RGB)
            out[row] = center_crop(resize(image, [side], antialias=True), [side, side])
        return out.numpy()

    return spread(part)


def tar_reader(path: Path, count: int, side: int) -> tuple[str, Callable[[np.ndarray, int], Any]]:
    """A tar of JPEG files read in order, as such data sets are: by webdataset, or by tarfile where that is missing."""
    try:
        import webdataset  # type: ignore[import-not-found]
    except ImportError:
        webdataset = None

    def members() -> Iterator[bytes]:
        while True:
            if webdataset is not None:
                for sample in webdataset.WebDataset(str(path), shardshuffle=False):
                    yield sample["jpg"]
                continue
            with tarfile.open(path, "r|") as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()

    stream = members()

    def read(indices: np.ndarray, threads: int) -> Any:
        blobs = [next(stream) for _ in indices]
        return pillow(blobs, side)(np.arange(len(blobs)), threads)

    return ("webdataset" if webdataset is not None else "plain tar reader (tarfile)"), read


# --- packs -------------------------------------------------------------------------------------------------------


def multiplied(pack: Path, out: Path, samples: int) -> Path:
    """A pack of this many samples that repeats those of another: more data than a cache holds, coded once."""
    source = Archive(pack)
    blobs = source.read_many(range(len(source)))
    out.mkdir()
    with ShardWriter(out, "00000.tar") as shard:
        for i in range(samples):
            shard.add(f"{i:06d}", blobs[i % len(blobs)])
    assert shard.info is not None
    repeat = np.arange(samples) % len(source)
    columns = {name: values[repeat] for name, values in source.columns.items()}
    (out / COLUMNS).write_bytes(npz_bytes(columns))
    manifest = source.manifest | {"samples": samples, "shards": [asdict(shard.info)], "variants": 1}
    (out / MANIFEST).write_bytes(manifest_bytes(manifest))
    return out


def latents(pack: Path, **options: Any) -> Callable[[np.ndarray, int], Any]:
    data = LatentDataset(pack, columns=(), **options)

    def read(indices: np.ndarray, threads: int) -> Any:
        data.threads = threads
        return data.__getitems__(indices)

    return read


def raw_memmap(path: Path, values: np.ndarray) -> Callable[[np.ndarray, int], Any]:
    """The ceiling: the same latents as one array on disk, gathered by numpy."""
    np.save(path, values)
    array = np.load(path, mmap_mode="r").view(np.ndarray)
    return spread(array.__getitem__)


_SCALE = """
import json, resource, sys, time
from latentzip.data import LatentDataset
def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6
before, start = memory(), time.process_time()
data = LatentDataset(sys.argv[1], columns=("label", "key"))
opened = time.process_time() - start
sampler = data.sampler(256, seed=1)
batch = next(iter(sampler))
rows, labels = data.archive.offsets[batch], data.archive.columns["label"][batch]
first = time.process_time() - start
assert len(rows) == len(labels) == 256
state = sampler.state_dict(1, len(sampler) // 2)
start = time.process_time()
other = data.sampler(256, seed=1)
other.load_state_dict(state)
assert len(next(iter(other))) == 256
resumed = time.process_time() - start
light = memory() - before
keys = data.archive.columns["key"]
print(json.dumps({"open_s": opened, "first_batch_s": first, "resume_s": resumed, "memory_mb": light,
                  "memory_with_keys_mb": memory() - before}))
"""


def at_scale(folder: Path, samples: int, each: int = 5000) -> dict[str, float]:
    """A pack of so many samples by its tables alone: their size; in a new process the CPU time to open it, to the
    first batch of a shuffled epoch and to the next one of a state in the middle of an epoch, and the memory."""
    shards = []
    for n in range(-(-samples // each)):
        count = min(each, samples - n * each)
        index = np.zeros(count, INDEX_DTYPE)
        index["offset"], index["size"] = np.arange(count) * 8192 + 512, 5000
        np.save(folder / index_name(f"{n:05d}.tar"), index)
        shards.append({"file": f"{n:05d}.tar", "samples": count, "bytes": count * 8192 + 1024, "sha256": "0" * 64})
    numbers = np.arange(samples)
    columns = {"key": numbers.astype("U12"), "label": numbers % 1000}
    columns |= {name: np.full(samples, 32, np.int32) for name in ("latent_h", "latent_w")}
    described = {name: {"dtype": "str" if name == "key" else str(c.dtype)} for name, c in columns.items()}
    manifest = {
        "format": "latentzip-pack", "version": 1, "codec": CODEC, "fingerprint": lz.load_codec(CODEC).fingerprint.hex(),
        "modality": "image", "samples": samples, "variants": 1, "shards": shards, "columns": described,
        "latent": {"channels": 12, "dtype": "int8", "fixed_shape": [12, 32, 32], "shapes": {}},
    }  # fmt: skip
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
    (folder / COLUMNS).write_bytes(npz_bytes(columns))
    found: list[dict[str, float]] = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", _SCALE, str(folder)], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    best = {name: min(row[name] for row in found) for name in found[0]}
    sizes = {p.name: p.stat().st_size / 1e6 for p in folder.iterdir()}
    index_mb = sum(size for name, size in sizes.items() if name.endswith(".idx.npy"))
    return {"index_mb": index_mb, "columns_mb": sizes[COLUMNS], "manifest_mb": sizes[MANIFEST]} | best


# --- measuring ---------------------------------------------------------------------------------------------------


def measure(readers: list[Reader], threads: list[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Best of several rounds: samples/s of CPU time on one thread, and by the clock for each number of threads."""
    rng = np.random.default_rng(0)
    speed: dict[tuple[str, Any], float] = {}
    for r in range(rounds):
        for reader in readers:
            order, size = rng.permutation(reader.samples), reader.batch
            batches = [order[at : at + size] for at in range(0, len(order) - size + 1, size)]
            for count in threads:
                if r == 0:
                    reader.read(batches[0], count)
                seen, wall, cpu = 0, time.perf_counter(), time.process_time()
                while time.perf_counter() - wall < seconds:
                    reader.read(batches[seen // size % len(batches)], count)
                    seen += size
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                found = [((reader.name, count), seen / wall)] + (
                    [((reader.name, "core"), seen / cpu)] if count == 1 else []
                )
                for key, value in found:
                    speed[key] = max(speed.get(key, 0.0), value)
    return [
        {
            "name": r.name,
            "samples_s_core": speed[r.name, "core"],
            "megapixels_s_core": speed[r.name, "core"] * r.megapixels,
            "samples_s": {str(count): speed[r.name, count] for count in threads},
            "bytes_per_sample": r.num_bytes,
        }
        for r in readers
    ]


def run(args: argparse.Namespace) -> dict[str, Any]:
    quick = args.quick
    threads = sorted({1, *args.threads})
    torch.set_num_threads(1)  # the readers' own threads are what is measured
    full = originals(args.data, 32 if quick else 128)
    images = [Image.open(io.BytesIO(b)).convert("RGB") for b in full]
    small = [jpeg(to_square(i, SIDE, Image.Resampling.BICUBIC)) for i in images]
    samples = 1024 if quick else 4096
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "pictures").mkdir()
        for i, blob in enumerate(full):
            (root / "pictures" / f"{i:04d}.jpg").write_bytes(blob)
        with tarfile.open(root / "small.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(samples):
                member = tarfile.TarInfo(f"{i:06d}.jpg")
                member.size = len(small[i % len(small)])
                tar.addfile(member, io.BytesIO(small[i % len(small)]))
        tar_bytes = (root / "small.tar").stat().st_size
        packs: dict[str, Path] = {}
        for name, options in {
            "fast": {"size": SIDE, "coding": "fast"},
            "default": {"size": SIDE},
            "full": {"coding": "fast"},
        }.items():
            lz.data.pack(root / "pictures", root / f"{name}-once", CODEC, jobs=1, **options)
            packs[name] = multiplied(root / f"{name}-once", root / name, samples)
        cache = build_cache(packs["fast"])
        memmap = raw_memmap(root / "raw.npy", cache.gather(np.arange(samples)))
        mp_small = SIDE * SIDE / 1e6
        mp_full = float(np.mean([i.width * i.height for i in images])) / 1e6
        size_full, size_small = float(np.mean([len(b) for b in full])), float(np.mean([len(b) for b in small]))
        sizes = {name: Archive(path).manifest["shards"][0]["bytes"] / samples for name, path in packs.items()}
        payload = {name: float(Archive(path).offsets["size"].mean()) for name, path in packs.items()}
        raw = float(np.prod(cache.shape or (0,)))
        tar_name, tar_read = tar_reader(root / "small.tar", samples, VIEW)
        jpegs = [("Pillow", pillow), ("Pillow draft", partial(pillow, draft=True))]
        if find_spec("torchvision"):
            jpegs.append(("torchvision", torchvision_jpeg))
        readers = [Reader(f"{n}, full JPEG -> 256", f(full, SIDE), samples, mp_full, size_full) for n, f in jpegs]
        readers += [
            Reader(f"{n}, 256 JPEG -> 224", f(small, VIEW), samples, mp_small, size_small)
            for n, f in jpegs
            if n != "Pillow draft"  # nothing to gain so near
        ]
        readers.append(
            Reader(f"{tar_name} + Pillow, 256 JPEG -> 224", tar_read, samples, mp_small, tar_bytes / samples)
        )
        for name, form, pixels in (
            ("default", "256, default coding", mp_small),
            ("fast", "256, fast coding", mp_small),
            ("full", "full, fast coding", mp_full),
        ):
            read = latents(packs[name], tier="archive")
            readers.append(Reader(f"latents, {form}", read, samples, pixels, sizes[name]))
        readers.append(
            Reader("latents, 256, training tier", latents(packs["fast"], tier="cache"), samples, mp_small, raw)
        )
        readers.append(Reader("latents, 256, numpy memmap", memmap, samples, mp_small, raw))
        read = latents(packs["fast"], to="signal")
        readers.append(Reader("pixels from latents, 256, fast coding", read, samples, mp_small, sizes["fast"], 8))
        rows = measure(readers, threads, 0.25 if quick else 1.0, 2 if quick else 4)
        (root / "index").mkdir()
        scale = at_scale(root / "index", 100_000 if quick else 1_000_000)
    core = {row["name"]: row["samples_s_core"] for row in rows}
    fast, tiers = core["latents, 256, fast coding"], "latents, 256, "
    summary = {
        "latents_vs_pillow_jpeg": fast / core["Pillow, 256 JPEG -> 224"],
        "latents_vs_pillow_full_jpeg": fast / core["Pillow, full JPEG -> 256"],
        "full_latents_vs_pillow_full_jpeg": core["latents, full, fast coding"] / core["Pillow, full JPEG -> 256"],
        "default_coding_vs_pillow_jpeg": core[tiers + "default coding"] / core["Pillow, 256 JPEG -> 224"],
        "cache_vs_memmap": core[tiers + "training tier"] / core[tiers + "numpy memmap"],
        "fast_coding_bytes_pct": 100 * (payload["fast"] / payload["default"] - 1),
        **{f"scale_{name}": value for name, value in scale.items()},
    }
    summary = {name: round(float(value), 3) for name, value in summary.items()}
    return {"rows": rows, "summary": summary, "markdown": markdown(rows, threads)}


def markdown(rows: list[dict[str, Any]], threads: list[int]) -> str:
    heads = [f"samples/s, {n} thread{'s' if n > 1 else ''}" for n in threads]
    lines = [
        "| reader | samples/s of a core | MP/s of a core | " + " | ".join(heads) + " | kB a sample |",
        "|---" * (4 + len(heads)) + "|",
    ]
    for r in rows:
        clock = " | ".join(f"{v:.0f}" for v in r["samples_s"].values())
        lines.append(
            f"| {r['name']} | {r['samples_s_core']:.0f} | {r['megapixels_s_core']:.0f} | {clock} | "
            f"{r['bytes_per_sample'] / 1e3:.1f} |"
        )
    return "\n".join(lines)
