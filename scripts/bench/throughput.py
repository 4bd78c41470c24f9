"""MB/s of float32 through the coders of features: one tensor, a KV cache, a store of embeddings.

Every figure is the best of some rounds, all jobs in turn, so that a busy moment does not hit one of them alone;
`zstd -3` over the same values as int8, a scale a row, is the peer. A cache has four layers of 12 heads whose keys and
values are those tensors; a store is written with its file and read whole through its rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import latentzip as lz
from latentzip.data import EmbeddingStore

from .coders import int_token

LAYERS, HEADS = 4, 12
NMSE = 0.01
PEER = "int8 + zstd"


class Job(NamedTuple):
    """What is timed: `encode()` and `decode()` move `size` bytes of float32."""

    name: str
    size: int
    encode: Callable[[], Any]
    decode: Callable[[], Any]


def _job(name: str, values: torch.Tensor, codec: lz.FeatureCodec | str) -> Job:
    blob = lz.encode(values, codec=codec)
    own = None if isinstance(codec, str) else codec
    size = values.numel() * 4
    return Job(name, size, lambda: lz.encode(values, codec=codec), lambda: lz.decode(blob, codec=own))


def _tensors(tensors: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Job]:
    jobs = []
    for fit, x in tensors.values():
        codec, values = lz.FeatureCodec.fit(fit, nmse=NMSE), torch.from_numpy(x)
        jobs.append(_job("features, profile", values, codec))
        jobs.append(_job("features, no profile", values, "features"))
    return jobs


def _heads(x: np.ndarray) -> torch.Tensor:
    rows = torch.from_numpy(x).reshape(1, -1, HEADS, x.shape[-1] // HEADS)
    return rows.transpose(1, 2).contiguous()


def _cache(keys: tuple[np.ndarray, np.ndarray], values: tuple[np.ndarray, np.ndarray]) -> Job:
    fit, pairs = ([(_heads(k), _heads(v))] * LAYERS for k, v in zip(keys, values))
    codec = lz.KVCacheCodec.fit([fit], nmse=NMSE)
    blob = codec.encode(pairs)
    size = sum(t.numel() * 4 for pair in pairs for t in pair)
    return Job("kv-cache", size, lambda: codec.encode(pairs), lambda: codec.decode(blob))


def _store(folder: Path, fit: np.ndarray, x: np.ndarray) -> Job:
    codec = lz.FeatureCodec.fit(fit, nmse=NMSE)
    store = EmbeddingStore.write(folder / "rows.ltz", x, codec=codec)

    def write() -> None:
        (folder / "more.ltz").unlink(missing_ok=True)
        EmbeddingStore.write(folder / "more.ltz", x, codec=codec)

    return Job("EmbeddingStore", x.nbytes, write, lambda: store[:])


def _integers(x: np.ndarray) -> Job:
    coder = int_token(8)
    coded = coder.encode(x, NMSE)
    return Job(PEER, x.nbytes, lambda: coder.encode(x, NMSE), lambda: coder.decode(coded))


def _flat(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.reshape(-1, x.shape[-1]))


def measure(tensors: dict[str, tuple[np.ndarray, np.ndarray]], threads: list[int], rounds: int) -> list[dict[str, Any]]:
    """Rows of coder, threads, MB/s both ways and the same over the peer's in that run.

    Args:
        tensors: per name what profiles are fitted to and what is coded, float32 (..., C); the first two stand for keys
            and values, the last for embeddings.
        threads: numbers of threads to measure with.
        rounds: the best of how many.
    """
    flat = {name: (_flat(fit), _flat(x)) for name, (fit, x) in tensors.items()}
    (keys, values), last = list(flat.values())[:2], list(flat.values())[-1]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [*_tensors(flat), _cache(keys, values), _store(Path(folder), *last), _integers(last[1])]
        before = torch.get_num_threads()
        for number in threads:
            torch.set_num_threads(number)
            best = np.full((len(jobs), 2), np.inf)
            for _ in range(rounds):
                for i, job in enumerate(jobs):
                    begin = time.perf_counter()
                    job.encode()
                    middle = time.perf_counter()
                    job.decode()
                    spent = middle - begin, time.perf_counter() - middle
                    best[i] = np.minimum(best[i], spent)
            found = {}
            for name in dict.fromkeys(job.name for job in jobs):
                mine = [i for i, job in enumerate(jobs) if job.name == name]
                found[name] = sum(jobs[i].size for i in mine) / 1e6 / best[mine].sum(0)
            for name, (encode, decode) in found.items():
                peer = found[PEER]
                rows.append({
                    "coder": name, "threads": number, "encode_mb_s": encode, "decode_mb_s": decode,
                    "encode_vs_zstd": encode / peer[0], "decode_vs_zstd": decode / peer[1],
                })  # fmt: skip
        torch.set_num_threads(before)
    return rows


def run(tensors: dict[str, tuple[np.ndarray, np.ndarray]], threads: list[int], rounds: int) -> dict[str, Any]:
    """Rows and markdown for `scripts/benchmark.py features`."""
    rows = measure(tensors, threads, rounds)
    lines = [
        "", "MB/s of float32, and times the peer's in the same run.", "",
        "| coder | threads | encoded | decoded | encoded, times | decoded, times |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        speeds = f"{r['encode_mb_s']:.0f} | {r['decode_mb_s']:.0f}"
        times = f"{r['encode_vs_zstd']:.2f} | {r['decode_vs_zstd']:.2f}"
        lines.append(f"| {r['coder']} | {r['threads']} | {speeds} | {times} |")
    summary = {}
    short = {"features, profile": "", "features, no profile": "plain_", "kv-cache": "kv_", "EmbeddingStore": "store_"}
    for r in rows:
        if r["threads"] == max(threads) and r["coder"] in short:
            for way in ("encode", "decode"):
                summary[f"{short[r['coder']]}{way}_mb_s"] = round(r[f"{way}_mb_s"], 1)
    return {"markdown": "\n".join(lines), "rows": rows, "summary": summary}
