"""How the codec `audio` codes its integers, and what follows from the levels of bands: steps and classes.

A level is the power of a band, 2 units an octave of amplitude, `FULL` for a mean square of one (signals are scaled so
that their largest sample is about one); 0 stands for silence.
The step of a band grows with the power `shape` / 16 of its amplitude, so that loud bands are coded with more error, but
a higher ratio, and along a curve with its frequency, for the ear tells fewer things apart there. From level and step
follows how large symbols will be, about: their class. Where that is far below one, nothing is coded. All of this is
integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.errors import FormatError, InputError
from ...entropy.models import TableModel
from ...entropy.rows.program import NOT_CODED, MagnitudeRows, MagnitudeTables, ValueRows, ValueTables
from ...entropy.tables import TableBank
from .layout import KINDS, TREES, Layout, Rows, division

FULL = 48
MAX_LEVEL = 127
UNITS = 8  # units of steps in an octave; levels count UNITS / 2 of them each
CLASSES = 14
ANGLES = 16  # stereo angles in half a turn
_REFERENCE = 35  # level whose step does not depend on the shape
_LOUDEST = 87  # a step is never finer than this many units below its level: symbols stay below 32768
_COARSE = 190  # unit of the step at quality 0
_FAINTEST = -12  # units of the level above the step below which nothing is coded
_CLASS = 4  # units a class
CURVE_HERTZ = (0, 400, 920, 1720, 3150, 6400, 15500)  # where curves have their points: every fourth Bark (Zwicker 1961)
_LENIENCE = 4  # bits a frame that speech may take more under its tables: unusual voices do, music takes twenty
FILL_HERTZ = (400, 1000, 2000, 4000, 7000, 9000)  # where the parts of noise that is filled in have their points

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rule:
    """How the steps of bands follow from their levels and frequencies.

    shape: how much of a band's level its step follows, in sixteenths.
    curve: units that steps are coarser by at `CURVE_HERTZ`, linear in between; empty for none.
    """

    shape: int
    curve: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.curve) not in (0, len(CURVE_HERTZ)):
            raise InputError(f"a curve of steps has {len(CURVE_HERTZ)} points, not {len(self.curve)}")


@dataclass(frozen=True, eq=False)
class Tables:
    """All integers that decide intervals.

    trees: a table of the numbers of trees. angles, levels, coefficients: what their rows are coded with.
    rule: how steps follow from levels.
    speech: what chunks of speech are coded with instead; None where they are not told apart.
    """

    trees: TableBank
    angles: ValueTables
    levels: ValueTables
    coefficients: MagnitudeTables
    rule: Rule
    speech: Tables | None = None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain integer arrays, for safetensors."""
        parts = {k: getattr(self, k).to_arrays() for k in ("trees", "angles", "levels", "coefficients")}
        arrays = {f"{part}.{key}": value.copy() for part, values in parts.items() for key, value in values.items()}
        curve = {"curve": np.array(self.rule.curve, np.int32)} if self.rule.curve else {}
        speech = {f"speech.{k}": v for k, v in self.speech.to_arrays().items()} if self.speech else {}
        return arrays | {"shape": np.array([self.rule.shape], np.int32)} | curve | speech

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Tables:
        """The inverse of `to_arrays`; raises InputError where keys are missing or do not fit."""

        def part(name: str) -> dict[str, Any]:
            return {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}

        speech = part("speech")
        if any(key.startswith("speech.") for key in speech):
            raise InputError("tables of speech hold no others")
        return cls(
            TableBank.from_arrays(part("trees")),
            ValueTables.from_arrays(part("angles")),
            ValueTables.from_arrays(part("levels")),
            MagnitudeTables.from_arrays(part("coefficients")),
            Rule(
                int(np.asarray(arrays.get("shape", [0]))[0]),
                tuple(np.asarray(arrays.get("curve", [])).ravel().tolist()),
            ),
            cls.from_arrays(speech) if speech else None,
        )


