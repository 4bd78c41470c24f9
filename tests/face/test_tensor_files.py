"""Files of several tensors: there and back on the command line, what is coded and what is kept, what is refused."""

import io
import tarfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import latentzip as lz
from latentzip import cli
from latentzip.signals.tensors.archives import Coded, decode_tensors, encode_tensors


@pytest.fixture
def run(capsysbinary):
    def call(*arguments):
        capsysbinary.readouterr()
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            status = stop.code
        return status, capsysbinary.readouterr().err.decode()

    return call


@pytest.fixture
def some():
    torch.manual_seed(0)
    return {
        "layer.0/keys": torch.randn(60, 16) @ torch.randn(16, 16),
        "layer.0/half": torch.randn(40, 8).half(),
        "scale": torch.tensor(2.5).bfloat16(),
        "empty": torch.zeros(0, 4),
        "ids": torch.arange(7),
        "double": torch.randn(3, dtype=torch.float64),
    }


@pytest.fixture
def source(some, tmp_path):
    save_file(some, tmp_path / "x.safetensors", {"model": "little"})
    return tmp_path / "x.safetensors"


def test_safetensors_there_and_back(source, some, run, tmp_path):
    status, err = run("encode", source, "-c", "features", "--nmse", 0.01)
    assert (status, (tmp_path / "x.tar").exists()) == (0, True), err
    status, err = run("decode", tmp_path / "x.tar")
    assert status == 0, err
    assert "6 tensors" in err
    with safe_open(tmp_path / "x.decoded.safetensors", "pt") as file:
        assert file.metadata() == {"model": "little"}
    back = load_file(tmp_path / "x.decoded.safetensors")
    assert {k: (v.shape, v.dtype) for k, v in back.items()} == {k: (v.shape, v.dtype) for k, v in some.items()}
    for name in ("ids", "double", "scale", "empty"):
        assert torch.equal(back[name], some[name])
    for name in ("layer.0/keys", "layer.0/half"):
        a, b = some[name].double(), back[name].double()
        assert 0 < float((a - b).square().mean() / a.var()) <= 0.0101


def test_members_are_streams(source, some, run, tmp_path):
    run("encode", source, "-c", "features")  # lossless
    with tarfile.open(tmp_path / "x.tar") as archive:
        names = archive.getnames()
        member = archive.extractfile("layer.0/keys.ltz")
        assert member is not None
        assert torch.equal(lz.decode(member.read()), some["layer.0/keys"])
    assert names[0] == "rest.safetensors"
    assert set(names[1:]) == {f"{n}.ltz" for n in some if n not in ("ids", "double")}
    again = io.BytesIO()
    coded = encode_tensors(source, again, lz.FeatureCodec(), {})
    assert again.getvalue() == (tmp_path / "x.tar").read_bytes()  # no time, no owner
    assert coded.tensors == 4
    assert coded.values == 60 * 16 + 40 * 8 + 1
    assert isinstance(coded, Coded)


def test_npz_there_and_back(run, tmp_path):
    arrays = {"a": np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32), "n": np.arange(4)}
    np.savez(tmp_path / "y.npz", **arrays)
    assert run("encode", tmp_path / "y.npz", "-c", "features", "-o", tmp_path / "y.tar")[0] == 0
    assert run("decode", tmp_path / "y.tar", "-o", tmp_path / "z.npz")[0] == 0
    with np.load(tmp_path / "z.npz") as back:
        assert back.files == ["a", "n"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
    assert run("decode", tmp_path / "y.tar", "--format", "safetensors")[0] == 0
    assert torch.equal(load_file(tmp_path / "y.safetensors")["a"], torch.from_numpy(arrays["a"]))


def test_profile(source, run, tmp_path):
    keys = load_file(source)["layer.0/keys"]
    save_file({"k": keys}, tmp_path / "k.safetensors")
    lz.FeatureCodec.fit(keys, nmse=0.05).save(tmp_path / "p.safetensors")
    profile = ("--profile", tmp_path / "p.safetensors")
    assert run("encode", tmp_path / "k.safetensors", "-c", "features", *profile)[0] == 0
    status, err = run("decode", tmp_path / "k.tar", "-o", tmp_path / "out.safetensors")
    assert status == 1
    assert "k.ltz: the stream needs the feature profile" in err
    assert run("decode", tmp_path / "k.tar", "-o", tmp_path / "out.safetensors", *profile)[0] == 0


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.bin", "x.pkl"])
def test_pickles_are_refused_with_a_remedy(name, run, tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / name)
    status, err = run("encode", tmp_path / name, "-c", "features")
    assert status == 1
    assert "pickle" in err
    assert "safetensors.torch.save_file" in err
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_wrong_use_is_explained(source, run, tmp_path):
    status, err = run("encode", source)
    assert (status, "add -c features" in err) == (2, True)
    status, err = run("encode", source, "-c", "features", "--bits", 0.001)
    assert status == 1
    assert "tensor '" in err
    assert not (tmp_path / "x.tar").exists()
    with pytest.raises(lz.InputError, match="several tensors"):
        lz.encode(source, codec="features")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors here")
    assert "no .safetensors file" in run("encode", tmp_path / "bad.safetensors", "-c", "features")[1]
    (tmp_path / "bad.npz").write_bytes(b"no arrays")
    assert "no .npz file" in run("encode", tmp_path / "bad.npz", "-c", "features")[1]


def test_archives_of_others_and_damage(source, run, tmp_path):
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(source, "whatever")
    with pytest.raises(lz.FormatError, match="none of tensors"):
        decode_tensors(tmp_path / "other.tar")
    run("encode", source, "-c", "features", "--nmse", 0.1)
    data = (tmp_path / "x.tar").read_bytes()
    at = data.index(b"\x89LTZ") + 40
    for stop in (0, 300, 700, at):  # what follows the last stream is padding
        (tmp_path / "cut.tar").write_bytes(data[:stop])
        with pytest.raises(lz.FormatError):
            decode_tensors(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(lz.CodecError):
        decode_tensors(tmp_path / "cut.tar")
