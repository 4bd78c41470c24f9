"""A folder of pictures in class folders, and packs of it that several tests read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from latentzip.data import pack

from .sets import wave

CODEC = "walloc-rgb-linear"  # no network: the fastest


def draw_pictures(folder: Path, count: int = 18) -> Path:
    """Pictures ``ant/00.png``, ``bee/01.png``, ``cat/02.png``, ... of one size."""
    for i in range(count):
        path = folder / ("ant", "bee", "cat")[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(wave(i)).save(path)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("source") / "pictures")


@pytest.fixture(scope="session")
def mirrored_pack(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """18 samples of one shape in 5 shards, with labels and mirrored twins. Not to be changed."""
    target = tmp_path_factory.mktemp("packs") / "mirrored"
    pack(pictures, target, CODEC, labels="folders", shard_samples=4, jobs=1, mirror=True)
    return target


@pytest.fixture(scope="session")
def ragged_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 samples of different shapes in 3 shards, no labels. Not to be changed."""
    base = tmp_path_factory.mktemp("ragged")
    for i in range(7):
        path = base / "source" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(wave(i, 24 + 8 * i, 64 - 8 * (i % 3))).save(path)
    pack(base / "source", base / "pack", CODEC, shard_samples=3, jobs=1)
    return base / "pack"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray of this machine, which packs use as it is: starting one takes longer than a test. Skips without Ray."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_worker_niceness", "0")  # else its workers wait for all other tests
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    yield
    ray.shutdown()
