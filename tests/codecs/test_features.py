"""The codec of tensors, through the public face: what was promised is what decoding gives."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz
from latentzip.codecs.features import lossless as features_lossless
from latentzip.codecs.features import maps as features_maps
from latentzip.codecs.features import rows as features_rows
from latentzip.entropy.coder import Decoder, Encoder, RateMeter
from latentzip.entropy.container import Header, read, write

from . import hostile

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def bits_of(x):
    """Bit patterns, to compare what NaN hides."""
    return x.reshape(-1).view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def tokens(n=600, d=48, seed=0, rank=6):
    """Correlated channels, and rows that come back with changes, as words do."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank, d, generator=torch.Generator().manual_seed(99))
    words = torch.randn(40, rank, generator=g)[torch.randint(0, 40, (n,), generator=g)]
    return (words + 0.3 * torch.randn(n, rank, generator=g)) @ mix + 0.1 * torch.randn(n, d, generator=g) + 1.5


def relu_maps(c=6, side=40):
    """Smooth blobs, cut off at zero, each plane of another size."""
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(1, c, side + 8, side + 8, generator=g)
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1)[0]
    return (smooth * torch.linspace(5, 30, c)[:, None, None]).clamp_min(0)


def error(x, y):
    return float((x.double() - y.double()).abs().max()) if x.numel() else 0.0


def nmse(x, y):
    return float((x.double() - y.double()).square().mean() / x.double().var(correction=0))


# --- what goes in comes out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (3, 0, 4), (1, 1), (1, 30), (70, 3), (2, 3, 9, 11), (1,) * 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_dtypes(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    goals: list[dict[str, Any]] = [{"max_error": 0.02}, {"nmse": 1e-3}, {"lossless": True}, {}]
    blob = b""
    for goal in goals:
        blob = lz.encode(x, codec="features", **goal)
        y = lz.decode(blob)
        assert isinstance(y, torch.Tensor)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        if goal == {"max_error": 0.02}:
            assert error(x, y) <= 0.02
        if not goal or "lossless" in goal:
            assert torch.equal(bits_of(x), bits_of(y))
    assert lz.inspect(blob).shape == shape