@lru_cache(maxsize=64)
def offsets(lay: Layout, rule: Rule) -> tuple[Ints, ...]:
    """For each depth, (bands,) units that the curve adds at the middle of each band."""
    if not rule.curve:
        return tuple(np.zeros(edges.size - 1, np.int32) for edges in lay.edges)
    x, y = np.array(CURVE_HERTZ), np.array(rule.curve)
    out = []
    for hertz in middles(lay):
        i = np.minimum(np.searchsorted(x, hertz, "right") - 1, x.size - 2)
        out.append((y[i] + (y[i + 1] - y[i]) * (hertz - x[i]) // (x[i + 1] - x[i])).astype(np.int32))
    return tuple(out)


@lru_cache(maxsize=64)
def middles(lay: Layout) -> tuple[npt.NDArray[np.int64], ...]:
    """For each depth, (bands,) Hz of the middle of each band, as far as curves have points."""
    parts = enumerate(lay.edges)
    return tuple(np.minimum((e[:-1] + e[1:]) * lay.rate // (4 * lay.size(d)), CURVE_HERTZ[-1]) for d, e in parts)


def row_offsets(lay: Layout, rows: Rows, rule: Rule) -> Ints:
    """What the curve adds to the units of all bands of `Rows`: (levels,)."""
    return rows.by_depth(np.concatenate(offsets(lay, rule)))


def step_units(levels: Ints, quality: int, rule: Rule, offset: Ints) -> Ints:
    """Steps of bands: UNITS * log2(step), plus UNITS / 2 * FULL.

    Args:
        levels: of the bands.
        quality: 1..100; a unit is 0.75 dB.
        rule, offset: see `Rule` and `offsets`.
    """
    half = UNITS // 2
    units = _COARSE - quality + ((rule.shape * half * (levels - _REFERENCE) + 8) >> 4) + offset
    return np.maximum(units, half * levels - _LOUDEST).astype(np.int32)


def steps(units: Ints) -> Floats:
    """Widths of cells."""
    return np.exp2((units - UNITS // 2 * FULL) / UNITS).astype(np.float32)


def classes(levels: Ints, units: Ints) -> npt.NDArray[np.uint8]:
    """How large the symbols of bands will be, in classes of 3 dB; `NOT_CODED` where they are zero."""
    over = UNITS // 2 * levels - units
    known = np.minimum((over - _FAINTEST) // _CLASS, CLASSES - 1)
    return np.where((levels <= 0) | (over < _FAINTEST), NOT_CODED, known).astype(np.uint8)


def program(coder: Any, latent: Ints | None, frames: int, lay: Layout, tables: Tables, quality: int) -> Ints:
    """Code the frames of a chunk: trees, angles, levels, coefficients.

    Args:
        coder: encoder, decoder or rate meter.
        latent: (rows, frames), or None to decode.

    Raises:
        FormatError: decoded numbers are not of this program.
    """
    columns = None if latent is None else np.ascontiguousarray(latent.T, np.int32)
    number = np.zeros(frames, np.uint8)
    kinds, trees = (None, None) if columns is None else division(columns[:, 0])
    kind = 0
    if tables.speech is not None and frames:
        kind = int(np.asarray(coder.code(None if kinds is None else kinds[:1], TableModel(_kinds(), number[:1])))[0])
        tables = tables.speech if kind else tables
    if kinds is not None and (kinds != kind).any():
        raise InputError("the frames of a chunk are of one kind, of which there is a second one from release 3 on")
    trees = np.asarray(coder.code(trees, TableModel(tables.trees, number)))
    _check(trees, len(TREES) - 1, "divisions of frames")
    rows = Rows(lay, trees)
    angles = np.zeros((frames, 0), np.int32)
    if lay.angles:
        model = ValueRows(tables.angles, *angle_rows(frames, lay.angles), frames * lay.angles)
        given = None if columns is None else columns[:, 1 : lay.first_level].reshape(-1)
        angles = np.asarray(coder.code(given, model)).reshape(frames, -1)
        _check(angles, ANGLES - 1, "stereo angles")
    given = None if columns is None else rows.levels_of(columns)
    levels = np.asarray(coder.code(given, ValueRows(tables.levels, rows.level_rows, lay.places, rows.count.size)))
    _check(levels, MAX_LEVEL, "levels of bands")
    units = step_units(levels, quality, tables.rule, row_offsets(lay, rows, tables.rule))
    model = MagnitudeRows(
        tables.coefficients, rows.coefficient_rows, np.repeat(units.astype(np.int16), rows.count),
        np.repeat(classes(levels, units), rows.count),
    )  # fmt: skip
    given = None if columns is None else rows.symbols_of(columns)
    symbols = np.asarray(coder.code(given, model))
    if latent is not None:
        return latent
    columns = np.zeros((frames, lay.latent_channels), np.int32)
    columns[:, 0] = trees + kind * len(TREES)
    columns[:, 1 : lay.first_level] = angles
    rows.put_levels(levels, columns)
    rows.put_symbols(symbols, columns)
    return columns.T


@lru_cache(maxsize=1)
def _kinds() -> TableBank:
    return TableBank.from_histograms([[1] * KINDS], 0, 12, trim=False)


def likeness(latent: Ints, lay: Layout, tables: Tables) -> float:
    """How many bits fewer the trees and levels of a latent take as speech than as anything else, above `_LENIENCE`."""
    if tables.speech is None:
        return 0.0
    columns = np.ascontiguousarray(latent.T, np.int32)
    number, trees = np.zeros(len(columns), np.uint8), division(columns[:, 0])[1]
    rows = Rows(lay, trees)
    levels = rows.levels_of(columns)
    other, speech = (
        TableModel(t.trees, number).bits(trees)
        + ValueRows(t.levels, rows.level_rows, lay.places, levels.size).bits(levels)
        for t in (tables, tables.speech)
    )
    return float(other - speech) + _LENIENCE * len(columns)


def angle_rows(frames: int, bands: int) -> tuple[Ints, Ints]:
    """Angles as rows, one a frame: rows and places as `ValueRows` takes them."""
    number = np.arange(frames)
    rows = np.stack([number * bands, np.full(frames, bands), number - 1, np.full(frames, -1), 0 * number], 1)
    return rows.astype(np.int32), np.arange(bands, dtype=np.int32)[None, None]


def _check(values: Ints, most: int, what: str) -> None:
    if values.size and (int(values.min()) < 0 or int(values.max()) > most):
        raise FormatError(f"{what} lie outside 0..{most}: the chunk is corrupt or of another version")
