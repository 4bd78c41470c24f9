"""Pictures as tokens: what is coded is what decodes; levels nest; the prior is exact; what is no token is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import latentzip as lz
from latentzip.codecs.hyperprior.codec import HyperpriorCodec, HyperpriorConfig
from latentzip.codecs.vq import VqConfig, from_bytes, residual
from latentzip.codecs.vq.blocks import books_of, from_blocks, grids, to_blocks
from latentzip.codecs.vq.codec import VqCodec, round_weights, to_tensors
from latentzip.codecs.vq.prior import FEW, PASSES, SLOTS, Prior
from latentzip.entropy import Decoder, Encoder, RateMeter, container
from latentzip.entropy.engine import load_engine
from latentzip.training import vq


def picture(h, w, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / 23
    base = np.stack([np.sin(x * (1 + k) + y) * np.cos(y * (2 - k)) for k in range(3)])
    base[:, h // 3 : h // 2, w // 4 : w // 2] += 0.8
    return torch.from_numpy(np.clip(0.5 + 0.3 * base + rng.normal(0, 0.02, base.shape), 0, 1)).float()


@pytest.fixture(scope="module")
def codec():
    return lz.load_codec("vq")


@pytest.fixture(scope="module")
def x():
    return picture(100, 152)


def random_prior(levels, entries, tables, seed, coarse=0):
    rng = np.random.default_rng(seed)
    levels = books_of(levels, coarse)
    scores = rng.integers(-128, 128, (levels, FEW if coarse else SLOTS, entries + 1, tables)).astype(np.int8)
    bias = rng.integers(-99, 99, (levels, PASSES, tables)).astype(np.int16)
    shares = rng.dirichlet(np.ones(entries + 1), (levels, tables))
    frequencies = np.maximum(1, np.floor(shares * ((1 << 12) - entries - 1))).astype(np.int64)
    frequencies[..., 0] += (1 << 12) - frequencies.sum(-1)
    return Prior(scores, bias, frequencies.astype(np.int16), 12, coarse)


def test_tokens_are_what_a_stream_holds(codec, x):
    blob = lz.encode(x, codec="vq", quality=100)
    tokens = lz.decode(blob, to="tokens")
    assert tokens.dtype == torch.int64
    assert tokens.shape == (codec.config.levels, 8, 10)  # even, for the blocks of the coarse level
    assert torch.equal(tokens, codec.tokens(x))
    assert torch.equal(tokens, lz.decode(blob, to="latent").long())
    assert torch.equal(codec.from_tokens(tokens, (100, 152)), lz.decode(blob, to="tensor", precision="fp32"))
    assert codec.from_tokens(tokens).shape == (3, 128, 160)
    fine = codec.config.levels - codec.coarse
    assert codec.codebooks.shape == (fine, codec.config.entries, codec.config.latent)
    assert codec.coarse_codebooks.shape == (4 * codec.coarse, codec.config.entries, codec.config.latent, 2, 2)
    # what a token stands for is a sum of codewords, of a coarse level for the block that the position lies in
    cells = [(i, tokens[i // 4, 2 + i // 2 % 2, 4 + i % 2]) for i in range(4 * codec.coarse)]
    feature = sum(codec.coarse_codebooks[i, token, :, 1, 0] for i, token in cells) + codec.mean
    feature = feature + sum(codec.codebooks[k, tokens[k + codec.coarse, 3, 4]] for k in range(fine))
    torch.testing.assert_close(codec.values(tokens)[:, 3, 4], feature, rtol=1e-4, atol=1e-4)
    assert torch.equal(codec.values(tokens[None, :1])[0], codec.values(tokens[:1]))


def test_levels_nest_and_more_are_better(codec, x):
    whole, last, size = codec.tokens(x), 1e9, 0
    for levels in (1, 2, 4, 8, codec.config.levels):
        blob = lz.encode(x, codec="vq", levels=levels)
        tokens = lz.decode(blob, to="tokens")
        assert torch.equal(tokens, whole[:levels])
        assert torch.equal(codec.tokens(x, levels), whole[:levels])
        assert not lz.decode(blob, to="latent")[levels:].any()
        error = float((lz.decode(blob, to="tensor") - x).square().mean())
        assert error < last
        assert len(blob) > size
        last, size = error, len(blob)
        full = lz.encode(x, codec="vq", quality=100)
        assert torch.equal(lz.decode(full, channels=levels), lz.decode(blob))
        assert torch.equal(lz.decode(full, to="tokens", channels=levels), tokens)
        assert len(lz.decode(blob, to="tokens", channels=16)) == levels
    assert [codec.levels(codec.quality_of(k)) for k in (1, 5, 16)] == [1, 5, 16]
    assert codec.levels(1) == 1


def test_a_region_equals_its_part(codec):
    x = picture(300, 260, 1)
    blob = lz.encode(x, codec="vq", quality=60)
    whole = lz.decode(blob)
    assert torch.equal(lz.decode(blob, region=(33, 70, 190, 201)), whole[:, 33:190, 70:201])
    tokens = lz.decode(blob, to="tokens", region=(33, 70, 190, 201))
    assert torch.equal(tokens, lz.decode(blob, to="tokens")[:, 2:12, 4:14])


def test_large_pictures_go_by_chunks(codec):
    x = picture(64, 1400, 2)
    blob = lz.encode(x, codec="vq", levels=3)
    assert lz.inspect(blob).chunks == 2
    assert torch.equal(lz.decode(blob, to="tokens"), codec.tokens(x, 3))


def test_prior_saves_bits(codec):
    data = pytest.importorskip("skimage.data")
    x = torch.tensor(data.astronaut()).permute(2, 0, 1)
    tokens = codec.tokens(x)
    meter = RateMeter()
    codec.prior.program(meter, tokens.numpy(), len(tokens), *tokens.shape[1:])
    plain = tokens.numel() * np.log2(codec.config.entries)
    assert float(meter.bits) < 0.85 * plain
    sizes = [grid.numel() for grid in grids(tokens, codec.coarse)]
    assert float(meter.bits) < sum(bits * size for (_, bits), size in zip(codec.usage(tokens), sizes))
    assert 8 * len(lz.encode(x, codec="vq", quality=100)) < 1.02 * float(meter.bits) + 800
    assert all(used > 16 for used, _ in codec.usage(tokens))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.integers(2, 40), st.integers(1, 11), st.integers(1, 11), st.integers(0, 99),
    st.integers(0, 2),
)  # fmt: skip
def test_any_tokens_round_trip_on_any_engine(levels, entries, h, w, seed, coarse):
    coarse = min(coarse, levels)
    h, w = (2 * h, 2 * w) if coarse else (h, w)
    prior = random_prior(levels, entries, 3, seed, coarse)
    tokens = np.random.default_rng(seed).integers(0, entries, (levels, h, w)).astype(np.int32)
    encoder = Encoder()
    assert np.array_equal(prior.program(encoder, tokens, levels, h, w), tokens)
    blob = encoder.finish()
    for engine in ("numba", "plain"):
        decoder = Decoder(blob, engine=load_engine(engine))
        assert np.array_equal(prior.program(decoder, None, levels, h, w), tokens)
        decoder.finish()
    first = Decoder(blob)
    assert np.array_equal(prior.program(first, None, 1, h, w), tokens[:1])
    again = Prior.from_arrays(prior.to_arrays(), books_of(levels, coarse), entries, coarse)
    assert np.array_equal(again.program(Decoder(blob), None, levels, h, w), tokens)


@pytest.mark.parametrize(("tokens", "words"), [
    (np.full((3, 4, 4), 256), "from 256 to 256; a codebook has 0 to 255"), (np.full((3, 4, 4), -1), "from -1 to -1"),
    (np.zeros((17, 4, 4), int), "17 levels; there are codebooks for 1 to 16"), (np.zeros((4, 4), int), r"\(4, 4\)"),
    (np.zeros((3, 0, 4), int), r"\(3, 0, 4\)"), (np.zeros((3, 4, 4)), "float64"), ("tokens", "integers"),
    (np.zeros((3, 4, 5), int), r"even sides.*\(4, 5\)"),
])  # fmt: skip
def test_what_is_no_token_is_refused(codec, tokens, words):
    with pytest.raises(lz.InputError, match=words):
        codec.from_tokens(tokens)


def test_other_errors(codec, x):
    tokens = codec.tokens(x, 2)
    with pytest.raises(lz.InputError, match=r"100 x 400 has \(8, 26\) tokens"):
        codec.from_tokens(tokens, (100, 400))
    for size in ("ab", (100.5, 152), (float("nan"), 9), (5,), (100, 152, 3), 7):
        with pytest.raises(lz.InputError, match="two whole numbers"):
            codec.from_tokens(tokens, size)
    with pytest.raises(lz.InputError, match="not whole"):
        codec.values(tokens + 0.5)
    with pytest.raises(lz.InputError, match=r"not str; latentzip\.encode takes files"):
        codec.tokens("photo.png")
    with pytest.raises(lz.InputError, match="1 to 16"):
        lz.encode(x, codec="vq", levels=17)
    assert lz.encode(x, codec="vq", levels=2, quality=90) == lz.encode(x, codec="vq", levels=2)
    with pytest.raises(lz.InputError, match="NaN"):
        codec.tokens(x * float("nan"))
    with pytest.raises(lz.InputError, match="hyperprior-fast has no tokens"):
        lz.decode(lz.encode(x, codec="hyperprior-fast"), to="tokens")
    with pytest.raises(lz.InputError, match="has no tokens"):
        lz.decode(lz.encode((np.zeros(999, np.float32), 16000), codec="audio"), to="tokens")
    with pytest.raises(lz.InputError, match="numbers of codewords"):
        codec.dequantize(tokens)


def test_damaged_chunks(codec, x):
    packed = codec.compress(x, levels=4)
    data, rng = packed.chunks[0], np.random.default_rng(0)
    for _ in range(150):
        wrong = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            wrong[rng.integers(len(wrong))] ^= 1 << int(rng.integers(8))
        wrong = wrong[: rng.integers(1, len(wrong) + 1)]
        try:
            tokens = codec.decompress(packed.params, [bytes(wrong)], (100, 152), to="latent")
        except lz.CodecError:
            continue
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < codec.config.entries
    for params in (b"\1\0\4", b"\1\x65\4", b"\2\x32\4", b"\1\x32", b"\1\x32\0"):
        with pytest.raises(lz.FormatError):
            codec.decompress(params, packed.chunks, (100, 152))


def test_codewords_are_fitted_and_dead_ones_moved():
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(40, 6, generator=generator)
    x = centres[torch.randint(0, 40, (3000,), generator=generator)] + 0.3 * torch.randn(3000, 6, generator=generator)
    books, prices, figures = residual.fit(x, 3, 64, replace(residual.DEFAULT, price=0.0))
    errors = [float(x.square().sum(1).mean()), *(error for error, _ in figures)]
    assert all(after < before for before, after in zip(errors, errors[1:]))
    assert errors[1] < 0.05 * errors[0]
    assert not books[:, 0].any()
    assert not prices.any()
    tokens = residual.tokens_of(x, books, prices)
    assert float((x - residual.vectors_of(tokens, books)).square().sum(1).mean()) == pytest.approx(errors[-1], rel=1e-4)
    assert len(tokens[0].unique()) >= 60
    _, _, priced = residual.fit(x, 3, 64, replace(residual.DEFAULT, price=2.0))
    assert sum(bits for _, bits in priced) < sum(bits for _, bits in figures)
    with pytest.raises(lz.InputError, match="too few for a codebook of 64"):
        residual.fit(x[:50], 1, 64)


TRUNK = HyperpriorConfig(
    width=16, analysis_depth=1, synthesis_depth=1, latent=16, hyper=16, features=16, scale_width=16
)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        array = (picture(200, 260, i) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / f"{i}.png")
    torch.manual_seed(0)
    trunk = HyperpriorCodec(TRUNK, "trunk")
    config = VqConfig(levels=2, entries=16, components=8, coarse=1)
    return vq.fit(trunk, config, folder, steps=10, name="own", log=lambda _: None)


def test_fit_makes_a_codec_that_codes(fitted, tmp_path):
    from safetensors.torch import save

    tensors, metadata = to_tensors(fitted)
    (tmp_path / "own.safetensors").write_bytes(save(tensors, metadata))
    codec = lz.load_codec(tmp_path / "own.safetensors")
    assert codec.fingerprint == fitted.fingerprint
    x = picture(90, 70, 9)
    blob = lz.encode(x, codec=codec, quality=100)
    assert torch.equal(lz.decode(blob, to="tokens", codec=codec), fitted.tokens(x))
    assert len(fitted.tokens(x).unique()) > 4
    assert isinstance(codec, VqCodec)
    round_weights(codec)
    assert codec.fingerprint == fitted.fingerprint


def test_components_can_be_left_out(fitted):
    same, fewer = vq.trimmed(fitted, 8), vq.trimmed(fitted, 5)
    x = picture(90, 70, 9)
    assert torch.equal(same.tokens(x), fitted.tokens(x))
    assert fewer.codewords.shape == (5, 16, 5)
    y = [codec.values(codec.tokens(x)) for codec in (fitted, fewer)]
    assert float((y[0] - y[1]).square().mean()) < 0.5 * float(y[0].var())
    with pytest.raises(lz.InputError, match="9 components are to be kept"):
        vq.trimmed(fitted, 9)


@pytest.mark.parametrize("fields", [
    {"levels": 3}, {"entries": 17}, {"components": 9}, {"latent": 4}, {"entries": 1 << 20}, {"trunk_quality": 0},
    {"coarse": 0}, {"coarse": 2}, {"coarse": 3},
    {"x": 1},
])  # fmt: skip
def test_weights_that_lie(fitted, fields):
    from safetensors.torch import save

    tensors, metadata = to_tensors(fitted)
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | fields)
    with pytest.raises(lz.FormatError):
        from_bytes(save(tensors, metadata))


def test_the_trunk_is_shared():
    from latentzip import pretrained

    entry = pretrained.find("vq")
    size = len(entry.read())
    assert size < 2_500_000
    own, trunk = lz.load_codec("vq").state_dict(), lz.load_codec("hyperprior-fast").state_dict()
    assert all(torch.equal(value, trunk[key]) for key, value in own.items() if key.startswith("synthesis_transform."))


def test_streams_name_their_levels(codec, x, tmp_path):
    path = Path(tmp_path) / "x.ltz"
    path.write_bytes(lz.encode(x, codec="vq", levels=5))
    box = container.read(path.read_bytes())
    assert codec.levels(codec.read_params(box.header.params, 1, (100, 152))[0]) == 5
    assert lz.decode(path, to="tokens").shape == (5, 8, 10)


def test_blocks_and_cells():
    planes = torch.arange(2 * 4 * 6).reshape(2, 4, 6)
    coarse = grids(planes, 1)
    assert [tuple(g.shape) for g in coarse] == [(2, 3)] * 4 + [(4, 6)]
    assert coarse[2].tolist() == planes[0, 1::2, ::2].tolist()
    rows = torch.rand(24, 3)
    blocks = to_blocks(rows, 4, 6)
    assert torch.equal(blocks[1], torch.cat([rows[2], rows[3], rows[8], rows[9]]))
    assert torch.equal(from_blocks(blocks, 4, 6), rows)
