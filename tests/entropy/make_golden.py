"""Writes the frozen chunks that are missing; it never overwrites one: a change is a new version."""

from pathlib import Path

import numpy as np

from latentzip.entropy import (
    Encoder,
    Gaussian,
    Mixture,
    Model,
    StreamEncoder,
    TableBank,
    TableModel,
    Uniform,
    frozen_bank,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "entropy"


def cases() -> dict[str, tuple[dict[str, np.ndarray], int | None]]:
    """name -> (arrays that describe the chunk, number of streams)."""
    rng = np.random.default_rng(0)
    out: dict[str, tuple[dict[str, np.ndarray], int | None]] = {}
    for family in ("gaussian", "laplace"):
        for profile, streams in (("default", None), ("fine", 2), ("max", 8)):
            index = rng.integers(0, 64, 400).astype(np.uint8)
            sigma = 0.11 * (256 / 0.11) ** (index / 63)
            symbols = np.round(rng.normal(size=400) * sigma * 1.2).astype(np.int32)
            symbols[::131] = [2**31 - 1, -(2**31), 70000, -9]
            out[f"{family}-{profile}"] = {"symbols": symbols, "index": index}, streams
    bank = TableBank([[100, 50, 2, 104], [1, 254, 1]], lo=[-1, 7], raw_bits=[0, 3], precision=8)
    index = rng.integers(0, 2, 300).astype(np.uint8)
    symbols = rng.integers(-2, 66, 300).astype(np.int32)
    out["own-tables"] = {"symbols": symbols, "index": index, **bank.to_arrays()}, 4
    symbols = rng.integers(-40, 40, 200).astype(np.int32)
    symbols[7] = 10**6
    out["mixture"] = (
        {
            "symbols": symbols,
            "weights": rng.multinomial(256, [0.5, 0.3, 0.2], 200).astype(np.int32),
            "means": rng.integers(-640, 640, (200, 3)).astype(np.int32),
            "scale": rng.integers(0, 48, (200, 3)).astype(np.int32),
        },
        2,
    )
    out["uniform"] = {"symbols": rng.integers(-5, 996, 200).astype(np.int32), "range": np.array([-5, 995])}, 1
    out["raw"] = {"symbols": rng.integers(0, 2**11, 50).astype(np.int32), "range": np.array([0, 2047])}, 1
    return out


def model_of(name: str, arrays: dict[str, np.ndarray]):
    """The model that a golden chunk was coded with."""
    if "freq" in arrays:
        return TableModel(TableBank.from_arrays(arrays), arrays["index"])
    if "index" in arrays:
        family, profile = name.split("-")
        return TableModel(frozen_bank(family, profile), arrays["index"])
    if "weights" in arrays:
        return Mixture(arrays["weights"], arrays["means"], arrays["scale"])
    lo, hi = arrays["range"].tolist()
    return Uniform(lo, hi, arrays["symbols"].shape)


def live_cases() -> dict[str, np.ndarray]:
    """What the frozen live stream holds: three frames of each kind, one after another."""
    rng = np.random.default_rng(7)
    index = rng.integers(0, 64, (3, 60)).astype(np.uint8)
    gaussian = np.round(rng.normal(size=(3, 60)) * 0.11 * (256 / 0.11) ** (index / 63)).astype(np.int32)
    gaussian[:, [7, 30]] = [2**31 - 1, -(2**31)]
    own = rng.integers(0, 3, (3, 60)).astype(np.uint8)
    low = rng.integers(-(2**31), -(2**31) + 2**25, (3, 60))
    return {
        "index": index,
        "gaussian": gaussian,
        "own_index": own,
        "own": np.where(own == 2, low, rng.integers(-2, 66, (3, 60))).astype(np.int32),
        "weights": rng.multinomial(256, [0.6, 0.4], (3, 20)).astype(np.int32),
        "means": rng.integers(-640, 640, (3, 20, 2)).astype(np.int32),
        "scale": rng.integers(0, 48, (3, 20, 2)).astype(np.int32),
        "mixture": rng.integers(-99, 99, (3, 20)).astype(np.int32),
        "uniform": rng.integers(-5, 996, (3, 20)).astype(np.int32),
        "raw": rng.integers(0, 2**20, (3, 20)).astype(np.int32),
    }


def live_of(path: Path) -> tuple[list[np.ndarray], list[Model]]:
    """Symbols and models of the frozen live stream, in its order."""
    with np.load(path) as z:
        arrays = {k: z[k] for k in z.files}
    bank = TableBank([[100, 50, 2, 104], [1, 254, 1], [200, 56]], [-1, 7, -64], [0, 3, 25], 8)
    symbols, models = [], []
    for i in range(3):
        a = {k: v[i] for k, v in arrays.items()}
        symbols += [a[k] for k in ("gaussian", "gaussian", "own", "mixture", "uniform", "raw")]
        models += [
            Gaussian(a["index"]),
            Gaussian(a["index"], profile="max"),
            TableModel(bank, a["own_index"]),
            Mixture(a["weights"], a["means"], a["scale"]),
            Uniform(-5, 995, (20,)),
            Uniform(0, 2**20 - 1, (20,)),
        ]
    return symbols, models


def main() -> None:
    """Write the cases that do not exist yet."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, (arrays, streams) in cases().items():
        if (GOLDEN / f"{name}.bin").exists():
            continue
        encoder = Encoder(streams)
        encoder.code(arrays["symbols"], model_of(name, arrays))
        (GOLDEN / f"{name}.bin").write_bytes(encoder.finish())
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)
    if not (GOLDEN / "live.words").exists():
        np.savez_compressed(GOLDEN / "live.npz", **live_cases())
        symbols, models = live_of(GOLDEN / "live.npz")
        writer = StreamEncoder()
        for s, m in zip(symbols, models):
            writer.code(s, m)
        (GOLDEN / "live.words").write_bytes(writer.finish())


if __name__ == "__main__":
    main()
