"""`lossless`: what comes back is what went in, for every mode, dtype, size and effort; damage gives one error."""

import io
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import latentzip as lz
from latentzip.codecs.lossless import pictures
from latentzip.codecs.lossless.values import Values
from latentzip.entropy import adaptive, container


def wave(h, w, c=3, top=255):
    y, x = np.mgrid[:h, :w] / 6
    planes = [np.sin(x + i) + np.cos(y * (1 + i / 3)) for i in range(c)]
    noise = np.random.default_rng(h * w + c).normal(0, 0.03, (h, w, c))
    values = (np.stack(planes, -1) / 4 + 0.5 + noise).clip(0, 1) * top
    return np.rint(values).astype(np.uint8 if top < 256 else np.uint16)


def back(x, **options):
    return lz.decode(lz.encode(x, codec="lossless", **options))


def text():
    from PIL import ImageDraw

    image = Image.new("RGB", (300, 120), "white")
    draw = ImageDraw.Draw(image)
    for line in range(8):
        draw.text((4, 4 + 14 * line), "The quick brown fox jumps over the lazy dog", fill=(20, 20, 60))
    return image


@pytest.mark.parametrize("effort", range(1, 10))
def test_every_effort_and_more_is_smaller(effort):
    x = wave(48, 56)
    blob = lz.encode(x, codec="lossless", effort=effort, verify=True)
    assert np.array_equal(lz.decode(blob), x)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 9, 12, 15, 16])
@pytest.mark.parametrize("effort", [1, 5, 9])
def test_noise_of_every_depth_is_coded_in_few_more_bytes_than_its_bits(bits, effort):
    x = np.random.default_rng(bits).integers(0, 1 << bits, (70, 90)).astype(np.uint8 if bits <= 8 else np.uint16)
    blob = lz.encode(x, codec="lossless", effort=effort, metadata="none")
    assert np.array_equal(lz.decode(blob), x)
    assert len(blob) < x.size * bits / 8 * 1.25 + 400


@pytest.mark.parametrize("loop", ["code_plane", "code_colours"])
def test_an_encoder_without_room_starts_again_with_more(loop, monkeypatch):
    room, rooms = pictures.writer, []
    monkeypatch.setattr(pictures, "writer", lambda n: room(rooms.append(n) or (n if len(rooms) > 8 else n >> 7)))
    x = np.random.default_rng(4).integers(0, 5 if loop == "code_colours" else 256, (64, 64)).astype(np.uint8)
    assert np.array_equal(back(x), x)
    assert len(rooms) > 1


def test_a_list_of_sparse_values_is_kept_only_where_it_pays():
    y, x = np.mgrid[:128, :128]
    smooth = (np.sin(x / 19) + np.cos(y / 23) + 2) / 4
    noise = np.random.default_rng(0).normal(0, 1, x.shape)
    thin = np.rint(smooth * 40000 + noise * 800).clip(0, 65535).astype(np.uint16)  # a third of the values occur
    plan, numbers = pictures.plan_of(thin[None], 5)
    coded = pictures.coded(plan, thin[None], numbers, np.s_[:, :])
    assert plan.colour.listed is None
    listed = pictures.Plan(5, 0, Values.of(thin), Values(0))
    with_list = len(listed.pack()) + len(pictures.encode_chunk(listed, Values.of(thin).ranks(thin)[None], 1))
    assert len(plan.pack()) + len(pictures.encode_chunk(plan, coded, 1)) < with_list
    spread = np.rint(smooth * 2500 + noise * 8).clip(0, 4095).astype(np.uint16) * 16  # 12 bits in 16
    assert pictures.plan_of(spread[None], 5)[0].colour.listed is not None


