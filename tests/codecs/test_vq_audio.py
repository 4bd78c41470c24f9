"""Sound as tokens: what is coded is what decodes, levels nest, spans equal their part, bad tokens are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save

import latentzip as lz
from latentzip.codecs.vq.audio import VqAudio, VqAudioConfig, from_bytes, round_weights, to_tensors
from latentzip.codecs.walloc.audio import WallocAudio, WallocAudioConfig
from latentzip.entropy import RateMeter
from latentzip.training import vq_audio

RATE = 44100


def sound(samples, channels=2, seed=0, level=0.5):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / RATE
    x = np.stack([np.sin(2 * np.pi * (220 + 55 * c) * t) * (1 + np.sin(7 * t + c)) for c in range(channels)])
    x += 0.05 * rng.standard_normal(x.shape)
    return torch.from_numpy(x * level / np.abs(x).max()).float()


@pytest.fixture(scope="module")
def codec():
    return lz.load_codec("vq-audio")


@pytest.mark.parametrize("channels", [1, 2])
def test_tokens_are_what_a_stream_holds(codec, channels):
    x = sound(50_000, channels)
    blob = lz.encode((x.T.numpy(), RATE), codec="vq-audio", quality=100)
    tokens = lz.decode(blob, to="tokens")
    assert tokens.dtype == torch.int64
    assert tokens.shape == (codec.config.levels, 49)
    assert 25 <= tokens.shape[1] * RATE / 50_000 <= 75
    assert torch.equal(tokens, codec.tokens(x, RATE))
    assert torch.equal(tokens, lz.decode(blob, to="latent").long())
    decoded = torch.from_numpy(lz.decode(blob)[0]).T
    level = 2 ** (round(4 * np.log2(float(x.abs().max()))) / 4)
    assert torch.equal(codec.from_tokens(tokens, RATE, channels, 50_000, level), decoded)
    assert codec.from_tokens(tokens, RATE, channels).shape == (channels, 49 * 1024)
    assert codec.codebooks.shape == (codec.config.levels, 256, codec.config.frames * codec.config.latent)


def test_levels_nest_and_more_are_better(codec):
    x = sound(90_000, seed=1)
    whole, last, size = codec.tokens(x, RATE), 1e9, 0
    for levels in (1, 2, 4, 8, 16):
        blob = lz.encode((x.T.numpy(), RATE), codec="vq-audio", levels=levels)
        assert torch.equal(lz.decode(blob, to="tokens"), whole[:levels])
        error = float((torch.from_numpy(lz.decode(blob).samples.T) - x).square().mean())
        assert error < last
        assert len(blob) > size
        last, size = error, len(blob)


def test_tokens_take_fewer_bits_than_their_alphabet(codec):
    x = sound(300_000, seed=2)
    x *= torch.exp(-9 * (torch.arange(300_000) / RATE % 0.7))  # struck, and dying away, as most notes are
    tokens = codec.tokens(x, RATE)
    meter = RateMeter()
    codec.prior.program(meter, tokens[:, None].numpy(), len(tokens), 1, tokens.shape[1])
    assert float(meter.bits) < 0.85 * 8 * tokens.numel()


def test_files_by_blocks_and_spans(codec, tmp_path):
    x = sound(500_000, seed=3)
    path = tmp_path / "x.wav"
    soundfile.write(path, x.T.numpy(), RATE, subtype="FLOAT")
    blob = lz.encode(path, codec="vq-audio", levels=5)
    assert lz.inspect(blob).chunks == 3
    whole, tokens = lz.decode(blob).samples, lz.decode(blob, to="tokens")
    assert torch.equal(tokens, codec.tokens(x, RATE, 5))
    part = lz.decode(blob, span=(4.0, 6.0)).samples
    assert np.array_equal(part, whole[176400:264600])
    some = lz.decode(blob, to="tokens", span=(4.0, 6.0))
    first = 176400 // 1024
    assert torch.equal(some, tokens[:, first : first + some.shape[1]])


def test_other_rates_and_more_channels(codec):
    x = sound(30_000, 3)
    blob = lz.encode((x.T.numpy(), 16000), codec="vq-audio", levels=2)
    tokens = lz.decode(blob, to="tokens")
    assert tokens.shape == (4, -(-90_000 // 1024))
    assert torch.equal(tokens, codec.tokens(x, 16000, 2))
    assert lz.decode(blob).samples.shape == (30_000, 3)
    assert codec.from_tokens(tokens[:2], 16000, 2, 30_000).shape == (2, 30_000)


@pytest.mark.parametrize(("tokens", "words"), [
    (np.full((3, 4), 256), "from 256 to 256; a codebook has 0 to 255"), (np.full((3, 4), -1), "from -1 to -1"),
    (np.zeros((17, 4), int), "17 levels; there are codebooks for 1 to 16"), (np.zeros((4, 4, 4), int), "frames"),
    (np.zeros((3, 0), int), r"\(3, 0\)"), (np.zeros((3, 4)), "float64"), ("tokens", "integers"),
])  # fmt: skip
def test_what_is_no_token_is_refused(codec, tokens, words):
    with pytest.raises(lz.InputError, match=words):
        codec.from_tokens(tokens)


def test_other_errors(codec):
    tokens = torch.zeros(2, 10, dtype=torch.int64)
    with pytest.raises(lz.InputError, match="have 5 tokens a level, not 10"):
        codec.from_tokens(tokens, RATE, 2, 5000)
    for option, wrong in (("level", float("nan")), ("level", "1"), ("level", -1.0), ("samples", "9"), ("samples", 0.5)):
        with pytest.raises(lz.InputError, match=f"{option} is {wrong!r}"):
            codec.from_tokens(tokens, **{option: wrong})
    values = codec.values(tokens[:2])
    feature = codec.codebooks[0, tokens[0, 3]] + codec.codebooks[1, tokens[1, 3]] + codec.mean
    torch.testing.assert_close(values[:, 3], feature, rtol=1e-4, atol=1e-4)
    with pytest.raises(lz.InputError, match="256"):
        codec.values(tokens + 256)
    with pytest.raises(lz.InputError, match="channels is 3"):
        codec.from_tokens(tokens, RATE, 3)
    with pytest.raises(lz.InputError, match="1 to 16"):
        lz.encode((np.zeros((99, 1), np.float32), RATE), codec="vq-audio", levels=17)
    with pytest.raises(lz.InputError, match="NaN"):
        codec.tokens(torch.full((1, 999), float("nan")), RATE)
    blob = lz.encode((np.zeros((0, 2), np.float32), RATE), codec="vq-audio")
    assert lz.decode(blob, to="tokens").shape[1] == 0


def test_damaged_chunks(codec):
    x = sound(40_000)
    packed = codec.compress(x, RATE, levels=4)
    data, rng = packed.chunks[0], np.random.default_rng(0)
    for _ in range(80):
        wrong = bytearray(data)
        wrong[rng.integers(len(wrong))] ^= 1 << int(rng.integers(8))
        wrong = wrong[: rng.integers(1, len(wrong) + 1)]
        try:
            tokens = codec.decompress(packed.params, [bytes(wrong)], (2, 40_000), RATE, to="latent")
        except lz.CodecError:
            continue
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < 256


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", sound(40_000, 2, i).T.numpy(), RATE)
    torch.manual_seed(0)
    trunk = WallocAudio(WallocAudioConfig(latent_channels=6, width=8, depth=1), "trunk")
    config = VqAudioConfig(levels=2, entries=16, components=8)
    return vq_audio.fit(trunk, config, folder, steps=10, name="own", log=lambda _: None)


def test_fit_makes_a_codec_that_codes(fitted, tmp_path):
    tensors, metadata = to_tensors(fitted)
    (tmp_path / "own.safetensors").write_bytes(save(tensors, metadata))
    codec = lz.load_codec(tmp_path / "own.safetensors")
    assert isinstance(codec, VqAudio)
    assert codec.fingerprint == fitted.fingerprint
    x = sound(20_000, 2, 9)
    blob = lz.encode((x.T.numpy(), RATE), codec=codec, quality=100)
    assert torch.equal(lz.decode(blob, to="tokens", codec=codec), fitted.tokens(x, RATE))
    assert len(fitted.tokens(x, RATE).unique()) > 4
    with torch.no_grad():
        round_weights(codec)
    assert codec.fingerprint == fitted.fingerprint


@pytest.mark.parametrize(
    "fields", [{"levels": 3}, {"entries": 17}, {"frames": 5}, {"latent": 4}, {"packet": 0}, {"x": 1}]
)
def test_weights_that_lie(fitted, fields):
    tensors, metadata = to_tensors(fitted)
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | fields)
    with pytest.raises(lz.FormatError):
        from_bytes(save(tensors, metadata))


def test_the_trunk_is_shared():
    from latentzip import pretrained

    assert len(pretrained.find("vq-audio").read()) < 1_500_000
    own, trunk = lz.load_codec("vq-audio").state_dict(), lz.load_codec("walloc-audio-20x").state_dict()
    assert all(torch.equal(value, trunk[key]) for key, value in own.items() if key.startswith(("encoder.", "decoder.")))


def test_tokens_of_a_path(codec, tmp_path):
    path = Path(tmp_path) / "x.ltz"
    path.write_bytes(lz.encode((sound(9000, 1)[0].numpy(), RATE), codec="vq-audio", levels=3))
    assert lz.decode(path, to="tokens").shape == (3, 9)
