"""Resampling: against torchaudio, in pieces, and for ratios that need no table."""

import pytest
import torch

from latentzip.kernels import resample as module
from latentzip.kernels.resample import Resampler, ResampleStream, resample

RATIOS = [(44100, 48000), (48000, 44100), (8000, 48000), (48000, 8000), (22050, 44100), (44100, 44056)]


@pytest.mark.parametrize(("source", "target"), RATIOS[:-1])
def test_agrees_with_torchaudio(source, target):
    functional = pytest.importorskip("torchaudio.functional")
    x = torch.randn(2, 3001, generator=torch.Generator().manual_seed(0))
    expected = functional.resample(
        x, source, target, lowpass_filter_width=64, rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser", beta=14.769656459379492,
    )  # fmt: skip
    torch.testing.assert_close(resample(x, source, target), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("source", "target"), RATIOS)
@pytest.mark.parametrize("samples", [0, 1, 777, 40_000])
def test_pieces_equal_the_whole(source, target, samples):
    x = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    stream = ResampleStream(Resampler(source, target))
    groups = [g for part in x.split(501, 1) for g in stream.feed(part)] if samples else []
    y = torch.cat([x.new_zeros(1, 0), *groups, *stream.finish(1)], 1)
    whole = resample(x, source, target)
    assert whole.shape[1] == -(-samples * target // source)
    assert torch.equal(y[:, : whole.shape[1]], whole)


def test_rare_ratios_interpolate_their_taps(monkeypatch):
    x = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    expected = resample(x, 44100, 48000)
    monkeypatch.setattr(module, "_TABLE", 0)
    torch.testing.assert_close(resample(x, 44100, 48000), expected, atol=1e-5, rtol=0)


def test_a_sine_keeps_its_shape():
    t = torch.arange(30_000, dtype=torch.float64)
    sine = lambda rate, n: torch.sin(2 * torch.pi * 10_000 * t[:n] / rate)[None]  # noqa: E731
    y = resample(sine(44100, 30_000).float(), 44100, 32000)
    assert (y - sine(32000, y.shape[1]))[:, 500:-500].abs().max() < 3e-5  # 90 dB below the sine
