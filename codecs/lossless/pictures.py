"""Pictures of integer samples to chunks and back: colour transform, sparse values, palette, one coder a chunk.

Everything about the whole picture stands in `Plan`, which is the stream's parameters:

    version u8 | effort u8 | transform u8 | colour values | alpha values | colours u16 | their palette (`palettes`)
    colours: with 0x8000 where pixels of other colours, coded sample by sample, follow those of the palette
    values: 0x00, largest u16; or 0x01, bytes u32, a deflated bit map of the values that occur
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...entropy.adaptive import check_end, finished, reader, writer
from ...entropy.errors import FormatError
from . import colours as graphics
from . import palettes, planes
from .effort import NEAR, OWN, PROFILES, Profile
from .values import Values, damaged

VERSION = 2  # of new streams; those of version 1 differ in what an effort computes
CHUNK = 512
MAX_COLOURS = 4096
FLAT = 0.25  # share of pixels that are like their left neighbour, from which colours are guessed
BAND = 1 << 20  # pixels that are looked at together for colours
FEW = 16  # colours that are guessed in any case
OFTEN = 12  # pixels that make a colour worth a place in the palette
M = planes.MARGIN
# order of the coded planes, and what is taken off the second and the third: nothing, the first, the second
TRANSFORMS = (
    ((1, 0, 2), (0, 0)), ((1, 0, 2), (1, 1)), ((0, 1, 2), (1, 1)), ((2, 1, 0), (1, 1)), ((1, 0, 2), (1, 2)),
    ((1, 2, 0), (1, 2)),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a picture's chunks have in common."""

    effort: int
    transform: int
    colour: Values
    alpha: Values
    palette: npt.NDArray[np.int32] | None = None  # (colours, channels), in order
    others: bool = False  # whether there are pixels of colours that the palette does not have
    version: int = VERSION

    def pack(self) -> bytes:
        head = bytes([self.version, self.effort, self.transform]) + self.colour.pack() + self.alpha.pack()
        if self.palette is None:
            return head + b"\0\0"
        return head + struct.pack("<H", len(self.palette) | self.others << 15) + palettes.pack(self.palette)

    @classmethod
    def unpack(cls, params: bytes, channels: int, most: int) -> Plan:
        """Raises FormatError: not what `pack` writes for pictures of so many channels and samples up to `most`."""
        if len(params) < 3 or params[0] not in PROFILES:
            raise damaged("of an unknown version; the file may need a newer latentzip")
        effort, transform = params[1], params[2]
        if effort not in PROFILES[params[0]] or transform >= len(TRANSFORMS):
            raise damaged("out of range")
        colour, rest = Values.read(params[3:], most)
        alpha, rest = Values.read(rest, most)
        count = int.from_bytes(rest[:2], "little")
        others, count = bool(count >> 15), count & 0x7FFF
        palette = None
        if len(rest) < 2 or count > MAX_COLOURS or (count == 0 and (others or len(rest) > 2)):
            raise damaged("out of range")
        if count:
            palette = palettes.unpack(rest[2:], count, channels, most)
            inks = channels - (channels in (2, 4))
            if others and not (colour.hold(palette[:, :inks]) and alpha.hold(palette[:, inks:])):
                raise damaged("colours that the samples cannot have")
        return cls(effort, transform, colour, alpha, palette, others, params[0])


def depends(plan: Plan) -> bool:
    """Whether effort makes a difference: not where all pixels are those of a palette."""
    return plan.palette is None or plan.others


# --- the plan ----------------------------------------------------------------------------------------------------


