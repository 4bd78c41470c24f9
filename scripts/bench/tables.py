"""A recommender's kind of table: memory against error of `EmbeddingTable`, int8, int4 and hash embeddings.

The table is that of the words of Python's help topics and torch's docstrings: 32 channels of a truncated singular value
decomposition of their positive pointwise mutual information within 4 words, and how often each word occurs, which goes
by Zipf's law as the reads of a recommender's rows do. Everything is fitted to the finished table: hash embeddings that
are trained with their model do better than theirs here. Errors are over the variance about the mean row, of rows alike
and weighted by counts. Bytes a row are those in memory; what does not grow with the rows is listed beside.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from latentzip.data import CodeStore, EmbeddingTable

from .texts import texts

CHANNELS, NEAR = 32, 4
SIZES = ((2, 1), (4, 2), (8, 4), (12, 4))  # codes a row in the mean, and of a level
READS = 1 << 16


def words() -> tuple[np.ndarray, np.ndarray]:
    """(N, 32) float32, and (N,) how often each word occurs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    found = re.findall(r"\w+", " ".join(texts()).lower())
    counts = Counter(found)
    number = {w: i for i, w in enumerate(sorted(counts))}  # by the alphabet: ids say nothing of frequencies
    ids = np.array([number[w] for w in found])
    pairs = [(ids[k:], ids[:-k]) for k in range(1, NEAR + 1)]
    a = np.concatenate([np.concatenate(p) for p in pairs])
    b = np.concatenate([np.concatenate(p[::-1]) for p in pairs])
    n = len(number)
    seen = coo_matrix((np.ones(len(a)), (a, b)), (n, n)).tocsr().tocoo()
    total = np.bincount(a, minlength=n).astype(float)
    value = np.maximum(np.log(seen.data * total.sum() / (total[seen.row] * total[seen.col])), 0)
    u, s, _ = svds(coo_matrix((value, (seen.row, seen.col)), (n, n)).tocsr(), CHANNELS, v0=np.ones(n))
    return (u * np.sqrt(s)).astype(np.float32), np.bincount(ids, minlength=n).astype(float)


def errors(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Plain, and weighted by counts."""
    wrong = ((x - y) ** 2).sum(1)
    out = []
    for weight in (np.ones(len(x)), counts):
        mean = (x * weight[:, None]).sum(0) / weight.sum()
        out.append(float((wrong * weight).sum() / (((x - mean) ** 2).sum(1) * weight).sum()))
    return out[0], out[1]


def integers(x: np.ndarray, bits: int) -> np.ndarray:
    """Symmetric integers and a float16 scale a row, decoded."""
    top = (1 << bits - 1) - 1
    scale = np.maximum(np.abs(x).max(1, keepdims=True) / top, 1e-7).astype(np.float16).astype(np.float32)
    return np.clip(np.rint(x / scale), -top, top) * scale


def buckets(x: np.ndarray, counts: np.ndarray, homes: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    """Rows as sums of a row of each of several smaller tables, fitted in turn to the weighted error."""
    tables = [np.zeros((size, x.shape[1])) for size in sizes]
    back = np.zeros(x.shape)
    for _ in range(20):
        for table, home in zip(tables, homes):
            rest = x - back + table[home]
            weight = np.bincount(home, counts, len(table))
            new = np.stack([np.bincount(home, counts * column, len(table)) for column in rest.T], 1)
            new /= np.maximum(weight, 1e-30)[:, None]
            back += new[home] - table[home]
            table[:] = new
    return back


def speed(read: Any, counts: np.ndarray) -> float:
    """Rows a second of processor time, of ids drawn as the counts say."""
    ids = np.random.default_rng(0).choice(len(counts), READS, p=counts / counts.sum())
    read(ids)
    start = time.process_time()
    for _ in range(20):
        read(ids)
    return 20 * READS / (time.process_time() - start)


def drawn(count: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """As `words`, of random rows whose components have a spectrum like theirs, and exact counts by Zipf's law."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((CHANNELS, CHANNELS)) * 0.9 ** np.arange(CHANNELS)[:, None]
    return (rng.standard_normal((count, CHANNELS)) @ mix).astype(np.float32), rng.permutation(
        1e6 / np.arange(1, count + 1)
    )


def rows_of(x: np.ndarray, counts: np.ndarray, sizes: Any) -> list[dict[str, Any]]:
    """What was measured: coder, bytes a row and once, errors, rows a second where they are read."""
    rng, (n, d), rows = np.random.default_rng(0), x.shape, []

    def row(coder: str, size: float, once: int, back: np.ndarray, rate: float | None = None) -> None:
        plain, weighted = errors(x, back, counts)
        rows.append({
            "coder": coder, "bytes": size, "once": once, "plain": plain, "weighted": weighted, "rows_s": rate,
            "rows": n,
        })  # fmt: skip

    row("float32", 4 * d, 0, x, speed(lambda ids: np.take(x, ids, 0), counts))
    for bits in (8, 4):
        row(f"int{bits}, a scale a row", d * bits / 8 + 2, 0, integers(x, bits))
    with tempfile.TemporaryDirectory() as folder:
        for size, width in sizes:
            table = EmbeddingTable.write(Path(folder) / f"{size}", x, counts=counts, size=size, width=width)
            held = (table.memory - table.once) / n
            row(f"EmbeddingTable, `size={size}`", held, table.once, table[:], speed(table.read, counts))
            store = CodeStore.write(Path(folder) / f"{size}.codes", x, size=size, price=0)
            once = store.product.parts * store.product.entries * d * 4
            assert store.codes.shape[1] == size
            row(f"CodeStore, `size={size}, price=0`", size, once, store[:], speed(store.read, counts))
    for size in (4, 16):  # bytes a row of the float32 rows that are left
        left = n * size // (4 * d)
        homes = [rng.integers(0, left // 2, n) for _ in range(2)]
        row(f"two hashes into 1/{4 * d // size} of the rows", size, 0, buckets(x, counts, homes, [left // 2] * 2))
        pieces = -(-n // left)
        homes, sizes = [np.arange(n) % left, np.arange(n) // left], [left, pieces]
        row(f"quotient and remainder, 1/{4 * d // size}", 4 * d * sum(sizes) / n, 0, buckets(x, counts, homes, sizes))
    return rows


def run() -> dict[str, Any]:
    """Rows of `scripts/benchmark.py features`."""
    sets = {"words": rows_of(*words(), SIZES), "drawn rows": rows_of(*drawn(), SIZES[2:3])}
    summary, lines = {}, []
    for name, rows in sets.items():
        lines += lines_of(name, rows)
        by = {r["coder"]: r["weighted"] for r in rows}
        for other, mark in (("int4", "int4, a scale a row"), ("flat_codes", "CodeStore, `size=8, price=0`")):
            key = "table_error_vs_" + other + ("" if name == "words" else "_drawn")
            summary[key] = round(by["EmbeddingTable, `size=8`"] / by[mark], 4)
    return {"markdown": "\n".join(lines), "rows": [r for rows in sets.values() for r in rows], "summary": summary}


def lines_of(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown."""
    lines = [
        "", f"A table of {rows[0]['rows']} {name}, {CHANNELS} channels.", "",
        "| coder | bytes a row | error | error by counts | million rows a second | MB once |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        rate = "" if r["rows_s"] is None else f"{r['rows_s'] / 1e6:.1f}"
        figures = f"{r['plain']:.4f} | {r['weighted']:.5f} | {rate} | {r['once'] / 1e6:.2f}"
        lines.append(f"| {r['coder']} | {r['bytes']:.2f} | {figures} |")
    return lines
