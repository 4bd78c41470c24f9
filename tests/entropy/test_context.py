"""The context model: exact, reversible for any shape, smaller than static tables and lossless WebP."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentzip.entropy.coder import Decoder, Encoder, RateMeter
from latentzip.entropy.context import net as context_net
from latentzip.entropy.context import passes
from latentzip.entropy.context.model import ContextModel
from latentzip.entropy.context.steps import OWN_TAPS, REACH, STEPS, geometry, mirror
from latentzip.entropy.errors import FormatError, InputError
from latentzip.entropy.models import TableModel
from latentzip.entropy.tables import TableBank

CHANNELS = 6


def photo_like(rng: np.random.Generator, channels: int, h: int, w: int, gain: float = 20.0) -> np.ndarray:
    """Latents with smooth areas, edges and activity shared between channels: int16 (channels, h, w)."""
    spectrum = 1 / np.maximum(
        np.hypot(*np.meshgrid(np.fft.fftfreq(h), np.fft.fftfreq(w), indexing="ij")), 1 / max(h, w)
    )
    noise = np.fft.fft2(rng.normal(size=(channels + 1, h, w)))
    smooth = np.fft.ifft2(noise * spectrum).real
    smooth /= smooth.std(axis=(1, 2), keepdims=True) + 1e-9
    activity = np.exp(1.2 * smooth[-1])
    out = [gain * smooth[0]]
    out += [activity * (smooth[c] * 3 + rng.laplace(size=(h, w))) * gain / (4 + 4 * c) for c in range(1, channels)]
    return np.rint(out).clip(-127, 127).astype(np.int16)


@pytest.fixture(scope="module")
def model() -> ContextModel:
    rng = np.random.default_rng(0)
    train = [photo_like(rng, CHANNELS, 32, 40) for _ in range(12)]
    return ContextModel.fit(train, deep=2, middle=2, value_taps=8, magnitude_taps=8, hidden=8, steps=60, batch=512)


def encode(model: ContextModel, latent: np.ndarray) -> bytes:
    encoder = Encoder()
    model.program(encoder, latent, (latent.shape[0], latent.shape[1], latent.shape[2]))
    return encoder.finish()


def decode(model: ContextModel, blob: bytes, shape: Any) -> np.ndarray:
    decoder = Decoder(blob)
    out = model.program(decoder, None, shape)
    decoder.finish()
    return out


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (3, 2), (5, 9), (16, 16), (33, 17), (64, 65)])
def test_round_trip_of_any_size(model: ContextModel, size: tuple[int, int]) -> None:
    latent = photo_like(np.random.default_rng(1), CHANNELS, *size)
    np.testing.assert_array_equal(decode(model, encode(model, latent), latent.shape), latent)


def test_samples_beyond_the_int8_range_survive(model: ContextModel) -> None:
    latent = np.random.default_rng(2).integers(-(2**31), 2**31 - 1, (CHANNELS, 6, 5)).astype(np.int32)
    np.testing.assert_array_equal(decode(model, encode(model, latent), latent.shape), latent)


def test_rate_meter_agrees_with_the_bytes(model: ContextModel) -> None:
    latent = photo_like(np.random.default_rng(3), CHANNELS, 64, 64)
    meter = RateMeter()
    model.program(meter, latent, (CHANNELS, 64, 64))
    assert len(encode(model, latent)) * 8 == pytest.approx(meter.bits, rel=0.01)


def test_a_prefix_of_the_channels_decodes_alone(model: ContextModel) -> None:
    latent = photo_like(np.random.default_rng(4), CHANNELS, 20, 24)
    blob = encode(model, latent)
    for c in (1, 3, CHANNELS):
        np.testing.assert_array_equal(model.program(Decoder(blob), None, (c, 20, 24)), latent[:c])


def test_arrays_restore_the_model(model: ContextModel) -> None:
    latent = photo_like(np.random.default_rng(5), CHANNELS, 24, 24)
    again = ContextModel.from_arrays(model.to_arrays())
    assert all(v.dtype.kind in "iu" for v in model.to_arrays().values())
    assert encode(again, latent) == encode(model, latent)
    assert again.fingerprint() == model.fingerprint()


def test_fitting_is_deterministic() -> None:
    rng = np.random.default_rng(0)
    train = [photo_like(rng, 3, 24, 24) for _ in range(4)]
    options = {"deep": 1, "middle": 1, "value_taps": 4, "magnitude_taps": 4, "hidden": 4, "steps": 50, "batch": 256}
    one, two = (ContextModel.fit(train, workers=workers, **options) for workers in (1, 2))
    for key, value in one.to_arrays().items():
        np.testing.assert_array_equal(two.to_arrays()[key], value, err_msg=key)
    assert one.fingerprint() == two.fingerprint()


def test_compiled_and_plain_bodies_write_the_same_bytes(model: ContextModel, monkeypatch) -> None:
    latent = photo_like(np.random.default_rng(6), CHANNELS, 31, 45)
    compiled = encode(model, latent)
    monkeypatch.setattr(passes, "body", lambda: passes.Plain)
    assert encode(model, latent) == compiled
    np.testing.assert_array_equal(decode(model, compiled, latent.shape), latent)


class Recorder:
    """Remembers what a model says of each step."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def code(self, symbols: Any, said: Any) -> Any:
        self.said.append((symbols.tolist(), said.index.tolist(), said.offset.tolist()))
        return symbols


