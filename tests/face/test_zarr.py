"""Chunks of Zarr arrays as `.ltz` streams, through the real zarr (format 2 and 3) and the real numcodecs."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import latentzip as lz

numcodecs = pytest.importorskip("numcodecs")
zarr = pytest.importorskip("zarr", minversion="3.0.8")

from latentzip.numcodecs import Latentzip  # noqa: E402
from latentzip.zarr import LatentzipCodec  # noqa: E402
from latentzip.zarr_chunks import STACK, ChunkCoder, decode_chunk  # noqa: E402


def array(chunk, dtype, options, version, shape=None, store=None, **more):
    """An array of this chunk's shape with our codec, in either format."""
    how: dict[str, Any] = (
        {"compressors": Latentzip(**options)} if version == 2 else {"serializer": LatentzipCodec(**options)}
    )
    if version == 3:
        how["compressors"] = None
    store = {} if store is None else store
    return zarr.create_array(store, shape=shape or chunk, chunks=chunk, dtype=dtype, zarr_format=version, **how, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("front", [(), (1,), (2, 1)])
def test_pictures(version, dtype, front, rgb, codec):
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    x = np.broadcast_to(rgb / 255 * top, (*front, *rgb.shape)).astype(dtype)
    a = array(x.shape, dtype, {"codec": codec}, version)
    a[...] = x
    y = a[...]
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert np.array_equal(y[(0,) * len(front)], lz.decode(lz.encode(x[(0,) * len(front)], codec)))
    assert 10 * np.log10(1 / np.mean((y.astype(float) - x) ** 2 / top**2)) > 28
    assert a.nbytes_stored() < a.nbytes / 2


@pytest.mark.parametrize("version", [2, 3])
def test_tensors_to_a_bound(version):
    x = np.random.default_rng(0).standard_normal((3, 20, 17)).astype(np.float32)
    a = array((1, 20, 17), "float32", {"codec": "features", "max_error": 0.02}, version, x.shape)
    a[:] = x
    assert 0 < np.abs(a[:] - x).max() <= 0.02
    exact = array((2, 20, 17), "float32", {"codec": "features"}, version, x.shape)  # the last chunk is filled up
    exact[:] = x
    assert np.array_equal(exact[:], x)


def test_grey_stacks_and_parts(rgb, codec):
    x = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    a = array((2, 37, 53), "uint8", {"codec": codec}, 3, x.shape)
    a[:] = x
    assert np.array_equal(a[1, 3:9, 4:], lz.decode(lz.encode(x[1], codec))[3:9, 4:])
    a[1, :2] = 0  # chunks are read, changed and written
    assert a[1, :2].max() < 40


def test_sharded(rgb, codec):
    x = np.stack([rgb[:32, :48], rgb[:32, :48][::-1]])
    a = array((1, 32, 48, 3), "uint8", {"codec": codec}, 3, x.shape, shards=(2, 32, 48, 3))
    a[:] = x
    assert np.array_equal(a[1], lz.decode(lz.encode(x[1], codec)))


@pytest.mark.parametrize("version", [2, 3])
def test_found_by_name_where_latentzip_is_installed(version, rgb, tmp_path, codec):
    """Entry points: a reader imports zarr alone."""
    a = array(rgb.shape, "uint8", {"codec": codec, "coding": "default"}, version, store=tmp_path / "a.zarr")
    a[:] = rgb
    metadata = json.loads((tmp_path / "a.zarr" / ("zarr.json" if version == 3 else ".zarray")).read_text())
    stored = metadata["codecs"][0] if version == 3 else metadata["compressor"]
    expected = {"name": "latentzip", "configuration": {"codec": codec}}
    assert stored == (expected if version == 3 else {"id": "latentzip", "codec": codec})
    code = f"import zarr\nprint(int(zarr.open_array({str(tmp_path / 'a.zarr')!r})[:].sum()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) == int(a[:].sum())


def test_numcodecs_contract(rgb, codec):
    made = Latentzip(codec=codec)
    assert numcodecs.get_codec(json.loads(json.dumps(made.get_config()))) == made
    assert eval(repr(made)) == made
    assert made != Latentzip(codec="features")
    encoded = made.encode(rgb)
    assert encoded == lz.encode(rgb, codec)
    assert np.array_equal(made.decode(memoryview(encoded)), made.decode(bytearray(encoded)))
    out = np.empty_like(rgb)
    assert made.decode(encoded, out=out) is out
    assert np.array_equal(out, lz.decode(encoded))
    assert Latentzip(codec="features", nmse=0.1, axis=0).get_config() == {
        "id": "latentzip", "codec": "features", "nmse": 0.1, "axis": 0
    }  # fmt: skip


def test_refused_when_the_array_is_made(codec):
    for dtype, shape, options, text in (
        ("int16", (8, 8), {"codec": codec}, "takes chunks of uint8.*not int16"),
        ("float64", (8, 8), {"codec": "features"}, "takes chunks of float16, float32, not float64"),
        ("uint8", (8,), {"codec": codec}, r"\(8,\) is no picture"),
    ):
        with pytest.raises(lz.InputError, match=text):
            array(shape, dtype, options, 3)
    with pytest.raises(TypeError, match="qualty"):
        LatentzipCodec(codec=codec, qualty=5)


@pytest.mark.parametrize("version", [2, 3])
def test_options_of_numpy_and_codecs_of_ones_own(version, tmp_path):
    """What arrays keep is JSON; chunks of a profile are read with the profile."""
    x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    store: dict[str, Any] = {}
    bound = {"codec": "features", "max_error": np.float32(0.25), "axis": np.int64(1)}
    array((32, 8), "float32", bound, version, x.shape, store)[:] = x
    assert 0 < np.abs(zarr.open_array(store)[:] - x).max() <= 0.25
    profile = tmp_path / "mine.safetensors"
    lz.FeatureCodec.fit([torch.from_numpy(x)], nmse=0.01).save(profile)
    own: dict[str, Any] = {}
    array((32, 8), "float32", {"codec": profile, "nmse": np.float64(0.01)}, version, x.shape, own)[:] = x
    assert np.square(zarr.open_array(own)[:] - x).mean() < 0.02
    for name in ("codec", "objective"):
        with pytest.raises(lz.InputError, match=f"{name} is .*arrays keep"):
            ChunkCoder(**{name: print})  # type: ignore[arg-type]


def test_refused_when_a_chunk_is_written(rgb, codec):
    with pytest.raises(lz.InputError, match="order='C'"):
        Latentzip(codec=codec).encode(np.asfortranarray(rgb))
    with pytest.raises(lz.InputError, match="byte order"):
        Latentzip(codec=codec).encode(rgb.astype(">u2" if sys.byteorder == "little" else "<u2"))
    with pytest.raises(lz.InputError, match="did you mean"):
        Latentzip(codec="hyperprior-fas").encode(rgb)
    with pytest.raises(lz.InputError, match="only codec='features'"):
        Latentzip(codec=codec, max_error=0.1).encode(rgb)


def test_damaged_chunks(rgb, codec):
    good = ChunkCoder(codec).encode(np.stack([rgb, rgb]))
    assert decode_chunk(good).shape == (2, *rgb.shape)
    head = len(STACK) + 1 + 3 * 4
    for length in (0, 3, 4, 5, 12, head, len(good) - 1):
        with pytest.raises(lz.FormatError):
            decode_chunk(good[:length])
    huge = STACK + struct.pack("<B2I", 2, 1 << 31, 1 << 31)
    with pytest.raises(lz.LimitError, match="limit"):
        decode_chunk(huge)
    for broken in (STACK + b"\0", STACK + b"\xff" * 99, STACK + struct.pack("<BI", 1, 0), good + b"x"):
        with pytest.raises(lz.FormatError):
            decode_chunk(broken)
    mixed = [lz.encode(x, codec) for x in (rgb, rgb[:8])]
    frame = STACK + struct.pack("<B3I", 1, 2, *map(len, mixed)) + b"".join(mixed)
    with pytest.raises(lz.FormatError, match="differ in shape"):
        decode_chunk(frame)


def test_chunk_that_belongs_elsewhere(rgb, codec, tmp_path):
    a = array(rgb.shape, "uint8", {"codec": codec}, 3, store=tmp_path / "a.zarr")
    a[:] = rgb
    (chunk,) = (p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(lz.encode(rgb[:9], codec))
    with pytest.raises(lz.FormatError, match="the array's metadata says"):
        a[:]
