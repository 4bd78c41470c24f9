"""How the codec `audio` divides time and frequency: frames, blocks, bands; all of it whole numbers.

A frame lasts 32 to 48 ms at any sample rate. It is one block, or halves of it that are divided on, down to sixteenths:
a binary tree, numbered depth first. The coefficients of a block lie in bands of at least four, a seventh to a half of
their frequency wide. A latent holds a column a frame: the number of the tree and what kind of sound it is (`division`),
angles of the stereo bands, levels of the blocks' bands, coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

DEPTH = 4  # a frame is divided at most this often
_SPREAD = ((100, 15), (150, 20), (250, 28), (400, 40), (400, 50))  # Hz, percent of the frequency, for each depth
_LEAST = 4  # coefficients a band


def _trees(depth: int) -> list[tuple[int, ...]]:
    if depth == DEPTH:
        return [(depth,)]
    parts = _trees(depth + 1)
    return [(depth,)] + [a + b for a in parts for b in parts]


TREES = _trees(0)  # depths of the blocks of a frame, in time; a tree's place in this list is its number
TREE_NUMBERS = {tree: number for number, tree in enumerate(TREES)}
KINDS = 2  # of sound: speech is 1, all else 0


def division(row: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The first row of a latent -> kind and number of the tree of each frame."""
    return row // len(TREES), row % len(TREES)


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything that follows from the sample rate and the number of channels.

    Attributes:
        rate, channels: as given; one or two channels.
        frame: samples a frame, a multiple of 32.
        edges: for each depth, (bands + 1,) first coefficient of each band and the block's size.
        band_of: for each depth, (size,) the band of each coefficient.
        stereo_of: for each depth, (size,) the stereo band of each coefficient; these are the bands of depth 0.
        places: (DEPTH + 1, DEPTH + 1, B) int32: the band of a block of the first depth in whose frequencies the middle
            of band b of a block of the second depth lies.
        slots: levels a channel in a latent.
    """

    rate: int
    channels: int
    frame: int
    edges: tuple[npt.NDArray[np.int64], ...]
    band_of: tuple[npt.NDArray[np.int64], ...]
    stereo_of: tuple[npt.NDArray[np.int64], ...]
    places: npt.NDArray[np.int32]
    slots: int

    @property
    def angles(self) -> int:
        """Angles in a latent: one a stereo band, none for one channel."""
        return self.edges[0].size - 1 if self.channels == 2 else 0

    @property
    def latent_channels(self) -> int:
        """Rows of a latent: tree, angles, levels, coefficients."""
        return 1 + self.angles + self.channels * (self.slots + self.frame)

    def size(self, depth: int) -> int:
        """Samples of a block."""
        return self.frame >> depth


def frame_size(rate: int, milliseconds: int = 48) -> int:
    """The largest of 2**k and 3 * 2**k samples that lasts at most so long."""
    most = rate * milliseconds // 1000
    power = 1 << (most.bit_length() - 1)
    return power * 3 // 2 if power * 3 // 2 <= most else power


def _edges(rate: int, frame: int, depth: int) -> npt.NDArray[np.int64]:
    size = frame >> depth
    hertz, percent = _SPREAD[depth]
    edges = [0]
    while edges[-1] < size:
        width = max(_LEAST, -(-hertz * 2 * size // rate), edges[-1] * percent // 100)
        edges.append(edges[-1] + width)
    if len(edges) > 2 and size - edges[-2] < (edges[-2] - edges[-3]) // 2:
        del edges[-2]
    edges[-1] = size
    return np.array(edges, np.int64)


@lru_cache(maxsize=32)
def layout(rate: int, channels: int, frame: int | None = None) -> Layout:
    """The layout of signals of a sample rate, of frames of `frame_size` or another multiple of 32 samples."""
    frame = frame or frame_size(rate)
    edges = tuple(_edges(rate, frame, d) for d in range(DEPTH + 1))
    band_of = tuple(np.repeat(np.arange(e.size - 1), np.diff(e)) for e in edges)
    stereo_of = tuple(band_of[0][((2 * np.arange(frame >> d) + 1) << d) // 2] for d in range(DEPTH + 1))
    most = max(e.size - 1 for e in edges)
    places = np.zeros((DEPTH + 1, DEPTH + 1, most), np.int32)
    for a in range(DEPTH + 1):
        for b in range(DEPTH + 1):
            middle = ((edges[b][:-1] + edges[b][1:]) << b) >> 1  # in coefficients of depth 0
            places[a, b, : middle.size] = band_of[a][np.minimum(middle >> a, (frame >> a) - 1)]
    slots = max((e.size - 1) << d for d, e in enumerate(edges))
    return Layout(rate, channels, frame, edges, band_of, stereo_of, places, slots)


@dataclass(frozen=True, eq=False)
class _Template:
    """One frame divided by one tree; positions count from the beginning of the frame."""

    coefficient: npt.NDArray[np.int64]
    level: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int64]
    stereo: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    bands: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]


@lru_cache(maxsize=2048)
def _template(lay: Layout, tree: int) -> _Template:
    coefficient, level, slot, widths, lengths, bands, depths = [], [], [], [], [], [], []
    start = first_slot = first_level = 0
    for depth in TREES[tree]:
        n, count = lay.size(depth), lay.edges[depth].size - 1
        for channel in range(lay.channels):
            coefficient.append(channel * lay.frame + start + np.arange(n))
            slot.append(channel * lay.slots + first_slot + np.arange(count))
            level.append(first_level + lay.band_of[depth])
            widths.append(np.diff(lay.edges[depth]))
            first_level += count
            lengths.append(n)
            bands.append(count)
            depths.append(depth)
        start += n
        first_slot += count
    stereo = np.concatenate([lay.stereo_of[d] for d in TREES[tree]])
    join = np.concatenate
    arrays = [join(a) for a in (coefficient, level, slot)]
    return _Template(*arrays, stereo, join(widths), *map(np.array, (lengths, bands, depths)))


class Rows:
    """The order in which frames are coded: frame by frame, block by block, the channels of a block side by side.

    Attributes:
        coefficient: (n,) where the coefficients are in an array (frames, channels * frame size), flattened.
        level: (n,) the level that each of them belongs to.
        slot: (levels,) where the levels are in an array (frames, channels * slots), flattened.
        stereo: (frames, frame size) the stereo band of each coefficient.
        first, count: (levels,) the first coefficient of each band, and how many it has.
        coefficient_rows, level_rows: as `entropy.rows` takes them.
        sizes: of all blocks, in time.
    """

    def __init__(self, lay: Layout, trees: Sequence[int]) -> None:
        parts = [_template(lay, t) for t in trees]
        frames, join = np.arange(len(parts)), np.concatenate
        counts = np.array([t.slot.size for t in parts])
        before = np.cumsum(counts) - counts
        self.coefficient = join([t.coefficient + i * lay.channels * lay.frame for i, t in zip(frames, parts)])
        self.level = join([t.level + n for n, t in zip(before, parts)])
        self.slot = join([t.slot + i * lay.channels * lay.slots for i, t in zip(frames, parts)])
        self.stereo = np.stack([t.stereo for t in parts])
        lengths, bands, depths = (join([getattr(t, k) for t in parts]) for k in ("lengths", "bands", "depths"))
        number = np.arange(lengths.size)
        earlier = np.maximum(number - lay.channels, -1)
        beside = np.where(number % 2 == 1, number - 1, -1) if lay.channels == 2 else np.full(number.size, -1)
        rows = [np.cumsum(lengths) - lengths, lengths, earlier, beside]
        self.coefficient_rows = np.stack(rows, 1).astype(np.int32)
        rows = [np.cumsum(bands) - bands, bands, earlier, beside, depths]
        self.level_rows = np.stack(rows, 1).astype(np.int32)
        self.count = join([t.widths for t in parts])
        self.first = np.cumsum(self.count) - self.count
        self.sizes = (lay.frame >> depths[:: lay.channels]).tolist()


def spread(values: npt.NDArray[np.int32], at: npt.NDArray[np.int64], shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Values in the order of `Rows` at their places in an array (frames, width); zero where there are none."""
    flat = np.zeros(shape[0] * shape[1], np.int32)
    flat[at] = values
    return flat.reshape(shape)
