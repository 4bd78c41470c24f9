"""Profiles of codebooks beside profiles of a KLT: bits a value at equal error, on the tensors of `features`.

Both are fitted to the same rows. A KLT's step is searched for the error that the codes leave on the rows held out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import latentzip as lz

SIZES = (8, 24, 64)  # codes a row
FIT, TEST = 24, 12  # sequences


def rows_of(name: str, fit: np.ndarray, x: np.ndarray, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Of one tensor: codes a row, bits a value of both, NMSE about the means of the rows that were fitted to."""
    variance = float(np.mean((x - fit.reshape(-1, fit.shape[-1]).mean(0)) ** 2, dtype=np.float64))
    own = float(x.var(dtype=np.float64))
    klt, rows = lz.FeatureCodec.fit(fit), []
    for size in sizes:
        codec = lz.FeatureCodec.fit(fit, transform="vq", size=size)
        blob = lz.encode(x, codec=codec)
        error = float(np.mean((x - lz.decode(blob, codec=codec)) ** 2, dtype=np.float64))
        other = lz.encode(x, codec=klt, nmse=error / own)
        rows.append({
            "tensor": name, "codes": size, "nmse": error / variance, "bits": 8 * len(blob) / x.size,
            "klt_bits": 8 * len(other) / x.size, "rows": x.size // x.shape[-1],
        })  # fmt: skip
    return rows


def run(features: list[Any], quick: bool) -> dict[str, Any]:
    """Rows of `scripts/benchmark.py features`: of every tensor with many rows to learn from."""
    rows: list[dict[str, Any]] = []
    for f in features:
        # of embeddings there are too few here: `embeddings` has more
        if f.fit is not None and f.name != "pooled" and (not quick or f.name == "h3"):
            rows += rows_of(f.name, f.fit[:FIT], f.held_out[:TEST], SIZES[:1] if quick else SIZES)
    lines = [
        "", "| tensor | codes a row | NMSE | bits a value, codebooks | bits a value, KLT at that NMSE |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {r['tensor']} | {r['codes']} | {r['nmse']:.4f} | {r['bits']:.3f} | {r['klt_bits']:.3f} |" for r in rows
    ]
    ratios = {f"codebooks_vs_klt_{r['tensor']}_{r['codes']}": round(r["bits"] / r["klt_bits"], 4) for r in rows}
    return {"markdown": "\n".join(lines), "rows": rows, "summary": ratios}
