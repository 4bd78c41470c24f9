"""KV caches through the public face: growing streams, parts of them, prefixes, budgets, damage."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip import kv
from latentzip.codecs.kv.budget import allocate
from latentzip.codecs.kv.layout import heads_of, rows_of

LAYERS, HEADS, DIM, VALUES = 3, 2, 16, 12
ROTARY = kv.Rotary.of(DIM)


def make_cache(seed, tokens=300, batch=1, dtype=torch.float32):
    """Keys and values that depend on a few hidden numbers of each token; keys rotated by their positions."""
    mixes, g = torch.Generator().manual_seed(7), torch.Generator().manual_seed(seed)
    out = []
    for _ in range(LAYERS):
        mix = torch.randn(10, HEADS * (DIM + VALUES), generator=mixes) * torch.logspace(0.5, -1, 10)[:, None]
        hidden = torch.randn(batch * tokens, 10, generator=g)
        rows = hidden @ mix + 0.02 * torch.randn(batch * tokens, mix.shape[1], generator=g) + 1
        keys, values = heads_of(rows, batch, HEADS, DIM)
        out.append((ROTARY.turn(keys, 0).to(dtype), values.contiguous().to(dtype)))
    return out


@pytest.fixture(scope="module")
def codec():
    return lz.KVCacheCodec.fit([make_cache(i) for i in range(4)], rotary=ROTARY, segment=64)


def part(cache, start, stop):
    return [(k[:, :, start:stop], v[:, :, start:stop]) for k, v in cache]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for p, q in zip(a, b) for x, y in zip(p, q))


def nmse(x, y):
    return float((x.double() - y.double()).square().mean() / x.double().var(correction=0))


def bits(blob, cache):
    return 8 * len(blob) / sum(t.numel() for pair in cache for t in pair)


# --- whole caches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_caches_come_back_with_the_error_asked_for(codec, dtype, batch):
    cache = make_cache(20, batch=batch, dtype=dtype)
    back = codec.decode(codec.at(nmse=0.02, first=0, recent=0).encode(cache))
    for pair, again in zip(cache, back):
        for x, y in zip(pair, again):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert 0.002 < nmse(x, y) < 0.05
        assert sum(nmse(x, y) for x, y in zip(pair, again)) / 2 < 0.03


def test_first_and_recent_tokens_stay_as_they_are(codec):
    cache = make_cache(21, dtype=torch.bfloat16)
    back = codec.decode(codec.encode(cache))
    assert equal(part(back, 0, 4), part(cache, 0, 4))
    assert equal(part(back, 268, 300), part(cache, 268, 300))
    assert not equal(part(back, 4, 268), part(cache, 4, 268))
    single = codec.decode(codec.encode(make_cache(21)))  # float32 is kept as float16 there
    for pair, again in zip(part(make_cache(21), 268, 300), part(single, 268, 300)):
        assert equal([[t.half().float() for t in pair]], [again])


@pytest.mark.parametrize("tokens", [0, 1, 3, 4, 5, 35, 37, 64, 101])
def test_short_caches(codec, tokens):
    cache = make_cache(22, tokens, dtype=torch.float16)
    back = codec.decode(codec.encode(cache))
    assert [t.shape for pair in back for t in pair] == [t.shape for pair in cache for t in pair]
    if tokens <= 36:
        assert equal(back, cache)


def test_keys_are_coded_upright_and_jointly_where_that_is_shorter(codec):
    cache = make_cache(23)
    whole: dict[str, Any] = {"first": 0, "recent": 0}
    assert all(codec.profile.upright)
    samples = [make_cache(i) for i in range(4)]
    turned = lz.KVCacheCodec.fit(samples, segment=64)
    assert bits(codec.at(**whole).encode(cache), cache) < 0.7 * bits(turned.at(**whole).encode(cache), cache)
    apart = 0
    for which in (0, 1):
        for layer in range(LAYERS):
            x = [t[layer][which] if which else ROTARY.turn(t[layer][0], 0, back=True) for t in [*samples, cache]]
            rows = [t.transpose(1, 2).flatten(2) for t in x]
            apart += len(lz.FeatureCodec.fit(rows[:-1], nmse=0.01).encode(rows[-1]))
    assert len(codec.at(**whole).encode(cache)) < 0.8 * apart


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_is_undone(interleaved):
    rotary = kv.Rotary.of(8, interleaved=interleaved)
    x = torch.randn(2, 3, 20, 12, generator=torch.Generator().manual_seed(0))
    turned = rotary.turn(x, 1000)
    assert torch.allclose(rotary.turn(turned, 1000, back=True), x, atol=1e-5)
    assert torch.equal(turned[..., 8:], x[..., 8:])
    # positions enter a product of two tokens by their distance alone
    a, b = x[:, :, :1], x[:, :, 1:2]
    one, other = (rotary.turn(a, p) @ rotary.turn(b, p + 5).transpose(2, 3) for p in (0, 77))
    assert torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(one, rotary.turn(a, 0) @ rotary.turn(b, 9).transpose(2, 3), atol=1e-2)


# --- growing -----------------------------------------------------------------------------------------------------


def test_what_is_coded_never_changes(codec):
    cache = make_cache(24)
    stream, seen = codec.stream(), []
    for start, stop in itertools.pairwise([0, 2, 130, 131, 200, 299, 300]):
        stream.append(part(cache, start, stop))
        chunks = list(stream._every())
        assert chunks[: len(seen)] == seen
        seen = chunks
        assert len(stream) == stop
        assert equal(stream.decode((max(0, stop - 30), stop)), part(cache, max(0, stop - 30), stop))
    assert len(seen) == LAYERS * (1 + 4)
    whole = codec.stream()
    whole.append(cache)
    assert whole.to_bytes() == stream.to_bytes()
    stream.flush()
    assert stream.recent == 32
    assert stream.to_bytes() == codec.encode(cache)


def test_streams_are_read_and_continued(codec, tmp_path):
    cache = make_cache(25, dtype=torch.float16)
    stream = codec.stream()
    stream.append(part(cache, 0, 180))
    codec.save(tmp_path / "model.safetensors")
    other = lz.KVCacheCodec.load(tmp_path / "model.safetensors")
    assert (other.fingerprint, other.steps) == (codec.fingerprint, codec.steps)
    again = other.open(stream.to_bytes())
    for s in (stream, again):
        s.append(part(cache, 180, 300))
    assert stream.to_bytes() == again.to_bytes()
    assert lz.inspect(again.to_bytes()).shape == (LAYERS, 1, 300, HEADS * (DIM + VALUES))
    # codecs of other choices decode what this one made, and go on with its steps
    other = codec.at(nmse=0.1, first=0, recent=0)
    assert equal(other.decode(stream.to_bytes()), stream.decode())
    more = other.open(stream.to_bytes())
    more.append(part(make_cache(26, dtype=torch.float16), 0, 100))
    more.flush()
    assert more.recent == 0
    stream.append(part(make_cache(26, dtype=torch.float16), 0, 100))
    assert equal(part(more.decode(), 0, 320), stream.decode((0, 320)))
    assert not equal(more.decode((370, 400)), stream.decode((370, 400)))  # coded in the one, recent in the other


def test_parts_decode_alone(codec):
    cache = make_cache(26, batch=2)
    blob = codec.encode(cache)
    whole = codec.decode(blob)
    for span in ((0, 1), (3, 70), (100, 100), (66, 68), (250, 300), (0, 300)):
        assert equal(codec.decode(blob, span), part(whole, *span))
    assert equal(codec.decode(blob, (10, 90), layers=[2, 0]), [part(whole, 10, 90)[2], part(whole, 10, 90)[0]])
    stream = codec.open(blob)
    # only what is asked for is read
    stream._stored = [c if i in (3, 4, 5) else b"" for i, c in enumerate(stream._stored)]
    assert equal(stream.decode((5, 60)), part(whole, 5, 60))


def test_a_prefix_of_the_components_is_a_smaller_cache(codec):
    cache = make_cache(27)
    whole = codec.at(first=0, recent=0)
    blob, error = whole.encode(cache), 10.0
    for components in (1, 4, 10, HEADS * (DIM + VALUES)):
        coarse = codec.decode(blob, components=components)
        small = codec.open(blob).prefix(components).to_bytes()
        assert equal(codec.decode(small), coarse)
        got = sum(nmse(x, y) for p, q in zip(cache, coarse) for x, y in zip(p, q))
        assert got <= error
        error = got
        if components <= 4:
            assert len(small) < (0.4 + components / 8) * len(blob)
    assert equal(coarse, codec.decode(blob))


# --- budgets -----------------------------------------------------------------------------------------------------


def test_allocation_is_the_best_choice():
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = [sorted(zip(rng.uniform(10, 100, 4), rng.uniform(0, 1, 4))) for _ in range(4)]
        budget = rng.uniform(120, 300)
        every = itertools.product(range(4), repeat=4)
        cost = [[sum(points[i][c][j] for i, c in enumerate(choice)) for j in (0, 1)] for choice in every]
        best = min((d for b, d in cost if b <= budget), default=None)
        if best is None:
            with pytest.raises(lz.InputError, match="too small"):
                allocate(points, budget)
            continue
        chosen = allocate(points, budget)
        assert sum(points[i][c][0] for i, c in enumerate(chosen)) <= budget
        assert sum(points[i][c][1] for i, c in enumerate(chosen)) <= 1.05 * best + 1e-9


def test_bits_go_to_the_layers_that_matter(codec):
    cache = make_cache(28, 200)

    def damage(pairs):
        weights = (100, 1, 1)
        return sum(w * nmse(a, b) for w, p, q in zip(weights, cache, pairs) for a, b in zip(p, q))

    whole = codec.at(first=0, recent=0, segment=200)
    points = whole.measure(cache, damage)
    shared = whole.allocate(points, bits=0.4)
    assert shared.steps[0] < min(shared.steps[1:])
    blob = shared.encode(cache)
    assert bits(blob, cache) < 0.42
    alike = [s * f for f in (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4) for s in [np.array(whole.steps)]]
    rival = next(c for c in (whole.at(steps=s) for s in alike) if bits(c.encode(cache), cache) < 0.4)
    assert damage(codec.decode(blob)) < 0.8 * damage(codec.decode(rival.encode(cache)))
    assert shared.fingerprint == codec.fingerprint
    with pytest.raises(lz.InputError, match="too small"):
        whole.allocate(points, bits=0.001)
    with pytest.raises(lz.InputError, match="of 2 layers"):
        whole.allocate(points[:2], bits=1)


def test_weights_move_errors_to_where_they_cost_little():
    samples = [make_cache(i) for i in range(4)]
    cache = make_cache(29)
    width = HEADS * (DIM + VALUES)
    weights = torch.ones(width)
    weights[HEADS * DIM :] = 100  # values
    plain, keen = (
        lz.KVCacheCodec.fit(samples, weights=None if w is None else [w] * LAYERS, first=0, recent=0)
        for w in (None, weights)
    )
    errors = []
    for c in (plain, keen):
        back = c.decode(c.encode(cache))
        errors.append([nmse(torch.stack([p[i] for p in cache]), torch.stack([p[i] for p in back])) for i in (0, 1)])
    assert errors[1][1] / errors[1][0] < 0.3 * errors[0][1] / errors[0][0]
    assert len(set(keen.steps)) == 1
    assert keen.at(nmse=0.1).steps[0] > keen.steps[0]


def test_wide_models_are_split_by_heads(monkeypatch):
    from latentzip.codecs.kv import profile as kv_profile

    monkeypatch.setattr(kv_profile, "MAX_FITTED", DIM + VALUES)
    narrow = lz.KVCacheCodec.fit([make_cache(0)], rotary=ROTARY)
    assert narrow.profile.groups == 2
    cache = make_cache(30, 200)
    back = narrow.decode(narrow.encode(cache))
    assert all(nmse(x, y) < 0.03 for p, q in zip(cache, back) for x, y in zip(p, q))
    small = narrow.open(narrow.encode(cache)).prefix(5)
    assert equal(small.decode(), narrow.decode(narrow.encode(cache), components=5))


# --- what cannot be coded ----------------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_kept(codec):
    cache = make_cache(31)
    cache[1][0][0, 1, 100, 3] = float("inf")
    cache[2][1][0, 0, 50, 2] = float("nan")
    back = codec.decode(codec.encode(cache))
    assert torch.equal(back[1][0][0, 1, 68:132], cache[1][0][0, 1, 68:132])
    assert back[2][1][0, 0, 50, 2].isnan()


def test_errors_say_what_to_do(codec, tmp_path):
    cache = make_cache(32, 100)
    with pytest.raises(lz.InputError, match="fitted to 3 layers"):
        codec.encode(cache[:2])
    with pytest.raises(lz.InputError, match=r"shape \(batch, heads, tokens, channels\)"):
        codec.encode([(k[0], v[0]) for k, v in cache])
    with pytest.raises(lz.InputError, match=r"float64"):
        codec.encode([(k.double(), v.double()) for k, v in cache])
    with pytest.raises(lz.UnsupportedError, match="layer 2 holds 99 tokens"):
        codec.encode([*cache[:2], tuple(t[:, :, :99] for t in cache[2])])
    with pytest.raises(lz.InputError, match="no layers"):
        codec.encode([])
    with pytest.raises(lz.InputError, match="a sequence of"):
        codec.encode(3)
    stream = codec.stream()
    with pytest.raises(lz.InputError, match="append a cache"):
        stream.to_bytes()
    stream.append(cache)
    with pytest.raises(lz.InputError, match="2 sequences"):
        stream.append(make_cache(1, 10, batch=2))
    with pytest.raises(lz.InputError, match="a cache that has 100"):
        stream.decode((50, 101))
    with pytest.raises(lz.InputError, match="components is 99"):
        stream.decode(components=99)
    with pytest.raises(lz.InputError, match="layers are"):
        stream.decode(layers=[3])
    blob = codec.encode(cache)
    with pytest.raises(lz.UnsupportedError, match="load the profile"):
        lz.KVCacheCodec.fit([cache]).decode(blob)
    with pytest.raises(lz.UnsupportedError, match="KVCacheCodec"):
        lz.decode(blob)
    with pytest.raises(lz.FormatError, match="no KV cache"):
        codec.decode(lz.encode(torch.zeros(3), codec="features"))
    lz.FeatureCodec.fit(torch.randn(99, 4)).save(tmp_path / "x")
    with pytest.raises(lz.FormatError, match="not a KV profile"):
        lz.KVCacheCodec.load(tmp_path / "x")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"nmse": 2}, "nmse"), ({"weights": [1]}, "weights has 1"), ({"rotary": kv.Rotary.of(64)}, "turns 64"),
        ({"weights": [torch.ones(5)] * 3}, "weights of layer 0"), ({"segment": 0}, "segment"),
    ]  # fmt: skip
    for options, text in wrong:
        with pytest.raises(lz.InputError, match=text):
            lz.KVCacheCodec.fit([cache], **options)
    choices: list[dict[str, Any]] = [{"nmse": 0}, {"nmse": 0.1, "steps": [1] * 3}, {"steps": [1]}, {"recent": -1}]
    for options in choices:
        with pytest.raises(lz.InputError):
            codec.at(**options)


def test_damaged_streams_raise(codec):
    blob = codec.encode(make_cache(33, 150))
    rng = np.random.default_rng(0)
    for at in [*range(60), *rng.integers(60, len(blob), 60)]:
        broken = bytearray(blob)
        broken[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(lz.CodecError):
            codec.decode(bytes(broken))
    for size in (0, 5, 40, len(blob) // 2, len(blob) - 1):
        with pytest.raises(lz.CodecError):
            codec.decode(blob[:size])


def test_heads_and_rows_are_inverse():
    keys, values = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 6)
    again = heads_of(rows_of(keys, values), 2, 3, 4)
    assert torch.equal(again[0], keys)
    assert torch.equal(again[1], values)


def test_golden_stream():
    folder = Path(__file__).resolve().parents[1] / "golden" / "kv"
    codec = lz.KVCacheCodec.load(folder / "profile.safetensors")
    assert all(codec.profile.upright)
    blob = (folder / "cache.ltz").read_bytes()
    with np.load(folder / "cache.npz") as right:
        for layer, pair in enumerate(codec.decode(blob)):
            for name, t in zip("kv", pair):
                np.testing.assert_allclose(t.float(), right[f"{name}{layer}"].astype("f4"), rtol=2e-3, atol=2e-3)
