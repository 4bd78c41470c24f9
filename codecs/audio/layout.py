"""How the codec `audio` divides time and frequency: frames, blocks, bands; all of it whole numbers.

A frame lasts 32 to 48 ms at any sample rate. It is one block, or halves of it that are divided on, down to sixteenths:
a binary tree, numbered depth first. The coefficients of a block lie in bands of at least four, a seventh to a half of
their frequency wide. A latent holds a column a frame: the number of the tree and what kind of sound it is (`division`),
angles of the stereo bands, levels of the blocks' bands, coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.errors import InputError
from ...kernels.compiled import wanted

Ints = npt.NDArray[np.int32]

DEPTH = 4  # a frame is divided at most this often
_SPREAD = ((100, 15), (150, 20), (250, 28), (400, 40), (400, 50))  # Hz, percent of the frequency, for each depth
_LEAST = 4  # coefficients a band
LONGEST_MS, SHORTEST_MS = 48, 32  # of frames


def _trees(depth: int) -> list[tuple[int, ...]]:
    if depth == DEPTH:
        return [(depth,)]
    parts = _trees(depth + 1)
    return [(depth,)] + [a + b for a in parts for b in parts]


TREES = _trees(0)  # depths of the blocks of a frame, in time; a tree's place in this list is its number
TREE_NUMBERS = {tree: number for number, tree in enumerate(TREES)}
_DEPTHS = np.array([tree + (-1,) * ((1 << DEPTH) - len(tree)) for tree in TREES], np.int64)  # the same, filled up
KINDS = 2  # of sound: speech is 1, all else 0


def division(row: Ints) -> tuple[Ints, Ints]:
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

    @cached_property
    def widths(self) -> npt.NDArray[np.int64]:
        """Coefficients of each band, depth after depth."""
        return np.concatenate([np.diff(e) for e in self.edges])

    @cached_property
    def level_edges(self) -> npt.NDArray[np.int64]:
        """(DEPTH + 2,) where the bands of each depth begin in such arrays."""
        return np.cumsum([0, *(e.size - 1 for e in self.edges)])

    @cached_property
    def stereo_table(self) -> npt.NDArray[np.int64]:
        """`stereo_of`, depth after depth."""
        return np.concatenate(self.stereo_of)

    @property
    def angles(self) -> int:
        """Angles in a latent: one a stereo band, none for one channel."""
        return self.edges[0].size - 1 if self.channels == 2 else 0

    @property
    def first_level(self) -> int:
        """Which row of a latent is the first of the levels."""
        return 1 + self.angles

    @property
    def first_symbol(self) -> int:
        """Which row of a latent is the first of the coefficients."""
        return self.first_level + self.channels * self.slots

    @property
    def latent_channels(self) -> int:
        """Rows of a latent: tree, angles, levels, coefficients."""
        return self.first_symbol + self.channels * self.frame

    def size(self, depth: int) -> int:
        """Samples of a block."""
        return self.frame >> depth


def frame_size(rate: int, milliseconds: int = LONGEST_MS) -> int:
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


class Rows:
    """The order in which frames are coded: frame by frame, block by block, the channels of a block side by side.

    A row is a block of a channel: its coefficients lie end to end, and so do its levels.

    Attributes:
        coefficient_rows, level_rows: as `entropy.rows` takes them.
        at: (rows, 3) the frame of each row, and where in the columns of a latent its levels and coefficients begin.
        first, count: (levels,) the first coefficient of each band, and how many it has.
        depths, sizes: of all blocks, in time.
        trees, frames: the number of each frame's tree, and how many there are.
    """

    def __init__(self, lay: Layout, trees: npt.ArrayLike) -> None:
        self._lay = lay
        self.trees = np.asarray(trees, np.int32)
        parts = _DEPTHS[self.trees]
        frame, place = np.nonzero(parts >= 0)
        self.depths = parts[frame, place]
        size, bands = lay.frame >> self.depths, np.diff(lay.level_edges)[self.depths]
        self.sizes = size.tolist()
        self.frames = len(parts)
        c = lay.channels
        channel = np.tile(np.arange(c), size.size)
        origin, slot = (np.repeat(_before(each, frame), c) for each in (size, bands))
        slot += lay.first_level + channel * lay.slots
        self.at = np.stack([np.repeat(frame, c), slot, lay.first_symbol + channel * lay.frame + origin], 1)
        lengths, counts = np.repeat(size, c), np.repeat(bands, c)
        number = np.arange(lengths.size)
        earlier = np.maximum(number - c, -1)
        beside = np.where(number % 2 == 1, number - 1, -1) if c == 2 else np.full(number.size, -1)
        rows = [np.cumsum(lengths) - lengths, lengths, earlier, beside]
        self.coefficient_rows = np.stack(rows, 1).astype(np.int32)
        rows = [np.cumsum(counts) - counts, counts, earlier, beside, np.repeat(self.depths, c)]
        self.level_rows = np.stack(rows, 1).astype(np.int32)
        self.count = self.by_depth(lay.widths)
        self.first = np.cumsum(self.count) - self.count

    def by_depth(self, each: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What is given for the bands of each depth, end to end, for every level: (levels,)."""
        first, count, depth = (self.level_rows[:, k] for k in (0, 1, 4))
        shift = self._lay.level_edges[depth] - first
        return each[np.arange(count.sum(dtype=np.int64)) + np.repeat(shift, count)]

    def levels_of(self, columns: Ints) -> Ints:
        """(levels,) what the columns (frames, rows of a latent) of the frames hold."""
        return self._taken(columns, self.level_rows, 1)

    def symbols_of(self, columns: Ints) -> Ints:
        """(n,) symbols of coefficients that the columns of the frames hold."""
        return self._taken(columns, self.coefficient_rows, 2)

    def put_levels(self, levels: Ints, columns: Ints) -> None:
        """The inverse of `levels_of`."""
        self._put(levels, self.level_rows, 1, columns)

    def put_symbols(self, symbols: Ints, columns: Ints) -> None:
        """The inverse of `symbols_of`."""
        self._put(symbols, self.coefficient_rows, 2, columns)

    def _taken(self, columns: Ints, rows: Ints, part: int) -> Ints:
        self._check(columns)
        if not wanted():
            return columns.reshape(-1)[_spelt(rows, self.at[:, 0] * columns.shape[1] + self.at[:, part])]
        from ...kernels import band_loops as body

        out = np.empty(rows[:, 1].sum(dtype=np.int64), np.int32)
        body.take(columns, rows, self.at, part, out)
        return out

    def _put(self, values: Ints, rows: Ints, part: int, columns: Ints) -> None:
        self._check(columns)
        if not wanted():
            columns.reshape(-1)[_spelt(rows, self.at[:, 0] * columns.shape[1] + self.at[:, part])] = values
            return
        from ...kernels import band_loops as body

        body.put(values, rows, self.at, part, columns)

    def _check(self, columns: Ints) -> None:
        if columns.shape != (needed := (self.frames, self._lay.latent_channels)):
            raise InputError(
                f"a latent of {columns.shape[1]} rows and {columns.shape[0]} frames; {needed[::-1]} are needed"
            )

    @cached_property
    def coefficient(self) -> npt.NDArray[np.int64]:
        """(n,) where the coefficients are in an array (frames, channels * frame size), flattened."""
        begin = self.at[:, 2] - self._lay.first_symbol
        return _spelt(self.coefficient_rows, self.at[:, 0] * self._lay.channels * self._lay.frame + begin)

    @cached_property
    def level(self) -> npt.NDArray[np.int64]:
        """(n,) the level that each coefficient belongs to."""
        return np.repeat(np.arange(self.count.size), self.count)

    @cached_property
    def stereo(self) -> npt.NDArray[np.int64]:
        """(frames, frame size) the stereo band of each coefficient of a channel."""
        return np.concatenate([self._lay.stereo_of[d] for d in self.depths]).reshape(-1, self._lay.frame)


def _before(each: npt.NDArray[np.int64], frame: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of what stands before each block in its frame."""
    total = np.cumsum(each) - each
    return total - total[np.searchsorted(frame, frame)]


def _spelt(rows: Ints, begin: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places of all that rows hold, where each begins at a given one."""
    return np.arange(rows[:, 1].sum(dtype=np.int64)) + np.repeat(begin - rows[:, 0], rows[:, 1])


@lru_cache(maxsize=8)
def undivided(lay: Layout, frames: int) -> Rows:
    """Rows of frames of one block each."""
    return Rows(lay, np.zeros(frames, np.int32))