def test_efforts_pay():
    x = wave(96, 96)
    sizes = [len(lz.encode(x, codec="lossless", effort=e)) for e in (1, 5, 9)]
    assert sizes[0] > sizes[1] > sizes[2]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 21), st.integers(1, 21), st.sampled_from(["uint8", "uint16"]),
    st.sampled_from(["noise", "flat", "few", "walk"]), st.sampled_from([1, 5, 8]), st.integers(0, 99),
)  # fmt: skip
def test_any_array(c, h, w, dtype, kind, effort, seed):
    rng, top = np.random.default_rng(seed), int(np.iinfo(dtype).max)
    x = {
        "noise": lambda: rng.integers(0, top + 1, (h, w, c)),
        "flat": lambda: np.full((h, w, c), top),
        "few": lambda: rng.integers(0, 3, (h, w, c)) * (top // 2),
        "walk": lambda: np.cumsum(rng.integers(-3, 4, (h, w, c)), 1) % (top + 1),
    }[kind]().astype(dtype)  # fmt: skip
    y = back(x, effort=effort)
    assert y.dtype == x.dtype
    assert np.array_equal(x, y)


@pytest.mark.parametrize("mode", ["1", "P", "L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I"])
def test_modes_of_pillow(mode):
    rgba = Image.fromarray(wave(20, 30, 4))
    if mode == "I;16":
        image = Image.fromarray(wave(20, 30, 1, 65535)[..., 0])
    elif mode == "I":
        image = Image.fromarray(wave(20, 30, 1, 65535)[..., 0].astype(np.int32))
    elif mode in ("LAB", "HSV", "YCbCr"):
        image = Image.frombytes(mode, (30, 20), wave(20, 30).tobytes())
    else:
        image = rgba.convert("RGB").convert(mode) if mode in ("P", "CMYK", "1") else rgba.convert(mode)
    y = back(image)
    assert y.mode == image.mode
    assert y.size == image.size
    assert y.tobytes() == image.tobytes()
    if mode == "P":
        assert y.getpalette() == image.getpalette()
        array = lz.decode(lz.encode(image, codec="lossless"), to="numpy")
        assert np.array_equal(array, np.asarray(image.convert("RGB")))


def test_transparent_entries_of_a_palette_and_transparent_colours_stay():
    image = Image.fromarray(wave(16, 16)).quantize(8)
    image.info["transparency"] = bytes([255, 0, 128] + [255] * 5)
    assert back(image).info["transparency"] == image.info["transparency"]
    keyed = text()
    keyed.info["transparency"] = (255, 255, 255)
    assert back(keyed).info["transparency"] == (255, 255, 255)
    assert lz.decode(lz.encode(image, codec="lossless"), to="tensor").shape == (4, 16, 16)


def test_colour_under_full_transparency_stays():
    x = wave(24, 24, 4)
    x[..., 3] = (x[..., 3] > 128) * 255
    assert np.array_equal(back(x), x)


def test_tensors_and_orders_of_bytes():
    import torch

    x = torch.from_numpy(wave(17, 19).transpose(2, 0, 1).copy())
    y = back(x)
    assert y.dtype == torch.uint8
    assert torch.equal(x, y)
    deep = wave(9, 11, 3, 65535)
    assert np.array_equal(back(deep.astype(">u2")), deep)


def test_flat_pictures_with_photographs_in_them():
    """More colours than a palette has, on a flat ground."""
    x = np.full((220, 200, 4), 240, np.uint8)
    x[20:100, 20:180] = np.random.default_rng(0).integers(0, 256, (80, 160, 4))
    x[120:, :150] = np.asarray(text().convert("RGBA"))[:100, :150]
    for array in (x, x[..., :3], x.astype(np.uint16) * 250):
        blob = lz.encode(array, codec="lossless")
        assert container.read(blob).header.params[-1:] != b"\0"
        assert np.array_equal(lz.decode(blob), array)
    assert np.array_equal(lz.decode(lz.encode(x, codec="lossless"), region=(90, 10, 130, 60)), x[90:130, 10:60])


def test_regions_and_chunks():
    x = wave(530, 1030)
    blob = lz.encode(x, codec="lossless", effort=1)
    assert lz.inspect(blob).chunks == 6
    assert np.array_equal(lz.decode(blob), x)
    assert np.array_equal(lz.decode(blob, region=(500, 505, 520, 1029)), x[500:520, 505:1029])
    with pytest.raises(lz.InputError, match="does not lie inside"):
        lz.decode(blob, region=(0, 0, 531, 10))


def test_threads_do_not_matter():
    import torch

    x, count = wave(530, 520), torch.get_num_threads()
    try:
        blobs = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            blobs.append(lz.encode(x, codec="lossless", effort=1))
            assert np.array_equal(lz.decode(blobs[-1]), x)
    finally:
        torch.set_num_threads(count)
    assert blobs[0] == blobs[1]


def test_smaller_than_png_and_webp():
    def saved(image, name, **options):
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        return buffer.tell()

    wide = Image.new("RGB", (600, 400), "white")
    wide.paste(text(), (0, 0))
    wide.paste(text().rotate(180), (290, 250))
    for image in (Image.fromarray(wave(96, 96)), wide):
        size = len(lz.encode(image, codec="lossless"))
        assert size < saved(image, "WEBP", lossless=True, quality=100, method=6)
        assert size < saved(image, "PNG", optimize=True)


def test_sparse_values_cost_no_more_than_dense_ones():
    x = wave(64, 64, 1)[..., 0]
    wide = (x.astype(np.uint16) * 257).astype(np.uint16)
    assert len(lz.encode(wide, codec="lossless")) < len(lz.encode(x, codec="lossless")) + 200


@pytest.mark.parametrize(
    ("x", "text_"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8 or uint16"),
        (np.zeros((4, 4), np.int64), "uint8 or uint16"),
        (np.zeros((4, 4, 5), np.uint8), r"\(H, W\)"),
        (np.zeros((0, 4), np.uint8), "H, W >= 1"),
        (Image.new("F", (4, 4)), "uint8 or uint16"),
    ],
)
def test_what_cannot_be_coded(x, text_):
    with pytest.raises(lz.InputError, match=text_):
        lz.encode(x, codec="lossless")


def test_options_are_checked():
    x = np.zeros((4, 4), np.uint8)
    bad: list[dict[str, Any]] = [{"effort": 0}, {"effort": 10}, {"quality": 50}, {"verify": 3}, {"value_range": (0, 1)}]
    for wrong in bad:
        with pytest.raises(lz.InputError):
            lz.encode(x, codec="lossless", **wrong)


def test_verify_compares(monkeypatch):
    from latentzip.codecs.lossless import codec

    monkeypatch.setattr(codec.pictures, "decode_chunk", lambda plan, data, h, w, c: np.zeros((c, h, w), np.int32))
    with pytest.raises(lz.CodecError, match="report"):
        lz.encode(wave(8, 8), codec="lossless", verify=True)


@pytest.mark.parametrize("kind", ["photo", "text", "alpha", "deep", "mixed"])
def test_hostile_streams_give_one_error(kind):
    x = {"photo": wave(20, 24), "text": np.asarray(text())[:40, :60], "alpha": wave(15, 15, 4),
         "deep": wave(16, 16, 1, 65535)[..., 0], "mixed": mixed()}[kind]  # fmt: skip
    box = container.read(lz.encode(x, codec="lossless", effort=3))
    rng = np.random.default_rng(0)
    for _ in range(40):
        params, chunk = bytearray(box.header.params), bytearray(box.chunks[0])
        target = params if rng.random() < 0.4 else chunk
        if rng.random() < 0.3:
            del target[int(rng.integers(0, len(target))) :]
        else:
            for _ in range(int(rng.integers(1, 4))):
                target[int(rng.integers(0, len(target)))] = int(rng.integers(0, 256))
        header = container.Header(**{**box.header.__dict__, "params": bytes(params)})
        try:
            y = lz.decode(container.write(header, [bytes(chunk)], box.boxes))
        except lz.FormatError:
            continue
        assert y.shape == x.shape


def mixed():
    x = np.full((140, 110, 3), 200, np.uint8)
    x[:60, :80] = np.random.default_rng(0).integers(0, 256, (60, 80, 3))
    return x


def test_headers_that_contradict_their_boxes():
    box = container.read(lz.encode(text().quantize(4), codec="lossless"))
    for mode, boxes in (("P", ()), ("L", box.boxes), ("RGB", ()), ("P", (container.Box(container.PALETTE, b"\7\1"),))):
        header = container.Header(**{**box.header.__dict__, "mode": mode})
        with pytest.raises(lz.FormatError):
            lz.decode(container.write(header, list(box.chunks), boxes))


def test_plain_loops_write_the_same_bytes(tmp_path):
    x, graphic = wave(5, 6), np.asarray(text())[2:14, 2:22]
    np.savez(tmp_path / "x.npz", x=x, g=graphic)
    code = (
        "import sys, numpy as np, latentzip as lz\n"
        "d = np.load(sys.argv[1] + '/x.npz')\n"
        "for name in ('x', 'g'):\n"
        "    b = lz.encode(d[name], codec='lossless', effort=6)\n"
        "    assert np.array_equal(lz.decode(b), d[name])\n"
        "    open(sys.argv[1] + '/' + name, 'wb').write(b)\n"
    )
    env = {**os.environ, "LATENTZIP_NO_NUMBA": "1"}
    subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", code, str(tmp_path)], check=True, env=env)
    for name, array in (("x", x), ("g", graphic)):
        assert (tmp_path / name).read_bytes() == lz.encode(array, codec="lossless", effort=6)


def test_coder_carries_and_ends():
    """Probabilities at both ends, so that carries run through words of ones, and every length of tail occurs."""
    rng = np.random.default_rng(3)
    for length in [*range(1, 12), 800]:
        bits = (rng.random(length) < 0.02).astype(int)
        coder, words = adaptive.writer(length + 8)
        found = []
        for stage in range(2):
            memory = np.concatenate(
                [np.full(1, adaptive.START, np.int32), np.full(2, 65536, np.int32), adaptive.refining(1)]
            )
            slots, scratch = np.zeros(1, np.int64), np.zeros(1, np.int32)
            for bit in bits:
                found.append(adaptive.decide(coder, words, memory, slots, 1, 1, 2, 3, 3, 255, scratch, int(bit)))
                found.append(adaptive.even(coder, words, 11, int(bit) * 2047))
            if stage == 0:
                data = adaptive.finished(coder, words)
                coder, words = adaptive.reader(data)
        adaptive.check_end(coder, words)
        half = len(found) // 2
        assert found[:half] == found[half:]


def test_tables_are_far_from_rounding():
    """They are computed when imported: no mathematics library may round an entry another way."""
    p = (np.arange(4096) + 0.5) / 4096
    exact = np.log(p / (1 - p)) * 256
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-7
    x = np.arange(-adaptive.REACH - 1, adaptive.REACH + 1) / 256
    exact = 65536 / (1 + np.exp(-x))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-7


def test_files(tmp_path):
    text().quantize(16).save(tmp_path / "a.png")
    lz.encode_file(tmp_path / "a.png", codec="lossless")
    lz.decode_file(tmp_path / "a.ltz", tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert a.mode == b.mode == "P"
        assert np.array_equal(np.asarray(a.convert("RGB")), np.asarray(b.convert("RGB")))


def test_pictures_that_png_cannot_hold_are_unpacked_as_tiff(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    made = {"ink": text().convert("RGB").convert("CMYK"), "plain": text()}
    for name, image in made.items():
        image.save(source / f"{name}.tif")
    lz.data.pack(source, tmp_path / "pack", codec="lossless", jobs=1)
    assert lz.data.unpack(tmp_path / "pack", tmp_path / "out") == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["ink.tif", "plain.png"]
    for name, image in made.items():
        with Image.open(next((tmp_path / "out").glob(f"{name}.*"))) as y:
            assert y.mode == image.mode
            assert y.tobytes() == image.tobytes()
    assert lz.data.unpack(tmp_path / "pack", tmp_path / "streams", "ltz") == 2
    assert lz.decode_file(tmp_path / "streams" / "ink.ltz").name == "ink.tif"
    with pytest.raises(lz.UnsupportedError, match=r"ink\.png: PNG cannot hold .*use \.tif"):
        lz.data.unpack(tmp_path / "pack", tmp_path / "other", "png")
    assert lz.data.unpack(tmp_path / "pack", tmp_path / "tiffs", "tif") == 2


def test_packs_hold_pictures_as_they_are(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    made = {
        "palette": text().quantize(8),
        "photo": Image.fromarray(wave(30, 40)),
        "grey": Image.fromarray(wave(33, 20, 1, 65535)[..., 0]),
        "mask": text().convert("1"),
    }
    for name, image in made.items():
        image.save(source / f"{name}.png")
    lz.data.pack(source, tmp_path / "pack", codec="lossless", effort=2)
    assert lz.data.check_pack(tmp_path / "pack", deep=True).problems == []
    lz.data.unpack(tmp_path / "pack", tmp_path / "out")
    for name, image in made.items():
        with Image.open(tmp_path / "out" / f"{name}.png") as y:
            assert y.mode == image.mode
            assert y.tobytes() == image.tobytes()
            assert y.getpalette() == image.getpalette()
    data = lz.data.LatentDataset(tmp_path / "pack", to="signal", columns=("key",))
    samples = {sample["key"]: sample["signal"] for sample in data}
    assert np.array_equal(
        (samples["photo"].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0), np.asarray(made["photo"])
    )
    for wrong in (lambda: lz.data.LatentDataset(tmp_path / "pack"), lambda: lz.data.build_cache(tmp_path / "pack")):
        with pytest.raises(lz.InputError, match="no latents"):
            wrong()


def test_a_scan_on_an_empty_background_is_a_scale_of_greys():
    """Many greys are never a palette, however much of the picture is flat: it would hide how they follow each other."""
    y, x = np.mgrid[:256, :256] - 128
    inside = np.hypot(x, y) < 110
    slopes = (1500 + 9 * x + 5 * y + 200 * np.sin(x / 9) * np.cos(y / 11)).round()
    scan = np.where(inside, slopes, 0).astype(np.uint16)
    blob = lz.encode(scan, codec="lossless")
    assert np.array_equal(np.asarray(lz.decode(blob)), scan)
    assert 8 * len(blob) / inside.sum() < 4
