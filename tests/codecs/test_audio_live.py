"""Live sound: delay, independence of blocks, lost packets, constant rates, damage."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import latentzip as lz
from latentzip.codecs.audio.live import LiveDecoder, LiveEncoder
from latentzip.entropy.errors import FormatError, InputError

RATE = 16000


@pytest.fixture(scope="module")
def codec():
    return lz.load_codec("audio")


def tones(samples, channels=1, rate=RATE):
    t = torch.arange(samples) / rate
    hertz = torch.tensor([180, 360, 720, 1500])[:, None]
    x = (0.1 * torch.sin(2 * math.pi * hertz * t * (1 + 0.02 * t))).sum(0)
    return torch.stack([x, 0.5 * x])[:channels]


def packets_of(codec, x, block=441, **options):
    encoder = LiveEncoder(codec, x.shape[0], RATE, **options)
    packets = [p for part in x.split(block, 1) for p in encoder.feed(part)]
    return packets + encoder.finish()


def heard(codec, packets, channels=1):
    decoder = LiveDecoder(codec, channels, RATE)
    return torch.cat([*(decoder.decode(p) for p in packets), decoder.finish()], 1)


def snr(a, b):
    return 10 * math.log10(float(a.square().sum()) / max(float((a - b).square().sum()), 1e-20))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 255, 256, 257, 8000])
def test_what_is_fed_comes_back(codec, channels, samples):
    x = tones(samples, channels)
    y = heard(codec, packets_of(codec, x, quality=60), channels)
    assert samples <= y.shape[1] < samples + 256
    if samples == 8000:
        assert snr(x, y[:, :samples]) > 15


def test_packets_do_not_depend_on_blocks(codec):
    x = tones(4000)
    assert packets_of(codec, x, 37) == packets_of(codec, x, 4000)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_the_delay_is_kept(codec, rate):
    encoder, decoder = LiveEncoder(codec, 1, rate), LiveDecoder(codec, 1, rate)
    assert encoder.delay <= 0.040 * rate
    out = fed = 0
    for block in tones(rate, rate=rate).split(64, 1):
        fed += block.shape[1]
        out += sum(decoder.decode(p).shape[1] for p in encoder.feed(block))
        assert fed - out <= encoder.delay + 64


def test_a_lost_packet_spoils_only_its_surroundings(codec):
    x = tones(8000)
    packets = packets_of(codec, x, quality=50)
    whole = heard(codec, packets)
    cut = heard(codec, [None if i == 10 else p for i, p in enumerate(packets)])
    assert torch.equal(whole[:, : 10 * 256 - 128], cut[:, : 10 * 256 - 128])
    assert torch.equal(whole[:, 11 * 256 + 128 :], cut[:, 11 * 256 + 128 :])
    gap = slice(10 * 256, 11 * 256)
    assert 0.05 < float(cut[:, gap].square().sum() / whole[:, gap].square().sum()) < 2  # something like it stands there


def test_a_long_gap_fades_out(codec):
    packets = packets_of(codec, tones(8000), quality=50)
    y = heard(codec, packets[:10] + [None] * 20)
    assert float(y[:, -256:].abs().max()) < 0.01 * float(y[:, :2560].abs().max())
    assert torch.equal(heard(codec, [None, None]), torch.zeros(1, 512))


@pytest.mark.parametrize("kbps", [16, 32])
def test_rates_are_constant(codec, kbps):
    packets = packets_of(codec, tones(RATE), kbps=kbps)
    assert 0.85 * kbps < sum(map(len, packets)) * 8 / 1000 <= 1.1 * kbps
    assert max(map(len, packets)) <= 5 * kbps * 125 * 256 / RATE


def test_bad_input_is_named(codec):
    with pytest.raises(InputError, match="contradict"):
        LiveEncoder(codec, 1, RATE, quality=5, kbps=6)
    with pytest.raises(InputError, match="1 or 2 channels"):
        LiveEncoder(codec, 3, RATE)
    with pytest.raises(InputError, match="resample"):
        LiveDecoder(codec, 1, 4000)
    with pytest.raises(InputError, match="samples come as"):
        LiveEncoder(codec, 1, RATE).feed(torch.zeros(2, 5))
    for packet in (b"", b"\0", b"\xff123", packets_of(codec, tones(1000))[0][:-3]):
        with pytest.raises(FormatError):
            LiveDecoder(codec, 1, RATE).decode(packet)


def test_the_example_passes_sound_through_a_pipe(codec):
    script = Path(__file__).parents[2] / "scripts" / "examples" / "live_pipe.py"
    x = tones(RATE, 2)
    samples = (x.T * 32768).round().to(torch.int16).contiguous().numpy().tobytes()

    def pipe(way: str, data: bytes, *options: str) -> bytes:
        command = [sys.executable, str(script), way, "--channels", "2", *options]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    packets = pipe("encode", samples, "--kbps", "32")
    assert len(packets) < 1.2 * 32 * 125
    whole = pipe("decode", packets)
    y = torch.frombuffer(bytearray(whole), dtype=torch.int16).reshape(-1, 2).T / 32768
    assert y.shape[1] >= x.shape[1]
    assert snr(x, y[:, : x.shape[1]]) > 15
    assert pipe("decode", packets, "--lose", "10") != whole
