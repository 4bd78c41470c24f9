"""Key-value caches: bits a value against what the model's output suffers, beside other ways to store a cache.

Two models: the sentence encoder all-MiniLM-L6-v2 (its layers' keys and values are exchanged inside the forward pass;
damage is 1 - cosine of the sentence embedding), and with `--weights FILE` the small causal transformer that
`scripts/examples/kv_cache.py` trains (the cache of 192 tokens is exchanged and 64 more tokens follow; damage is the
divergence of the predicted distributions, in nats a token). Profiles are fitted to other texts than those measured;
"shifted" texts are of another kind.

Every layer and token is coded, nothing is left out but in rows that say so. Bits count whole streams; int8 and int4
are packed and go through zstd; KIVI's layout and low rank are counted as the numbers that they store.
"""

from __future__ import annotations

import argparse
import inspect as introspection
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import latentzip as lz
from latentzip import kv

from . import causal, minilm
from .texts import LENGTH, texts

Pairs = list[tuple[Tensor, Tensor]]
NMSES = ((0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2), (0.01, 0.03))  # the second ones are quick
BUDGETS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
OURS = {"": "kv-cache", "_budget": "kv-cache, budget over layers", "_weighted": "kv-cache, weighted by sensitivity"}
GROUP = 32  # KIVI's
WHOLE: dict[str, Any] = {"first": 0, "recent": 0}


Test = tuple[Pairs, Callable[[Pairs], dict[str, float]]]  # a cache, and what the model suffers under another one


class Subject(NamedTuple):
    """A model under test: caches that profiles are fitted to, sensitivities, and a known and some other texts."""

    name: str
    measure: str
    rotary: Any
    fit: list[Pairs]
    weights: Callable[[], list[Tensor]]
    sample: Test
    tests: dict[str, Test]


# --- models ------------------------------------------------------------------------------------------------------


def encoder(quick: bool) -> Subject | None:
    path = minilm.folder()
    if path is None:
        return None
    model = minilm.MiniLM(path)

    def cache(ids: Tensor) -> Pairs:
        f = model.features(ids)
        return [(_split(f[f"k{n}"]), _split(f[f"v{n}"])) for n in LAYERS]

    def test(ids: Tensor) -> Test:
        right = model.features(ids)["pooled"]

        def damage(pairs: Pairs) -> dict[str, float]:
            flat = [[t.transpose(1, 2).flatten(2) for t in pair] for pair in pairs]
            got = model.features(ids, lambda n, k, v: (flat[n][0], flat[n][1]))["pooled"]
            return {"damage": 1 - float((got * right).sum(1).mean())}

        return cache(ids), damage

    known, held_out, shifted = (model.sequences(t, LENGTH) for t in texts())
    count, batches = (4, 2) if quick else (16, 8)
    fit = [known[i : i + 8] for i in range(0, 8 * batches, 8)]
    tests = {"held-out": test(held_out[:count])}
    if not quick:
        tests["shifted"] = test(shifted[:count])
    generator = torch.Generator().manual_seed(0)

    def slopes(ids: Tensor) -> Pairs:
        grads: Pairs = []

        def tap(n: int, k: Tensor, v: Tensor) -> Any:
            if n == 0:
                k, v = k.requires_grad_(), v.requires_grad_()
            grads.append((k, v))
            k.retain_grad()
            v.retain_grad()
            return k, v

        pooled = model.features(ids, tap)["pooled"]
        (pooled * torch.randn(pooled.shape, generator=generator)).sum().backward()
        return [tuple(_split(t.grad) for t in pair) for pair in grads]  # type: ignore[misc]

    return Subject(
        "all-MiniLM-L6-v2",
        "1 - cosine",
        None,
        [cache(ids) for ids in fit],
        lambda: kv.sensitivity(map(slopes, fit)),
        test(known[:2]),
        tests,
    )


LAYERS = range(1, minilm.LAYERS + 1)
PREFIX = 192


def _split(x: Any) -> Tensor:
    return x.unflatten(-1, (minilm.HEADS, -1)).transpose(1, 2)