@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    dtype=st.sampled_from(DTYPES),
    bound=st.sampled_from([1e-4, 0.03, 2.0]),
    power=st.sampled_from([1, 7]),
    scale=st.sampled_from([1e-20, 1.0, 6e4, 1e33]),
    holes=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_bounds_hold_for_anything(shape, dtype, bound, power, scale, holes, seed):
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=g) ** power * scale).to(dtype)
    if holes and x.numel():
        flat = x.reshape(-1)
        flat[0], flat[-1] = float("nan"), float("-inf")
        x = flat.reshape(shape)
    y = lz.decode(lz.encode(x, codec="features", relative_error=bound))
    fine = torch.isfinite(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert torch.equal(bits_of(x[~fine]), bits_of(y[~fine]))
    if fine.any():
        assert error(x[fine], y[fine]) <= bound * float(x[fine].double().abs().max())


@pytest.mark.parametrize("transform", ["auto", "identity", "hadamard", "klt", "map"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_guarantees_for_every_transform(transform, dtype):
    x = tokens().to(dtype)
    y = lz.decode(lz.encode(x, codec="features", max_error=0.1, transform=transform))
    assert error(x, y) <= 0.1
    y = lz.decode(lz.encode(x, codec="features", nmse=0.01, transform=transform))
    assert 0.008 < nmse(x, y) <= 0.01
    blob = lz.encode(x, codec="features", bits=2.5, transform=transform)
    assert 2.2 < 8 * len(blob) / x.numel() <= 2.5


def test_numpy_and_paths_and_batches(tmp_path):
    x = tokens(50).numpy()
    for array in (x, x.astype(np.float16), x[::2, ::3], np.asfortranarray(x), x.astype(">f4")):
        y = lz.decode(lz.encode(array, codec="features"))
        assert isinstance(y, np.ndarray)
        assert y.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(y, array)
    np.save(tmp_path / "x.npy", x)
    path = lz.encode_file(tmp_path / "x.npy", codec="features", max_error=0.01)
    lz.decode_file(path, tmp_path / "y.npy")
    assert np.abs(np.load(tmp_path / "y.npy") - x).max() <= 0.01
    streams = lz.encode([x, x[:3]], codec="features")
    assert [y.shape for y in lz.decode(streams)] == [x.shape, (3, 48)]
    assert lz.decode(streams[1], "tensor").dtype == torch.float32
    half = torch.from_numpy(x).bfloat16()
    assert lz.decode(lz.encode(half, codec="features"), "numpy").dtype == np.float32


def test_nan_kept_or_refused():
    x = tokens(100)
    x[3, 4], x[5, 6] = float("nan"), float("inf")
    x.view(torch.int32)[7, 8] = 0x7FC12345  # a NaN with a message
    y = lz.decode(lz.encode(x, codec="features", nmse=0.01))
    fine = torch.isfinite(x)
    assert torch.equal(bits_of(x[~fine]), bits_of(y[~fine]))
    assert error(x[fine], y[fine]) < 2
    with pytest.raises(lz.InputError, match="3 NaN or infinite"):
        lz.encode(x, codec="features", nmse=0.01, nan="refuse")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lossless_is_exact_and_short(dtype):
    x = tokens(2000, 32).to(dtype)
    blob = lz.encode(x, codec="features", lossless=True)
    assert torch.equal(bits_of(lz.decode(blob)), bits_of(x))
    limit = {torch.float32: 27.5, torch.bfloat16: 11.5, torch.float16: 14.5}[dtype]
    assert 8 * len(blob) / x.numel() < limit
    rare = torch.tensor([0.0, -0.0, 1e-45, -1e-45, float("nan"), float("inf"), 3.4e38]).to(dtype)
    assert torch.equal(bits_of(lz.decode(lz.encode(rare, codec="features"))), bits_of(rare))


def test_constants_cost_next_to_nothing():
    for value in (0.0, 3.1415, -7e5):
        x = torch.full((100, 64), value)
        goals: list[dict[str, Any]] = [{"nmse": 0.01}, {"max_error": 0.1}]
        for goal in goals:
            blob = lz.encode(x, codec="features", **goal)
            assert len(blob) < 200
            assert error(x, lz.decode(blob)) <= 0.1


# --- what it is worth --------------------------------------------------------------------------------------------


def size(x, **options):
    return len(lz.encode(x, codec="features", **options))


def test_each_transform_pays_where_it_should():
    x, maps = tokens(3000), relu_maps()
    assert size(x, nmse=0.01, transform="klt") < 0.7 * size(x, nmse=0.01, transform="identity")
    assert size(maps, nmse=0.01, transform="map") < 0.9 * size(maps, nmse=0.01, transform="identity")
    spiky = torch.zeros(400, 64)
    spiky[:, 5] = 100 * torch.randn(400, generator=torch.Generator().manual_seed(2))
    spiky += torch.randn(400, 64, generator=torch.Generator().manual_seed(3))
    for y in (x, maps, spiky):
        every = [size(y, nmse=0.01, transform=t) for t in ("identity", "hadamard", "klt", "map")]
        assert size(y, nmse=0.01) <= 1.03 * min(every)


def test_rows_that_return_are_predicted():
    g = torch.Generator().manual_seed(0)
    words = torch.randn(30, 64, generator=g)
    x = words[torch.randint(0, 30, (800,), generator=g)] + 0.05 * torch.randn(800, 64, generator=g)
    fresh = torch.randn(800, 64, generator=g)
    assert size(x, nmse=0.01, transform="identity") < 0.7 * size(fresh, nmse=0.01, transform="identity")


# --- parts -------------------------------------------------------------------------------------------------------


def test_regions_decode_alone():
    x = tokens(9000, 64).reshape(90, 100, 64)
    blob = lz.encode(x, codec="features", nmse=0.01)
    assert lz.inspect(blob).chunks >= 3
    whole = lz.decode(blob)
    assert torch.equal(lz.decode(blob, region=(17, 55)), whole[17:55])
    stream = read(blob)
    codec = lz.FeatureCodec()
    chunks = list(stream.chunks)
    first = codec.decompress(stream.header, [*chunks[:2], *[b""] * (len(chunks) - 2)], region=(0, 10))
    assert torch.equal(first, whole[:10])
    exact = lz.encode(x, codec="features")
    assert torch.equal(lz.decode(exact, region=(30, 31)), x[30:31])
    maps = relu_maps()
    coded = lz.encode(maps, codec="features", nmse=0.01, transform="map")
    assert torch.equal(lz.decode(coded, region=(2, 4)), lz.decode(coded)[2:4])
    for bad in ((0, 91), (5, 5), (0, 1, 2, 3)):
        with pytest.raises(lz.InputError, match="region"):
            lz.decode(blob, region=bad)


def test_prefix_of_components():
    x = tokens()
    blob = lz.encode(x, codec="features", nmse=0.001, transform="klt")
    errors = [nmse(x, lz.decode(blob, channels=k)) for k in (1, 2, 4, 6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 0.05
    with pytest.raises(lz.InputError, match="components"):
        lz.decode(blob, channels=99)
    with pytest.raises(lz.InputError, match="KLT"):
        lz.decode(lz.encode(x, codec="features"), channels=3)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_any_axis_can_hold_the_channels(axis):
    x = tokens(600, 48).reshape(20, 30, 48).movedim(-1, axis)
    blob = lz.encode(x, codec="features", nmse=0.01, transform="klt", axis=axis)
    assert nmse(x, lz.decode(blob)) <= 0.01
    assert len(blob) < 1.1 * size(tokens(600, 48), nmse=0.01, transform="klt")


def test_latents_are_the_symbols():
    x = tokens(100)
    blob = lz.encode(x, codec="features", max_error=0.25, transform="identity")
    q = lz.decode(blob, "latent")
    assert q.dtype == torch.int32
    assert q.shape == x.shape


# --- profiles ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile():
    return lz.FeatureCodec.fit([tokens(3000, 48, seed) for seed in range(2)], nmse=0.01)


def test_profile_on_held_out_and_shifted_data(profile):
    held = tokens(800, seed=7)
    for x in (held, held * 1.7 + 0.4):
        blob = lz.encode(x, codec=profile, nmse=0.01)
        assert nmse(x, lz.decode(blob, codec=profile)) <= 0.01
        assert len(blob) < size(x, nmse=0.01)
        assert error(x, lz.decode(lz.encode(x, codec=profile, max_error=0.05), codec=profile)) <= 0.05
    shifted, other = held * 1.7 + 0.4, torch.randn(800, 48, generator=torch.Generator().manual_seed(5))
    assert len(lz.encode(shifted, codec=profile, nmse=0.01)) < 1.3 * len(lz.encode(held, codec=profile, nmse=0.01))
    # features of another kind cost bits, not fidelity
    assert nmse(other, lz.decode(lz.encode(other, codec=profile, nmse=0.01), codec=profile)) <= 0.01


def test_profile_step_is_the_default(profile):
    x = tokens(2000, seed=8)
    variance = float((x - x.mean(0)).square().mean())
    y = lz.decode(lz.encode(x, codec=profile), codec=profile)
    assert 0.005 < float((x - y).square().mean()) / variance < 0.02
    assert lz.decode(lz.encode(x[0], codec=profile), codec=profile).shape == (48,)
    assert torch.equal(lz.decode(lz.encode(x[0], codec=profile, lossless=True), codec=profile), x[0])


def test_profile_file(profile, tmp_path):
    path = tmp_path / "layer.safetensors"
    profile.save(path)
    again = lz.FeatureCodec.load(path)
    assert again.fingerprint == profile.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["layer.safetensors"]
    x = tokens(64, seed=9)
    assert lz.encode(x, codec=again) == lz.encode(x, codec=profile)
    wide = lz.FeatureCodec.fit(torch.randn(800, 384))
    wide.save(path)
    assert path.stat().st_size < 300_000
    for data in (b"", b"nonsense", path.read_bytes()[:-5], path.read_bytes().replace(b"features", b"pictures")):
        path.write_bytes(data)
        with pytest.raises(lz.FormatError):
            lz.FeatureCodec.load(path)


def test_streams_name_their_profile(profile):
    x = tokens(64, seed=9)
    blob = lz.encode(x, codec=profile)
    other = lz.FeatureCodec.fit(tokens(500, seed=11))
    for codec, text in ((None, "no profile was given"), (other, other.fingerprint.hex())):
        with pytest.raises(lz.UnsupportedError, match=text) as caught:
            lz.decode(blob, codec=codec)
        assert profile.fingerprint.hex() in str(caught.value)
    with pytest.raises(lz.UnsupportedError, match="without a profile"):
        lz.decode(lz.encode(x, codec="features"), codec=profile)
    with pytest.raises(lz.InputError, match="48 channels"):
        lz.encode(x[:, :20], codec=profile)


def test_weights_move_errors_to_where_they_cost_least():
    x = tokens(3000)
    weights = torch.ones(48)
    weights[:8] = 100
    plain, weighted = lz.FeatureCodec.fit(x), lz.FeatureCodec.fit(x, weights=weights)
    results = []
    for codec in (plain, weighted):
        blob = lz.encode(x, codec=codec, bits=1.5)
        e = (x - lz.decode(blob, codec=codec)).square()
        results.append(float((e * weights).mean()))
    assert results[1] < 0.8 * results[0]
    for bad in (-torch.ones(48), torch.ones(7), torch.full((48,), float("nan"))):
        with pytest.raises(lz.InputError, match="weights"):
            lz.FeatureCodec.fit(x, weights=bad)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_error": 0.1, "nmse": 0.1}, "max_error and nmse exclude"),
        ({"lossless": True, "bits": 2}, "bits and lossless exclude"),
        ({"max_error": 0}, "above 0"),
        ({"nmse": float("nan")}, "above 0"),
        ({"bits": "few"}, "above 0"),
        ({"bits": 1e-4}, "fewer than"),
        ({"nan": "drop"}, "'keep', 'refuse'"),
        ({"transform": "dct"}, "auto, map, identity"),
        ({"axis": 2}, "axis 2"),
        ({"quality": 50}, "no quality"),
        ({"coding": "fast"}, "no coding"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(lz.InputError, match=text):
        lz.encode(tokens(20), codec="features", **options)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.ones(3, dtype=torch.float64), "float64"),
        (torch.ones(3, dtype=torch.int32), "int32"),
        (np.ones(3), "float64"),
        ("no-such-file.npy", "no-such-file"),
        ({}, "dict"),
        ([], "empty"),
        (torch.ones((1,) * 9), "9 dimensions"),
    ],
    ids=["float64", "int", "double array", "path", "dict", "empty batch", "rank"],
)
def test_signals_that_make_no_sense(x, text):
    with pytest.raises((lz.InputError, OSError), match=text):
        lz.encode(x, codec="features")


def test_pictures_take_no_goals(tmp_path):
    with pytest.raises(lz.InputError, match="max_error: only codec='features'"):
        lz.encode(np.zeros((16, 16, 3), np.uint8), max_error=0.1)
    with pytest.raises(lz.InputError, match="no picture"):
        lz.decode(lz.encode(tokens(8), codec="features"), "pil")


def streams():
    x = tokens(80, 12)
    x[3, 3] = float("nan")
    profile = lz.FeatureCodec.fit(tokens(500, 12))
    return {
        "klt": (lz.encode(x, codec="features", nmse=0.01, transform="klt"), None),
        "corrected": (lz.encode(x, codec="features", max_error=0.05, transform="klt"), None),
        "map": (lz.encode(relu_maps(2, 12), codec="features", nmse=0.01, transform="map"), None),
        "lossless": (lz.encode(x, codec="features"), None),
        "profile": (lz.encode(x, codec=profile), profile),
    }


@pytest.mark.parametrize("name", ["klt", "corrected", "map", "lossless", "profile"])
def test_hostile_streams(name):
    blob, codec = streams()[name]
    hostile.check(blob, codec, cuts=37, flips=60)


def test_headers_that_contradict_their_stream():
    stream = read(streams()["klt"][0])
    chunks = list(stream.chunks)
    for change in (
        {"shape": (80, 13)}, {"shape": (5000, 12)}, {"dtype": "float64"}, {"kind": "pil"}, {"params": b""},
        {"codec": "walloc-rgb-16x"}, {"fingerprint": bytes(8)}, {"shape": ()}, {"shape": (0, 12)},
    ):  # fmt: skip
        with pytest.raises(lz.CodecError):
            lz.decode(write(replace(stream.header, **change), chunks))
    with pytest.raises(lz.UnsupportedError):
        lz.decode(write(Header("other", bytes(8), "tensor", "tensor", (2,), "float32"), [b""]))


# --- one program, three readings ---------------------------------------------------------------------------------


def test_rate_meter_agrees_with_the_coder():
    x = tokens(500).numpy()
    rows, _ = features_rows.quantise(x, 0.2)
    encoder, meter = Encoder(1), RateMeter()
    count, components = x.shape
    features_rows.program(encoder, rows, count, components)
    features_rows.program(meter, rows, count, components)
    blob = encoder.finish()
    assert abs(8 * len(blob) - float(meter.bits)) < 0.01 * 8 * len(blob) + 128
    decoder = Decoder(blob)
    again = features_rows.program(decoder, None, count, components)
    decoder.finish()
    for name in ("level", "family", "ref", "alpha", "gain", "symbols"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(again, name))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2), (3, 1, 7), (2, 5, 1), (4, 6, 9)])
def test_maps_of_any_size(shape):
    q = np.random.default_rng(0).integers(-300, 300, shape).astype(np.int32)
    q[..., 0] = 2**31 - 1
    np.testing.assert_array_equal(features_maps.decode(features_maps.encode(q), shape), q)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(1, 1), (600, 3), (2, 70)])
def test_every_bit_pattern(dtype, shape):
    wide = 32 if dtype == "float32" else 16
    bits = np.random.default_rng(0).integers(0, 1 << wide, shape).astype(f"u{wide // 8}")
    np.testing.assert_array_equal(features_lossless.decode(features_lossless.encode(bits, dtype), shape, dtype), bits)


def test_symbols_do_not_depend_on_the_engine(monkeypatch):
    blob = lz.encode(tokens(60), codec="features", nmse=0.01, transform="klt")
    symbols, values = lz.decode(blob, "latent"), lz.decode(blob)
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert torch.equal(lz.decode(blob, "latent"), symbols)
    torch.testing.assert_close(lz.decode(blob), values)
