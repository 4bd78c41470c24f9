"""A small causal transformer to take key-value caches from: trained in minutes on the sources of Python's library.

The architecture is that of today's language models at 1/16 of their width: pre-norm RMSNorm, rotary positions, grouped
queries (8 heads on 2 of keys and values, as in Llama 3), SwiGLU, tied embeddings. Text is what every Python brings: the
standard library without its tests (PSF licence). It is a stand-in for a language model, far too small and too little
trained to be more.
"""

from __future__ import annotations

import json
import re
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, INNER = 256, 4, 8, 2, 32, 640
BASE = 10000.0
CONTEXT, BATCH = 256, 8
WORDS = 1792  # tokens that are words or parts of them; the others are 256 bytes
Pair = tuple[Tensor, Tensor]
Change = Callable[[int, Tensor, Tensor], Pair]  # layer, keys, values -> what attention sees instead

_WORD = re.compile(r" ?\w+|\s+|[^\w\s]+")


def sources() -> tuple[str, str]:
    """The standard library's sources in two parts: most of the files, and one in twelve that training never sees."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [f for f in root.rglob("*.py") if not {"site-packages", "test", "tests", "idlelib"} & set(f.parts)]
    parts: list[list[str]] = [[], []]
    for number, file in enumerate(sorted(files)):
        parts[number % 12 == 5].append(file.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(parts[0]), "\n".join(parts[1])


class Tokens:
    """Frequent words have a number each; everything else is bytes."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.numbers = {w: 256 + i for i, w in enumerate(words)}

    @classmethod
    def of(cls, text: str) -> Tokens:
        count = Counter(_WORD.findall(text))
        best = sorted(count, key=lambda w: (-count[w] * len(w.encode()), w))
        return cls([w for w in best if len(w.encode()) > 1][:WORDS])

    def encode(self, text: str) -> Tensor:
        out: list[int] = []
        for word in _WORD.findall(text):
            number = self.numbers.get(word)
            out += [number] if number is not None else word.encode()
        return torch.tensor(out)

    def decode(self, numbers: list[int]) -> str:
        data = b"".join(bytes([n]) if n < 256 else self.words[n - 256].encode() for n in numbers)
        return data.decode(errors="replace")


def rotate(x: Tensor, start: int = 0) -> Tensor:
    """Rotary positions (Su et al. 2021), halves of a head paired: (B, H, T, d) from position `start` on."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(start, start + x.shape[-2]).float(), BASE ** (-torch.arange(half) / half))
    cos, sin = angle.cos(), angle.sin()
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.q = nn.Linear(WIDTH, HEADS * HEAD, bias=False)
        self.kv = nn.Linear(WIDTH, 2 * KV_HEADS * HEAD, bias=False)
        self.o = nn.Linear(HEADS * HEAD, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 2 * INNER, bias=False)
        self.down = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor, past: Pair | None, change: Callable[[Tensor, Tensor], Pair] | None) -> Any:
        h = self.norm1(x)
        start = 0 if past is None else past[0].shape[-2]
        q = rotate(self.q(h).unflatten(-1, (HEADS, HEAD)).transpose(1, 2), start)
        k, v = self.kv(h).unflatten(-1, (2 * KV_HEADS, HEAD)).transpose(1, 2).chunk(2, 1)
        k = rotate(k, start)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        seen = (k, v) if change is None else change(k, v)
        mask = None
        if past is not None:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(start)
        keys, values = (t.to(q.dtype).repeat_interleave(HEADS // KV_HEADS, 1) for t in seen)
        mixed = F.scaled_dot_product_attention(q, keys, values, mask, is_causal=past is None)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        gate, up = self.up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up), (k, v)


class CausalLM(nn.Module):
    """Token numbers to logits, and the cache of keys (rotated, as caches hold them) and values of every layer."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Embedding(256 + len(tokens.words), WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = nn.RMSNorm(WIDTH)
        nn.init.normal_(self.embed.weight, std=0.02)
        for name, p in self.named_parameters():
            if name.endswith(("o.weight", "down.weight")):
                nn.init.normal_(p, std=0.02 / (2 * LAYERS) ** 0.5)

    def forward(self, ids: Tensor, past: list[Pair] | None = None, change: Change | None = None) -> Any:
        """
        Args:
            ids: (B, T) int64.
            past: keys and values (B, 2, P, 32) of earlier tokens, a pair a layer.
            change: what attention sees in place of a layer's keys and values (B, 2, P + T, 32).

        Returns:
            Logits (B, T, V) and the cache with these tokens in it.
        """
        x, cache = self.embed(ids), []
        for i, block in enumerate(self.blocks):
            swap = None if change is None else (lambda k, v, i=i: change(i, k, v))
            x, pair = block(x, None if past is None else past[i], swap)
            cache.append(pair)
        return F.linear(self.norm(x), self.embed.weight), cache

    def save(self, path: Path) -> None:
        state = {k: v.to(torch.float16).contiguous() for k, v in self.state_dict().items()}
        save_file(state, path, {"words": json.dumps(self.tokens.words)})

    @classmethod
    def load(cls, path: Path) -> CausalLM:
        with safe_open(path, "pt") as file:
            model = cls(Tokens(json.loads(file.metadata()["words"])))
            model.load_state_dict({k: file.get_tensor(k).float() for k in file.keys()})  # noqa: SIM118
        return model.eval()


def train(path: Path, minutes: float, report: Callable[[str], None] = print) -> CausalLM:
    """Train for so many minutes of this process and save; a rate that falls to zero at the end."""
    torch.manual_seed(0)
    text, other = sources()
    tokens = Tokens.of(text)
    data, held_out = tokens.encode(text), tokens.encode(other)
    model = CausalLM(tokens)
    fast = torch.bfloat16 if torch.backends.mkldnn.is_available() else torch.float32
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=1e-2)
    generator = torch.Generator().manual_seed(1)
    start, step = time.process_time(), 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 50, 1.02 - done)
        at = torch.randint(0, len(data) - CONTEXT - 1, (BATCH,), generator=generator)
        batch = torch.stack([data[i : i + CONTEXT + 1] for i in at.tolist()])
        with torch.autocast("cpu", fast, enabled=fast != torch.float32):
            logits, _ = model(batch[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0:
            report(f"{100 * done:3.0f} % step {step}: {loss.item():.3f} nats a token")
        step += 1
    model.eval().save(path)
    report(f"{step} steps of {BATCH * CONTEXT} tokens; held-out perplexity {perplexity(model, held_out):.2f}")
    return model


@torch.no_grad()
def perplexity(model: CausalLM, tokens: Tensor, count: int = 24) -> float:
    batch = tokens[: count * CONTEXT].reshape(-1, CONTEXT)
    logits, _ = model(batch)
    return float(F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).exp())
