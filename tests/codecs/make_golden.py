"""Write golden `.ltz` streams of the current weights: `python tests/codecs/make_golden.py`. Existing ones stay."""

import hashlib
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import latentzip as lz
from latentzip.codecs.base import CODINGS
from latentzip.codecs.contract import FAST, LATENT

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "ltz"


def pictures():
    """Small, generated, and different in kind: colour, grey, transparency, 16 bits, one pixel."""
    y, x = np.mgrid[:56, :72] / 8
    rgb = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
    rgb = ((rgb + 1) * 127.5).round().astype(np.uint8)
    alpha = ((np.hypot(x - 4, y - 3) < 3) * 255).astype(np.uint8)
    return {
        "rgb": Image.fromarray(rgb),
        "grey": Image.fromarray(rgb[..., 0]),
        "rgba": Image.fromarray(np.dstack([rgb, alpha])),
        "uint16": rgb.astype(np.uint16) * 257,
        "pixel": Image.fromarray(rgb[:1, :1]),
    }


def sounds():
    """Small, generated: two channels of several chunks, one of a rate that may be resampled, three, one sample, and
    something like a voice."""
    t = np.arange(160_000) / 44100
    swell = np.sin(2 * np.pi * 1.3 * t) * 0.4
    stereo = np.stack([swell * np.sin(2 * np.pi * 220 * t), swell * np.sin(2 * np.pi * (330 + 40 * t) * t)], 1)
    clicks = np.zeros(6000, np.float32)
    clicks[::1500] = 0.9
    t = np.arange(16_000) / 16000
    pulses = np.diff(np.floor(np.cumsum(120 * (1 + 0.2 * np.sin(5 * t))) / 16000), prepend=0)
    ring = np.exp(-250 * t[:600]) * sum(np.cos(2 * np.pi * f * t[:600]) * 700 / f for f in (700, 1200, 2600))
    voice = np.convolve(pulses, ring)[:16_000] * np.maximum(np.sin(12 * t + 1), 0.01) ** 2 / 4
    voice += np.random.default_rng(0).normal(0, 0.003, 16_000) * (0.1 + np.maximum(np.sin(12 * t + 3.5), 0) ** 4)
    return {
        "stereo": ((stereo * 32767).astype(np.int16), 44100),
        "speechrate": (clicks + 0.1 * np.sin(np.arange(6000) / 7).astype(np.float32), 16000),
        "three": (np.stack([clicks, -clicks, clicks / 2], 1), 48000),
        "sample": (np.full((1, 1), 0.25, np.float32), 48000),
        "voice": (voice.astype(np.float32), 16000),
    }


def exact_sounds():
    """Name -> sound and options of `lossless`: types, forms of floats, chunks, channels that are alike, gaps, noise."""
    t, rng = np.arange(2600)[:, None], np.random.default_rng(1)
    x = np.rint(6000 * np.sin(t / 9.7 + [0, 1]) + 2000 * np.sin(t / 31) + rng.normal(0, 40, (2600, 2))).astype(np.int16)
    odd = (x / 40000).astype(np.float32)
    odd[5, 0], odd[6, 1], odd[7], odd[8, 0] = np.nan, -np.inf, -0.0, 1e-42
    quiet = np.rint(x[:, 0] / 60).astype(np.int16)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {f"int16-{e}": ((x, 44100), {"effort": e}) for e in range(1, 10)}
    return kinds | {
        "mono": ((x[:, 0], 48000), {}),
        "chunks": ((np.concatenate([x] * 3), 1000), {"effort": 1}),
        "five": ((np.concatenate([x, x[::-1], x[:, :1]], 1)[:400], 96000), {}),
        "uint8": ((np.rint(x[:, 0] / 70 + 128).astype(np.uint8), 8000), {}),
        "int32": ((rng.integers(-(2**31), 2**31, (300, 2)).astype(np.int32) >> 2, 44100), {}),
        "int24": ((x[:400].astype(np.int32) * 256 << 4, 44100), {}),
        "float": (((x[:700] / 32768).astype(np.float32), 44100), {}),
        "float-32767": ((x[:700, 0].astype(np.float32) / np.float32(32767), 44100), {}),
        "float-full": ((odd[:700], 44100), {}),
        "alike": ((np.repeat(x[:500, :1], 2, 1), 44100), {}),
        "silence": ((np.zeros((5000, 2), np.int16), 44100), {}),
        "gaps": ((np.rint(quiet * 2.7).astype(np.int16), 44100), {}),
        "noise": ((rng.integers(-(2**15), 2**15, (200, 2)).astype(np.int16), 44100), {}),
    }  # fmt: skip


