"""Sound through the face: what goes in comes back, of the same kind, length and rate; bad input says what is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.entropy import container
from latentzip.entropy.container import Limits

CODEC = "toy-sound"


def waves(samples=5000, channels=0, rate=44100):
    t = np.arange(samples) / rate
    x = np.stack([0.5 * np.sin(2 * np.pi * 200 * (c + 1) * t) for c in range(max(1, channels))], -1).astype(np.float32)
    return x if channels else x[:, 0]


def roundtrip(samples, rate=44100, **options):
    return lz.decode(lz.encode((samples, rate), codec=CODEC), **options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16", "int32", "uint8"])
@pytest.mark.parametrize("channels", [0, 1, 2, 5])
def test_arrays_return_alike(dtype, channels):
    x = waves(channels=channels)
    top = {"int16": 2**15, "int32": 2**31, "uint8": 128}.get(dtype, 1)
    given = (x * top + 128 * (dtype == "uint8")).astype(dtype)
    y, rate = roundtrip(given, 22050)
    assert (y.dtype, y.shape, rate) == (given.dtype, given.shape, 22050)
    assert np.abs(y.astype(float) - given.astype(float)).max() <= top * 0.6 / 1024 + 1


@pytest.mark.parametrize("shape", [(4000,), (1, 4000), (2, 4000), (3, 4000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16])
def test_tensors_return_alike(shape, dtype):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5
    given = (x * 32768).to(dtype) if dtype == torch.int16 else x.to(dtype)
    y, rate = roundtrip(given, 16000)
    assert isinstance(y, torch.Tensor)
    assert (y.dtype, y.shape, rate) == (dtype, given.shape, 16000)


@pytest.mark.parametrize("rate", [1000, 8000, 44056, 48000, 96000])
@pytest.mark.parametrize("samples", [0, 1, 2, 63, 64, 65, 8192, 8193])
def test_lengths_and_rates_are_exact(rate, samples):
    y, restored = roundtrip(waves(samples, 2), rate)
    assert (y.shape, restored) == ((samples, 2), rate)


def test_kinds_that_are_asked_for():
    blob = lz.encode(((waves(channels=2) * 32767).astype(np.int16), 8000), codec=CODEC)
    y, rate = lz.decode(blob, "tensor")
    assert (y.dtype, tuple(y.shape), rate) == (torch.float32, (2, 5000), 8000)
    y, _ = lz.decode(blob, "numpy")
    assert (y.dtype, y.shape) == (np.int16, (5000, 2))
    z = lz.decode(blob, "latent")
    assert tuple(z.shape) == (128, 79)
    y, _ = lz.decode(lz.encode((torch.zeros(2, 100, dtype=torch.bfloat16), 8000), codec=CODEC), "numpy")
    assert (y.dtype, y.shape) == (np.float32, (100, 2))


@pytest.mark.parametrize(("start", "stop"), [(0, 0.1), (0.25, 0.5), (0.9999, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("rate", [16000, 96000])
def test_spans_equal_the_whole(start, stop, rate):
    blob = lz.encode((waves(rate, 2, rate), rate), codec=CODEC)
    whole, part = lz.decode(blob).samples, lz.decode(blob, span=(start, stop)).samples
    assert np.array_equal(part, whole[round(start * rate) : round(stop * rate)])


def test_spans_touch_their_chunks_only():
    blob = bytearray(lz.encode((waves(48000, 2, 48000), 48000), codec=CODEC))
    index = container.read_header(bytes(blob))
    assert len(index.chunk_sizes) == 6
    blob[-10] ^= 1  # in the last chunk
    lz.decode(bytes(blob), span=(0, 0.1))
    with pytest.raises(lz.FormatError, match="chunk 5"):
        lz.decode(bytes(blob), span=(0.9, 1.0))


def test_batches():
    one, two = (waves(1000), 8000), (waves(500, 2), 44100)
    blobs = lz.encode([one, two], codec=CODEC)
    assert [y.samples.shape for y in lz.decode(blobs)] == [(1000,), (500, 2)]
    assert [y.rate for y in lz.decode(blobs)] == [8000, 44100]
    assert blobs == [lz.encode(x, codec=CODEC) for x in (one, two)]
    for batch in (np.zeros((3, 100, 2), np.float32), torch.zeros(3, 2, 100)):
        assert len(lz.encode((batch, 8000), codec=CODEC)) == 3
    with pytest.raises(lz.InputError, match="batch is empty"):
        lz.encode((torch.zeros(0, 2, 100), 8000), codec=CODEC)


def test_what_was_decoded_can_be_encoded():
    blob = lz.encode((waves(), 8000), codec=CODEC)
    assert lz.encode(lz.decode(blob), codec=CODEC) == blob


@pytest.mark.parametrize(
    "x",
    [np.zeros(3000), np.ones(3000), -np.ones(3000), np.where(np.arange(3000) // 50 % 2, 1.0, -1.0)],
    ids=["silence", "dc", "negative dc", "square"],
)
def test_extreme_signals(x):
    y, _ = roundtrip(x.astype(np.float32))
    np.testing.assert_allclose(y, x, atol=1e-3)
    y, _ = roundtrip(np.clip(x * 32768, -32768, 32767).astype(np.int16))  # nothing wraps around
    assert np.abs(y.astype(int) - np.clip(x * 32768, -32768, 32767)).max() <= 17


def test_clipping_is_reported_and_floats_keep_their_peaks():
    y, _ = roundtrip(np.float32(1.4) * waves() * 2)
    assert 1.3 < np.abs(y).max() < 1.5
    blob = lz.encode((np.full(100, 32767, np.int16), 8000), codec=CODEC)
    assert int(lz.decode(blob).samples.max()) == 32767  # a step above full scale is no clipping
    loud = container.read(lz.encode((np.float32(1.4) * waves() * 2, 8000), codec=CODEC))
    blob = container.write(replace(loud.header, dtype="int16"), loud.chunks)
    with pytest.warns(lz.ConversionWarning, match=r"\d+ of 5000 samples exceed the range of int16"):
        y, _ = lz.decode(blob)
    assert (y.max(), y.min()) == (32767, -32768)


def test_inspect_knows_sound():
    info = lz.inspect(lz.encode((waves(22050, 2), 44100), codec=CODEC))
    assert (info.modality, info.sample_rate, info.duration, info.shape) == ("audio", 44100, 0.5, (2, 22050))
    assert info.kbps == pytest.approx(8 * info.num_bytes / 0.5 / 1000, abs=1e-3)
    assert lz.inspect(lz.encode((waves(0), 44100), codec=CODEC)).kbps == 0


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ((np.array([0, np.nan], np.float32), 8000), "NaN"),
        ((np.array([0, np.inf], np.float32), 8000), "NaN or infinite"),
        ((np.zeros(10, np.int64), 8000), "int64.*convert it to float32"),
        ((np.zeros((2, 3, 4, 5), np.float32), 8000), "batch|samples"),
        ((np.zeros((2, 4000), np.float32), 8000), r"channels come last in arrays: use x\.T"),
        ((torch.zeros(4000, 2), 8000), r"channels come first: use x\.T"),
        ((np.zeros(10, np.float32), 0), "whole number of Hz"),
        ((np.zeros(10, np.float32), 44100.5), "whole number of Hz"),
        ((np.zeros(10, np.float32), 100), "1000 to 768000 Hz"),
        (np.zeros(10, np.float32), r"pair \(samples, rate\)"),
    ],
)
def test_bad_sounds_say_what_is_wrong(x, text):
    with pytest.raises(lz.InputError, match=text):
        lz.encode(x, codec=CODEC)


def test_arguments_that_do_not_suit():
    sound, picture = (waves(), 8000), np.zeros((8, 8, 3), np.uint8)
    blob = lz.encode(sound, codec=CODEC)
    for options, text in (
        ({"span": (0.5, 0.1)}, "inside the signal"), ({"span": (0, 99)}, "inside the signal of 0.625 s"),
        ({"span": 3}, "two numbers"), ({"region": (0, 0, 1, 1)}, "takes span"), ({"channels": 1}, "takes span"),
        ({"to": "pil"}, "no picture"),
    ):  # fmt: skip
        with pytest.raises(lz.InputError, match=text):
            lz.decode(blob, **options)  # type: ignore[arg-type]
    with pytest.raises(lz.InputError, match="span is for sound"):
        lz.decode(lz.encode(picture, "toy"), span=(0, 1))
    with pytest.raises(lz.InputError, match="codes pictures, not sound"):
        lz.encode(sound, codec="toy")
    with pytest.raises(lz.InputError, match=r"codes sound: hand in a path or a pair"):
        lz.encode(picture, codec=CODEC)
    with pytest.raises(lz.InputError, match="one fixed rate"):
        lz.encode(sound, codec=CODEC, quality=50)
    with pytest.raises(lz.InputError, match="fast coding"):
        lz.encode(sound, codec=CODEC, coding="fast")
    with pytest.raises(lz.LimitError, match="decode a span"):
        lz.decode(blob, limits=Limits(samples=4999))


def test_damaged_and_contradictory_streams():
    stream = container.read(lz.encode((waves(channels=2), 8000), codec=CODEC))
    for change in ({"kind": "pil"}, {"mode": "mono"}, {"mode": "RGB"}, {"dtype": "uint16"}, {"params": b"\1\0\1"},
                   {"shape": (2, 500_000)}, {"shape": (3, 5000)}, {"sample_rate": 50}):  # fmt: skip
        with pytest.raises(lz.CodecError):
            lz.decode(container.write(replace(stream.header, **change), stream.chunks))
    for chunks in ([b""], [stream.chunks[0][:-9]], [stream.chunks[0] + b"\0" * 9]):
        with pytest.raises(lz.CodecError):
            lz.decode(container.write(stream.header, chunks))