def plan_of(x: np.ndarray, effort: int) -> tuple[Plan, npt.NDArray[np.int32] | None]:
    """How to code a picture (C, H, W) uint8 or uint16, and the numbers (H, W) of its pixels in the palette, if any."""
    has_alpha = x.shape[0] in (2, 4)
    inks = x[: x.shape[0] - has_alpha]
    palette, numbers = _palette(x)
    if palette is not None and numbers is not None and not (numbers == len(palette)).any():
        return Plan(effort, 0, Values(0), Values(0), palette), numbers
    colour, alpha = _values(inks), _values(x[-1:]) if has_alpha else Values(0)
    looked_at = inks[:, :512, :512] if inks[0].size > 1 << 18 else inks
    transform = _transform(colour.ranks(looked_at)) if len(inks) == 3 else 0
    return Plan(effort, transform, colour, alpha, palette, palette is not None), numbers


def coded(
    plan: Plan, x: np.ndarray, numbers: npt.NDArray[np.int32] | None, window: tuple[slice, slice]
) -> npt.NDArray[np.int32]:
    """A window of a picture as its chunk is coded: ranks (C, h, w), and colour numbers below them or, where all pixels
    are of the palette, alone."""
    named = [] if numbers is None else [numbers[window][None]]
    if not depends(plan):
        return named[0]
    inks = len(x) - (len(x) in (2, 4))
    rows, columns = window
    part = x[:, rows, columns]
    ranks = [plan.colour.ranks(part[:inks])] + ([plan.alpha.ranks(part[inks:])] if inks < len(x) else [])
    return np.concatenate(ranks + named)


def _values(planes_: np.ndarray) -> Values:
    """Which values occur, in a list where that saves more than it takes."""
    values = Values.of(planes_)
    if values.listed is None:
        return values
    part = planes_[:, :1024, :1024]
    saved = _rough(part.astype(np.int32)) - _rough(values.ranks(part))
    listed = 8 * (len(values.pack()) - 3)
    return values if saved * planes_.size / part.size > listed else Values(int(values.listed[-1]))


def _rough(planes_: np.ndarray) -> float:
    """About how many bits the differences of planes (C, H, W) between neighbours take."""
    padded = np.pad(planes_, ((0, 0), (1, 0), (1, 0)), "edge")
    error = planes_ - padded[:, 1:, :-1] - padded[:, :-1, 1:] + padded[:, :-1, :-1]
    return float(np.log2(1.0 + np.abs(error)).sum())


def _keys(planes_: np.ndarray) -> npt.NDArray[np.uint64]:
    """The samples of a pixel, one behind the other."""
    key = np.zeros(planes_.shape[1:], np.uint64)
    for plane in planes_:
        key <<= np.uint64(8 * planes_.itemsize)
        key |= plane
    return key


