"""Writes the frozen chunks that are missing; it never overwrites one: a change is a new version."""

from pathlib import Path

import numpy as np

from latentzip.entropy import Encoder, TableBank, frozen_bank

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
    from latentzip.entropy import Mixture, TableModel, Uniform

    if "freq" in arrays:
        return TableModel(TableBank.from_arrays(arrays), arrays["index"])
    if "index" in arrays:
        return TableModel(frozen_bank(*name.split("-")), arrays["index"])
    if "weights" in arrays:
        return Mixture(arrays["weights"], arrays["means"], arrays["scale"])
    return Uniform(*arrays["range"].tolist(), arrays["symbols"].shape)


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


if __name__ == "__main__":
    main()
