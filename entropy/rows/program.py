"""Integers in rows, each foretold by the rows around it: spectra and what describes them.

A row follows an earlier one (the block of samples before) and may lie beside another one (the other channel). Within a
row symbols are coded from the first to the last, each under a table that the symbols before it choose: two to its left,
three in the row before, three in the row beside. Rows may have different lengths; what lies where is scaled.

`MagnitudeRows` are symbols around zero whose size is foretold (coefficients of a transform); `ValueRows` are symbols
whose value is foretold (levels of bands). All of it is integers: weights, tables, and the sums in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..compiled import rows as loops
from ..contract import Model
from ..dense import to_numpy
from ..engine import current_engine
from ..errors import InputError, UnsupportedError
from ..tables import TableBank

if TYPE_CHECKING:
    from ..coder import Decoder, Encoder

Ints = npt.NDArray[np.int32]
NOT_CODED = 255  # class of a symbol that is known to be zero
KINDS = 6  # of rows: after one of its own length, after another, after none; each alone or beside another
RATIO_UNIT = 8  # units of the steps' logarithm in an octave
RATIO_REACH = 96


@dataclass(frozen=True, eq=False)
class MagnitudeTables:
    """What `MagnitudeRows` are coded with.

    bank: frequency tables. tables: (classes, levels) int32, which of them codes a symbol.
    weights: (KINDS, 6) int32: of the magnitudes one and two to the left, and in the rows before and beside of the one
        at the same place and of its two neighbours; 256 is one.
    levels: (1024,) uint8: the level of an expected magnitude in 64ths.
    """

    bank: TableBank
    tables: Ints
    weights: Ints
    levels: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        _check(self.bank, self.tables, self.weights, (KINDS, 6))
        if self.levels.shape != (loops.WIDE,) or self.levels.dtype != np.uint8 or not 1 <= len(self.tables) < NOT_CODED:
            raise InputError(f"magnitudes need {loops.WIDE} levels and less than {NOT_CODED} classes")

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain integer arrays, for safetensors or npz."""
        return {"tables": self.tables, "weights": self.weights, "levels": self.levels, **_bank_arrays(self.bank)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> MagnitudeTables:
        """The inverse of `to_arrays`; raises InputError where a key is missing or does not fit."""
        tables, weights, levels = _take(arrays, "tables", "weights", "levels")
        return cls(_bank(arrays), tables.astype(np.int32), weights.astype(np.int32), levels.astype(np.uint8))


@dataclass(frozen=True, eq=False)
class ValueTables:
    """What `ValueRows` are coded with.

    bank: frequency tables. tables: (KINDS, 4 * misses) int32: which of them codes a symbol, by how far the guesses to
        its left were off, and by the quarter that its own guess lies in between two integers. The last
        four are for what follows zeros to the left and in the row before; the first of them is used.
    weights: (2 KINDS, 7) int32, for each kind inside a row and at its beginning: of the symbol to the left, of those in
        the row before at the same place, to its left and to its right, of those beside and to its left; and a
        constant. 256 is one.
    """

    bank: TableBank
    tables: Ints
    weights: Ints

    def __post_init__(self) -> None:
        _check(self.bank, self.tables, self.weights, (2 * KINDS, 7))
        if len(self.tables) != KINDS or self.tables.shape[1] % 4 or self.tables.shape[1] < 8:
            raise InputError(
                f"values need 4 tables a miss and 4 more for {KINDS} kinds of rows, not {self.tables.shape}"
            )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain integer arrays, for safetensors or npz."""
        return {"tables": self.tables, "weights": self.weights, **_bank_arrays(self.bank)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> ValueTables:
        """The inverse of `to_arrays`; raises InputError where a key is missing or does not fit."""
        tables, weights = _take(arrays, "tables", "weights")
        return cls(_bank(arrays), tables.astype(np.int32), weights.astype(np.int32))


def _check(bank: TableBank, tables: Ints, weights: Ints, shape: tuple[int, int]) -> None:
    if tables.ndim != 2 or tables.size == 0 or not 0 <= int(tables.min()) <= int(tables.max()) < bank.num_tables:
        raise InputError(f"tables of rows must be named in 2-D and lie in a bank of {bank.num_tables}")
    if weights.shape != shape or int(np.abs(weights).max()) > 1 << 16:
        raise InputError(f"weights of rows must be {shape} integers of 16 bits, not {weights.shape}")
    if not bank.has_lut:
        raise InputError("rows take banks of at most 12 bits and 256 entries a table")


def _bank_arrays(bank: TableBank) -> dict[str, np.ndarray]:
    return {f"bank.{key}": value.copy() for key, value in bank.to_arrays().items()}


def _bank(arrays: Mapping[str, Any]) -> TableBank:
    return TableBank.from_arrays({k[5:]: v for k, v in arrays.items() if k.startswith("bank.")})


def _take(arrays: Mapping[str, Any], *names: str) -> list[np.ndarray]:
    if missing := set(names) - set(arrays):
        raise InputError(f"tables of rows lack the arrays {sorted(missing)}")
    return [np.asarray(arrays[name]) for name in names]


_RATIO = np.array(
    [round(2 ** (d / RATIO_UNIT) * 4096) >> 4 for d in range(-RATIO_REACH, RATIO_REACH + 1)], np.int64
)  # any rounding of pow in the 16 digits below these 20 bits gives the same integers


class _Rows(Model):
    """Rows end to end; `rows` (R, 4) holds first symbol, length, row before, row beside (-1: none) of each."""

    bank: TableBank

    def __init__(self, rows: Ints, count: int) -> None:
        self.rows = np.ascontiguousarray(rows, np.int32)
        self.shape = (count,)
        number = np.arange(len(rows))[:, None]
        ends = self.rows[:, 0].astype(np.int64) + self.rows[:, 1]
        if len(rows) and ((self.rows[:, 2:4] >= number).any() or ends.max() > count or self.rows[:, :2].min() < 0):
            raise InputError("a row lies outside the symbols or refers to a later one")

    def _walk(self, reading: bool, state: tuple, symbols: Ints, plain: bool) -> tuple[Ints, Any, np.ndarray, int]:
        """(table of each symbol, offset or 0, which ones are coded, error)."""
        raise NotImplementedError

    def _contexts(self, symbols: Any) -> tuple[Ints, Ints, Any]:
        """Symbols that are coded, their tables and offsets."""
        x = to_numpy(symbols)
        if x.shape != self.shape or x.dtype.kind not in "iu":
            raise InputError(f"rows hold {self.shape[0]} integers, not {x.dtype}{x.shape}")
        x = np.ascontiguousarray(x, np.int32)
        plain = current_engine().name == "plain"
        index, offset, coded, _ = self._walk(False, _NOTHING, x, plain)
        if coded.all():
            return x, index, offset
        at = np.flatnonzero(coded)
        if np.count_nonzero(kept := x[at]) != np.count_nonzero(x):
            raise InputError("a symbol of a class that is not coded must be zero")
        return kept, index[at], offset

    def encode(self, encoder: Encoder, symbols: Any) -> None:  # type: ignore[override]
        _check_coder(encoder)
        x, index, offset = self._contexts(symbols)
        encoder.table(x, self.bank, index, offset, x.shape)

    def decode(self, decoder: Decoder) -> Ints:  # type: ignore[override]
        _check_coder(decoder)
        symbols = np.zeros(self.shape, np.int32)
        decoder.loop(self.bank, lambda state, plain: self._walk(True, state, symbols, plain)[3])
        return symbols

    def bits(self, symbols: Any) -> float:
        x, index, offset = self._contexts(symbols)
        return self.bank.ideal_bits(x.astype(np.int64) - offset, index)


def _check_coder(coder: Any) -> None:
    from ..stream import StreamDecoder, StreamEncoder

    if isinstance(coder, (StreamEncoder, StreamDecoder)):
        raise UnsupportedError("rows are coded in whole chunks: use Encoder and Decoder, not the streaming coders")


class MagnitudeRows(_Rows):
    """Symbols around zero whose size is like that of their neighbours.

    Args:
        tables: frozen integers.
        rows: (R, 4) int32, see `_Rows`.
        step: (n,) int16: in which unit each symbol counts, as 8 log2 of it, so that neighbours compare.
        known: (n,) uint8: a class that is known of each symbol, or `NOT_CODED`: it is zero.
    """

    def __init__(self, tables: MagnitudeTables, rows: Ints, step: npt.NDArray[np.int16], known: npt.NDArray[np.uint8]):
        super().__init__(rows, step.size)
        self.bank, self.tables = tables.bank, tables
        self.step, self.known = step, known
        if known.shape != step.shape or int(known[known < NOT_CODED].max(initial=0)) >= len(tables.tables):
            raise InputError(f"each symbol needs a class below {len(tables.tables)}")

    def _walk(self, reading: bool, state: tuple, symbols: Ints, plain: bool) -> tuple[Ints, Any, np.ndarray, int]:
        t = self.tables
        index = np.empty(self.shape, np.int32)
        loop = getattr(loops.magnitudes, "py_func", loops.magnitudes) if plain else loops.magnitudes
        args = (self.rows, self.step, self.known, _RATIO, t.weights.astype(np.int64), t.levels, t.tables)
        _, error = loop(reading, *state, *args, symbols, index)
        return index, _ZERO, self.known != NOT_CODED, int(error)


class ValueRows(_Rows):
    """Symbols whose value is like that of their neighbours.

    Args:
        tables: frozen integers.
        rows: (R, 5) int32: as in `_Rows`, and the layout of each row.
        places: (Y, Y, B) int32: where in a row of the first layout lies symbol b of a row of the second.
    """

    def __init__(self, tables: ValueTables, rows: Ints, places: Ints, count: int) -> None:
        super().__init__(rows, count)
        self.bank, self.tables, self.places = tables.bank, tables, places

    def _walk(self, reading: bool, state: tuple, symbols: Ints, plain: bool) -> tuple[Ints, Any, np.ndarray, int]:
        t = self.tables
        index, offset = np.empty(self.shape, np.int32), np.empty(self.shape, np.int32)
        loop = getattr(loops.values, "py_func", loops.values) if plain else loops.values
        _, error = loop(
            reading, *state, self.rows, self.places, t.weights.astype(np.int64), t.tables, symbols, index, offset
        )
        return index, offset, np.ones(self.shape, bool), int(error)


_ZERO = np.zeros(1, np.int32)
# what the loops take of a decoder when they do not read: of the same types, so that one compiled body serves
_NOTHING: tuple = (
    np.zeros(1, np.uint64), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.uint32), np.zeros(5, np.int64),
    np.zeros(4, np.uint32), np.zeros(1, np.uint8), np.zeros(1, np.uint8), np.zeros(1, np.uint64), 12,
)  # fmt: skip
for _array in _NOTHING[7:9]:
    _array.flags.writeable = False
