"""Caches of transformers: the adapter against a minimal stand-in, and against the library where it is installed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import latentzip as lz
from latentzip import kv


class Layer:
    """What a cache layer of transformers looks like from outside."""

    is_sliding = False

    def __init__(self, keys, values, seen=None):
        self.keys, self.values, self.seen = keys, values, seen

    def get_seq_length(self):
        return self.keys.shape[-2] if self.seen is None else self.seen


def pairs(tokens=200, layers=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(1, 2, tokens, 8, generator=g).half() for _ in "kv") for _ in range(layers)]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for p, q in zip(a, b) for x, y in zip(p, q))


def test_every_form_of_a_cache_is_read():
    known = pairs()
    forms = [
        SimpleNamespace(layers=[Layer(k, v) for k, v in known]),
        SimpleNamespace(key_cache=[k for k, _ in known], value_cache=[v for _, v in known]),
        tuple(known),
        [(k, v, None) for k, v in known],
    ]
    codec = lz.KVCacheCodec.fit(forms)
    blob = codec.encode(known)
    for form in forms:
        assert same(kv.from_cache(form), known)
        assert codec.encode(form) == blob


def test_caches_that_lost_tokens_or_are_empty_are_refused():
    sliding = Layer(*pairs()[0], seen=500)
    sliding.is_sliding = True
    with pytest.raises(lz.UnsupportedError, match="sliding window"):
        kv.from_cache(SimpleNamespace(layers=[sliding]))
    sliding.seen = 200  # nothing lost yet
    assert len(kv.from_cache(SimpleNamespace(layers=[sliding]))) == 1
    with pytest.raises(lz.InputError, match="layer 0 of the cache holds no keys"):
        kv.from_cache(SimpleNamespace(layers=[Layer(None, None)]))
    with pytest.raises(lz.InputError, match="no layers"):
        kv.from_cache(SimpleNamespace(layers=[]))


def test_sensitivity_is_the_mean_square_of_gradients():
    g = [[tuple(t.float() for t in pair) for pair in pairs(seed=s)] for s in (0, 1)]
    found = kv.sensitivity(g)
    rows = torch.cat([torch.cat([t.transpose(1, 2).flatten(2)[0] for t in sample[1]], 1) for sample in g]).double()
    expected = rows.T @ rows / len(rows)
    assert torch.allclose(found[1] - expected, torch.eye(32).double() * (found[1] - expected)[0, 0], atol=1e-9)
    assert 0 < (found[1] - expected)[0, 0] < 0.02 * expected.diagonal().mean()
    rotary = kv.Rotary.of(8)
    turned = [[(rotary.turn(k, 0), v) for k, v in sample] for sample in g]
    assert torch.allclose(kv.sensitivity(turned, rotary)[0], found[0], atol=1e-4)
    with pytest.raises(lz.InputError, match="at least one"):
        kv.sensitivity([])


def test_rotary_of_modules():
    def module(base, kind="default"):
        m: Any = torch.nn.Module()
        m.register_buffer("inv_freq", torch.tensor(kv.Rotary.of(8, base).inv_freq))
        m.rope_type = kind
        return m

    model = torch.nn.ModuleList([module(1e4), module(1e4)])
    found = kv.rotary_of(model)
    assert found is not None
    assert found.inv_freq == pytest.approx(kv.Rotary.of(8).inv_freq)
    assert kv.rotary_of(torch.nn.Linear(1, 1)) is None
    for wrong in ([module(1e4), module(1e6)], [module(1e4, "dynamic")]):
        with pytest.raises(lz.UnsupportedError, match="rotary=None"):
            kv.rotary_of(torch.nn.ModuleList(wrong))


def test_transformers_itself():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 64, (2, 160))
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        rotary = kv.rotary_of(model)
        weights = kv.sensitivity([kv.gradients(model, ids[:, :80])], rotary)
        codec = lz.KVCacheCodec.fit([cache], rotary=rotary, weights=weights, nmse=1e-4)
        assert all(codec.profile.upright)
        back = kv.to_cache(codec.decode(codec.encode(cache)))
        assert back.get_seq_length() == 160
        more = torch.randint(0, 64, (2, 5))
        right = model(more, past_key_values=kv.to_cache(kv.from_cache(cache))).logits
        assert torch.allclose(model(more, past_key_values=back).logits, right, atol=0.02)
