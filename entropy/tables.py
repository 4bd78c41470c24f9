"""Integer frequency tables: the only thing the coder ever sees of a probability model.

A bank holds T tables. Table t has `n_t >= 2` entries whose integer frequencies sum to `2**precision`. Entry
`e` stands for the integers whose value shifted right by `raw_bits[t]` equals `lo[t] + e`; the shifted-out low
bits travel raw in a side section. The LAST entry is the escape: every other integer, written in full in
another side section. So any int32 can be coded with any table, and no float takes part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .dense import array_of, to_numpy
from .errors import InputError

MAX_PRECISION = 16  # a packed (start, frequency) pair must fit 32 bits
MAX_RAW_BITS = 25  # with a bit position of 0..7 they fit the 32 bits read at once
MAX_TABLES = 1 << 16
LUT_PRECISION = 12  # up to here the decoder looks a quantile up, above it searches
LUT_ENTRIES = 256  # 255 symbols and the escape: a byte
LUT_TABLES = 4096  # six kilobytes a table are worth it up to here


class TableBank:
    """A frozen set of integer frequency tables, equal and hashable by value.

    Args:
        freqs: T one-dimensional integer arrays, each at least 2 long, all entries >= 1, sum `2**precision`;
        the last
            entry is the escape.
        lo: T integers; entry e of table t covers `(lo[t] + e) << raw_bits[t]` and the next `2**raw_bits[t] -
        1`.
        raw_bits: T integers in 0..25, or one for all: how many low bits go raw.
        precision: 1..16.

    Raises:
        InputError: a table is not of this form; the text names the table.

    Example:
        >>> bank = TableBank([np.array([10, 5, 1])], lo=[0], raw_bits=[0], precision=4)
        >>> bank.num_tables, round(bank.ideal_bits(np.array([0, 1]), np.array([0, 0])), 3)
        (1, 2.356)
    """

    def __init__(
        self,
        freqs: Sequence[npt.ArrayLike],
        lo: Sequence[int] | npt.NDArray[Any],
        raw_bits: Sequence[int] | npt.NDArray[Any] | int = 0,
        precision: int = 12,
    ) -> None:
        if not 1 <= precision <= MAX_PRECISION:
            raise InputError(f"precision {precision} is outside 1..{MAX_PRECISION}")
        tables = [to_numpy(f, f"table {t}") for t, f in enumerate(freqs)]
        if not 1 <= len(tables) <= MAX_TABLES:
            raise InputError(f"a bank needs 1..{MAX_TABLES} tables, not {len(tables)}")
        for t, f in enumerate(tables):
            if f.ndim != 1 or f.size < 2 or f.dtype.kind not in "iu":
                raise InputError(f"table {t} must be a 1-D integer array of at least 2 entries, not {f.dtype}{f.shape}")
            if int(f.min()) < 1 or int(f.sum(dtype=np.int64)) != 1 << precision:
                raise InputError(
                    f"table {t} must have entries >= 1 that sum to 2**{precision}; "
                    f"its minimum is {int(f.min())}, its sum {int(f.sum(dtype=np.int64))}"
                )
        sizes = np.array([f.size for f in tables], np.int64)
        lo_ = np.asarray(lo, np.int64)
        raw_ = np.broadcast_to(np.asarray(raw_bits, np.int64), sizes.shape)
        if lo_.shape != sizes.shape:
            raise InputError(f"{sizes.size} tables need {sizes.size} values of lo, not {lo_.size}")
        if raw_.min() < 0 or raw_.max() > MAX_RAW_BITS:
            raise InputError(f"raw_bits must lie in 0..{MAX_RAW_BITS}, not {raw_.min()}..{raw_.max()}")
        top = (lo_ + sizes - 1) << raw_
        if (lo_ << raw_).min() < -(2**31) or top.max() > 2**31:
            raise InputError("a table reaches beyond int32")

        freq = np.concatenate(tables).astype(np.uint32)
        base = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        start = (np.cumsum(freq, dtype=np.int64) - freq - np.repeat(np.arange(sizes.size) << precision, sizes)).astype(
            np.uint32
        )
        self._set("precision", int(precision))
        self._set("num_tables", int(sizes.size))
        self._set("max_raw_bits", int(raw_.max()))
        # one row a table: first quotient, raw bits, entries, where the table begins in `pack`
        self._set("info", _frozen(np.stack([lo_, raw_, sizes, base], 1).astype(np.int32)))
        self._set("freq", _frozen(freq))
        self._set("pack", _frozen((start << np.uint32(16)) | freq))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    # declared for type checkers; `__init__` sets them once
    precision: int
    num_tables: int
    max_raw_bits: int
    info: npt.NDArray[np.int32]
    freq: npt.NDArray[np.uint32]
    pack: npt.NDArray[np.uint32]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a TableBank is frozen: cannot set {name!r}")

    def __repr__(self) -> str:
        return (
            f"TableBank({self.num_tables} tables, precision={self.precision}, "
            f"entries<={int(self.info[:, 2].max())}, fingerprint={self.fingerprint().hex()})"
        )

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TableBank):
            return NotImplemented
        return self._digest == other._digest

    def __hash__(self) -> int:
        return int.from_bytes(self._digest[:8], "little", signed=True)

    @cached_property
    def _digest(self) -> bytes:
        h = hashlib.sha256(b"latentzip table bank 1\n")
        h.update(np.array([self.precision, self.num_tables], "<i4").tobytes())
        h.update(self.info[:, :3].astype("<i4").tobytes())
        h.update(self.freq.astype("<u4").tobytes())
        return h.digest()

    def fingerprint(self) -> bytes:
        """Eight bytes that name these tables in a file header."""
        return self._digest[:8]

    def table(self, t: int) -> npt.NDArray[np.uint32]:
        """Frequencies of table t, escape last; a read-only view."""
        _, _, n, base = (int(v) for v in self.info[t])
        return self.freq[base : base + n]

    def take(self, tables: Sequence[int] | npt.NDArray[Any]) -> TableBank:
        """A bank of the named tables, in that order (a table may repeat)."""
        ids = [int(t) for t in tables]
        return TableBank([self.table(t) for t in ids], self.info[ids, 0], self.info[ids, 1], self.precision)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Integer arrays for safetensors or npz: freq (tables end to end), layout (T, 3), precision."""
        return {
            "freq": self.freq.astype(np.int32),
            "layout": np.ascontiguousarray(self.info[:, :3]),  # lo, raw_bits, entries
            "precision": np.array([self.precision], np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> TableBank:
        """The inverse of `to_arrays`; everything is validated again.

        Raises:
            InputError: a key is missing or the arrays are no valid bank.
        """
        missing = {"freq", "layout", "precision"} - set(arrays)
        if missing:
            raise InputError(f"a table bank needs the arrays freq, layout and precision; missing: {sorted(missing)}")
        freq = np.asarray(arrays["freq"])
        layout = np.asarray(arrays["layout"], np.int64)
        if layout.ndim != 2 or layout.shape[1] != 3 or layout[:, 2].min(initial=2) < 2:
            raise InputError(f"layout must be (T, 3) with at least two entries a table, not {layout.shape}")
        if freq.ndim != 1 or int(layout[:, 2].sum()) != freq.size:
            raise InputError(f"layout names {int(layout[:, 2].sum())} entries, freq holds {freq.size}")
        freqs = np.split(freq, np.cumsum(layout[:, 2])[:-1])
        return cls(freqs, layout[:, 0], layout[:, 1], int(np.asarray(arrays["precision"]).reshape(-1)[0]))

    @classmethod
    def from_histograms(
        cls,
        counts: Sequence[npt.ArrayLike],
        lo: Sequence[int] | int,
        precision: int = 12,
        raw_bits: Sequence[int] | int = 0,
        trim: bool = True,
    ) -> TableBank:
        """The bank whose tables code the given histograms in nearly the fewest bits.

        Args:
            counts: T non-negative 1-D arrays: how often `lo[t] + i` occurred (after the shift by `raw_bits`).
            The
                escape is not among them; it is appended.
            lo: the first value of each histogram, or one for all.
            trim: let go of tails so rare that escaping them is cheaper than giving them an entry.
        """
        tables, firsts = [], []
        lows = np.broadcast_to(np.asarray(lo, np.int64), (len(counts),))
        for t, (c, first) in enumerate(zip(counts, lows)):
            c = array_of(c, "iuf", f"histogram {t}").astype(np.float64)
            if c.ndim != 1 or c.size == 0 or not np.isfinite(c).all() or c.min() < 0:
                raise InputError(f"histogram {t} must be a non-empty 1-D array of counts >= 0")
            a, b = _support(c, precision) if trim else (0, c.size)
            escaped = float(c[:a].sum() + c[b:].sum())
            tables.append(normalise(np.append(c[a:b], escaped), precision))
            firsts.append(int(first) + a)
        return cls(tables, firsts, raw_bits, precision)

    # what the kernels read; built on first use

    @cached_property
    def rows(self) -> npt.NDArray[np.int32]:
        """(T, 4): lo, raw bits, number of the escape entry, where the table begins in `pack`."""
        out = self.info.copy()
        out[:, 2] -= 1
        return _frozen(out)

    @cached_property
    def plain(self) -> int:
        """How many tables come before the first one with raw bits."""
        return int(np.flatnonzero(self.info[:, 1])[0]) if self.max_raw_bits else self.num_tables

    @cached_property
    def has_lut(self) -> bool:
        """Whether a byte a quantile answers which entry it is, and 64 bits an entry answer the rest."""
        return (
            self.precision <= LUT_PRECISION
            and self.num_tables <= LUT_TABLES
            and int(self.info[:, 2].max()) <= LUT_ENTRIES
            and int(abs(self.info[:, 0].astype(np.int64)).max()) + LUT_ENTRIES < 1 << 26
        )

    @cached_property
    def lut(self) -> npt.NDArray[np.uint8]:
        """(T << precision,): the entry that each quantile belongs to. A byte each: 64 tables stay in a core's L2."""
        tables = [np.repeat(np.arange(n), self.table(t)) for t, n in enumerate(self.info[:, 2])]
        return _frozen(np.concatenate(tables).astype(np.uint8))

    @cached_property
    def entries(self) -> npt.NDArray[np.uint64]:
        """(T << 8,): all about an entry: raw bits (5, 31 = escape), 7 free, frequency (13), start (12), value (27).

        Frequency and start are brought to 12 bits of precision; the value is signed, without its raw bits.
        """
        out = np.zeros((self.num_tables, LUT_ENTRIES), np.int64)
        up = LUT_PRECISION - self.precision
        for t, (lo, raw, n, _) in enumerate(self.info.tolist()):
            f = self.table(t).astype(np.int64)
            bits, value = np.full(n, raw), lo + np.arange(n)
            bits[-1], value[-1] = 31, 0
            out[t, :n] = bits | f << (12 + up) | (np.cumsum(f) - f) << (25 + up) | value << 37
        return _frozen(out.reshape(-1).view(np.uint64))

    @cached_property
    def bucket_bits(self) -> int:
        """How many leading bits of a quantile choose a bucket in the two-level search."""
        return min(self.precision, LUT_PRECISION)

    @cached_property
    def buckets(self) -> npt.NDArray[np.uint16]:
        """(T << bucket_bits,): the entry in which each bucket of quantiles begins."""
        out = np.empty((self.num_tables, 1 << self.bucket_bits), np.uint16)
        edges = np.arange(1 << self.bucket_bits) << (self.precision - self.bucket_bits)
        for t in range(self.num_tables):
            out[t] = np.searchsorted(np.cumsum(self.table(t), dtype=np.int64), edges, side="right")
        return _frozen(out.reshape(-1))

    @cached_property
    def _cost(self) -> npt.NDArray[np.float64]:
        raw = np.repeat(self.info[:, 1], self.info[:, 2]).astype(np.float64)
        raw[self.info[:, 2] + self.info[:, 3] - 1] = 0.0
        return self.precision - np.log2(self.freq) + raw

    def costs(self, residuals: npt.ArrayLike, index: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """-log2 p of each integer under its table, raw bits and escape bytes included; shapes broadcast."""
        r, t = _whole(residuals, "residuals"), _whole(index, "an index")
        try:
            r, t = np.broadcast_arrays(r, t)
        except ValueError:
            raise InputError(f"symbols {r.shape} and an index {t.shape} do not fit each other") from None
        row = self.info[t].astype(np.int64)
        e = (r >> row[..., 1]) - row[..., 0]
        escape = (e < 0) | (e >= row[..., 2] - 1)
        bits = self._cost[row[..., 3] + np.where(escape, row[..., 2] - 1, e)]
        if escape.any():
            z = np.where(r < 0, -2 * r - 1, 2 * r)[escape]
            bits = bits.copy()
            bits[escape] += 8.0 * np.maximum(1, -(-np.ceil(np.log2(z + 1.0)) // 7))
        return bits

    def ideal_bits(self, symbols: npt.ArrayLike, index: npt.ArrayLike) -> float:
        """What an ideal coder would spend on these integers with these tables, in bits."""
        return float(self.costs(symbols, index).sum())


def _whole(x: Any, what: str) -> npt.NDArray[np.int64]:
    a = array_of(x, "iuf", what)
    if a.dtype.kind == "f" and not (np.isfinite(a).all() and (np.rint(a) == a).all()):
        raise InputError(f"{what} must be integers: round them first")
    return a.astype(np.int64)


def normalise(weights: npt.ArrayLike, precision: int) -> npt.NDArray[np.int64]:
    """Integer frequencies >= 1 with sum `2**precision` that code `weights` in nearly the fewest bits.

    Rounds the share of each entry down, then gives (or takes) one count at a time where the expected code
    length gains most (loses least). log((f + 1) / f) is compared as 2 / (2 f + 1), so the outcome rests on
    IEEE division alone and is the same on every machine.
    """
    w = np.asarray(weights, np.float64)
    total = 1 << precision
    if w.size > total:
        raise InputError(f"{w.size} entries do not fit a table of precision {precision}")
    mass = float(w.sum())
    share = w * (total / mass) if mass > 0 else np.full(w.size, total / w.size)
    if mass <= 0:
        w = np.ones(w.size)
    f = np.maximum(1, np.floor(share)).astype(np.int64)
    while (left := total - int(f.sum())) != 0:
        if left > 0:
            gain = w / (2 * f + 1)
            best = np.argsort(-gain, kind="stable")[: max(1, min(left, w.size) // 4)]
            f[best] += 1
        else:
            loss = np.where(f > 1, w / np.maximum(2 * f - 1, 1), np.inf)
            room = int((f > 1).sum())
            best = np.argsort(loss, kind="stable")[: max(1, min(-left, room) // 4)]
            f[best] -= 1
    return f


def _support(counts: npt.NDArray[np.float64], precision: int) -> tuple[int, int]:
    """The slice of a histogram that is worth entries: tails rarer than a quarter of one count are cut."""
    worth = np.flatnonzero(counts > counts.sum() / (1 << precision + 2))
    if worth.size == 0:
        return 0, 1
    a, b = int(worth[0]), int(worth[-1]) + 1
    if b - a > (1 << precision) - 1:
        raise InputError(f"a histogram spans {b - a} values: precision {precision} cannot hold them; use raw_bits")
    return a, b


def _frozen(a: np.ndarray) -> Any:
    a.flags.writeable = False
    return a
