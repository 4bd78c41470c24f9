"""The benchmark of speed times every coder of features on every number of threads, beside its peer."""

import numpy as np

from scripts.bench import throughput


def test_rows_of_every_coder():
    rng = np.random.default_rng(0)
    tensors = {name: tuple(rng.standard_normal((2, 256, 48)).astype(np.float32)) for name in ("k", "v", "h")}
    found = throughput.run(tensors, [1], 1)
    names = ["features, profile", "features, no profile", "kv-cache", "EmbeddingStore", "int8 + zstd"]
    assert [r["coder"] for r in found["rows"]] == names
    assert all(r["encode_mb_s"] > 0 and r["decode_vs_zstd"] > 0 for r in found["rows"])
    assert set(found["summary"]) >= {"encode_mb_s", "kv_decode_mb_s", "store_encode_mb_s", "plain_decode_mb_s"}
    assert found["markdown"].count("|\n") == len(names) + 1
