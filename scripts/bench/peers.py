"""CompressAI's models as peers in speed: its own compress and decompress, and the same model through latentzip.

Weights are random, as after construction: the transforms cost what they cost, and latents near zero are the cheapest
case for either coder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

import latentzip as lz

MODELS = {"mbt2018-mean": 4, "cheng2020-anchor": 4}  # model: quality, which fixes the channels
Pair = tuple[str, Callable[[], Any], Callable[[Any], Any]]


class CompressAIPeer:
    """A model of compressai end to end, pictures padded to multiples of 64 as its own scripts do."""

    def __init__(self, name: str) -> None:
        from compressai.zoo import models

        torch.manual_seed(0)
        self.net = models[name](quality=MODELS[name]).eval()
        self.net.update(force=True)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> tuple[dict[str, Any], tuple[int, ...]]:
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        x = torch.nn.functional.pad(x, (0, -x.shape[3] % 64, 0, -x.shape[2] % 64))
        return self.net.compress(x), pixels.shape

    @torch.inference_mode()
    def decode(self, packed: tuple[dict[str, Any], tuple[int, ...]]) -> np.ndarray:
        x = self.net.decompress(packed[0]["strings"], packed[0]["shape"])["x_hat"][0]
        return x.mul(255).round().byte().permute(1, 2, 0).numpy()[: packed[1][0], : packed[1][1]]


def pairs(pixels: np.ndarray, quick: bool) -> list[Pair]:
    """(name, encode, decode) of each model in both hands; with ``quick`` only the one without a serial context."""
    result: list[Pair] = []
    for name in list(MODELS)[: 1 if quick else None]:
        peer = CompressAIPeer(name)
        codec = lz.load_codec(f"compressai:{name}", weights=peer.net)
        picture = Image.fromarray(pixels)
        result += [
            (f"CompressAI {name}", lambda p=peer: p.encode(pixels), peer.decode),
            (
                codec.name,
                lambda c=codec, i=picture: lz.encode(i, codec=c),
                lambda data, c=codec: lz.decode(data, codec=c),
            ),
        ]
    return result


def num_bytes(data: Any) -> int:
    """Coded size of either kind of stream."""
    return len(data) if isinstance(data, bytes) else sum(len(s) for group in data[0]["strings"] for s in group)


def ratios(rows: list[dict[str, Any]], names: list[str]) -> dict[str, float]:
    """How many times the pixels per second of CompressAI's own code: the bridged model, and each of ``names``.

    Args:
        rows: with name, size, threads, encode_mp_s and decode_mp_s, peers among them.
    """
    result = {}
    for theirs in rows:
        model = theirs["name"].removeprefix("CompressAI ")
        if model == theirs["name"]:
            continue
        for ours in rows:
            same = (ours["size"], ours["threads"]) == (theirs["size"], theirs["threads"])
            if same and ours["name"] in (f"compressai:{model}", *names):
                what = "bridge" if ours["name"].startswith("compressai:") else ours["name"]
                for direction in ("encode", "decode"):
                    ratio = ours[f"{direction}_mp_s"] / theirs[f"{direction}_mp_s"]
                    result[f"{direction}_{what}_vs_compressai_{model}_{ours['threads']}t"] = round(ratio, 2)
    return result