@given(
    size=st.tuples(st.integers(1, 36), st.integers(1, 36)),
    c=st.integers(1, CHANNELS),
    spread=st.sampled_from([1.0, 20.0, 300.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_compiled_and_plain_passes_say_the_same(
    odd_model: ContextModel, size: tuple[int, int], c: int, spread: float, seed: int
) -> None:
    latent = np.rint(np.random.default_rng(seed).laplace(size=(c, *size)) * spread).astype(np.int32)
    plain, compiled = Recorder(), Recorder()
    passes.Plain(odd_model, c, *size).run(plain, latent)
    np.testing.assert_array_equal(
        passes.Compiled(odd_model, c, *size).run(compiled, latent).reshape(latent.shape), latent
    )
    assert compiled.said == plain.said
    one, several = Encoder(), Encoder()
    passes.Compiled(odd_model, c, *size).run(one, latent)  # in one call
    passes.Plain(odd_model, c, *size).run(several, latent)
    assert one.finish() == several.finish()


@pytest.fixture(scope="module")
def odd_model(model: ContextModel) -> ContextModel:
    """All three depths; odd numbers of taps and of hidden units, and taps that read what is not known yet."""
    rng = np.random.default_rng(8)
    depths = np.array([2, 0, 1, 2, 1, 0], np.int8)
    nets = []
    for channel, _ in ((c, s) for c in range(CHANNELS) for s in STEPS[int(depths[c])]):
        f, h = int(rng.integers(0, 20)), int(rng.integers(0, 8))
        taps = np.stack([rng.integers(0, 3, f), rng.integers(0, channel + 1, f), *rng.integers(-3, 4, (2, f))], 1)
        nets.append(
            context_net.StepNet(
                taps=taps.astype(np.int16),
                w1=rng.integers(-128, 128, (h, f)).astype(np.int8),
                b1=rng.integers(-9000, 9000, h).astype(np.int32),
                s1=rng.integers(0, 9, h).astype(np.int8),
                wl=rng.integers(-600, 601, (2, f)).astype(np.int16),
                w2=rng.integers(-200, 201, (2, h)).astype(np.int16),
                b=rng.integers(-30000, 60000, 2).astype(np.int32),
            )
        )
    return replace(model, depths=depths, nets=tuple(nets))


@pytest.mark.parametrize("seed", range(4))
def test_float32_is_exact_up_to_the_bounds(seed: int) -> None:
    """The largest weights that are let in give the same tables in float32 as in 64-bit integers."""
    rng = np.random.default_rng(seed)
    f, h, n = 64, 24, 3000
    w1 = rng.integers(-127, 128, (h, f)).astype(np.int8)
    wl, w2 = rng.integers(-1300, 1301, (2, f)), rng.integers(-400, 401, (2, h))
    step = context_net.StepNet(
        taps=np.zeros((f, 4), np.int16),
        w1=w1,
        b1=rng.integers(-(1 << 20), 1 << 20, h).astype(np.int32),
        s1=rng.integers(0, 13, h).astype(np.int8),
        wl=wl.astype(np.int16),
        w2=w2.astype(np.int16),
        b=rng.integers(-(1 << 18), 1 << 18, 2).astype(np.int32),
    )
    a = rng.choice([-127, 127], (f, n)) * np.where(rng.random((f, n)) < 0.5, 1, np.sign(w1[0])[:, None])
    a = a.astype(np.int64)
    hidden = np.clip(w1.astype(np.int64) @ a + step.b1[:, None] >> step.s1[:, None].astype(np.int64), 0, 255)
    mean, scale = wl @ a + w2 @ hidden + step.b[:, None]
    start, drop = np.arange(0, 41 * 16, 16, dtype=np.int32), np.arange(41, dtype=np.int32) % 5
    mean = (mean + 128 >> 8) + 8
    k = np.clip(scale + 512 >> 10, 0, 40)
    expected = start[k] + ((mean & 15) >> drop[k]), mean >> 4
    for name in ("plain", "numba"):
        got = np.empty(n, np.int32), np.empty(n, np.int32)
        conclude = context_net.kernels(name)[1]
        context_net.finish(step, step.front @ a.astype(np.float32), start, drop, conclude, *got)
        np.testing.assert_array_equal(got, expected)


def test_the_number_of_blas_threads_does_not_matter(model: ContextModel) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    latent = photo_like(np.random.default_rng(7), CHANNELS, 128, 128)
    blobs = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            blobs.append(encode(model, latent))
    assert blobs[0] == blobs[1]


def test_weights_that_could_round_are_refused(model: ContextModel) -> None:
    arrays = model.to_arrays()
    arrays["wl"] = np.full_like(arrays["wl"], 32000)
    with pytest.raises(InputError, match="overflow exact float32"):
        ContextModel.from_arrays(arrays)


@pytest.mark.parametrize("key", ["taps", "layout", "w1", "bank.freq"])
def test_missing_or_short_arrays_are_refused(model: ContextModel, key: str) -> None:
    arrays = model.to_arrays()
    with pytest.raises(InputError):
        ContextModel.from_arrays({k: v for k, v in arrays.items() if k != key})
    with pytest.raises(InputError):
        ContextModel.from_arrays({**arrays, key: arrays[key][:-1]})


@pytest.mark.parametrize("kinds", [2, 3])
def test_arrays_of_both_versions_are_read(odd_model: ContextModel, kinds: int) -> None:
    """Version 1 has no taps that sum up what is around a point; both decode what they wrote."""
    nets = tuple(replace(n, taps=np.minimum(n.taps, [kinds - 1, 99, 99, 99]).astype(np.int16)) for n in odd_model.nets)
    model = replace(odd_model, nets=nets)
    arrays = model.to_arrays()
    assert arrays["version"].tolist() == [kinds - 1]
    again = ContextModel.from_arrays(arrays)
    assert again.fingerprint() == model.fingerprint()
    latent = photo_like(np.random.default_rng(5), CHANNELS, 9, 14)
    np.testing.assert_array_equal(decode(again, encode(model, latent), latent.shape), latent)


@given(kinds=st.sampled_from([2, 3]), data=st.data())
def test_taps_are_packed_and_unpacked(kinds: int, data: st.DataObject) -> None:
    tap = st.tuples(st.integers(0, kinds - 1), st.integers(0, 107), *[st.integers(-REACH, REACH)] * 2)
    taps = np.array(data.draw(st.lists(tap, min_size=1, max_size=9)), np.int16)
    np.testing.assert_array_equal(context_net.unpack_taps(context_net.pack_taps(taps, kinds), kinds), taps)


@given(chunk=st.binary(max_size=200), damage=st.integers(0, 10**6), whole=st.booleans())
@settings(max_examples=60, deadline=None)
def test_damaged_chunks_end_in_an_error_or_in_symbols(odd_model: ContextModel, chunk: bytes, damage: int, whole: bool):
    """Compiled and plain loops read the same of any bytes, or both refuse them."""
    if whole:
        latent = photo_like(np.random.default_rng(5), CHANNELS, 9, 14)
        good = bytearray(encode(odd_model, latent))
        good[damage % len(good)] ^= 1 + damage % 255
        chunk = bytes(good)
    said = []
    for body in (passes.Compiled, passes.Plain):
        try:
            decoder = Decoder(chunk)
            symbols = body(odd_model, CHANNELS, 9, 14).run(decoder, None).tolist()
            decoder.finish()
            said.append(symbols)
        except FormatError:
            said.append("refused")
    assert said[0] == said[1]


def test_shapes_that_do_not_fit_are_refused(model: ContextModel) -> None:
    with pytest.raises(InputError, match="does not fit a model of 6 channels"):
        model.program(Encoder(), None, (7, 4, 4))
    with pytest.raises(InputError, match="expected an integer latent"):
        model.program(Encoder(), np.zeros((2, 4, 4)), (2, 4, 4))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
def test_mirroring_stays_inside_and_keeps_parity(n: int) -> None:
    i = mirror(n)
    assert i.min() >= 0
    assert i.max() < n
    if n > 1:
        np.testing.assert_array_equal(i & 1, np.arange(-REACH, n + REACH) & 1)


@pytest.mark.parametrize("depth", sorted(STEPS))
@pytest.mark.parametrize("size", [(2, 2), (5, 8), (17, 16)])
def test_steps_partition_a_channel_and_own_taps_are_known(depth: int, size: tuple[int, int]) -> None:
    h, w = size
    known = np.zeros(h * w, bool)
    for step in STEPS[depth]:
        g = geometry(h, w, step)
        assert g.flat.size == step.count(h, w)
        assert not known[g.flat].any()
        grid = known[g.pad]
        for dy, dx in OWN_TAPS[step.kind]:
            assert grid[g.own + dy * g.own_row + dx].all() or min(-(-h // step.stride), -(-w // step.stride)) < 2
        known[g.flat] = True
    assert known.all()


def photo_latents(names: list[str], basis: np.ndarray | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Twelve principal channels of a three-level wavelet packet of photographs that scikit-image ships."""
    pywt = pytest.importorskip("pywt")
    data = pytest.importorskip("skimage.data")
    packets = []
    for name in names:
        image = np.asarray(getattr(data, name)(), np.float64)[..., :3]
        bands = image[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8].transpose(2, 0, 1) / 255 - 0.5
        for _ in range(3):
            a, (hh, v, d) = pywt.dwt2(bands, "bior4.4", "periodization", axes=(-2, -1))
            bands = np.stack([a, hh, v, d], 1).reshape(-1, *a.shape[-2:])
        packets.append(bands)
    if basis is None:
        flat = np.concatenate([p.reshape(192, -1) for p in packets], 1)
        basis = np.linalg.eigh(np.cov(flat))[1][:, :-13:-1].T
    return [np.rint(np.einsum("kc,chw->khw", basis, p) * 12).clip(-127, 127).astype(np.int16) for p in packets], basis


def webp_bytes(latent: np.ndarray) -> int:
    """Lossless WebP of the latent as an RGB mosaic."""
    image_module = pytest.importorskip("PIL.Image")
    _, h, w = latent.shape
    mosaic = (latent + 128).astype(np.uint8).reshape(3, 2, 2, h, w).transpose(1, 3, 2, 4, 0).reshape(2 * h, 2 * w, 3)
    out = io.BytesIO()
    image_module.fromarray(mosaic).save(out, "webp", lossless=True, method=6, quality=100)
    return len(out.getvalue())


def static_bytes(latent: np.ndarray, train: list[np.ndarray]) -> int:
    """Bytes with one trained table a channel."""
    joined = np.concatenate([t.reshape(t.shape[0], -1) for t in train], 1) + 127
    bank = TableBank.from_histograms([np.bincount(row, minlength=255) + 0.05 for row in joined], -127)
    index = np.broadcast_to(np.arange(latent.shape[0])[:, None, None], latent.shape)
    encoder = Encoder()
    encoder.code(latent.astype(np.int32), TableModel(bank, index))
    return len(encoder.finish())


def test_photographs_take_fewer_bytes_than_static_tables_and_webp() -> None:
    train, basis = photo_latents(["astronaut", "rocket"], None)
    (latent,), _ = photo_latents(["coffee"], basis)
    options = {"value_taps": 12, "magnitude_taps": 12, "hidden": 8, "checker_hidden": 8, "steps": 60, "batch": 1024}
    model = ContextModel.fit(train, deep=2, middle=4, **options)
    size = len(encode(model, latent))
    assert size < 0.85 * static_bytes(latent, train)
    assert size < webp_bytes(latent)


def test_constant_latents_can_be_fitted() -> None:
    flat = [np.zeros((3, 16, 16), np.int8), np.full((3, 5, 1), 7, np.int8)]
    model = ContextModel.fit(flat, deep=1, middle=1, hidden=4, steps=50, batch=64)
    for latent in flat:
        np.testing.assert_array_equal(decode(model, encode(model, latent), latent.shape), latent)


def test_latents_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match="at least one latent"):
        ContextModel.fit([])
    with pytest.raises(InputError, match=r"integer arrays \(3, h, w\)"):
        ContextModel.fit([np.zeros((3, 4, 4), np.int8), np.zeros((2, 4, 4), np.int8)])