def _palette(x: np.ndarray) -> tuple[npt.NDArray[np.int32] | None, npt.NDArray[np.int32] | None]:
    """Colours in order and the picture (H, W) of their numbers, where it pays; other colours have the next number."""
    bits = 8 * x.itemsize
    _, height, width = x.shape
    size = height * width
    step = max(1, BAND // width)
    bands = [slice(top, top + step) for top in range(0, height, step)]
    same = sum(np.count_nonzero((x[:, band, 1:] == x[:, band, :-1]).all(0)) for band in bands) / size
    some = _keys(x.reshape(len(x), 1, size)[..., :: max(1, size >> 14)])
    if same < FLAT and np.unique(some).size > FEW:
        return None, None
    each = [np.unique(_keys(x[:, band]), return_counts=True) for band in bands]
    found, place = np.unique(np.concatenate([colours for colours, _ in each]), return_inverse=True)
    counts = np.bincount(place, np.concatenate([number for _, number in each]))
    if (found.size > FEW and same < FLAT) or (len(x) == 1 and found.size > 256):  # many greys are a scale, not colours
        return None, None
    numbers = np.empty((height, width), np.int32)
    for band in bands:
        numbers[band] = np.searchsorted(found, _keys(x[:, band]))
    if found.size > MAX_COLOURS or (found.size > 256 and same < 0.5):
        often = counts >= OFTEN
        if np.count_nonzero(often) > MAX_COLOURS:
            often = counts >= np.sort(counts)[-MAX_COLOURS]
        kept = often.nonzero()[0][:MAX_COLOURS]
        table = np.full(found.size, kept.size, np.int32)
        table[kept] = np.arange(kept.size)
        found, numbers = found[kept], table[numbers]
        if found.size == 0:
            return None, None
    shifts = np.arange(len(x) - 1, -1, -1, dtype=np.uint64) * np.uint64(bits)
    colours = (found[:, None] >> shifts) & np.uint64((1 << bits) - 1)
    colours = colours.astype(np.int32)
    order = palettes.order(colours)
    rank = np.append(np.argsort(order), len(order)).astype(np.int32)
    return colours[order], rank[numbers]


def _transform(planes_: np.ndarray) -> int:
    """The colour transform whose differences between neighbours are smallest."""
    costs = []
    for order, bases in TRANSFORMS:
        a, b, c = (planes_[i] for i in order)
        b, c = b - (a if bases[0] else 0), c - (0, a, b)[bases[1]]
        costs.append(sum(_cost(p) for p in (a, b, c)))
    return int(np.argmin(costs))


def _cost(plane: np.ndarray) -> float:
    padded = np.pad(plane, ((1, 0), (1, 0)), "edge")
    error = plane - padded[1:, :-1] - padded[:-1, 1:] + padded[:-1, :-1]
    counts = np.bincount(np.minimum(np.abs(error), 4095).reshape(-1))
    p = counts[counts > 0] / error.size
    return float(-(p * np.log2(p)).sum() + np.count_nonzero(error) / error.size)


# --- chunks ------------------------------------------------------------------------------------------------------


def _framed(plane: np.ndarray) -> npt.NDArray[np.int32]:
    """Flat, with a margin that repeats the edges."""
    return np.pad(plane, M, "edge").astype(np.int32).reshape(-1)


def _inside(flat: np.ndarray, h: int, w: int) -> np.ndarray:
    return flat.reshape(h + 2 * M, w + 2 * M)[M : M + h, M : M + w]


def _empty(h: int, w: int, start: int) -> npt.NDArray[np.int32]:
    """Flat, with `start` above the first row: what the first samples are predicted from."""
    flat = np.zeros((h + 2 * M, w + 2 * M), np.int32)
    flat[:M] = start
    return flat.reshape(-1)


def encode_chunk(plan: Plan, part: np.ndarray, channels: int) -> bytes:
    """One chunk of what `coded` gives, (planes, h, w)."""
    room = part.shape[2] * planes.MOST_WORDS + part.size + 64
    while True:
        coder, words = writer(room)
        try:
            _code(plan, part, part.shape[1], part.shape[2], channels, coder, words)
        except OutOfRoom:  # noise: again with more
            room *= 2
        else:
            return finished(coder, words)


def decode_chunk(plan: Plan, data: bytes, h: int, w: int, channels: int) -> np.ndarray:
    """Samples (channels, h, w) int32; FormatError where the chunk is not what `encode_chunk` writes."""
    coder, words = reader(data)
    out = _code(plan, None, h, w, channels, coder, words)
    check_end(coder, words)
    if plan.palette is not None and not plan.others:
        return plan.palette[out[0]].transpose(2, 0, 1)
    inks = channels - (channels in (2, 4))
    parts = [plan.colour.samples(out[:inks])] + ([plan.alpha.samples(out[inks:])] if inks < channels else [])
    return np.concatenate(parts)


def _code(
    plan: Plan, part: np.ndarray | None, h: int, w: int, channels: int, coder: np.ndarray, words: np.ndarray
) -> np.ndarray:
    """Code a chunk with an encoder, or with a decoder where there is no part; returns it."""
    profile = PROFILES[plan.version][plan.effort]
    size = (h, w, w + 2 * M)
    inks = channels - (channels in (2, 4))
    out = np.empty((channels, h, w), np.int32)
    known = np.zeros((h, w), bool)
    if plan.palette is not None:
        x = _empty(h, w, 0)
        if part is not None:
            _inside(x, h, w)[:] = part[-1]
        many = len(plan.palette) + plan.others
        _checked(
            graphics.code_colours(coder, words, x, size, many, graphics.memory_of(), graphics.recall(x.size), 6, 255)
        )
        numbers = _inside(x, h, w)
        if not plan.others:
            return numbers[None]
        known = numbers < len(plan.palette)
        ranks = [plan.colour.ranks(plan.palette[:, :inks]), plan.alpha.ranks(plan.palette[:, inks:])]
        out[:] = np.concatenate(ranks, 1)[np.minimum(numbers, len(plan.palette) - 1)].transpose(2, 0, 1)
    if inks < channels:
        given = None if part is None else part[inks]
        out[-1] = _plane(profile, size, [], 0, given, known, out[-1], plan.alpha.top, coder, words)
    order, bases = TRANSFORMS[plan.transform] if inks == 3 else (range(inks), (0,) * inks)
    memories = [planes.memory_of(plan.colour.top, profile.counters) for _ in range(min(inks, 2))]
    done: list[np.ndarray] = []
    coded: list[np.ndarray] = []
    before = np.zeros((h + 2 * M) * size[2], np.int32)
    for k, i in enumerate(order):
        base = 0 if k == 0 or not bases[k - 1] else done[bases[k - 1] - 1]
        refs = [] if k == 0 else [done[0]] if k == 1 else [done[0], coded[1]]
        given = None if part is None else part[i]
        errors = np.zeros_like(before)
        out[i] = _plane(
            profile, size, refs, base, given, known, out[i], plan.colour.top, coder, words, memories[min(k, 1)], before,
            errors,
        )  # fmt: skip
        before = errors
        done.append(out[i])
        coded.append(out[i] - base)
    return out


def _plane(
    profile: Profile, size: tuple[int, int, int], refs: list[np.ndarray], base: np.ndarray | int,
    given: np.ndarray | None, known: np.ndarray, there: np.ndarray, top: int, coder: np.ndarray, words: np.ndarray,
    memory: np.ndarray | None = None, before: np.ndarray | None = None, errors: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Code a plane, `given` or, by a decoder, None; samples that are `known` are those of `there`."""
    h, w, stride = size
    plain = isinstance(base, int)
    offset = np.zeros((h + 2 * M) * stride, np.int32) if plain else _framed(base)
    x = _empty(h, w, (top + 1) // 2 if plain else 0)
    if given is not None:
        _inside(x, h, w)[:] = given - base
    elif known.any():
        _inside(x, h, w)[:] = np.where(known, there - base, 0)
    flat = np.stack([_framed(r) for r in refs]) if refs else np.zeros((0, x.size), np.int32)
    zero = np.zeros((h + 2 * M) * stride, np.int32)
    memory = planes.memory_of(top, profile.counters) if memory is None else memory
    taps = np.array([y * stride + c for y, c in OWN[: profile.own]], np.int64)
    near = np.array([y * stride + c for y, c in NEAR[: profile.near]], np.int64)
    spec = np.array(profile.predictors, np.int64).reshape(-1, 2)
    banks = max([16] + [-(-w // columns) for _, columns in profile.predictors if columns > 0])
    state = planes.predictors(len(spec), banks, len(taps) + len(near) * len(flat), stride)
    _checked(
        planes.code_plane(
            coder, words, x, offset, flat, zero if errors is None else errors,
            zero.copy() if before is None else before, np.pad(known, M).reshape(-1), size, taps, near, spec, top,
            memory, state, profile.counters, 3, 255,
        )
    )  # fmt: skip
    return _inside(x, h, w) + base


class OutOfRoom(Exception):
    """An encoder has no room for the words of another row."""


def _checked(result: int) -> None:
    if result == planes.FULL:
        raise OutOfRoom
    if result:
        raise FormatError("lossless: a chunk is corrupt, or of another coding")
