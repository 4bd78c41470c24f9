"""The nets of one picture: sizes, the list of their weights, and a container of plain arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.pyramid.constants import REACH

LEVELS = 7  # grids at 1/1, 1/2 ... 1/64
FEATURE_LEVELS = 3  # the finest grids, whose context sees features of the coarser ones

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """How large the nets are.

    Attributes:
        neighbours: causal neighbours that the context net sees.
        features: planes of features from coarser grids that it sees; with the neighbours a multiple of 4.
        width: hidden layer of the synthesis, a multiple of 4.
        residuals: 3x3 layers after it.
    """

    name: str
    neighbours: int
    features: int
    width: int
    residuals: int = 2

    @property
    def inputs(self) -> int:
        return self.neighbours + self.features


# numbers are stored in streams: never reorder
SIZES = (Size("mop", 10, 6, 16), Size("hop", 14, 6, 48))


class Weight(NamedTuple):
    """One array of weights: its name, shape, and the group whose step it is quantised with."""

    name: str
    shape: tuple[int, ...]
    group: str

    @property
    def total(self) -> int:
        return math.prod(self.shape)


GROUPS = ("context", "context-bias", "features", "upsampling", "synthesis", "synthesis-bias", "residual")


@lru_cache(maxsize=16)
def layout(size: Size, channels: int) -> tuple[Weight, ...]:
    """The weights in the order in which they are stored."""
    c, f, w = size.inputs, size.features, size.width
    weights = [
        Weight("w1", (c, c), "context"), Weight("b1", (c,), "context-bias"),
        Weight("w2", (c, c), "context"), Weight("b2", (c,), "context-bias"),
        Weight("w3", (2, 2 * c), "context"), Weight("b3", (2,), "context-bias"),
    ]  # fmt: skip
    for k in range(FEATURE_LEVELS):
        weights += [Weight(f"fw{k}", (f, LEVELS - 1 - k), "features"), Weight(f"fb{k}", (f,), "features")]
    weights += [Weight(f"up{k}", (4,), "upsampling") for k in range(LEVELS - 1)]
    weights += [
        Weight("s1", (w, LEVELS), "synthesis"), Weight("sb1", (w,), "synthesis-bias"),
        Weight("s2", (channels, w + LEVELS), "synthesis"), Weight("sb2", (channels,), "synthesis-bias"),
    ]  # fmt: skip
    for k in range(size.residuals):
        weights += [Weight(f"c{k}", (channels, channels, 3, 3), "residual")]
        weights += [Weight(f"cb{k}", (channels,), "synthesis-bias")]
    return tuple(weights)


@lru_cache(maxsize=16)
def neighbours(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(dy, dx) of the nearest causal neighbours: those above, and those to the left in the same row."""
    reach = range(-REACH, REACH + 1)
    places = [(-dy, dx) for dy in range(REACH + 1) for dx in reach if dy > 0 or dx < 0]
    places.sort(key=lambda p: (p[0] ** 2 + p[1] ** 2, abs(p[1]), p[1]))
    dy, dx = np.array(places[:count], np.int64).T
    return np.ascontiguousarray(dy), np.ascontiguousarray(dx)


def grid_shapes(h: int, w: int) -> list[tuple[int, int]]:
    """Sizes of the grids of a picture of h x w pixels, finest first."""
    shapes = [(h, w)]
    while len(shapes) < LEVELS:
        h, w = (h + 1) // 2, (w + 1) // 2
        shapes.append((h, w))
    return shapes


class Nets(Mapping[str, Floats]):
    """Weights of one size and number of channels: views of one flat array, by name."""

    def __init__(self, size: Size, channels: int, flat: Floats | None = None) -> None:
        self.size, self.channels = size, channels
        self.layout = layout(size, channels)
        total = sum(w.total for w in self.layout)
        self.flat = np.zeros(total, np.float32) if flat is None else flat
        self._views, at = {}, 0
        for w in self.layout:
            self._views[w.name] = self.flat[at : at + w.total].reshape(w.shape)
            at += w.total

    def __getitem__(self, name: str) -> Floats:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def copy(self) -> Nets:
        return Nets(self.size, self.channels, self.flat.copy())

    def zeros(self) -> Nets:
        """Zeros of the same layout, for gradients."""
        return Nets(self.size, self.channels)


def initial(size: Size, channels: int, seed: int = 0) -> Nets:
    """Nets from nothing: what shared nets are trained from."""
    rng, nets = np.random.default_rng(seed), Nets(size, channels)

    def fill(name: str, bound: float) -> None:
        nets[name][...] = rng.uniform(-bound, bound, nets[name].shape)

    c = size.inputs
    for name in ("w1", "w2", "w3"):
        fill(name, 1 / c)
    for k in range(FEATURE_LEVELS):
        fill(f"fw{k}", 1 / (LEVELS - 1 - k))
    for k in range(LEVELS - 1):
        nets[f"up{k}"][...] = _bicubic()
    fill("s1", 1 / (size.width**2 * LEVELS**0.5))
    fill("s2", 1 / (channels**2 * size.width**0.5))
    nets["sb2"][...] = 0.5
    return nets


def _bicubic(a: float = -0.75) -> Floats:
    """Weights of the four nearest samples a quarter beside one of them: Keys' kernel."""

    def kernel(x: float) -> float:
        return ((a + 2) * x - (a + 3)) * x * x + 1 if x < 1 else ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return np.array([kernel(x) for x in (1.25, 0.25, 0.75, 1.75)], np.float32)
