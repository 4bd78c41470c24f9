"""WaLLoC for sound: transforms, chunks, levels, storage; small untrained codecs and the released ones."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save

import latentzip as lz
from latentzip.codecs.audio_base import AudioEncoder, Setting
from latentzip.codecs.walloc import audio as walloc_audio
from latentzip.codecs.walloc import weights
from latentzip.codecs.walloc.audio import WallocAudio, WallocAudioConfig
from latentzip.entropy.context.model import ContextModel
from latentzip.entropy.errors import CodecError, FormatError, InputError

RELEASED = [i.name for i in lz.list_codecs() if i.name.startswith("walloc-audio")]


@pytest.fixture(scope="module")
def codec():
    """Orthogonal random rows of the packet, their transpose as decoder, a network that is not zero."""
    torch.manual_seed(0)
    codec = WallocAudio(WallocAudioConfig(levels=5, latent_channels=12, width=8, depth=1), "small").eval()
    basis = torch.linalg.qr(torch.randn(64, 64))[0][:12]
    with torch.no_grad():
        codec.encoder.weight.copy_(basis[:, :, None])
        codec.encoder.bias.zero_()  # type: ignore[union-attr]
        codec.log_gain.fill_(3.0)
        codec.decoder.linear.weight.copy_(basis.T[:, :, None])
        codec.decoder.conv_out.weight.normal_(0, 0.05)
    rng = np.random.default_rng(0)
    latents = [np.rint(rng.laplace(0, 5, (4, 3, 60))).astype(np.int32) for _ in range(4)]
    sizes = {"value_taps": 2, "magnitude_taps": 2, "hidden": 2, "checker_hidden": 2, "steps": 5, "samples": 500}
    codec.context = ContextModel.fit(latents, chunk=64, deep=0, middle=0, **sizes)
    codec.chunk = 64
    return codec


def tone(channels, samples, rate=44100):
    t = torch.arange(samples) / rate
    x = torch.stack([torch.sin(2 * torch.pi * 300 * (c + 1) * t) * 0.3 / (c + 1) for c in range(channels)])
    return x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def test_chunked_equals_whole(codec):
    x = tone(2, 9000)
    encoder = AudioEncoder(codec, 2, 44100, level=float(x.abs().max()))
    setting = encoder.settings[0]
    latent = codec.latent(x, 44100)
    whole = codec.analysis(x[None], setting)[0]
    assert latent.shape == whole.shape == (12, -(-9000 // 32))
    # equal but for values at the border between two integers, which a rounding error may push over
    assert (latent - whole).abs().max() <= 1
    assert (latent != whole).float().mean() < 1e-3
    packed = codec.compress(x, 44100)
    y = codec.decompress(packed.params, packed.chunks, (2, 9000), 44100)
    expected = codec.synthesis(latent[None].to(torch.int8), setting)[0, :, :9000]
    torch.testing.assert_close(y, expected, atol=2e-6, rtol=0)
    assert torch.equal(codec.decompress(packed.params, packed.chunks, (2, 9000), 44100, to="latent").short(), latent)


def test_halos_are_no_wider_than_said(codec):
    """A change of one sample, and of one latent, shows within the halos."""
    setting = Setting(44100, 2)
    x = tone(2, 32 * 120)
    y = x.clone()
    y[:, 32 * 60] += 0.5
    changed = (codec.coefficients(x[None]) - codec.coefficients(y[None])).abs().amax((0, 1)) > 1e-6
    at = changed.nonzero()[:, 0]
    assert 60 - codec.analysis_halo <= int(at.min())
    assert int(at.max()) <= 60 + codec.analysis_halo
    z = codec.analysis(x[None], setting)
    other = z.clone()
    other[:, :, 60] += 40
    changed = (codec.synthesis(z, setting) - codec.synthesis(other, setting)).abs().amax((0, 1)) > 1e-6
    at = changed.nonzero()[:, 0] // 32
    assert 60 - codec.synthesis_halo <= int(at.min())
    assert int(at.max()) <= 60 + codec.synthesis_halo


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("loud", [0.0, 1.0])
def test_the_level_is_found_on_the_way(codec, loud, late):
    """Bytes are those at `level_of`; where no latent is large it is never asked for."""
    x = 0.05 * torch.randn(1, 32 * 64 * 3, generator=torch.Generator().manual_seed(2))
    x[0, 0] = 0.5
    t = torch.arange(2000) / 44100
    x[0, 32 * 64 * 2 * late :][:2000] += loud * torch.sin(2 * torch.pi * 40 * t)
    codec = copy.deepcopy(codec)
    codec.expansion /= 8  # a sine is too loud for it
    level = codec.level_of(x)
    assert (level > 1.2 * float(x.abs().max())) == (loud > 0)
    encoder = AudioEncoder(codec, 1, 44100, level=level)
    expected = [*encoder.feed(x), *encoder.finish()]
    if not loud:
        codec._level_of = None
    packed = codec.compress(x, 44100)
    assert (packed.params, packed.chunks) == (encoder.params, expected)


@pytest.mark.parametrize("gain", [1e-3, 0.3, 1.0, 4.0])
def test_level_is_kept(codec, gain):
    x = tone(1, 6000)
    packed = codec.compress(x * gain, 48000)
    y = codec.decompress(packed.params, packed.chunks, (1, 6000), 48000)
    reference = codec.compress(x, 48000)
    z = codec.decompress(reference.params, reference.chunks, (1, 6000), 48000)
    assert 0.8 < float(y.square().mean().sqrt() / gain / z.square().mean().sqrt()) < 1.25


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("samples", [1, 31, 32, 33, 2048, 5001])
def test_any_length_and_number_of_channels(codec, channels, samples):
    x = tone(channels, samples)
    for rate in (44100, 16000):
        packed = codec.compress(x, rate)
        y = codec.decompress(packed.params, packed.chunks, (channels, samples), rate)
        assert y.shape == x.shape
        assert torch.isfinite(y).all()


def test_one_channel_is_two_that_are_alike(codec):
    x = tone(1, 3000)
    both = codec.decode(codec.encode(x.expand(2, -1)[None], 44100))[0]
    one = codec.decode(codec.encode(x[None], 44100))[0]
    torch.testing.assert_close(one[0], both.mean(0), atol=1e-6, rtol=0)


def test_rates_that_are_resampled(codec):
    rates = {8000: 48000, 11025: 44100, 16000: 48000, 22050: 44100, 32000: 48000, 44100: 44100, 48000: 48000}
    assert {rate: codec.coding_rate(rate) for rate in rates} == rates
    assert codec.coding_rate(88200) == 44100
    assert codec.coding_rate(96000) == 48000


def test_weights_file_restores_the_codec(codec):
    from safetensors.torch import save

    weights.round_weights(codec)
    codec._fingerprint = None
    again = walloc_audio.from_bytes(save(*weights.to_tensors(codec)))
    again.chunk = 64
    assert again.fingerprint == codec.fingerprint
    x = tone(2, 3000)
    stream = codec.encode(x[None], 44100)[0]
    assert torch.equal(again.decode([stream])[0], codec.decode([stream])[0])
    with pytest.raises(FormatError):
        walloc_audio.from_bytes(b"not a weights file")


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_few_bits_are_few_levels_and_kept(codec, bits):
    coarse = copy.deepcopy(codec)
    weights.round_weights(coarse, bits)
    again = walloc_audio.from_bytes(save(*weights.to_tensors(coarse)))
    for key, value in again.state_dict().items():
        given = codec.state_dict()[key]
        if key.startswith("decoder.conv") and value.ndim > 1:
            rows = value.flatten(1)
            assert max(len(row.unique()) for row in rows) <= 2**bits - 1
            step = given.abs().flatten(1).amax(1) / (2 ** (bits - 1) - 1)
            assert ((rows - given.flatten(1)).square().mean(1).sqrt() < 0.5 * step + 1e-6).all()
        assert torch.equal(value, coarse.state_dict()[key]), key
    assert torch.equal(again.encoder.weight, codec.encoder.weight)
    for wrong in (1, 9):
        with pytest.raises(InputError, match="2 to 8 bits"):
            weights.round_weights(coarse, wrong)


def test_damage_is_an_error_and_stays_in_its_chunk(codec):
    x = tone(2, 32 * 64 * 4)
    packed = codec.compress(x, 44100)
    whole = codec.decompress(packed.params, packed.chunks, x.shape, 44100)
    chunks = list(packed.chunks)
    chunks[3] = b""
    with pytest.raises(CodecError):
        codec.decompress(packed.params, chunks, x.shape, 44100)
    part = codec.decompress(packed.params, chunks, x.shape, 44100, span=(0, 64 * 32))
    assert torch.equal(part, whole[:, : 64 * 32])


def test_without_entropy_model():
    with pytest.raises(InputError, match="no entropy model"):
        WallocAudio(WallocAudioConfig(levels=3, latent_channels=2, depth=0)).compress(tone(2, 100), 44100)


@pytest.mark.parametrize("name", RELEASED)
def test_released_codecs(name):
    codec = lz.load_codec(name)
    t = np.arange(30_000) / 44100
    x = np.stack([np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 331 * t)], 1).astype(np.float32) * 0.4
    blob = lz.encode((x, 44100), codec=codec)
    y, rate = lz.decode(blob)
    assert rate == 44100
    assert 10 * np.log10(np.mean(x**2) / np.mean((x - y) ** 2)) > 15
    assert lz.decode(blob, to="latent").dtype == torch.int8
