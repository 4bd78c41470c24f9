"""The contract of sound codecs, with a codec whose halos are real: each frame depends on its neighbours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latentzip.codecs.audio_base import AudioCodec, AudioDecoder, AudioEncoder
from latentzip.entropy.errors import FormatError, InputError
from latentzip.entropy.models import Uniform

HOP = 64


class Blocks(AudioCodec):
    """Rounded samples, mixed with those of frames two away; synthesis mixes with frames three away."""

    name, latent_limit = "blocks", 32767
    chunk, analysis_halo, synthesis_halo, tail = 40, 2, 3, 1

    def coding_rate(self, rate):
        return rate if rate in (44100, 48000) else 48000

    def hop(self, rate):
        return HOP

    def rows(self, setting):
        return HOP * setting.channels

    def analysis(self, x, setting):
        b, c, t = x.shape
        n = -(-t // HOP) + 1
        y = F.pad(x, (0, n * HOP - t)).mul(3000).round().reshape(b, c, n, HOP)
        y = y.transpose(2, 3).reshape(b, c * HOP, n)
        z = F.pad(y, (2, 2))
        return (y + 2 * (z[..., :-4] + z[..., 4:])).to(torch.int32)

    def program(self, coder, latent, shape, setting):
        return np.asarray(coder.code(latent, Uniform(-32768, 32767, shape)))

    def synthesis(self, latent, setting, first=0):
        b, _, n = latent.shape
        y = latent.float()
        z = F.pad(y, (3, 3))
        y = y + 0.5 * z[..., :-6] + 0.25 * z[..., 6:]
        number = torch.arange(first, first + n)  # as noise would, something depends on the place in the signal
        y = (y + (number % 7)).reshape(b, setting.channels, HOP, n).transpose(2, 3)
        return y.reshape(b, setting.channels, n * HOP) / 3000

    def coding_arrays(self):
        return {}


CODEC = Blocks()


def signal(channels, samples):
    g = torch.Generator().manual_seed(samples + channels)
    return torch.rand(channels, samples, generator=g) * 2 - 1


@pytest.mark.parametrize("rate", [48000, 44100, 8000, 96000, 44056])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_bytes_do_not_depend_on_how_samples_are_fed(rate, channels):
    x = signal(channels, 20001)
    packed = CODEC.compress(x, rate)
    encoder = AudioEncoder(CODEC, channels, rate)
    chunks = [c for part in x.split(997, 1) for c in encoder.feed(part)]
    assert [*chunks, *encoder.finish()] == packed.chunks
    assert encoder.params == packed.params


@pytest.mark.parametrize("samples", [0, 1, HOP - 1, HOP, HOP + 1, 40 * HOP, 7777])
@pytest.mark.parametrize("rate", [48000, 11025])
def test_lengths_return_exactly(samples, rate):
    x = signal(2, samples)
    packed = CODEC.compress(x, rate)
    y = CODEC.decompress(packed.params, packed.chunks, (2, samples), rate)
    assert y.shape == x.shape


def test_chunked_equals_whole():
    x = signal(3, 9000)
    encoder = AudioEncoder(CODEC, 3, 48000)
    parts = zip((x[:2], x[2:]), encoder.settings)
    whole = [CODEC.analysis(part[None], s)[0] for part, s in parts]
    latent = CODEC.latent(x, 48000)
    assert torch.equal(torch.cat(whole).to(torch.int16), latent)
    packed = CODEC.compress(x, 48000)
    y = CODEC.decompress(packed.params, packed.chunks, (3, 9000), 48000)
    expected = torch.cat([CODEC.synthesis(z[None], s)[0] for z, s in zip(whole, encoder.settings)])
    assert torch.equal(y, expected[:, :9000])
    assert torch.equal(CODEC.decompress(packed.params, packed.chunks, (3, 9000), 48000, to="latent"), latent)


class Watched(list):
    """A list that knows what was looked at."""

    def __init__(self, items):
        super().__init__(items)
        self.seen = set()

    def __getitem__(self, i):
        self.seen.add(i)
        return super().__getitem__(i)


@pytest.mark.parametrize("rate", [48000, 8000])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (4000, 4100), (2560, 5120), (29_999, 30_000), (77, 77)])
def test_spans_equal_the_whole_and_touch_little(rate, start, stop):
    x = signal(2, 30_000)
    packed = CODEC.compress(x, rate)
    whole = CODEC.decompress(packed.params, packed.chunks, (2, 30_000), rate)
    chunks = Watched(packed.chunks)
    part = CODEC.decompress(packed.params, chunks, (2, 30_000), rate, span=(start, stop))
    assert torch.equal(part, whole[:, start:stop])
    assert len(chunks.seen) < len(chunks)
    if rate == 48000:
        assert len(chunks.seen) <= (stop - start) // (40 * HOP) + 3
        latent = CODEC.decompress(packed.params, packed.chunks, (2, 30_000), rate, to="latent")
        part = CODEC.decompress(packed.params, packed.chunks, (2, 30_000), rate, to="latent", span=(start, stop))
        first, last = start // HOP, -(-stop // HOP) + (stop == 30_000)
        assert torch.equal(part, latent[:, first:last] if stop > start else latent[:, :0])


def test_chunks_may_come_one_by_one():
    x = signal(3, 9000)
    packed = CODEC.compress(x, 22050)
    decoder = AudioDecoder(CODEC, packed.params, (3, 9000), 22050, len(packed.chunks))
    groups = [packed.chunks[i : i + 2] for i in decoder.wanted[::2]]
    y = torch.cat([decoder.feed(group) for group in groups], 1)
    assert torch.equal(y, CODEC.decompress(packed.params, packed.chunks, (3, 9000), 22050))


def test_bad_signals_and_streams_are_refused():
    with pytest.raises(InputError, match="NaN"):
        CODEC.compress(torch.tensor([[0.0, float("nan")]]), 48000)
    with pytest.raises(InputError, match="1000 to 768000"):
        CODEC.compress(signal(1, 10), 900)
    with pytest.raises(InputError, match="quality"):
        CODEC.compress(signal(1, 10), 48000, 50)
    with pytest.raises(InputError, match="channels, samples"):
        CODEC.compress(torch.zeros(10), 48000)
    packed = CODEC.compress(signal(2, 5000), 48000)
    with pytest.raises(FormatError, match="2 chunks where the length asks for 4"):
        CODEC.decompress(packed.params, packed.chunks, (2, 9000), 48000)
    with pytest.raises(InputError, match="inside the signal"):
        CODEC.decompress(packed.params, packed.chunks, (2, 5000), 48000, span=(10, 5001))
    for i, value in ((0, 9), (1, 50), (2, 0), (5, 0)):
        damaged = bytearray(packed.params)
        damaged[i] = value
        if i == 2:
            damaged[3] = 0
        with pytest.raises(FormatError):
            CODEC.decompress(bytes(damaged), packed.chunks, (2, 5000), 48000)
