"""Write a golden KV stream and golden files of embeddings: `python tests/codecs/make_golden_kv.py`. Existing ones
stay."""

from pathlib import Path

import numpy as np
import torch

import latentzip as lz
from latentzip import kv
from latentzip.data import CodeStore, EmbeddingStore, EmbeddingTable

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "kv"


def cache(seed, tokens):
    """Two layers, batch 2, 2 heads, 8 + 4 channels, of few hidden numbers; one value is not finite."""
    g, mixes = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(9)
    out = []
    for _ in range(2):
        x = torch.randn(2, tokens, 6, generator=g) @ torch.randn(6, 24, generator=mixes)
        x = x + 0.05 * torch.randn(x.shape, generator=g)
        keys, values = x[..., :16].unflatten(2, (2, 8)), x[..., 16:].unflatten(2, (2, 4))
        out.append((kv.Rotary.of(6).turn(keys.transpose(1, 2), 0).half(), values.transpose(1, 2).half()))
    return out


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "cache.ltz").exists():
        codec = lz.KVCacheCodec.fit([cache(s, 300) for s in range(3)], rotary=kv.Rotary.of(6), segment=64)
        codec.save(FOLDER / "profile.safetensors")
        new = cache(5, 230)
        new[1][0][0, 0, 100, 3] = float("inf")
        blob = codec.encode(new)
        (FOLDER / "cache.ltz").write_bytes(blob)
        pairs = codec.decode(blob)
        np.savez_compressed(
            FOLDER / "cache.npz", **{f"{w}{i}": t.numpy() for i, p in enumerate(pairs) for w, t in zip("kv", p)}
        )
    g = torch.Generator().manual_seed(1)
    x = torch.randn(200, 5, generator=g) @ torch.randn(5, 12, generator=g) + 0.1 * torch.randn(200, 12, generator=g)
    reads = 200 / np.arange(1, 201)
    makers = {
        "rows": lambda path: EmbeddingStore.write(path, x, nmse=0.01, group=64),
        "codes": lambda path: CodeStore.write(path, torch.cat([x, 2 - x]), size=4, group=64),
        "table": lambda path: EmbeddingTable.write(path, x, counts=reads, size=4, levels=3),
    }
    for name, make in makers.items():
        if not (FOLDER / f"{name}.ltz").exists():
            np.save(FOLDER / f"{name}.npy", make(FOLDER / f"{name}.ltz")[:])


if __name__ == "__main__":
    main()
