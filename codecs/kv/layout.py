"""Key-value caches as the codec sees them: a pair (keys, values) of each layer, and how its heads become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...entropy.dense import dense
from ...entropy.errors import InputError, UnsupportedError
from ..features.layout import DTYPES

Pair = tuple[Tensor, Tensor]
Pairs = list[Pair]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a cache that its model fixes: layers, heads of keys and values, channels of a head."""

    layers: int
    heads: int
    key_dim: int
    value_dim: int

    @property
    def width(self) -> int:
        """Values that a token has in a layer."""
        return self.heads * (self.key_dim + self.value_dim)

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.heads} heads, {self.key_dim} + {self.value_dim} channels each"


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (Su et al. 2021) of a model's keys: the frequencies, and which channels of a head they pair.

    Attributes:
        inv_freq: radians a token of each pair; channels of a head beyond the pairs are not rotated.
        interleaved: pairs are neighbours (2i, 2i + 1), as in GPT-J; False: (i, i + pairs), as in Llama.
    """

    inv_freq: tuple[float, ...]
    interleaved: bool = False

    @classmethod
    def of(cls, dim: int, base: float = 10000.0, interleaved: bool = False) -> Rotary:
        """The usual frequencies base ** (-2i / dim) of `dim` rotated channels."""
        if dim < 2 or dim % 2:
            raise InputError(f"rotary positions pair channels: dim is {dim}, an even number from 2 on is needed")
        return cls(tuple(float(base) ** (-2 * i / dim) for i in range(dim // 2)), interleaved)

    def turn(self, x: Tensor, start: int, back: bool = False) -> Tensor:
        """Rotate keys (B, H, T, d) of the tokens from position `start` on, or undo it; float32."""
        n = len(self.inv_freq)
        angle = torch.outer(torch.arange(start, start + x.shape[2]).double(), torch.tensor(self.inv_freq).double())
        cos, sin = angle.cos().float(), angle.sin().float() * (-1 if back else 1)
        x = x.float()
        if self.interleaved:
            a, b = x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        else:
            a, b = x[..., :n], x[..., n : 2 * n]
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        return torch.cat([turned, x[..., 2 * n :]], -1)


def pairs_of(cache: Any) -> Pairs:
    """Keys and values (B, H, T, d) of every layer of whatever holds them.

    Args:
        cache: a sequence of (keys, values); or an object with `layers` that have `keys` and `values`, as the caches
            of transformers, or with lists `key_cache` and `value_cache`, as they were.

    Raises:
        InputError: not a cache; the text says what is missing.
        UnsupportedError: layers that have dropped tokens (sliding windows).
    """
    layers = getattr(cache, "layers", None)
    if layers is not None:
        for number, layer in enumerate(layers):
            keys = getattr(layer, "keys", None)
            if getattr(layer, "is_sliding", False) and keys is not None and layer.get_seq_length() != keys.shape[-2]:
                raise UnsupportedError(
                    f"layer {number} keeps a sliding window and has dropped tokens; only whole caches are coded: fill "
                    "a DynamicCache() that was made without the model's config"
                )
        pairs: list[Any] = [
            _filled((getattr(layer, "keys", None), getattr(layer, "values", None)), layer, number)
            for number, layer in enumerate(layers)
        ]
    elif hasattr(cache, "key_cache") and hasattr(cache, "value_cache"):
        pairs = list(zip(cache.key_cache, cache.value_cache, strict=True))
        pairs = [_filled(pair, cache, number, number) for number, pair in enumerate(pairs)]
    elif isinstance(cache, Sequence) and not isinstance(cache, (str, bytes)):
        pairs = [tuple(layer[:2]) if isinstance(layer, (list, tuple)) else (None, None) for layer in cache]
    else:
        raise InputError(f"a cache is a sequence of (keys, values) or has .layers; this is a {type(cache).__name__}")
    if not pairs:
        raise InputError("the cache has no layers: run the model on some tokens first")
    pairs = [tuple(dense(t, f"layer {number} of the cache") for t in pair) for number, pair in enumerate(pairs)]
    for number, pair in enumerate(pairs):
        _check(number, pair, pairs[0])
    return pairs


def _filled(pair: Any, holder: Any, number: int, *at: int) -> Any:
    """Keys and values of the tokens that there are: preallocated caches have slots for more."""
    length, keys = getattr(holder, "get_seq_length", None), pair[0]
    if length is None or not isinstance(keys, Tensor) or keys.ndim != 4:
        return pair
    tokens = int(length(*at))
    if not 0 <= tokens <= keys.shape[2]:
        raise UnsupportedError(f"layer {number} has {keys.shape[2]} slots and says that it holds {tokens} tokens")
    return tuple(t[:, :, :tokens] if isinstance(t, Tensor) and tokens < t.shape[2] else t for t in pair)


def _check(number: int, pair: Any, first: Any) -> None:
    if len(pair) != 2 or not all(isinstance(t, Tensor) for t in pair):
        raise InputError(f"layer {number} of the cache holds no keys and values: run the model on some tokens first")
    keys, values = pair
    for what, t in (("keys", keys), ("values", values)):
        if t.ndim != 4 or 0 in (*t.shape[:2], t.shape[3]) or t.dtype not in DTYPES or t.dtype != keys.dtype:
            raise InputError(
                f"{what} of layer {number} are {t.dtype} of shape {tuple(t.shape)}; float16, bfloat16 or float32 of "
                "shape (batch, heads, tokens, channels) are needed, keys and values alike"
            )
    if keys.shape[:3] != values.shape[:3]:
        raise InputError(f"layer {number} has keys {tuple(keys.shape)} and values {tuple(values.shape)}")
    same = all(
        a.dtype == b.dtype and (*a.shape[:2], *a.shape[3:]) == (*b.shape[:2], *b.shape[3:]) for a, b in zip(pair, first)
    )
    if not same:
        raise UnsupportedError(
            f"layer {number} has keys and values {tuple(keys.shape)}, {tuple(values.shape)} of {keys.dtype}, layer 0 "
            f"has {tuple(first[0].shape)}, {tuple(first[1].shape)} of {first[0].dtype}; layers must be alike"
        )
    if keys.shape[2] != first[0].shape[2]:
        raise UnsupportedError(f"layer {number} holds {keys.shape[2]} tokens, layer 0 holds {first[0].shape[2]}")


def geometry_of(pairs: Pairs) -> Geometry:
    keys, values = pairs[0]
    return Geometry(len(pairs), keys.shape[1], keys.shape[3], values.shape[3])


def rows_of(keys: Tensor, values: Tensor) -> Tensor:
    """Keys and values (B, H, T, d) side by side: (B * T, H * key_dim + H * value_dim)."""
    parts = [t.permute(0, 2, 1, 3).reshape(t.shape[0] * t.shape[2], -1) for t in (keys, values)]
    return torch.cat(parts, 1)


def heads_of(rows: Tensor, batch: int, heads: int, key_dim: int) -> Pair:
    """Inverse of `rows_of`."""
    keys, values = rows[:, : heads * key_dim], rows[:, heads * key_dim :]
    back = [
        t.reshape(batch, len(rows) // batch, heads, t.shape[1] // heads).permute(0, 2, 1, 3) for t in (keys, values)
    ]
    return back[0], back[1]


def cat(parts: Sequence[Pairs]) -> Pairs:
    """Caches of successive tokens as one."""
    return [(torch.cat([k for k, _ in layer], 2), torch.cat([v for _, v in layer], 2)) for layer in zip(*parts)]


def cut(pairs: Pairs, start: int, stop: int) -> Pairs:
    """Tokens start..stop of every layer."""
    return [(k[:, :, start:stop], v[:, :, start:stop]) for k, v in pairs]
