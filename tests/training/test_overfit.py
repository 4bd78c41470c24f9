"""Starts of the codec `overfit`: trained together, moved towards fits, compared, released."""

import json

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip.codecs.overfit.codec import OverfitCodec, from_bytes
from latentzip.training import overfit, starts

MOP, HOP = overfit.SIZES


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two smooth pictures with edges, 320 x 288."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:288, 0:320]
    for i in range(2):
        plain = 128 + 60 * np.sin(rows / (20 + 9 * i)) + 40 * (columns > 150)
        x = plain[..., None] + rng.normal(0, 4, (288, 320, 3))
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_training_together(pictures):
    nets = overfit.initial(MOP, 3)
    before = nets.flat.copy()
    run = starts.SharedFit(nets, 0.001, pictures, side=64)
    for i in range(30):
        run.step(i / 30)
        run.steps += 1
    assert np.isfinite(nets.flat).all()
    assert (nets.flat != before).any()


def test_moving_towards_fits(pictures, tmp_path):
    """Shaken nets that were moved towards fits of a picture serve it better again."""
    codec = lz.load_codec("overfit")
    assert isinstance(codec, OverfitCodec)
    start = next(s for s in codec.starts if s.size == HOP)
    nets = start.nets.copy()
    nets.flat += np.random.default_rng(0).normal(0, 0.1, nets.flat.size).astype(np.float32)
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    starts.save(nets, 0.001, first)
    run = starts.Reptile(nets, 0.001, pictures, side=64)
    for _ in range(5):
        run.step(0.0)
    assert len(run.finished) == 5
    starts.save(nets, 0.001, second)
    before, after = starts.compare([first, second], pictures, count=2, side=64)
    assert after < before


def test_commands(pictures, tmp_path, capsys):
    first, better = tmp_path / "hop_001.npz", tmp_path / "better.npz"
    data = ["--data", str(pictures), "--side", "64"]
    assert overfit.main([*data, "--size", "hop", "--minutes", "0.02", "--out", str(first)]) == 0
    assert (
        overfit.main([*data, "--init", str(first), "--towards-fits", "--minutes", "0.0001", "--out", str(better)]) == 0
    )
    assert overfit.main([*data, "--compare", str(first), str(better), "--count", "1"]) == 0
    costs = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert all(np.isfinite(costs))
    other = tmp_path / "mop.npz"
    starts.save(overfit.initial(MOP, 3), 0.004, other)
    (tmp_path / "index.json").write_text('{"codecs": []}')
    with pytest.raises(lz.InputError, match="no start for nets of size mop"):
        overfit.main(["--export", str(tmp_path), "--starts", str(first)])
    assert overfit.main(["--export", str(tmp_path), "--starts", str(first), str(other)]) == 0
    (entry,) = json.loads((tmp_path / "index.json").read_text())["codecs"]
    codec = from_bytes((tmp_path / entry["file"]).read_bytes())
    assert codec.fingerprint.hex() == entry["fingerprint"]
    assert (tmp_path / "overfit-v1.md").read_text().startswith("# overfit")
    x = np.zeros((40, 48, 3), np.uint8)
    x[8:20] = 200
    assert lz.decode(lz.encode(x, codec=codec, quality=40, effort=1), codec=codec).shape == (40, 48, 3)


def test_towards_fits_needs_a_start(pictures, capsys):
    with pytest.raises(SystemExit):
        overfit.main(["--data", str(pictures), "--towards-fits"])
    assert "--init" in capsys.readouterr().err
