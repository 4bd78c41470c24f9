"""A prompt's cache as a short file: `python scripts/examples/kv_cache.py WEIGHTS [--minutes 12]`.

Trains a small causal transformer (see `scripts/bench/causal.py`) on the sources of Python's standard library and saves
it to WEIGHTS, or loads it from there. Then fits a codec to caches of that model, shares out a budget of bits by what
errors do to its predictions, and shows what a service does that keeps caches of prompts: encode, save, load, decode,
append, go on writing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import latentzip as lz
from latentzip import kv

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import causal

PROMPT = 192


@torch.no_grad()
def divergence(model: causal.CausalLM, after: Tensor, past: list, changed: list) -> float:
    """KL divergence, in nats a token, of the predictions for `after` under a changed cache of what came before."""
    right, got = (model(after, cache)[0].log_softmax(-1) for cache in (past, changed))
    return float((right.exp() * (right - got)).sum(-1).mean())


@torch.no_grad()
def continued(model: causal.CausalLM, ids: Tensor, past: list, count: int) -> str:
    """The most likely continuation of a cache, from its last token on."""
    out, last = [], ids[:, -1:]
    past = [(k[:, :, :-1], v[:, :, :-1]) for k, v in past]
    for _ in range(count):
        logits, past = model(last, past)
        last = logits[:, -1:].argmax(-1)
        out.append(int(last))
    return model.tokens.decode(out)


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="safetensors file, made if it does not exist")
    parser.add_argument("--minutes", type=float, default=12, help="of one thread's time for training")
    parser.add_argument("--bits", type=float, default=2.0, help="budget, bits a value of what is coded")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.weights.exists():
        with torch.enable_grad():
            causal.train(args.weights, args.minutes)
    model = causal.CausalLM.load(args.weights)
    known, other = (model.tokens.encode(text[:600_000]) for text in causal.sources())

    samples = known[: 48 * causal.CONTEXT].reshape(-1, 16, causal.CONTEXT)
    rotary = kv.Rotary.of(causal.HEAD, causal.BASE)
    codec = lz.KVCacheCodec.fit([model(ids)[1] for ids in samples], rotary=rotary)
    print(codec)

    ids = other[: 8 * causal.CONTEXT].reshape(8, -1)
    past, after = model(ids[:, :PROMPT])[1], ids[:, PROMPT:]
    points = codec.measure(past, lambda cache: divergence(model, after, past, cache))
    shared = codec.allocate(points, args.bits)
    print("steps by layer:", " ".join(f"{s:.3f} -> {t:.3f}" for s, t in zip(codec.steps, shared.steps)))

    test = other[8 * causal.CONTEXT : 24 * causal.CONTEXT].reshape(16, -1)
    past, after = model(test[:, :PROMPT])[1], test[:, PROMPT:]
    size = sum(t.numel() for pair in past for t in pair)
    for name, c in (("equal errors", codec), (f"budget of {args.bits} bits", shared)):
        begin = time.perf_counter()
        blob = c.encode(past)
        middle = time.perf_counter()
        back = c.decode(blob)
        end = time.perf_counter()
        print(
            f"{name}: {8 * len(blob) / size:.2f} bits a value with 36 tokens kept as they are, divergence "
            f"{divergence(model, after, past, back):.2e} nats a token, {size / (middle - begin) / 1e6:.1f} / "
            f"{size / (end - middle) / 1e6:.1f} million values a second"
        )

    with tempfile.TemporaryDirectory() as folder:
        one = test[:1, :PROMPT]
        stream = shared.stream()
        stream.append(model(one[:, :150])[1])
        file = Path(folder) / "prompt.ltz"
        file.write_bytes(stream.to_bytes())
        half = 2 * sum(t.numel() for pair in stream.decode() for t in pair)
        print(f"{file.name}: {file.stat().st_size} bytes for {len(stream)} tokens, as float16 {half}")
        stream = shared.open(file.read_bytes())
        later = model(one[:, 150:], stream.decode())[1]
        stream.append([(k[:, :, 150:], v[:, :, 150:]) for k, v in later])
        print(f"with 42 more: {stream.num_bytes} bytes")
        print("exact cache:  ", repr(continued(model, one, model(one)[1], 24)))
        print("decoded cache:", repr(continued(model, one, stream.decode(), 24)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
