"""Targets over any function that encodes at a quality."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentzip import InputError, targets


def sized(quality):
    return bytes(int(1000 * 1.03**quality))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("60KB", "size", 60_000), ("60000", "size", 60_000), ("1.5 MiB", "size", 1.5 * 2**20), ("60k", "size", 60_000),
        ("0.5bpp", "bpp", 0.5), (".5 bpp", "bpp", 0.5), ("38dB", "psnr", 38),
        ("64kbps", "kbps", 64), ("64 kbit/s", "kbps", 64),
    ],
)  # fmt: skip
def test_text(text, kind, value):
    assert targets.parse(text) == targets.Target(kind, value)


@pytest.mark.parametrize("text", ["", "KB", "60 apples", "-3KB", "0KB", "nan", "1e400"])
def test_text_refused(text):
    with pytest.raises(InputError, match="target"):
        targets.parse(text)


def test_two_targets():
    assert targets.chosen() is None
    assert targets.chosen(bpp=0.5) == targets.Target("bpp", 0.5)
    with pytest.raises(InputError, match="target_size and target_psnr"):
        targets.chosen(size=100, psnr=30)


def test_units():
    assert targets.Target("bpp", 0.5).num_bytes(pixels=1600) == 100
    assert targets.Target("kbps", 64).num_bytes(seconds=2) == 16_000
    with pytest.raises(InputError, match="pictures"):
        targets.Target("bpp", 0.5).num_bytes(seconds=2)
    with pytest.raises(InputError, match="sound"):
        targets.Target("kbps", 0.5).num_bytes(pixels=2)


@given(st.integers(1, 99), st.floats(0, 0.029))
def test_largest_is_the_largest_that_fits(quality, spare):
    limit = len(sized(quality)) * (1 + spare)
    calls = []
    found = targets.largest(lambda q: calls.append(q) or sized(q), limit, "toy")
    assert found.quality == quality
    assert found.measured == len(found.stream) <= limit
    assert len(calls) == len(set(calls)) <= 10  # nothing is encoded twice


def test_largest_of_sizes_that_are_not_quite_monotone():
    sizes = [1000 + 100 * q - 150 * (q % 7 == 0) for q in range(101)]
    found = targets.largest(lambda q: bytes(sizes[q]), sizes[50], "toy")
    assert sizes[50] * 0.95 < found.measured <= sizes[50]


@pytest.mark.parametrize("limit", [900, 40_000])
def test_sizes_outside_of_the_range(limit):
    with pytest.raises(InputError, match=r"1,030 bytes at quality 1 to 19,218 at quality 100"):
        targets.largest(sized, limit, "toy")


@given(st.floats(20, 45))
def test_smallest_reaches_the_goal(goal):
    found = targets.smallest(lambda q: bytes([q]), lambda s: 20 + s[0] / 4, goal, "toy")
    assert found.measured >= goal
    assert found.quality == max(1, math.ceil((goal - 20) * 4))


@pytest.mark.parametrize("goal", [18, 50])
def test_quality_outside_of_the_range(goal):
    with pytest.raises(InputError, match=r"20\.25 dB at quality 1 to 45\.00 at quality 100"):
        targets.smallest(lambda q: bytes([q]), lambda s: 20 + s[0] / 4, goal, "toy")


@given(st.floats(0.85, 1.2), st.floats(0.15, 0.6))
def test_trimmed_lands_just_below(ratio, power):
    limit = 50_000
    stream = targets.trimmed(lambda thrift: bytes(int(limit * ratio / thrift**power)), limit)
    assert stream is not None
    assert 0.98 * limit <= len(stream) <= limit


def test_trimmed_where_nothing_fits():
    assert targets.trimmed(lambda thrift: bytes(200), 100) is None


def test_rates_outside_of_the_range_are_said_as_rates():
    with pytest.raises(InputError, match=r"8 kb/s lie outside .* 8\.24 kb/s at quality 1 to 154 at quality 100"):
        targets.largest(sized, 1000, "toy", seconds=1)