def decoder(path: Path, quick: bool) -> Subject:
    model = causal.CausalLM.load(path)
    known, held_out = causal.sources()
    public = [getattr(torch, n) for n in sorted(dir(torch)) if not n.startswith("_")]
    shifted = "\n".join(introspection.getdoc(f) or "" for f in public if callable(f))

    def windows(text: str, count: int) -> Tensor:
        tokens = model.tokens.encode(text[: 40 * count * causal.CONTEXT])
        every = len(tokens) // count
        return torch.stack([tokens[i * every :][: causal.CONTEXT] for i in range(count)])

    @torch.no_grad()
    def cache(ids: Tensor) -> Pairs:
        return model(ids)[1]

    @torch.no_grad()
    def test(ids: Tensor) -> Test:
        past, after = cache(ids[:, :PREFIX]), ids[:, PREFIX:]

        def run(pairs: Pairs) -> tuple[Tensor, float]:
            with torch.no_grad():
                logits = model(after, pairs)[0].log_softmax(-1)
            loss = F.nll_loss(logits[:, :-1].flatten(0, 1), after[:, 1:].flatten())
            return logits, float(loss.exp())

        right, base = run(past)

        def damage(pairs: Pairs) -> dict[str, float]:
            got, perplexity = run(pairs)
            divergence = float((right.exp() * (right - got)).sum(-1).mean())
            return {"damage": divergence, "perplexity": perplexity, "perplexity_exact": base}

        return past, damage

    def slopes(ids: Tensor) -> Pairs:
        """Gradients of the log-likelihood of tokens drawn from the model: their squares are the Fisher information."""
        taps: Pairs = []

        def tap(_: int, k: Tensor, v: Tensor) -> Any:
            k.retain_grad()
            v.retain_grad()
            taps.append((k, v))
            return k, v

        logits = model(ids, change=tap)[0].flatten(0, 1)
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)
        F.cross_entropy(logits, drawn[:, 0], reduction="sum").backward()
        return [(k.grad, v.grad) for k, v in taps]  # type: ignore[misc]

    generator = torch.Generator().manual_seed(0)
    count = 32 if quick else 96
    fit = windows(known, count).split(16)
    rotary = lz.kv.Rotary.of(causal.HEAD, causal.BASE)
    tests = {"held-out": test(windows(held_out, 8 if quick else 32))}
    if not quick:
        tests["shifted"] = test(windows(shifted, 32))
    return Subject(
        "causal transformer",
        "nats a token",
        rotary,
        [cache(ids) for ids in fit],
        lambda: kv.sensitivity(map(slopes, fit), rotary),
        test(fit[0]),
        tests,
    )


# --- other ways to store a cache ---------------------------------------------------------------------------------


def _rows(t: Tensor) -> Tensor:
    return t.transpose(1, 2).flatten(2)  # (B, T, H * d)


def _heads(rows: Tensor, like: Tensor) -> Tensor:
    return rows.unflatten(-1, (like.shape[1], like.shape[3])).transpose(1, 2)


def integers(bits: int) -> Callable[[Pairs], tuple[Pairs, float]]:
    """Symmetric integers, a float16 scale for the keys and one for the values of a token in a layer, zstd."""
    import zstandard

    top = (1 << bits - 1) - 1

    def code(pairs: Pairs) -> tuple[Pairs, float]:
        out, data = [], []
        for pair in pairs:
            back = []
            for t in pair:
                x = _rows(t)
                scale = (x.abs().amax(-1, keepdim=True) / top).half().clamp_min(6e-8)
                q = (x / scale.float()).round().clamp(-top, top)
                back.append(_heads(q * scale.float(), t))
                whole = q.to(torch.int8).numpy()
                flat = whole.reshape(-1)
                data += [flat if bits > 4 else (flat[::2] & 15) | (flat[1::2] << 4), scale.numpy()]
            out.append((back[0], back[1]))
        blob = zstandard.ZstdCompressor(level=3).compress(b"".join(d.tobytes() for d in data))
        return out, 8.0 * len(blob)

    return code


