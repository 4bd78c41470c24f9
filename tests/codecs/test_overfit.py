"""The codec whose nets are fitted to the picture: round trips, promises, bounds."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

import latentzip as lz
from latentzip.codecs.overfit import codec as module
from latentzip.codecs.overfit import decoder, encoder, refine, weights
from latentzip.codecs.overfit.chain import Chain
from latentzip.codecs.overfit.codec import OverfitCodec, from_bytes, rate_weight, to_bytes
from latentzip.codecs.overfit.device import DeviceChain
from latentzip.codecs.overfit.fit import Fit, Part, Schedule
from latentzip.codecs.overfit.integers import BITS, IntegerNets, bound, limit
from latentzip.codecs.overfit.nets import GROUPS, SIZES, Nets, grid_shapes, initial, layout
from latentzip.codecs.overfit.options import EFFORTS
from latentzip.codecs.overfit.rates import Storage, polish, usual
from latentzip.codecs.overfit.weights import Start, to_units
from latentzip.codecs.overfit.workers import Workers
from latentzip.entropy.errors import FormatError, InputError, UnsupportedError
from latentzip.entropy.wavefront import Wavefront, build_laplace_tables

BANK = build_laplace_tables()


@pytest.fixture
def codec(monkeypatch):
    for effort in EFFORTS:  # short fits: what is tested here does not need long ones
        monkeypatch.setitem(EFFORTS, effort, 20 * effort)
    monkeypatch.setattr(encoder, "_POLISH_FROM", 9)
    starts = [Start(s, 3, 0.001, to_units(initial(s, 3))) for s in SIZES]
    return OverfitCodec(starts, BANK)


def _picture(h, w, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / max(h, w)
    planes = [0.5 + 0.3 * np.sin(6 * (c + 1) * x + 4 * y) for c in range(channels)]
    return torch.tensor(np.clip(np.stack(planes) + rng.normal(0, 0.02, (channels, h, w)), 0, 1)).float()


def _psnr(x, y):
    return -10 * np.log10(float((x - y).square().mean()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 2), (40, 61)])
def test_any_size_comes_back(codec, size, channels):
    x = _picture(size[0], size[1], channels)
    c = codec.compress(x, 80, effort=1)
    y = codec.decompress(c.params, c.chunks, size)
    assert y.shape == x.shape
    assert float(y.min()) >= 0
    assert float(y.max()) <= 1


def test_a_fit_makes_a_picture_of_it(codec):
    x = _picture(64, 96)
    c = codec.compress(x, 90, effort=8)
    assert _psnr(x, codec.decompress(c.params, c.chunks, (64, 96))) > 24


def test_more_quality_costs_more_and_is_better(codec):
    x, sizes, errors = _picture(48, 64), [], []
    for q in (10, 50, 90):
        c = codec.compress(x, q, effort=7)
        sizes.append(len(c.params) + sum(map(len, c.chunks)))
        errors.append(_psnr(x, codec.decompress(c.params, c.chunks, (48, 64))))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors)


def test_bytes_and_pixels_do_not_depend_on_threads(codec):
    x, before, found = _picture(150, 70), torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            c = codec.compress(x, 70, effort=1)
            y = codec.decompress(c.params, c.chunks, (150, 70))
            found.add((c.params, tuple(c.chunks), y.numpy().tobytes()))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_regions_are_parts_of_the_whole(codec, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 64)
    x = _picture(100, 150)
    c = codec.compress(x, 60, effort=1)
    assert len(c.chunks) == 6
    whole = codec.decompress(c.params, c.chunks, (100, 150))
    for top, left, bottom, right in ((0, 0, 1, 1), (10, 60, 90, 140), (49, 49, 51, 51), (0, 0, 100, 150)):
        part = codec.decompress(c.params, c.chunks, (100, 150), region=(top, left, bottom, right))
        assert torch.equal(part, whole[:, top:bottom, left:right])
    with pytest.raises(InputError, match="region"):
        codec.decompress(c.params, c.chunks, (100, 150), region=(0, 0, 101, 5))


def test_decoding_is_the_same_without_compiled_loops(codec, monkeypatch):
    x = _picture(21, 34)
    c = codec.compress(x, 70, effort=2)
    y = codec.decompress(c.params, c.chunks, (21, 34))
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert torch.equal(codec.decompress(c.params, c.chunks, (21, 34)), y)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: s.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_integer_synthesis_agrees_with_floats_and_its_bodies_with_each_other(size, channels, monkeypatch):
    rng = np.random.default_rng(0)
    nets = IntegerNets(size, channels, to_units(_lively(size, channels, rng)))
    shapes = grid_shapes(39, 50)
    grids = [np.rint(rng.laplace(0, 1.5, s)).astype(np.int32).clip(-127, 127) for s in shapes]
    compiled = decoder.synthesise(grids, nets, Workers(2))
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert (decoder.synthesise(grids, nets, Workers(1)) == compiled).all()
    from latentzip.codecs.overfit import reference

    floats = {k: torch.tensor(v) for k, v in nets.floats().items()}
    theirs = reference.synthesis([torch.tensor(g).float() for g in grids], floats, size)
    assert np.abs(compiled / 4096 - theirs.numpy().clip(-7.9, 7.9)).max() < 0.02


def _lively(size, channels, rng):
    nets = initial(size, channels)
    nets.flat += rng.normal(0, 0.03, nets.flat.size).astype(np.float32)
    return nets


def test_extreme_weights_decode_alike(monkeypatch):
    """At the limits that streams may reach, compiled sums in 32 bits are those of the definition in 64."""
    size, rng = SIZES[0], np.random.default_rng(1)
    nets = Nets(size, 3)
    for w in nets.layout:
        top = {"context": 3.9, "synthesis": 9.0, "residual": 1.9, "upsampling": 1.9, "features": 7.0}.get(w.group, 20.0)
        nets[w.name][...] = rng.choice([-top, top], w.shape)
    bound(nets)
    held = IntegerNets(size, 3, to_units(nets))
    grids = [rng.choice([-127, 127], s).astype(np.int32) for s in grid_shapes(20, 33)]
    compiled = decoder.synthesise(grids, held, Workers(1))
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert (decoder.synthesise(grids, held, Workers(1)) == compiled).all()


def test_nets_come_back_from_their_bytes(codec):
    rng, start = np.random.default_rng(0), codec.starts[1]
    nets = start.nets.copy()
    nets.flat += rng.laplace(0, 0.02, nets.flat.size).astype(np.float32)
    steps = {g: BITS[g] - 2 for g in GROUPS}
    moved = weights.differences(nets, start, steps)
    data = weights.encode(moved, start, steps)
    assert (weights.decode(data, start).values == weights.apply(start, steps, moved).values).all()
    assert 8 * len(data) <= weights.bits(moved, start) + 80
    assert np.abs(weights.decode(data, start).floats().flat - nets.flat).max() <= 2.0**-7


def test_a_grey_start_is_the_colour_start_on_grey(codec):
    start = Start(SIZES[1], 3, 0.001, to_units(_lively(SIZES[1], 3, np.random.default_rng(0))))
    grey = start.grey()
    assert grey.channels == 1
    assert grey.values.size == sum(w.total for w in layout(SIZES[1], 1))


def test_a_map_of_importance_moves_quality(codec):
    x = _picture(48, 96, seed=3)
    weight = np.full((48, 96), 0.05, np.float32)
    weight[:, :48] = 1
    parts = []
    for w in (None, weight):
        c = codec.compress(x, 60, effort=7, weight=w)
        y = codec.decompress(c.params, c.chunks, (48, 96))
        parts.append(_psnr(x[..., :48], y[..., :48]) - _psnr(x[..., 48:], y[..., 48:]))
    assert parts[1] > parts[0] + 0.5


def test_other_objectives(codec):
    x = _picture(40, 40)
    c = codec.compress(x, 70, effort=9, objective=lambda a, b: (a - b).abs().mean((1, 2, 3)))
    assert _psnr(x, codec.decompress(c.params, c.chunks, (40, 40))) > 15


def test_an_interrupt_can_keep_what_there_is(codec):
    x = _picture(40, 40)

    def interrupt(done, total, figures):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        codec.compress(x, 50, effort=1, progress=interrupt)
    c = codec.compress(x, 50, effort=1, progress=interrupt, keep_best=True)
    assert codec.decompress(c.params, c.chunks, (40, 40)).shape == x.shape


def test_steps_follow_the_time_that_is_given(codec, monkeypatch):
    seen, clock = [], iter(0.1 * i for i in range(10_000))  # a tenth of a second a look
    monkeypatch.setattr(encoder.time, "monotonic", lambda: next(clock))
    codec.compress(_picture(9, 9), 50, seconds=10.0, progress=lambda done, total, figures: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert 80 <= seen[-1][0] <= 90


def test_what_it_does_not_take_is_told(codec):
    x = _picture(8, 8)
    with pytest.raises(InputError, match="effort is 0"):
        codec.compress(x, 50, effort=0)
    with pytest.raises(InputError, match="seconds is -1"):
        codec.compress(x, 50, seconds=-1)
    with pytest.raises(InputError, match="weight map"):
        codec.compress(x, 50, effort=1, weight=np.ones((3, 3)))
    with pytest.raises(InputError, match="NaN"):
        codec.compress(x * float("nan"), 50, effort=1)
    c = codec.compress(x, 50, effort=1)
    with pytest.raises(UnsupportedError, match="latent"):
        codec.decompress(c.params, c.chunks, (8, 8), to="latent")
    with pytest.raises(InputError, match="channels"):
        codec.decompress(c.params, c.chunks, (8, 8), channels=2)


def test_hostile_parameters_end_in_one_error(codec):
    x = _picture(30, 30)
    c = codec.compress(x, 50, effort=1)
    rng = np.random.default_rng(0)
    for at in range(len(c.params)):
        broken = bytearray(c.params)
        broken[at] ^= 1 << int(rng.integers(8))
        with suppress(FormatError):
            codec.decompress(bytes(broken), c.chunks, (30, 30))
    for cut in range(len(c.params)):
        with pytest.raises(FormatError):
            codec.decompress(c.params[:cut], c.chunks, (30, 30))
    for _ in range(100):
        broken = bytearray(c.chunks[0])
        broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
        with suppress(FormatError):
            codec.decompress(c.params, [bytes(broken)], (30, 30))
    with pytest.raises(FormatError, match="chunks"):
        codec.decompress(c.params, c.chunks * 2, (30, 30))


def test_weights_out_of_range_are_refused(codec):
    start = codec.starts[0]
    steps: dict[str, int] = dict.fromkeys(GROUPS, 0)
    moved = np.full(start.values.size, 100, np.int32)
    with pytest.raises(FormatError, match="out of range"):
        weights.apply(start, steps, moved)
    values = start.values.copy()
    at = sum(w.total for w in start.nets.layout[: [w.name for w in start.nets.layout].index("s1")])
    values[at : at + 112] = limit("synthesis")
    with pytest.raises(FormatError, match="synthesis"):
        IntegerNets(start.size, 3, values)


def test_weights_files_come_back(codec):
    again = from_bytes(to_bytes(codec))
    assert again.fingerprint == codec.fingerprint
    assert [s.size for s in again.starts] == [s.size for s in codec.starts]
    with pytest.raises(FormatError):
        from_bytes(to_bytes(codec)[:200])


def test_lambdas_are_those_of_hyperprior():
    assert rate_weight(1) == pytest.approx(1 / (0.001 * 255**2))
    assert rate_weight(100) == pytest.approx(1 / (0.15 * 255**2))


def test_grey_is_one_channel(codec):
    import latentzip as lz

    grey = (_picture(24, 30, 1)[0] * 255).byte().numpy()
    blob = lz.encode(grey, codec=codec, quality=60, effort=1)
    assert lz.inspect(blob).shape == (1, 24, 30)
    back = lz.decode(blob, codec=codec)
    assert back.shape == grey.shape
    assert back.dtype == grey.dtype


def test_refining_lowers_what_the_stream_costs(codec):
    """Gains by place add up to the fall of the whole: values that were judged alone do not disturb each other."""
    start = codec.starts[0]
    rng = np.random.default_rng(5)
    nets = IntegerNets(start.size, 3, start.values)
    grids = [rng.integers(-2, 3, s).astype(np.int32) for s in grid_shapes(37, 50)]
    target = _picture(37, 50).numpy()
    costs = refine.Costs(grids, target, None, nets, BANK, 0.01, Workers(2))

    def whole():
        model = Wavefront(nets.context, BANK, (37, 50), nets.features(0, grids))
        y = (decoder.synthesise(grids, nets, Workers(1)) / 4096).clip(0, 1)
        return np.square(y - target).mean() + 0.01 * model.bits(grids[0]) / grids[0].size

    before = whole()
    assert costs(grids[0]).mean() == pytest.approx(before, rel=1e-5)
    gain = refine.refine(grids[0], costs)
    assert gain > 0
    assert whole() == pytest.approx(before - gain, rel=1e-4)


def test_a_fit_on_a_device_makes_a_file_like_the_others(codec, monkeypatch):
    x = _picture(40, 56)
    ours = codec.compress(x, 80, effort=4)

    def chain(size, channels, shape, workers):
        return DeviceChain(size, channels, shape, torch.device("cpu"))

    monkeypatch.setattr(encoder, "Chain", chain)
    theirs = codec.compress(x, 80, effort=4)
    a, b = (_psnr(x, codec.decompress(c.params, c.chunks, (40, 56))) for c in (ours, theirs))
    assert b == pytest.approx(a, abs=1)
    sizes = [len(c.params) + sum(map(len, c.chunks)) for c in (ours, theirs)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_polishing_lowers_the_cost_and_keeps_nets_as_stored(codec):
    x = _picture(40, 48).numpy()
    start, price = codec.starts[0], 0.001
    workers = Workers(1)
    fit = Fit(start.nets.copy(), [Part(x)], Schedule(20, price), lambda shape: Chain(start.size, 3, shape, workers))
    while fit.step_number < fit.total_steps:
        fit.step()
    storage = Storage(start, usual(price), price / x[0].size)
    fit.nets = storage(fit.nets)

    def cost():
        bits = weights.bits(storage.moved(fit.nets), start)
        return fit.mean_error() + price * fit.bits_a_pixel() + storage.bit_weight * bits

    before = cost()
    polish(fit, storage)
    assert cost() < before
    assert (storage(fit.nets).flat == fit.nets.flat).all()


def test_packs_hold_pictures(tmp_path):
    """The shipped starts, the shortest effort: as a user packs an archive tier."""
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(18, 24), (18, 24), (9, 31)]):
        pixels = (_picture(*size, seed=i) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    lz.data.pack(tmp_path / "in", tmp_path / "pack", codec="overfit", quality=60, effort=1, jobs=1)
    assert lz.data.check_pack(tmp_path / "pack", deep=True).problems == []
    data = lz.data.LatentDataset(tmp_path / "pack", to="signal", columns=("key",))
    lz.data.unpack(tmp_path / "pack", tmp_path / "out")
    for sample in data:
        with Image.open(tmp_path / "out" / f"{sample['key']}.png") as y:
            assert np.abs(np.asarray(y) / 255 - sample["signal"].permute(1, 2, 0).numpy()).max() < 0.51 / 255
    with pytest.raises(InputError, match="no latents"):
        lz.data.LatentDataset(tmp_path / "pack")