SOUND_STEP = 16  # of decoded sound, which is smooth noise to a file, every 16th sample is kept
PROFILE = FOLDER / "features-profile.safetensors"
CODEBOOKS = FOLDER / "features-codebooks.safetensors"


def tensors():
    """Name -> tensor and options of the features codec, one for each way of coding; their profiles are made once."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 3, generator=g) @ torch.randn(3, 16, generator=g)
    rows = rows[torch.randint(0, 40, (300,), generator=g)] + 0.1 * torch.randn(300, 16, generator=g) + 1
    y, x = np.mgrid[:24, :20] / 5
    maps = torch.from_numpy(np.maximum(0, np.stack([np.sin(x + y), np.cos(x - y)])).astype(np.float32))
    if not PROFILE.exists():
        lz.FeatureCodec.fit(rows).save(PROFILE)
    if not CODEBOOKS.exists():
        lz.FeatureCodec.fit(rows, transform="vq", size=6, levels=2).save(CODEBOOKS)
    holes = rows.half()
    holes[3, 4], holes[5, 6] = float("nan"), float("-inf")
    return {
        "klt": (rows, {"nmse": 0.01, "transform": "klt"}),
        "hadamard": (rows, {"nmse": 0.01, "transform": "hadamard"}),
        "identity": (holes, {"max_error": 0.1, "transform": "identity"}),
        "corrected": (rows, {"max_error": 0.1, "transform": "klt"}),
        "map": (maps, {"nmse": 0.01, "transform": "map"}),
        "lossless": (rows, {}),
        "profile": (rows, {"codec": lz.FeatureCodec.load(PROFILE)}),
        "vq": (rows, {"nmse": 0.1, "transform": "vq"}),
        "codebooks": (holes, {"codec": lz.FeatureCodec.load(CODEBOOKS)}),
    }


def samples_of(decoded):
    """Of sound without the rate, which the header has."""
    return decoded[0] if isinstance(decoded, tuple) else decoded


def write(entries, name, blob, codec=None, exact=False):
    if name in entries:
        return
    if exact:  # the decoded signal is the same to the bit everywhere: its hash is enough
        decoded = np.ascontiguousarray(samples_of(lz.decode(blob)))
        (FOLDER / f"{name}.ltz").write_bytes(blob)
        entries[name] = {"shape": list(decoded.shape), "exact": hashlib.sha256(decoded.tobytes()).hexdigest()}
        return
    latent = np.ascontiguousarray(np.asarray(lz.decode(blob, to="latent", codec=codec)))
    decoded = np.asarray(samples_of(lz.decode(blob, codec=codec, precision="fp32")))
    (FOLDER / f"{name}.ltz").write_bytes(blob)
    entries[name] = {"latent": list(latent.shape), "sha256": hashlib.sha256(latent.tobytes()).hexdigest()}
    if lz.inspect(blob).modality == "audio":
        entries[name]["samples"] = len(decoded)
        decoded = decoded[::SOUND_STEP]
    np.save(FOLDER / f"{name}.npy", decoded)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    index = FOLDER / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else {}
    for name, (tensor, options) in tensors().items():
        blob = lz.encode(tensor, **{"codec": "features", **options})
        write(entries, f"features-{name}", blob, options.get("codec"))
    for info, coding in product(lz.list_codecs(), CODINGS):
        if info.modality == "tensor":
            continue
        if info.name == "lossless" and coding == "default":
            for kind, (signal, options) in exact_sounds().items():
                blob = lz.encode(signal, codec=info.name, **options)
                write(entries, f"{info.name}-{lz.inspect(blob).fingerprint[:8]}-sound-{kind}", blob, exact=True)
        can = lz.load_codec(info.name).capabilities
        if coding == "fast" and FAST not in can:
            continue
        for kind, signal in (sounds() if info.modality == "audio" else pictures()).items():
            options: dict[str, Any] = {"effort": 1} if info.name == "overfit" else {"coding": coding}
            blob = lz.encode(signal, codec=info.name, **options)
            name = f"{info.name}-{lz.inspect(blob).fingerprint[:8]}-{kind}" + ("-fast" if coding == "fast" else "")
            write(entries, name, blob, exact=LATENT not in can)
    index.write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
