"""Weights of one's own, as training exports them, wherever a codec is named."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

import latentzip as lz
from latentzip import cli, pretrained
from latentzip.entropy import opening


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A codec of one rate, a little off the one that shipped."""
    blob = pretrained.release("walloc-rgb-16x", "1").read()
    tensors = load(blob)
    tensors["model.decoder.linear.weight"] *= 0.98
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    path.write_bytes(save(tensors, opening.metadata(blob)))
    return path


@pytest.fixture
def photo(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "photo.bmp")
    return tmp_path / "photo.bmp"


def test_files(weights, photo, tmp_path, capsys, rgb):
    coded, back = tmp_path / "photo.ltz", tmp_path / "back.png"
    assert cli.main(["encode", str(photo), "-c", str(weights)]) == 0
    assert coded.read_bytes() == lz.encode(photo, codec=weights)
    assert cli.main(["decode", str(coded), "-o", str(back)]) == 1
    assert "needs weights" in capsys.readouterr().err
    assert cli.main(["decode", str(coded), "-o", str(back), "--profile", str(weights)]) == 0
    expected = lz.decode(coded, codec=weights)
    assert np.array_equal(np.asarray(lz.decode([coded], codec=str(weights))[0]), np.asarray(expected))
    assert np.array_equal(
        np.asarray(Image.open(lz.decode_file(coded, codec=weights, force=True))), np.asarray(expected)
    )
    assert np.array_equal(np.asarray(Image.open(back)), np.asarray(expected))
    assert lz.inspect(coded).fingerprint == lz.load_codec(weights).fingerprint.hex()


def test_a_profile_beside_weights_is_refused(weights, photo, capsys):
    assert cli.main(["encode", str(photo), "-c", str(weights), "--profile", str(weights)]) == 2
    assert "contradict" in capsys.readouterr().err


def test_a_file_of_tensors_by_a_profile(tmp_path):
    rows = torch.randn(200, 8)
    lz.FeatureCodec.fit([rows], nmse=0.01).save(tmp_path / "p.safetensors")
    (tmp_path / "x.safetensors").write_bytes(save({"x": rows}))
    assert cli.main(["encode", str(tmp_path / "x.safetensors"), "-c", str(tmp_path / "p.safetensors")]) == 0
    assert (tmp_path / "x.tar").exists()


def test_evaluation(weights, photo):
    result = lz.evaluate([photo], [weights, "walloc-rgb-linear@50"], metrics=["psnr"], threads=1)
    mine, other = result.rows
    assert (mine["codec"], other["codec"]) == ("mine", "walloc-rgb-linear")
    assert mine["weights"] == lz.load_codec(weights).fingerprint.hex()
    assert mine["psnr"] > 20


def test_a_file_that_is_none(tmp_path, photo, capsys):
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    assert cli.main(["encode", str(photo), "-c", str(tmp_path / "no.safetensors")]) == 1
    assert cli.main(["encode", str(photo), "-c", str(tmp_path / "missing.safetensors")]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "missing.safetensors" in err


@pytest.mark.parametrize("codec", [3, {}, b"walloc-rgb-16x", object])
def test_what_is_no_codec_is_told(codec, photo, rgb):
    blob = lz.encode(rgb, codec="walloc-rgb-16x")
    for call in (lambda: lz.encode(photo, codec=codec), lambda: lz.decode(blob, codec=codec)):
        with pytest.raises(lz.InputError, match=r"codec is .* a name, a file of weights or what load_codec gives"):
            call()
