"""`lossless` of sound: what comes back is what went in, for every type, length and effort; damage gives one error."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentzip as lz
from latentzip.codecs.lossless import codec as lossless
from latentzip.codecs.lossless import integers, sound, streams
from latentzip.entropy import container

sf = pytest.importorskip("soundfile")


def music(samples, channels=2, level=9000.0, seed=0):
    """Tones with noise, int16: (samples, channels)."""
    rng, t = np.random.default_rng(seed), np.arange(samples)[:, None]
    phases = rng.uniform(0, 6, (1, channels))
    x = np.sin(t / 9.7 + phases) + 0.5 * np.sin(t / 31 + phases) + 0.02 * rng.normal(size=(samples, channels))
    return np.rint(x * level / 1.6).astype(np.int16)


def same(a, b):
    """Bit for bit, NaN included."""
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def back(x, rate=8000, **options):
    return lz.decode(lz.encode((x, rate), codec="lossless", **options)).samples


@pytest.mark.parametrize("effort", range(1, 10))
def test_every_effort(effort):
    x = music(700)
    same(back(x, effort=effort, verify=True), x)


def test_efforts_pay_and_all_beat_flac(tmp_path):
    x = music(16000)
    sf.write(tmp_path / "x.flac", x, 8000, compression_level=1.0)
    sizes = [len(lz.encode((x, 8000), codec="lossless", effort=e)) for e in (1, 3, 5)]
    assert all(a > b for a, b in pairwise([(tmp_path / "x.flac").stat().st_size, *sizes]))


KINDS = {
    "noise": lambda rng, shape, top: rng.integers(-top, top, shape),
    "walk": lambda rng, shape, top: np.clip(np.cumsum(rng.integers(-9, 10, shape), 1), -top, top - 1),
    "silence": lambda rng, shape, top: np.zeros(shape, np.int64),
    "constant": lambda rng, shape, top: np.full(shape, -top),
    "clicks": lambda rng, shape, top: (rng.random(shape) < 0.05) * (top - 1),
    "alike": lambda rng, shape, top: np.repeat(rng.integers(-40, 40, (1, shape[1])), shape[0], 0),
    "zero bits": lambda rng, shape, top: rng.integers(-top // 64, top // 64, shape) * 64,
}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["uint8", "int16", "int32"]), st.sampled_from(sorted(KINDS)), st.integers(1, 3),
    st.integers(1, 300), st.sampled_from([1, 5]), st.integers(0, 99),
)  # fmt: skip
def test_any_integers(dtype, kind, channels, samples, effort, seed):
    top = int(np.iinfo(dtype).max // 2) + 1 if dtype == "uint8" else int(np.iinfo(dtype).max) + 1
    x = KINDS[kind](np.random.default_rng(seed), (channels, samples), top) + (128 if dtype == "uint8" else 0)
    x = np.ascontiguousarray(x.astype(dtype).T)
    blob = lz.encode((x, 8000), codec="lossless", effort=effort)
    same(lz.decode(blob).samples, x)
    assert len(blob) < x.nbytes + 150


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60), st.integers(1, 2))
def test_any_bits_of_floats(bits, channels):
    x = np.array(bits * channels, np.uint32).view(np.float32).reshape(channels, -1)
    parts = integers.split(x)
    same(integers.join(parts.numbers, parts.form, parts.amount, parts.rest, x.dtype), x)
    assert np.abs(parts.numbers.astype(np.int64)).max() < 1 << 24


def test_floats_with_payloads_infinities_and_negative_zeros():
    x = (music(400) / 32768).astype(np.float32)
    x[3, 0], x[4, 1], x[5, 0], x[6] = np.nan, np.inf, -np.inf, -0.0
    x.view(np.uint32)[7, 1] = 0xFFC12345
    x[8] = 1e-42
    same(back(x), x)


def test_floats_that_are_integers_cost_what_integers_cost():
    x = music(4000)
    size = len(lz.encode((x, 8000), codec="lossless"))
    for y in ((x / 32768).astype(np.float32), x.astype(np.float32) / np.float32(32767)):
        blob = lz.encode((y, 8000), codec="lossless")
        assert len(blob) <= size + 8
        same(lz.decode(blob).samples, y)


def test_integers_with_zero_bits_or_gaps_cost_no_more():
    x = music(40000, 1, 100)
    size = len(lz.encode((x, 8000), codec="lossless", effort=2))
    assert len(lz.encode((x.astype(np.int32) << 9, 8000), codec="lossless", effort=2)) <= size + 8
    gaps = np.rint(x * 2.7).astype(np.int16)
    blob = lz.encode((gaps, 8000), codec="lossless", effort=2)
    same(lz.decode(blob).samples, gaps)
    assert len(blob) < size + 400


def test_channels_alike_and_silence():
    one = music(3000, 1)
    size = len(lz.encode((one, 8000), codec="lossless", effort=1))
    assert len(lz.encode((np.repeat(one, 2, 1), 8000), codec="lossless", effort=1)) < size + 8
    assert len(lz.encode((np.zeros((50_000, 2), np.int16), 8000), codec="lossless")) < 250


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int16, np.int32])
def test_types_and_shapes_come_back(dtype):
    x = music(200)
    y = (x / 32768).astype(np.float16).astype(dtype) if np.dtype(dtype).kind == "f" else x.astype(dtype)
    for shaped in (y, y[:, 0], y[:, :1], y[:0]):
        same(back(shaped), shaped)
    same(back(y.astype(y.dtype.newbyteorder(">"))), y)


def test_tensors():
    x = torch.from_numpy(music(200).T.copy())
    for y in (x, x[0], (x / 32768).to(torch.bfloat16), (x / 32768).float()):
        z = back(y)
        assert z.dtype == y.dtype
        assert torch.equal(z, y)
    assert lz.decode(lz.encode((music(50), 8000), codec="lossless"), to="tensor").samples.dtype == torch.float32
    latent = lz.decode(lz.encode((x, 8000), codec="lossless"), to="latent")
    assert torch.equal(latent, x.int())


def test_what_cannot_be_coded():
    with pytest.raises(lz.InputError, match="float64"):
        lz.encode((np.full(5, np.pi), 8000), codec="lossless")
    bad: list[dict[str, Any]] = [{"effort": 0}, {"quality": 50}, {"verify": 1}, {"value_range": (0, 1)}]
    for options in bad:
        with pytest.raises(lz.InputError):
            lz.encode((music(10), 8000), codec="lossless", **options)
    for rate in (0, 10, 10**7):
        with pytest.raises(lz.InputError, match="rate"):
            lz.encode((music(10), rate), codec="lossless")
    with pytest.raises(lz.InputError, match="dtype"):
        lz.encode((np.zeros(9, np.int64), 8000), codec="lossless")
    encoder = streams.SoundEncoder(1, 8000)
    encoder.feed(np.zeros((1, 4), np.int16))
    with pytest.raises(lz.InputError, match="one type"):
        encoder.feed(np.zeros((1, 4), np.int32))


def test_spans_chunks_and_threads():
    x = music(70_000, 3, 2000)
    count = torch.get_num_threads()
    try:
        blobs = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            blobs.append(lz.encode((x, 2000), codec="lossless", effort=1))
            same(lz.decode(blobs[-1]).samples, x)
            for start, stop in ((0, 5), (4.09, 4.1), (3.5, 9.25), (30, 35)):
                same(lz.decode(blobs[-1], span=(start, stop)).samples, x[int(start * 2000) : int(stop * 2000)])
    finally:
        torch.set_num_threads(count)
    assert blobs[0] == blobs[1]
    assert lz.inspect(blobs[0]).chunks == 18


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=6))
def test_chunks_do_not_depend_on_how_a_sound_is_fed(cuts):
    x = music(13_000, 1, 500).T
    whole = lossless.LosslessCodec().compress(x, 1000, effort=1).chunks
    encoder, fed, at = streams.SoundEncoder(1, 1000, effort=1), [], 0
    for size in cuts:
        fed += encoder.feed(x[:, at : at + size])
        at += size
    fed += [*encoder.feed(x[:, at:]), *encoder.finish()]
    assert fed == whole


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "ULAW"])
def test_files(tmp_path, subtype):
    a, z, b = tmp_path / "a.wav", tmp_path / "a.ltz", tmp_path / "b.wav"
    sf.write(a, np.clip(music(2000).astype(np.float64) / 32768 + 1e-6, -0.9, 0.9), 8000, subtype=subtype)
    lz.encode_file(a, z, codec="lossless", effort=2, verify=True)
    lz.decode_file(z, b)
    same(sf.read(b, dtype="float64")[0], sf.read(a, dtype="float64")[0])
    assert sf.info(b).subtype == ("PCM_16" if subtype == "ULAW" else subtype)
    samples = lz.decode(z).samples
    assert samples.dtype == (np.int32 if subtype == "PCM_32" else np.float32)
    if subtype != "PCM_32":
        same(samples, sf.read(a, dtype="float32")[0])


def test_files_of_other_formats(tmp_path):
    x = music(2000)
    sf.write(tmp_path / "a.flac", x, 8000)
    lz.encode_file(tmp_path / "a.flac", codec="lossless", effort=1)
    for name in ("b.flac", "b.wav", "b.aiff", "b.npy"):
        lz.decode_file(tmp_path / "a.ltz", tmp_path / name)
        y = np.load(tmp_path / name) if name == "b.npy" else sf.read(tmp_path / name, dtype="int16")[0]
        same((y * 32768).astype(np.int16) if y.dtype == np.float32 else y, x)
    sf.write(tmp_path / "f.wav", (x / 32768 / 3).astype(np.float32), 8000, subtype="FLOAT")
    lz.encode_file(tmp_path / "f.wav", codec="lossless", effort=1)
    with pytest.warns(lz.ConversionWarning, match="24 bits"):
        lz.decode_file(tmp_path / "f.ltz", tmp_path / "f.flac")


def test_samples_that_leap_are_stored_as_they_are():
    """Silence with leaps to both ends costs the coder more than its room; no chunk grows beyond its samples."""
    rng = np.random.default_rng(0)
    for often in (2, 3, 9, 40):
        x = (rng.random((3000, 2)) < 1 / often) * rng.choice([-(2**31), 2**31 - 1], (3000, 2))
        data = sound.encode_chunk(np.ascontiguousarray(x.T.astype(np.int32)), 1)
        assert len(data) <= x.size * 4 + 5
        same(sound.decode_chunk(data, 2, 3000, np.dtype(np.int32), 1), np.ascontiguousarray(x.T.astype(np.int32)))


def test_verify_compares(monkeypatch):
    monkeypatch.setattr(sound, "decode_chunk", lambda data, c, n, dtype, effort: np.zeros((c, n), dtype))
    with pytest.raises(lz.CodecError, match="report"):
        lz.encode((music(20), 8000), codec="lossless", verify=True)


HOSTILE = {
    "music": lambda: music(90),
    "loud": lambda: np.random.default_rng(0).integers(-(2**31), 2**31, (60, 1)).astype(np.int32) >> 3,
    "floats": lambda: np.random.default_rng(0).normal(0, 0.1, (60, 2)) * (np.arange(120).reshape(60, 2) % 7 > 0),
    "gaps": lambda: np.rint(music(6000, 1, 30) * 2.7).astype(np.int16),
    "alike": lambda: np.repeat(music(90, 1), 2, 1),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_streams_give_one_error(kind):
    x = HOSTILE[kind]()
    x = x.astype(np.float32) if x.dtype == np.float64 else x
    box = container.read(lz.encode((x, 8000), codec="lossless", effort=4))
    rng, failed = np.random.default_rng(0), 0
    for i in range(60):
        params, chunk = bytearray(box.header.params), bytearray(box.chunks[0])
        target = params if rng.random() < 0.1 else chunk
        if rng.random() < 0.3:
            del target[int(rng.integers(0, len(target))) :]
        else:
            for _ in range(int(rng.integers(1, 4))):
                head = 30 if i % 2 else len(target)
                target[int(rng.integers(0, min(head, len(target))))] = int(rng.integers(0, 256))
        header = container.Header(**{**box.header.__dict__, "params": bytes(params)})
        try:
            y = lz.decode(container.write(header, [bytes(chunk)], box.boxes)).samples
        except lz.FormatError:
            failed += 1
            continue
        same(y, x)
    assert failed > 30


def test_headers_that_contradict_their_chunks():
    box = container.read(lz.encode((music(50), 8000), codec="lossless"))
    wrong: list[dict[str, Any]] = [
        {"dtype": "float32"}, {"dtype": "uint8"}, {"shape": (1, 50)}, {"shape": (2, 10**6)}, {"dtype": "uint16"},
        {"shape": (2, 51)}, {"shape": (3, 50)}, {"params": b""}, {"params": b"\2\5\12"}, {"params": b"\1\0\17"},
    ]  # fmt: skip
    for change in wrong:
        header = container.Header(**{**box.header.__dict__, **change})
        with pytest.raises(lz.FormatError):
            lz.decode(container.write(header, list(box.chunks), box.boxes))


def test_plain_loops_write_the_same_bytes(tmp_path):
    x = music(150, 2, 3000)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, latentzip as lz\n"
        "x = np.load(sys.argv[1] + '/x.npy')\n"
        "for effort in (3, 6):\n"
        "    b = lz.encode((x, 8000), codec='lossless', effort=effort)\n"
        "    assert np.array_equal(lz.decode(b).samples, x)\n"
        "    open(f'{sys.argv[1]}/{effort}', 'wb').write(b)\n"
    )
    env = {**os.environ, "LATENTZIP_NO_NUMBA": "1"}
    subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", code, str(tmp_path)], check=True, env=env)
    for effort in (3, 6):
        assert Path(tmp_path / str(effort)).read_bytes() == lz.encode((x, 8000), codec="lossless", effort=effort)


def test_least_squares_are_compiled_without_fused_operations():
    """A product and a sum that were rounded once instead of twice would give other weights on other machines."""
    from latentzip.codecs.lossless import squares

    if not hasattr(squares.solve, "py_func"):
        pytest.skip("loops are not compiled here")
    import numba

    array, rows = np.tril(np.ones((3, 3))).reshape(-1) + 1.0, np.arange(2)
    room = squares.scratch(4)
    used = [
        (squares.solve, (array, 3, rows, 2, room, np.zeros(2, np.int32), 1e-9)),
        (squares.gather, (np.arange(40, dtype=np.int32), np.array([3, 9]), 4, 2, np.zeros(36), room)),
        (squares.fold, (array, array.copy(), 3, 0.5, 0.25)),
    ]
    for loop, arguments in used:  # not from the cache, which keeps no text
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
        fresh: Any = numba.njit(**options)(loop.py_func)
        fresh(*arguments)
        text = "".join(fresh.inspect_asm().values())
        assert "mul" in text
        assert not any(word in text for word in ("fmadd", "fmsub", "fnmadd", "fmla", "fmls"))
