"""The network behind decoded speech: what it may change, where, and that spans and threads do not matter."""

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs.audio.codec import from_bytes
from latentzip.codecs.audio.postfilter import PostFilter
from latentzip.codecs.audio_base import AudioEncoder
from latentzip.evaluation.metrics.sound import log_mel_distance

RATE = 16000


@pytest.fixture(scope="module")
def codec():
    return lz.load_codec("audio")


@pytest.fixture(scope="module")
def before():
    """The release with the same tables and no network."""
    return from_bytes(pretrained.release("audio", "3").read())


def voice(seconds, channels=1):
    """Pulses through resonances, in syllables, and some hiss between them: (C, T) float32."""
    t, rng = np.arange(seconds * RATE) / RATE, np.random.default_rng(0)
    pulses = np.diff(np.floor(np.cumsum(130 * (1 + 0.2 * np.sin(5 * t))) / RATE), prepend=0)
    ring = np.exp(-250 * t[:600]) * sum(np.cos(2 * np.pi * f * t[:600]) * 700 / f for f in (700, 1200, 2600))
    x = np.convolve(pulses, ring)[: t.size] * np.maximum(np.sin(12 * t + 1), 0.01) ** 2
    x += rng.normal(0, 0.01, t.size) * (0.1 + np.maximum(np.sin(12 * t + 3.5), 0) ** 4)
    return torch.from_numpy(np.stack([x, 0.5 * x][:channels]).astype(np.float32))


def decoded(codec, x, packed, **span):
    return codec.decompress(packed.params, packed.chunks, tuple(x.shape), RATE, **span)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
@pytest.mark.parametrize("begin", [0, 12345])
def test_gains_of_one_change_nothing(rate, begin):
    """A new network has gains of one, and so has any where its strength is zero."""
    torch.manual_seed(0)
    net, (coded, noise) = PostFilter(4), torch.randn(2, 2, 5000)
    both = coded + noise
    quality = torch.full((2,), 20.0)
    with torch.no_grad():
        y = net.filtered(coded, noise, rate, quality, torch.ones(3), begin)
        assert torch.allclose(y, both, atol=1e-3)
        assert net.out.bias is not None
        net.out.bias += 2
        assert not torch.allclose(net.filtered(coded, noise, rate, quality, torch.ones(3), begin), y, atol=0.1)
        y = net.filtered(coded, noise, rate, quality, torch.zeros(3), begin)
    assert torch.allclose(y, both, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_speech_of_low_quality_is_filtered_and_nothing_else(codec, before, channels):
    x = voice(2, channels)
    t = torch.arange(2 * RATE) / RATE
    partials = [torch.sin(2 * torch.pi * 440 * k * t) * torch.exp(-2 * k * (t % 0.5)) / 8 for k in (1, 2, 3, 5)]
    bells = torch.stack(partials).sum(0).expand(channels, -1)
    for sound, quality, changed in ((x, 20, True), (x, 50, True), (x, 60, False), (bells, 20, False)):
        packed = codec.compress(sound, RATE, quality)
        assert packed == before.compress(sound, RATE, quality)
        assert torch.equal(decoded(codec, sound, packed), decoded(before, sound, packed)) != changed


def test_log_mel_distance_falls(codec, before):
    x = voice(2)
    packed = codec.compress(x, RATE, 20)
    distances = [log_mel_distance(x.T.numpy(), decoded(c, x, packed).T.numpy(), RATE) for c in (before, codec)]
    assert distances[1] < distances[0]


def test_spans_and_threads_change_nothing(codec):
    x = voice(7)
    packed = codec.compress(x, RATE, 20)
    assert len(packed.chunks) == 3
    whole, threads = decoded(codec, x, packed), torch.get_num_threads()
    for start, stop in ((0, 1), (48000, 50000), (40000, 100000)):
        assert torch.equal(decoded(codec, x, packed, span=(start, stop)), whole[:, start:stop])
    torch.set_num_threads(3 if threads == 1 else 1)
    again = decoded(codec, x, packed)
    torch.set_num_threads(threads)
    assert torch.equal(again, whole)


def test_the_halo_is_wide_enough(codec):
    """Pieces that are synthesised alone meet without a seam."""
    encoder = AudioEncoder(codec, 1, RATE, 20, 1.0)
    x = voice(5)
    latents = [groups[0] for groups in [*encoder.analyse(x), *encoder.analyse(None)]]
    latent = torch.from_numpy(np.concatenate(latents, 1))[None]
    hop, halo, setting = codec.hop(RATE), codec.synthesis_halo, encoder.settings[0]
    whole = codec.synthesis(latent, setting)
    for first, stop in ((0, 10), (10, 60), (60, latent.shape[2])):
        begin, end = max(0, first - halo), stop + halo
        part = codec.synthesis(latent[:, :, begin:end], setting, begin)
        part = part[:, :, (first - begin) * hop : (stop - begin) * hop]
        assert torch.allclose(part, whole[:, :, first * hop : stop * hop], atol=1e-5)