def kivi(bits: int) -> Callable[[Pairs], tuple[Pairs, float]]:
    """KIVI's layout (Liu et al. 2024): asymmetric integers; keys in groups of 32 tokens a channel, values in groups of
    32 channels a token; float16 scale and offset a group."""

    def quantise(x: Tensor) -> Tensor:  # groups along the last axis
        low, high = x.amin(-1, keepdim=True).half().float(), x.amax(-1, keepdim=True)
        scale = ((high - low) / ((1 << bits) - 1)).half().float().clamp_min(1e-7)
        return ((x - low) / scale).round().clamp(0, (1 << bits) - 1) * scale + low

    def code(pairs: Pairs) -> tuple[Pairs, float]:
        out = []
        for k, v in pairs:
            keys = quantise(k.transpose(2, 3).unflatten(-1, (-1, GROUP))).flatten(-2).transpose(2, 3)
            out.append((keys, _heads(quantise(_rows(v).unflatten(-1, (-1, GROUP))).flatten(-2), v)))
        return out, (bits + 32 / GROUP) * _values(pairs)

    return code


def low_rank(fit: list[Pairs], part: float) -> Callable[[Pairs], tuple[Pairs, float]]:
    """The strongest principal components of a layer's keys, and of its values, as float16."""
    bases = []
    for layer in range(len(fit[0])):
        for which in (0, 1):
            x = torch.cat([_rows(sample[layer][which]).flatten(0, 1) for sample in fit])
            mean = x.mean(0)
            vectors = torch.linalg.eigh((x - mean).T.double() @ (x - mean).double())[1].float()
            bases.append((mean, vectors[:, -max(1, round(part * len(mean))) :]))

    def code(pairs: Pairs) -> tuple[Pairs, float]:
        out, bits = [], 0.0
        for layer, pair in enumerate(pairs):
            back = []
            for which, t in enumerate(pair):
                mean, vectors = bases[2 * layer + which]
                y = ((_rows(t) - mean) @ vectors).half()
                bits += 16 * y.numel()
                back.append(_heads(y.float() @ vectors.T + mean, t))
            out.append((back[0], back[1]))
        return out, bits

    return code


def apart(fit: list[Pairs], nmse: float) -> Callable[[Pairs], tuple[Pairs, float]]:
    """The features codec with a profile for the keys and one for the values of each layer, as the cache holds them."""
    codecs = [
        lz.FeatureCodec.fit([_rows(sample[layer][which]) for sample in fit], nmse=nmse)
        for layer in range(len(fit[0])) for which in (0, 1)
    ]  # fmt: skip

    def code(pairs: Pairs) -> tuple[Pairs, float]:
        out, bits = [], 0.0
        for layer, pair in enumerate(pairs):
            back = []
            for t, codec in zip(pair, codecs[2 * layer : 2 * layer + 2]):
                blob = codec.encode(_rows(t))
                bits += 8.0 * len(blob)
                back.append(_heads(codec.decode(blob), t))
            out.append((back[0], back[1]))
        return out, bits

    return code


def ours(codec: Any) -> Callable[[Pairs], tuple[Pairs, float]]:
    def code(pairs: Pairs) -> tuple[Pairs, float]:
        blob = codec.encode(pairs)
        return codec.decode(blob), 8.0 * len(blob)

    return code


def _values(pairs: Pairs) -> int:
    return sum(t.numel() for pair in pairs for t in pair)


def _raw(code: Callable[[Pairs], tuple[Pairs, float]], first: int, recent: int) -> Callable[[Pairs], Any]:
    """The same with some tokens kept in float16."""

    def wrapped(pairs: Pairs) -> tuple[Pairs, float]:
        stop = pairs[0][0].shape[2] - recent
        inner, bits = code([(k[:, :, first:stop], v[:, :, first:stop]) for k, v in pairs])
        out = []
        for pair, coded in zip(pairs, inner):
            whole = [torch.cat([t[:, :, :first], c, t[:, :, stop:]], 2) for t, c in zip(pair, coded)]
            out.append((whole[0], whole[1]))
        return out, bits + 16 * (_values(pairs) - _values(inner))

    return wrapped


# --- measuring ---------------------------------------------------------------------------------------------------


