"""Caches of transformers (the Hugging Face library) to and from `KVCacheCodec`, and what its errors cost a model.

    from latentzip import kv
    codec = lz.KVCacheCodec.fit([kv.from_cache(c) for c in caches], rotary=kv.rotary_of(model))
    blob = codec.encode(model(ids).past_key_values)
    model(more, past_key_values=kv.to_cache(codec.decode(blob, device=model.device)))

Only `to_cache` and `gradients` import transformers, when they are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .codecs.kv.layout import Pairs, Rotary, pairs_of, rows_of
from .entropy.errors import InputError, UnsupportedError

__all__ = ["Rotary", "from_cache", "gradients", "rotary_of", "sensitivity", "to_cache"]

_DAMPING = 0.01  # of the mean sensitivity, added everywhere: what samples do not show is not free


def from_cache(cache: Any) -> Pairs:
    """(keys, values), each (B, H, T, d), of every layer of a `DynamicCache` or of an older form of it.

    Raises:
        InputError: not a cache, or an empty one.
        UnsupportedError: layers with sliding windows that have dropped tokens.
    """
    return pairs_of(cache)


def to_cache(pairs: Pairs) -> Any:
    """A `transformers.DynamicCache` of these keys and values, ready for `past_key_values=`.

    Raises:
        UnsupportedError: transformers is not installed.
    """
    cache = _transformers().DynamicCache()
    for layer, (keys, values) in enumerate(pairs_of(pairs)):
        cache.update(keys, values, layer)
    return cache


def rotary_of(model: Any) -> Rotary | None:
    """The rotary positions of a model of transformers, or of its config; None where it has none.

    Raises:
        UnsupportedError: frequencies that change with the length, or differ between layers.
    """
    modules = model.named_modules() if hasattr(model, "named_modules") else ()
    found = {
        tuple(m.inv_freq.double().tolist()): m for _, m in modules if isinstance(getattr(m, "inv_freq", None), Tensor)
    }
    if not found:
        return None
    kinds = {str(getattr(m, "rope_type", "default")) for m in found.values()}
    if len(found) > 1 or any("dynamic" in kind or "longrope" in kind for kind in kinds):
        raise UnsupportedError(
            "the model's rotary positions change with the length or differ between layers; pass rotary=None, or a "
            "Rotary of your own"
        )
    return Rotary(next(iter(found)))


def sensitivity(slopes: Iterable[Any], rotary: Rotary | None = None) -> list[Tensor]:
    """What errors of keys and values cost: the weights that `KVCacheCodec.fit` takes.

    Args:
        slopes: gradients of a loss, in the form of caches: keys and values (B, H, T, d) of every layer, from position 0
            on. With the likelihood of tokens drawn from the model as loss, the weights are its Fisher information,
            and errors count by the divergence of the predictions; `gradients` makes them.
        rotary: the same as given to `fit`.

    Returns:
        For each layer the mean of g g^T, (D, D) float64, with a little on the diagonal.
    """
    total: list[Tensor] = []
    count = 0
    for sample in slopes:
        pairs = pairs_of(sample)
        for layer, (keys, values) in enumerate(pairs):
            keys = keys if rotary is None else rotary.turn(keys.detach().cpu(), 0, back=True)
            g = rows_of(keys.detach().cpu().float(), values.detach().cpu().float()).double()
            if len(total) == layer:
                total.append(torch.zeros(g.shape[1], g.shape[1], dtype=torch.float64))
            total[layer] += g.T @ g
        count += pairs[0][0].shape[0] * pairs[0][0].shape[2]
    if not count:
        raise InputError("sensitivity needs gradients: at least one cache of them")
    spread = sum(float(t.diagonal().mean()) for t in total) / len(total)
    return [(t + _DAMPING * spread * torch.eye(len(t), dtype=t.dtype)) / count for t in total]


def gradients(model: Any, ids: Tensor, generator: torch.Generator | None = None) -> Pairs:
    """Gradients, with respect to the cache, of the likelihood of tokens that a causal language model draws itself.

    Args:
        model: of transformers; gives logits and fills a cache.
        ids: (B, T) int64 token numbers.

    Returns:
        For each layer gradients of keys and values (B, H, T, d).
    """
    taps: list[tuple[Tensor, Tensor]] = []

    class Tap(_transformers().DynamicCache):  # type: ignore[misc]
        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            for t in (key_states, value_states):
                if not t.requires_grad:
                    t.requires_grad_()
                t.retain_grad()
            taps.append((key_states, value_states))
            return key_states, value_states

    with torch.enable_grad():
        logits = model(input_ids=ids, past_key_values=Tap(), use_cache=True).logits.flatten(0, 1).float()
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")
        every = [t for pair in taps for t in pair]
        grads = torch.autograd.grad(loss, every)
    return [(a.detach(), b.detach()) for a, b in zip(grads[::2], grads[1::2])]


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise UnsupportedError(f"this needs transformers: pip install transformers ({error})") from error
