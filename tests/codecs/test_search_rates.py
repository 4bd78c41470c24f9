"""A quality keeps its rate at every effort: the table of factors, and pictures that it was not fitted on."""

import math
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from latentzip import list_codecs, load_codec
from latentzip.codecs.search import retuning
from latentzip.codecs.search.levels import HIGHEST


@pytest.fixture(scope="module")
def crops():
    """Face, cloth and background of a photograph, (3, 96, 96) each."""
    with resources.files("latentzip.evaluation").joinpath("samples/astronaut.webp").open("rb") as file:
        pixels = np.asarray(Image.open(file).convert("RGB"))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return [x[:, t : t + 96, s : s + 96] for t, s in ((40, 160), (300, 120), (100, 340))]


def rate(codec, crops, quality, **options):
    return sum(len(c) for x in crops for c in codec.compress(x, quality, **options).chunks)


@pytest.mark.parametrize(
    ("name", "effort", "qualities"),
    [
        ("hyperprior-fast", 1, (15, 50, 88)), ("hyperprior-fast", 3, (15, 65)), ("hyperprior", 1, (50,)),
        ("walloc-rgb-16x", 1, (None,)),
    ],
)  # fmt: skip
def test_rates_are_those_of_one_pass(name, effort, qualities, crops):
    codec = load_codec(name)
    for quality in qualities:
        plain, found = (rate(codec, crops, quality, effort=e) for e in (0, effort))
        assert found == pytest.approx(plain, rel=0.03)  # 2 % on many pictures


def test_annealed_rounding_keeps_the_rate(crops):
    codec, part = load_codec("hyperprior-fast"), [crops[0][:, :64, :64]]
    plain, found = (rate(codec, part, 30, effort=e) for e in (0, 6))
    assert found == pytest.approx(plain, rel=0.05)


def test_every_line_is_of_a_codec_that_searches():
    known = {info.name for info in list_codecs()}
    assert {"hyperprior", "hyperprior-fast"} <= set(retuning.table()) <= known
    for name, line in retuning.table().items():
        assert [int(e) for e in line] == sorted(int(e) for e in line)
        assert set(map(int, line)) <= set(range(1, HIGHEST + 1))
        for points in line.values():
            qualities = [q for q, _ in points]
            assert qualities == sorted(set(qualities)), name
            assert all(abs(factor) < 2 for _, factor in points), name


def test_factors_lie_between_those_that_were_fitted(monkeypatch):
    table = {"one": {"2": [[20, 0.2], [40, 0.4]], "6": [[20, 0.6]]}, "fixed": {"1": [[0, -0.5]]}}
    monkeypatch.setattr(retuning, "table", lambda: table)
    for effort, quality, expected in ((2, 30, 0.3), (2, 1, 0.2), (1, 99, 0.4), (4, 20, 0.4), (9, 50, 0.6)):
        assert math.log(retuning.retuned("one", effort, quality)) == pytest.approx(expected)
    assert math.log(retuning.retuned("fixed", 7)) == pytest.approx(-0.5)
    assert retuning.retuned("another", 7, 50) == 1
