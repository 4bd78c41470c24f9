"""A small autoregressive model on the tokens of a pack: `python scripts/examples/tokens.py PACK`.

PACK is what `codec-cli pack photos/ PACK -c vq --size 256 --crop center --levels 2` made. The tokens of a picture,
level after level and row by row, are a sequence for a GRU; printed are its bits a token, and those that the frequencies
of the tokens alone would take.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import nn

import latentzip as lz


def train(pack: str, steps: int = 200, batch: int = 16, width: int = 128) -> tuple[float, float]:
    """Bits a token under the model, mean of the last tenth of the steps, and under the frequencies of its tokens."""
    data = lz.data.LatentDataset(pack, to="tokens")
    entries = data.codec.config.entries
    levels, h, w = data[0]["tokens"].shape
    place = torch.arange(levels * h * w) // w  # row and level of each token
    torch.manual_seed(0)
    before, at = nn.Embedding(levels * entries + 1, width), nn.Embedding(levels * h, width)
    memory, head = nn.GRU(width, width, batch_first=True), nn.Linear(width, levels * entries)
    parameters = [p for module in (before, at, memory, head) for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    costs: list[float] = []
    counts = torch.zeros(levels, entries)
    for step in range(steps):
        numbers = torch.randint(len(data), (batch,)).tolist()
        tokens = torch.stack([sample["tokens"] for sample in data.__getitems__(numbers)]).long()
        counts += torch.stack([torch.bincount(level.flatten(), minlength=entries) for level in tokens.transpose(0, 1)])
        x = (tokens + entries * torch.arange(levels)[:, None, None]).flatten(1)
        known = F.pad(x[:, :-1], (1, 0), value=levels * entries)
        said = head(memory(before(known) + at(place))[0])
        loss = F.cross_entropy(said.transpose(1, 2), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(loss.item() / 0.6931)
        if step % 20 == 0:
            print(f"step {step}: {costs[-1]:.2f} bits a token", flush=True)
    share = counts / counts.sum(1, keepdim=True)
    plain = float(-(share * share.clamp_min(1e-9).log2()).sum(1).mean())
    return sum(costs[-max(1, steps // 10) :]) / max(1, steps // 10), plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    model, plain = train(args.pack, args.steps)
    print(f"{model:.2f} bits a token; their frequencies alone say {plain:.2f}")


if __name__ == "__main__":
    main()
