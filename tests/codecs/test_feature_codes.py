"""Features as product codes: `transform="vq"` and profiles of codebooks, through the public face."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz
from latentzip.codecs.contract import TOKENS
from latentzip.codecs.vq import product
from latentzip.data import EmbeddingStore
from latentzip.entropy.container import read, write

from . import hostile


def rows(n=1500, d=24, seed=0, rank=8):
    mix = torch.randn(rank, d, generator=torch.Generator().manual_seed(99))
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, rank, generator=g) @ mix + 0.3 * torch.randn(n, d, generator=g) + 1


def nmse(x, y):
    return float((x.double() - y.double()).square().mean() / x.double().var(correction=0))


@pytest.fixture(scope="module")
def profile():
    return lz.FeatureCodec.fit([rows(2000, seed=s) for s in (1, 2)], transform="vq", size=12, levels=3)


# --- codebooks in the stream -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_goals(dtype):
    x = rows().to(dtype)
    for goal in (0.3, 0.05):
        y = lz.decode(lz.encode(x, codec="features", nmse=goal, transform="vq"))
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        assert 0.4 * goal < nmse(x, y) <= goal
    blob = lz.encode(x, codec="features", bits=2.0, transform="vq")
    assert 1.5 < 8 * len(blob) / x.numel() <= 2.0
    with pytest.raises(lz.InputError, match="fewer than the shortest"):
        lz.encode(x, codec="features", bits=0.01, transform="vq")


def test_tokens_and_latents_of_a_stream():
    x = rows(1600).reshape(40, 40, 24)
    blob = lz.encode(x, codec="features", nmse=0.1, transform="vq")
    latent, tokens = lz.decode(blob, to="latent"), lz.decode(blob, to="tokens")
    assert tokens.shape == (latent.shape[1], 40, 40)
    assert (latent.dtype, tokens.dtype) == (torch.int32, torch.int64)
    assert torch.equal(tokens.flatten(1).T.int(), latent)
    assert torch.equal(lz.decode(blob, to="tokens", region=(3, 9)), tokens[:, 3:9])
    with pytest.raises(lz.InputError, match="no tokens"):
        lz.decode(lz.encode(x, codec="features", nmse=0.1, transform="klt"), to="tokens")


def test_what_cannot_be_reached_is_kept_to_the_bit():
    x = rows(200)
    assert torch.equal(lz.decode(lz.encode(x, codec="features", nmse=1e-12, transform="vq")), x)
    flat = torch.full((100, 8), 2.5)
    assert torch.equal(lz.decode(lz.encode(flat, codec="features", nmse=0.1, transform="vq")), flat)


def test_nan_is_kept():
    x = rows(400)
    x[3, 4], x[5, 6] = float("nan"), float("-inf")
    y = lz.decode(lz.encode(x, codec="features", nmse=0.1, transform="vq"))
    fine = torch.isfinite(x)
    assert torch.equal(x[~fine].view(torch.int32), y[~fine].view(torch.int32))
    assert float((x[fine] - y[fine]).abs().max()) < 10


def test_low_rank_pays():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 48, generator=g) * 0.8 ** torch.arange(48)
    low, whole = (product.fit(x, 6, 64, rank=r) for r in (None, 48))
    assert low.rotation.any(0).sum() < 30
    assert whole.rotation.any(0).sum() == 48
    live = low.rotation[:, low.rotation.any(0)]
    torch.testing.assert_close(live.T @ live, torch.eye(live.shape[1]), atol=1e-4, rtol=0)
    errors = [float((x - p.rows(p.codes(x))).square().sum()) for p in (low, whole)]
    assert errors[0] < 1.02 * errors[1]


@given(st.integers(1, 6), st.integers(1, 3), st.integers(6, 9), st.integers(2, 20), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_quantisers_of_any_size(groups, levels, d, entries, seed):
    x = torch.randn(60, d, generator=torch.Generator().manual_seed(seed))
    p = product.fit(x, groups * levels, entries, levels=levels)
    codes = p.codes(x)
    assert codes.shape == (60, groups * levels)
    assert int(codes.max()) < entries
    whole = p.rows(codes)
    summed = p.mean + sum(p.vectors()[j][codes[:, j]] for j in range(p.parts))
    torch.testing.assert_close(whole, summed, atol=1e-4, rtol=1e-4)
    q = torch.randn(3, d, generator=torch.Generator().manual_seed(seed))
    scores = sum(p.tables(q)[:, j][:, codes[:, j]] for j in range(p.parts)) + (q @ p.mean)[:, None]
    torch.testing.assert_close(q @ whole.T, scores, atol=1e-3, rtol=1e-3)


# --- profiles ----------------------------------------------------------------------------------------------------


def test_levels_are_nested_rates(profile):
    x = rows(seed=5)
    blob = lz.encode(x, codec=profile)
    errors = [nmse(x, lz.decode(blob, codec=profile, channels=k)) for k in (1, 2, 3)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert torch.equal(lz.decode(blob, codec=profile), lz.decode(blob, codec=profile, channels=3))
    found = lz.encode(x, codec=profile, nmse=1.001 * errors[1])
    assert lz.decode(found, codec=profile, to="tokens").shape == (8, 1500)
    assert torch.equal(lz.decode(found, codec=profile), lz.decode(blob, codec=profile, channels=2))
    fits = lz.encode(x, codec=profile, bits=8 * len(found) / x.numel() + 0.1)
    assert len(fits) <= len(found) + 1500 * 24 / 80
    assert lz.decode(fits, codec=profile, to="tokens").shape[0] == 8
    with pytest.raises(lz.InputError, match="more codes"):
        lz.encode(x, codec=profile, nmse=errors[2] / 2)
    for wrong in (0, 4):
        with pytest.raises(lz.InputError, match="3 levels"):
            lz.decode(blob, codec=profile, channels=wrong)


def test_profile_file(profile, tmp_path):
    path = tmp_path / "codes.safetensors"
    profile.save(path)
    again, x = lz.FeatureCodec.load(path), rows(seed=9)
    assert again.fingerprint == profile.fingerprint
    assert "12 codes" in repr(again)
    assert lz.encode(x, codec=again) == lz.encode(x, codec=profile)
    assert lz.load_codec(path).fingerprint == profile.fingerprint
    data = path.read_bytes()
    renamed, levels = data.replace(b"codewords", b"codewurds"), data.replace(b'levels\\": 3', b'levels\\": 5')
    for wrong in (b"", data[:-5], renamed, levels):
        assert wrong != data
        path.write_bytes(wrong)
        with pytest.raises(lz.FormatError):
            lz.FeatureCodec.load(path)
    blob = lz.encode(x, codec=profile)
    with pytest.raises(lz.UnsupportedError, match=profile.fingerprint.hex()):
        lz.decode(blob)
    with pytest.raises(lz.UnsupportedError, match=profile.fingerprint.hex()):
        lz.decode(blob, codec=lz.FeatureCodec.fit(x))


@pytest.mark.parametrize("axis", [-1, -2])
def test_tokens_there_and_back(profile, axis):
    codec = lz.FeatureCodec.fit(rows(600).movedim(-1, axis), transform="vq", size=6, axis=axis)
    x = rows(60, seed=4).reshape(5, 12, 24).movedim(-1, axis)
    tokens = codec.tokens(x)
    assert tokens.shape == (6, 5, 12)
    blob = lz.encode(x, codec=codec)
    assert torch.equal(lz.decode(blob, codec=codec, to="tokens"), tokens)
    torch.testing.assert_close(codec.from_tokens(tokens), lz.decode(blob, codec=codec))
    again = codec.encode_tokens(tokens.numpy().astype(np.uint16))
    assert np.array_equal(lz.decode(again, codec=codec), lz.decode(blob, codec=codec).numpy())
    if axis == -1:
        assert codec.tokens(rows(1, seed=7)[0]).shape == (6,)
    assert TOKENS in codec.capabilities
    assert codec.codebooks.shape == (6, 37, 24)
    assert all(1 <= used <= 37 and 0 <= bits < 5.3 for used, bits in codec.usage(tokens))
    for wrong, text in ((tokens.float(), "integers"), (tokens + 37, "reach"), (tokens[:, :0], "positions")):
        with pytest.raises(lz.InputError, match=text):
            codec.from_tokens(wrong)
    with pytest.raises(lz.InputError, match="a level has 4 codes"):
        profile.from_tokens(profile.tokens(rows(4))[:3])
    with pytest.raises(lz.InputError, match="no codebooks"):
        lz.FeatureCodec().tokens(x)
    with pytest.raises(lz.InputError, match="NaN"):
        codec.tokens(x * float("nan"))


def test_fit_by_error():
    x = rows(3000)
    codec = lz.FeatureCodec.fit(x, transform="vq", nmse=0.05)
    assert nmse(x, lz.decode(lz.encode(x, codec=codec), codec=codec)) < 0.051
    size = codec.tokens(x).shape[0]
    fewer = lz.FeatureCodec.fit(x, transform="vq", size=size - 1)
    assert nmse(x, lz.decode(lz.encode(x, codec=fewer), codec=fewer)) > 0.04


def test_packs_of_tokens(profile, tmp_path):
    source = tmp_path / "rows"
    source.mkdir()
    for i in range(4):
        np.save(source / f"{i}.npy", rows(10, seed=i).numpy())
    lz.data.pack(source, tmp_path / "pack", codec=profile, jobs=1)
    data = lz.data.LatentDataset(tmp_path / "pack", to="tokens")
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=data.sampler(2, shuffle=False), collate_fn=lz.data.latent_collate
    )
    batches = list(loader)
    assert [b["tokens"].shape for b in batches] == [(2, 12, 10)] * 2
    assert batches[0]["tokens"].dtype == torch.uint16
    whole = torch.cat([b["tokens"] for b in batches])[torch.cat([b["index"] for b in batches]).argsort()]
    keys = [str(k) for k in data.archive.columns["key"]]
    for key, found in zip(keys, whole):
        assert torch.equal(found.long(), profile.tokens(np.load(source / f"{key.removesuffix('.npy')}.npy")))
    assert lz.data.LatentDataset(tmp_path / "pack", to="signal")[0]["signal"].shape == (10, 24)
    lz.data.pack(source, tmp_path / "plain", codec="features", jobs=1)
    with pytest.raises(lz.InputError, match="without tokens"):
        lz.data.LatentDataset(tmp_path / "plain", to="tokens")


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_error": 0.1}, "max_error: codewords bound no single value"),
        ({"relative_error": 0.1}, "bound no single value"),
        ({}, "needs a goal"),
    ],
    ids=str,
)
def test_goals_that_codewords_do_not_have(options, text, profile):
    with pytest.raises(lz.InputError, match=text):
        lz.encode(rows(50), codec="features", transform="vq", **options)
    if options:
        with pytest.raises(lz.InputError, match=text):
            lz.encode(rows(50), codec=profile, **options)


def test_arguments_that_make_no_sense(profile):
    x = rows(100)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"size": 25}, "1 to 24 codes"), ({"size": 0}, "1 to 24"), ({"size": 7, "levels": 2}, "multiple"),
        ({"levels": 0}, "levels is 0"), ({"price": -1}, "price"), ({"weights": torch.ones(24)}, "weights"),
        ({"transform": "dct"}, "profiles are of"), ({"transform": "klt", "size": 4}, "profiles are of"),
    ]  # fmt: skip
    for options, text in wrong:
        with pytest.raises(lz.InputError, match=text):
            lz.FeatureCodec.fit(x, **{"transform": "vq", **options})
    with pytest.raises(lz.InputError, match="32 rows or more"):
        lz.FeatureCodec.fit(x[:20], transform="vq", size=2)
    with pytest.raises(lz.InputError, match="32 rows or more"):
        lz.encode(x[:20], codec="features", nmse=0.1, transform="vq")
    for name in ("klt", "hadamard", "map"):
        with pytest.raises(lz.InputError, match="brings its own"):
            lz.encode(x, codec=profile, transform=name)
    assert lz.encode(x, codec=profile, transform="vq") == lz.encode(x, codec=profile)
    assert torch.equal(lz.decode(lz.encode(x, codec=profile, lossless=True), codec=profile), x)
    with pytest.raises(lz.InputError, match="brings its own"):
        lz.encode(x, codec=lz.FeatureCodec.fit(x), transform="vq")
    with pytest.raises(lz.InputError, match="CodeStore"):
        EmbeddingStore.write("never-written.ltz", x, codec=profile)
    assert lz.decode(lz.encode(x[:0], codec=profile), codec=profile, to="tokens").shape == (12, 0)


@pytest.mark.parametrize("own", [True, False], ids=["profile", "stream"])
def test_hostile_streams(own, profile):
    x = rows(150)
    x[3, 3] = float("nan")
    codec = profile if own else None
    blob = lz.encode(x, codec=profile) if own else lz.encode(x, codec="features", nmse=0.3, transform="vq")
    hostile.check(blob, codec, cuts=97, flips=40, reach=400)


def test_headers_that_contradict_their_stream(profile):
    own = read(lz.encode(rows(150), codec="features", nmse=0.3, transform="vq"))
    brought = read(lz.encode(rows(150), codec=profile))
    for stream, codec in ((own, None), (brought, profile)):
        params = stream.header.params
        many = params[:8] + (2**32 - 1).to_bytes(4, "little") + params[12:]  # rows of a chunk
        for change in (
            {"shape": (150, 25)}, {"shape": (50_000_000, 24)}, {"shape": ()}, {"dtype": "float64"},
            {"params": many, "shape": (1 << 22, 24)}, {"params": params[:6] + b"\xff\x7f" + params[8:]},
            {"params": params[:6] + b"\x00\x00" + params[8:]}, {"params": b"\x01" + params[1:]},
        ):  # fmt: skip
            with pytest.raises(lz.CodecError):
                lz.decode(write(replace(stream.header, **change), list(stream.chunks)), codec=codec)