def _coders(subject: Subject, quick: bool) -> dict[str, Callable[[Pairs], Any]]:
    fit, rotary = subject.fit, subject.rotary
    plain = lz.KVCacheCodec.fit(fit, rotary=rotary, **WHOLE)
    coders: dict[str, Callable[[Pairs], Any]] = {f"kv-cache @{n}": ours(plain.at(nmse=n)) for n in NMSES[quick]}
    coders |= {"int4 + zstd": integers(4), "int8 + zstd": integers(8), "KIVI 2 bit": kivi(2), "KIVI 4 bit": kivi(4)}
    if quick:
        return coders
    sample, damage = subject.sample
    points = plain.at(nmse=0.02).measure(sample, lambda pairs: damage(pairs)["damage"])
    coders |= {f"kv-cache, budget over layers @{b}": ours(plain.allocate(points, b)) for b in BUDGETS}
    keen = lz.KVCacheCodec.fit(fit, rotary=rotary, weights=subject.weights(), **WHOLE)
    coders |= {f"kv-cache, weighted by sensitivity @{n}": ours(keen.at(nmse=n)) for n in NMSES[0]}
    if rotary is not None:
        turned = lz.KVCacheCodec.fit(fit, **WHOLE)
        coders |= {f"kv-cache, keys as rotated @{n}": ours(turned.at(nmse=n)) for n in NMSES[0]}
    coders |= {f"features, keys and values apart @{n}": apart(fit, n) for n in NMSES[0]}
    for nmse in (0.003, 0.01):
        kept = plain.at(nmse=nmse, first=4, recent=32)
        coders[f"kv-cache, 4 first and 32 recent tokens exact @{nmse}"] = ours(kept)
    coders["int4 + zstd, 4 first and 32 recent tokens float16"] = _raw(integers(4), 4, 32)
    coders |= {f"int{b} + zstd": integers(b) for b in (2, 3, 5, 6)}
    coders |= {f"low rank, {p}, float16": low_rank(fit, p) for p in (0.5, 0.25)}
    return coders


def _row(subject: Subject, data: str, name: str, code: Callable[[Pairs], Any]) -> dict[str, Any]:
    pairs, damage = subject.tests[data]
    back, bits = code(pairs)
    coder, _, at = name.partition(" @")
    row = {"model": subject.name, "data": data, "coder": coder, "asked": float(at) if at else None}
    return row | {"bits": bits / _values(pairs)} | damage(back)


def at_damage(rows: list[dict[str, Any]], coder: str, damage: float) -> float | None:
    """Bits of a coder where it does this damage, on the line through its points in logarithms; None outside them."""
    points = sorted((r["damage"], r["bits"]) for r in rows if r["coder"] == coder and r["damage"] > 0)
    if not points or not points[0][0] <= damage <= points[-1][0]:
        return None
    x, y = np.log([d for d, _ in points]), [b for _, b in points]
    return float(np.interp(np.log(damage), x, y))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Rows of `scripts/benchmark.py features`; nothing where neither model is at hand."""
    found = [encoder(args.quick), decoder(args.weights, args.quick) if args.weights else None]
    rows, summary, lines = [], {}, []
    for subject in [s for s in found if s is not None]:
        part: list[dict[str, Any]] = []
        coders = _coders(subject, args.quick)
        for data in subject.tests:
            part += [_row(subject, data, name, code) for name, code in coders.items()]
        rows += part
        lines += _table(subject, part)
        short = "kv_encoder" if subject.rotary is None else "kv_causal"
        for data in subject.tests:
            here = [r for r in part if r["data"] == data]
            peer = next(r for r in here if r["coder"] == "int4 + zstd")
            for what, coder in OURS.items():
                bits = at_damage(here, coder, peer["damage"])
                name = f"{short}_bits_vs_int4{what}" + ("" if data == "held-out" else f"_{data}")
                if bits is not None:
                    summary[name] = round(bits / peer["bits"], 4)
    return {"markdown": "\n".join(lines), "rows": rows, "summary": summary}


def _table(subject: Subject, rows: list[dict[str, Any]]) -> list[str]:
    more = "perplexity" in rows[0]
    lines = ["", f"Cache of the {subject.name}; damage: {subject.measure}.", ""]
    lines += ["| data | coder | NMSE, or bits, asked for | bits a value | damage |" + " perplexity |" * more]
    lines += ["|---|---|---|---|---|" + "---|" * more]
    for r in rows:
        line = f"| {r['data']} | {r['coder']} | {r['asked'] or ''} | {r['bits']:.3f} | {r['damage']:.2e} |"
        lines.append(line + (f" {r['perplexity']:.3f} ({r['perplexity_exact']:.3f} exact) |" if more else ""))
    return lines
