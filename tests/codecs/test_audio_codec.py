"""The codec `audio`: exact lengths, every kind of signal and rate, chunks, determinism, damage."""

import math

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.codecs.audio import analysis
from latentzip.codecs.audio.coding import (
    CLASSES,
    MAX_LEVEL,
    NOT_CODED,
    Rule,
    classes,
    likeness,
    row_offsets,
    step_units,
    steps,
)
from latentzip.codecs.audio.layout import DEPTH, KINDS, TREES, Rows, division, frame_size, layout
from latentzip.codecs.audio.live import LiveEncoder
from latentzip.codecs.audio_base import AudioDecoder, AudioEncoder, Setting
from latentzip.entropy import Decoder, Encoder, RateMeter
from latentzip.entropy.errors import CodecError, FormatError, InputError

RATE = 16000


@pytest.fixture(scope="module")
def codec():
    return lz.load_codec("audio")


def music(samples, channels=2, rate=RATE, seed=0):
    """Partials that come and go, and clicks: (C, T) float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / rate
    x = np.zeros((channels, samples))
    for _ in range(12):
        tone = np.sin(2 * np.pi * rng.uniform(80, 3000) * t + rng.uniform(0, 6))
        x += rng.uniform(0, 0.1, (channels, 1)) * tone * np.exp(-(((t - rng.uniform(0, t[-1])) / 0.4) ** 2))
    x += 0.002 * rng.normal(size=x.shape)
    for start in rng.integers(0, max(1, samples - 400), max(1, samples // rate * 3)):
        n = min(400, samples - start)
        x[:, start : start + n] += 0.3 * rng.normal(size=(channels, n)) * np.exp(-np.arange(n) / 60)
    return torch.from_numpy(x.astype(np.float32))


def snr(a, b):
    return 10 * math.log10(float(a.square().sum()) / max(float((a - b).square().sum()), 1e-20))


def there_and_back(codec, x, rate=RATE, quality=60):
    packed = codec.compress(x, rate, quality)
    return codec.decompress(packed.params, packed.chunks, tuple(x.shape), rate), sum(map(len, packed.chunks))


@pytest.mark.parametrize("samples", [0, 1, 2, 255, 767, 768, 769, 44101])
@pytest.mark.parametrize("channels", [1, 2])
def test_length_is_exact(codec, samples, channels):
    x = music(max(samples, 1), channels)[:, :samples]
    y, _ = there_and_back(codec, x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    if samples > 700:
        assert snr(x, y) > 15


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_every_rate_is_coded_as_it_is(codec, rate):
    assert codec.coding_rate(rate) == rate
    x = music(rate // 3, 1, rate)
    y, _ = there_and_back(codec, x, rate)
    assert snr(x, y) > 15


def test_more_channels_are_pairs_and_singles(codec):
    x = music(9000, 5)
    y, _ = there_and_back(codec, x, quality=70)
    assert y.shape == x.shape
    assert all(snr(a, b) > 15 for a, b in zip(x, y))


def test_quality_buys_fidelity(codec):
    x = music(3 * RATE)
    results = [there_and_back(codec, x, quality=q) for q in (1, 20, 40, 60, 80, 100)]
    sizes, errors = [n for _, n in results], [snr(x, y) for y, _ in results]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors)
    assert errors[-1] > 60
    assert sizes[0] * 8 / 3 < 6000


@pytest.mark.parametrize("level", [1e-5, 1e-2, 1.0, 30.0])
def test_level_does_not_matter(codec, level):
    x = music(RATE, 1)
    y, size = there_and_back(codec, x * level)
    reference, same = there_and_back(codec, x)
    assert abs(snr(x * level, y) - snr(x, reference)) < 1.5
    assert abs(size - same) < 0.1 * same


def test_silence_is_silence_and_takes_nothing(codec):
    x = torch.zeros(2, 5 * RATE)
    y, size = there_and_back(codec, x)
    assert torch.equal(x, y)
    assert size < 130


@pytest.mark.parametrize("kind", ["dc", "square", "impulse", "noise", "one-sided"])
def test_difficult_signals(codec, kind):
    t = torch.arange(2 * RATE)
    x = {
        "dc": torch.full((2, t.numel()), 0.7),
        "square": torch.where(t % 73 < 36, 1.0, -1.0).expand(2, -1),
        "impulse": (t == 9000).float().expand(2, -1),
        "noise": torch.rand(2, t.numel(), generator=torch.Generator().manual_seed(0)) * 2 - 1,
        "one-sided": torch.stack([music(t.numel(), 1)[0], torch.zeros(t.numel())]),
    }[kind]
    y, _ = there_and_back(codec, x, quality=70)
    assert torch.isfinite(y).all()
    assert snr(x, y) > 15
    if kind == "one-sided":
        assert y[1].abs().max() < 0.01 * y[0].abs().max()


def test_an_attack_is_not_heard_before_it_comes(codec):
    x = torch.zeros(1, RATE)
    x[:, 8000:] = music(8000, 1, seed=3) + 0.2
    y, _ = there_and_back(codec, x, quality=45)
    before = float(y[:, : 8000 - RATE // 100].square().mean())
    assert before < 1e-4 * float(x[:, 8000:].square().mean())


def test_stereo_of_one_source_costs_little_more_than_mono(codec):
    mono = music(3 * RATE, 1)
    _, alone = there_and_back(codec, mono)
    _, panned = there_and_back(codec, torch.cat([0.8 * mono, 0.5 * mono]))
    assert panned < 1.3 * alone


# --- chunks and cuts ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long():
    return music(9 * RATE, 2, seed=7)


def test_chunks_do_not_depend_on_how_the_signal_is_fed(codec, long):
    whole = codec.compress(long, RATE, 50)
    encoder = AudioEncoder(codec, 2, RATE, 50, float(long.abs().max()))
    chunks = []
    for part in long.split(7001, 1):
        chunks += encoder.feed(part)
    assert [*chunks, *encoder.finish()] == whole.chunks
    assert len(whole.chunks) == 3


def test_latents_of_pieces_are_those_of_the_whole(codec, long):
    setting, hop = Setting(RATE, 2, 50, 1.0), frame_size(RATE)
    whole = codec.analysis(long[None], setting)[0]
    for first, stop in ((0, 40), (40, 90), (100, whole.shape[1])):
        begin, end = max(0, first - codec.analysis_halo), stop + codec.analysis_halo
        part = codec.analysis(long[None, :, begin * hop : end * hop], setting)[0]
        assert torch.equal(part[:, first - begin : stop - begin], whole[:, first:stop])


def test_spans_equal_the_whole(codec, long):
    packed = codec.compress(long, RATE, 50)
    whole = codec.decompress(packed.params, packed.chunks, tuple(long.shape), RATE)
    for span in ((0, 1), (49000, 50000), (40000, 110000), (9 * RATE - 1, 9 * RATE)):
        part = codec.decompress(packed.params, packed.chunks, tuple(long.shape), RATE, span=span)
        assert torch.equal(part, whole[:, span[0] : span[1]])
    decoder = AudioDecoder(codec, packed.params, tuple(long.shape), RATE, len(packed.chunks), span=(10, 1000))
    assert len(decoder.wanted) < len(packed.chunks)


def test_pieces_synthesised_alone_are_parts_of_the_whole(codec, long):
    setting, hop, halo = Setting(RATE, 2, 50, 1.0), frame_size(RATE), codec.synthesis_halo
    latent = codec.analysis(long[None], setting)
    whole = codec.synthesis(latent, setting)
    for first, stop in ((0, 10), (10, 60), (60, latent.shape[2])):
        begin, end = max(0, first - halo), stop + halo
        part = codec.synthesis(latent[:, :, begin:end], setting, begin)
        part = part[:, :, (first - begin) * hop : (stop - begin) * hop]
        assert torch.allclose(part, whole[:, :, first * hop : stop * hop], atol=1e-6)


def test_threads_change_nothing(codec, long):
    before = torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        packed = codec.compress(long, RATE, 50)
        results.append((packed.chunks, codec.decompress(packed.params, packed.chunks, tuple(long.shape), RATE)))
    torch.set_num_threads(before)
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_without_compiled_loops_symbols_are_the_same(codec, monkeypatch):
    x = music(4000, 2)
    packed = codec.compress(x, RATE, 40)
    latent = codec.decompress(packed.params, packed.chunks, tuple(x.shape), RATE, to="latent")
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    assert torch.equal(codec.decompress(packed.params, packed.chunks, tuple(x.shape), RATE, to="latent"), latent)
    again = codec.compress(x, RATE, 40)
    y = codec.decompress(again.params, again.chunks, tuple(x.shape), RATE)
    assert snr(x, y) > 10


@pytest.mark.parametrize("channels", [1, 2])
def test_compiled_loops_agree_with_the_plain_ones(codec, channels, monkeypatch):
    lay, rng = layout(RATE, channels), np.random.default_rng(3)
    rows = Rows(lay, rng.integers(0, len(TREES), 6))
    y = (rng.normal(size=(channels, 6 * lay.frame)) * np.exp(rng.normal(-3, 2, 6 * lay.frame))).astype(np.float32)
    x = music(6 * lay.frame, channels)

    def everything():
        turned, columns = y.copy(), np.zeros((6, lay.latent_channels), np.int32)
        columns[:, 0] = rows.trees
        if channels == 2:
            columns[:, 1 : lay.first_level] = angles = analysis.stereo_angles(turned, rows, lay)
            analysis.turn(turned, angles, rows, lay)
        levels = analysis.band_levels(analysis.band_powers(turned, rows, lay))
        rows.put_levels(levels, columns)
        units = step_units(levels, 30, codec.config.rule, row_offsets(lay, rows, codec.config.rule))
        live = classes(levels, units) != NOT_CODED
        analysis.quantise(turned, rows, lay, steps(units), live, columns)
        trees = analysis.divide(x, lay, 30, codec.config.rule)
        parts = turned, columns, rows.symbols_of(columns), rows.levels_of(columns), trees
        return *parts, codec.spectrum(columns.T, lay, 30, 5)[0].numpy()

    fast = everything()
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    plain = everything()
    for a, b in zip(fast[:-1], plain[:-1]):
        assert np.array_equal(a, b)
    assert np.count_nonzero(fast[2]) > 100
    np.testing.assert_allclose(fast[-1], plain[-1], rtol=1e-6)


def test_latents_of_another_shape_are_refused(codec):
    latent, setting = latent_of(codec, music(RATE, 1))
    with pytest.raises(InputError, match="rows and"):
        codec.program(RateMeter(), latent[:-1], latent.shape, setting)


# --- latents and coding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 37800, 44100, 192000])
def test_layouts_cover_every_coefficient_once(rate):
    lay = layout(rate, 2)
    assert lay.frame % 32 == 0
    assert 0.03 <= lay.frame / rate <= 0.048
    for depth, edges in enumerate(lay.edges):
        assert edges[0] == 0
        assert edges[-1] == lay.size(depth)
        assert (np.diff(edges) >= 3).all()
    rows = Rows(lay, [0, 5, len(TREES) - 1])
    assert np.array_equal(np.sort(rows.coefficient), np.arange(3 * 2 * lay.frame))
    taken = [(f, k + i) for (f, k, _), n in zip(rows.at.tolist(), rows.level_rows[:, 1]) for i in range(n)]
    assert len(set(taken)) == len(taken) == rows.count.size
    assert sum(rows.sizes) == 3 * lay.frame


def test_trees_are_all_the_ways_to_halve():
    assert len(TREES) == len(set(TREES)) == 677
    assert all(sum(0.5**d for d in tree) == 1 and max(tree) <= DEPTH for tree in TREES)


def test_steps_keep_symbols_within_their_range():
    levels = np.arange(MAX_LEVEL + 1, dtype=np.int32)
    for quality in (1, 50, 100):
        units = step_units(levels, quality, Rule(7), np.zeros_like(levels))
        assert (4 * levels - units).max() <= 87
        assert (np.diff(units) >= 0).all()
        known = classes(levels, units)
        assert known[0] == NOT_CODED
        assert ((known < CLASSES) | (known == NOT_CODED)).all()


def test_the_rate_meter_knows_the_size(codec, long):
    x = long[:, : 64 * frame_size(RATE)]
    encoder = AudioEncoder(codec, 2, RATE, 60, float(x.abs().max()))
    ((latent,),) = [*encoder.analyse(x), *encoder.analyse(None)]
    meter = RateMeter()
    codec.program(meter, latent, latent.shape, encoder.settings[0])
    (chunk,) = codec.compress(x, RATE, 60).chunks
    assert 8 * len(chunk) == pytest.approx(float(meter.bits), rel=0.01)


# --- kinds of sound ----------------------------------------------------------------------------------------------


def latent_of(codec, x, quality=30):
    """Of one chunk, and its setting."""
    encoder = AudioEncoder(codec, x.shape[0], RATE, quality, float(x.abs().max()))
    ((latent,),) = [*encoder.analyse(x), *encoder.analyse(None)]
    return latent, encoder.settings[0]


def of_kind(latent, kind):
    out = latent.copy()
    out[0] = division(latent[0])[1] + kind * len(TREES)
    return out


@pytest.mark.parametrize("channels", [1, 2])
def test_a_chunk_may_be_of_either_kind(codec, channels):
    latent, setting = latent_of(codec, music(2 * RATE, channels))
    for kind in range(KINDS):
        given = of_kind(latent, kind)
        encoder = Encoder()
        codec.program(encoder, given, given.shape, setting)
        decoder = Decoder(encoder.finish())
        assert np.array_equal(codec.program(decoder, None, given.shape, setting), given)
        decoder.finish()


def test_kinds_differ_in_what_is_filled_in_and_nothing_else(codec):
    latent, _ = latent_of(codec, music(RATE, 1))
    lay, rows = layout(RATE, 1), Rows(layout(RATE, 1), division(latent[0])[1].tolist())
    one, other = (codec.spectrum(of_kind(latent, k), lay, 30, 0)[0].numpy().reshape(-1) for k in range(KINDS))
    symbols = np.ascontiguousarray(latent.T)[:, -lay.frame :].reshape(-1)[rows.coefficient]
    kept = rows.coefficient[symbols != 0]
    assert np.array_equal(one[kept], other[kept])
    assert not np.array_equal(one, other)


def voice(hertz):
    """Pulses through resonances, in syllables, and some hiss between them: (1, T) float32."""
    t, rng = np.arange(2 * RATE) / RATE, np.random.default_rng(0)
    pulses = np.diff(np.floor(np.cumsum(hertz * (1 + 0.2 * np.sin(5 * t))) / RATE), prepend=0)
    ring = np.exp(-250 * t[:600]) * sum(np.cos(2 * np.pi * f * t[:600]) * 700 / f for f in (700, 1200, 2600))
    x = np.convolve(pulses, ring)[: t.size] * np.maximum(np.sin(12 * t + 1), 0.01) ** 2
    x += rng.normal(0, 0.01, t.size) * (0.1 + np.maximum(np.sin(12 * t + 3.5), 0) ** 4)
    return torch.from_numpy(x.astype(np.float32))[None]


@pytest.mark.parametrize(("x", "speech"), [(voice(120), True), (voice(200), True), (music(2 * RATE, 1), False)])
def test_speech_is_told_from_other_sound(codec, x, speech):
    latent, _ = latent_of(codec, x)
    assert set(division(latent[0])[0].tolist()) == {int(speech)}
    assert (likeness(latent, layout(RATE, 1), codec.tables) > 0) == speech


def test_live_sound_is_told_apart_too(codec):
    encoder = LiveEncoder(codec, 1, RATE, quality=30)
    for part in voice(120).split(1000, 1):
        encoder.feed(part)
    assert encoder._likeness > 0


def test_mixed_kinds_are_refused(codec):
    latent, setting = latent_of(codec, music(RATE, 1))
    latent = of_kind(latent, 0)
    latent[0, 3] += len(TREES)
    with pytest.raises(InputError, match="of one kind"):
        codec.program(RateMeter(), latent, latent.shape, setting)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_inputs_that_are_refused(codec):
    with pytest.raises(InputError, match="NaN"):
        codec.compress(torch.full((1, 100), math.nan), RATE)
    with pytest.raises(InputError, match="from 1"):
        codec.compress(torch.zeros(1, 100), RATE, 0)


def test_damage_is_a_codec_error_or_other_sound(codec):
    x = music(RATE, 2)
    packed = codec.compress(x, RATE, 50)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        data = bytearray(packed.chunks[0])
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        data = data[: int(rng.integers(len(data) // 2, len(data) + 1))]
        try:
            y = codec.decompress(packed.params, [bytes(data)], tuple(x.shape), RATE)
            assert y.shape == x.shape
        except CodecError:
            refused += 1
    assert refused > 50


def test_foreign_parameters_are_refused(codec):
    packed = codec.compress(music(4000, 1), RATE, 50)
    for params in (b"", packed.params[:-1], b"\xff" + packed.params[1:]):
        with pytest.raises(FormatError):
            codec.decompress(params, packed.chunks, (1, 4000), RATE)


def test_through_the_face():
    x = music(RATE, 2).T.contiguous().numpy()
    blob = lz.encode((x, RATE), codec="audio", quality=70)
    y, rate = lz.decode(blob)
    assert rate == RATE
    assert y.shape == x.shape
    assert snr(torch.from_numpy(x), torch.from_numpy(np.asarray(y))) > 20
    assert lz.inspect(blob).codec == "audio"
