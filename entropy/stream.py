"""The streaming coder: first in, first out, so that what is coded can be sent while more is being coded.

One range coder in the wire format of constriction's `RangeEncoder`: 64-bit lower bound and range, 24-bit
probabilities, words of 32 bits, little-endian. All is in this one stream, in the order of the symbols:

    a symbol       its entry in its table, the P-bit frequencies brought to 24 bits (frequency << 24 - P)
    its raw bits   right behind it as equiprobable symbols of at most 16 bits, low bits first
    an escape      right behind it the zigzag LEB128 bytes of the integer, each one of 256 equiprobable symbols
    raw integers   as raw bits

The end takes one or two words, chosen as constriction chooses them; they decide every symbol whatever bytes may
follow, so nothing has to say where a stream ends, and no other end is accepted. A stream costs about two bytes more
than its symbols do; an empty one takes no bytes.

`ans` is several times faster, but has to know all symbols before the first byte leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from .contract import Model
from .engine import Engine, current_engine
from .errors import FormatError, InputError, MoreDataNeeded
from .fronts import EncoderFront, check_none, mixture_windows
from .symbols import Symbols, as_int32
from .tables import TableBank

_T = TypeVar("_T")
_MASK = (1 << 64) - 1
_WORD = (1 << 32) - 1
_PIECE = 16  # bits of the widest equiprobable symbol


class StreamEncoder(EncoderFront):
    """Integers in, words out as soon as they are sure.

    Example:
        >>> from latentzip.entropy import Gaussian, StreamDecoder, StreamEncoder
        >>> model = Gaussian(np.array([20, 30, 40]))
        >>> encoder, decoder = StreamEncoder(), StreamDecoder()
        >>> for frame in ([0, -3, 100], [1, 2, -20]):
        ...     _ = encoder.code(np.array(frame), model)
        ...     decoder.feed(encoder.take())  # send what is sure by now; the last few bytes wait
        >>> decoder.feed(encoder.finish())
        >>> decoder.code(None, model), decoder.code(None, model)
        (array([  0,  -3, 100], dtype=int32), array([  1,   2, -20], dtype=int32))
        >>> decoder.finish()
    """

    _MORE = "this stream is finished: make a new StreamEncoder for the next one"
    _AGAIN = "this stream is finished: its end was handed out already"

    def __init__(self, *, engine: Engine | None = None) -> None:
        super().__init__(engine)
        self._kernels = _kernels(self._engine)
        self._coder = np.array([0, _MASK, 0, 0], np.uint64)  # lower, range, words held back, the first of them
        self._done: list[bytes] = []

    def take(self) -> bytes:
        """The bytes that are sure and were not taken yet: a multiple of four, often none.

        The last few bytes of what was coded stay back until later symbols, or `finish`, decide them.
        """
        out = b"".join(self._done)
        self._done.clear()
        return out

    def finish(self) -> bytes:
        """The rest of the stream; what `take` and `finish` gave, end to end, is the stream."""
        self._end()
        lower, width, held, first = self._coder.tolist()
        if width != _MASK:
            if held:
                carry = lower + _WORD > _MASK
                self._put(np.array([(first + carry) & _WORD] + [0 if carry else _WORD] * (held - 1), np.uint32))
            self._put(np.array(_ending(lower, width), np.uint32))
        return self.take()

    def _put(self, words: np.ndarray) -> None:
        self._done.append(words.astype("<u4", copy=False).tobytes())

    def _write(self, start: np.ndarray, freq: np.ndarray) -> None:
        out = np.empty(start.size + int(self._coder[2]), np.uint32)
        used = self._kernels.write(start, freq, self._coder, out)
        if used:
            self._put(out[:used])

    # primitives that models are written with

    def table(self, symbols: Symbols, bank: TableBank, index: np.ndarray, offset: np.ndarray, shape: tuple) -> None:
        """Append symbols under indexed tables; index (n,) uint8 or int32, offset (1,) or (n,) int32."""
        x = as_int32(symbols, shape)
        if x.size == 0:
            return
        if not 0 <= int(index.min()) <= int(index.max()) < bank.num_tables:
            raise InputError(f"a table index is outside the bank's {bank.num_tables} tables")
        r = (x - offset if offset.size > 1 or offset[0] else x).astype(np.int64)
        lo, raw, last, base = bank.rows.T.astype(np.int64)[:, index]
        e = (r >> raw) - lo
        escape = (e < 0) | (e >= last)
        pair = bank.pack[base + np.where(escape, last, e)]
        shift = np.uint32(24 - bank.precision)
        start, freq = pair >> np.uint32(16) << shift, (pair & np.uint32(0xFFFF)) << shift
        if bank.max_raw_bits:
            self._write(*_expand(start, freq, r, np.where(escape, 0, raw), escape))
        else:
            self._write(*_expand(start, freq, r, None, escape))

    def _mixture(self, x: np.ndarray, parameters: tuple) -> None:
        first, count = parameters[3:5]
        pairs = np.empty(2 * x.size, np.uint32)
        self._engine.mixture.ranges_mixture(x, *parameters, pairs)
        escape = (x < first) | (x >= first + count)
        start, freq = np.ascontiguousarray(pairs[0::2]), np.ascontiguousarray(pairs[1::2])
        self._write(*_expand(start, freq, x.astype(np.int64), None, escape))

    def _raw_integers(self, x: np.ndarray, bits: int, lo: int) -> None:
        x = x.astype(np.int64) - lo
        sizes = [min(_PIECE, bits - done) for done in range(0, bits, _PIECE)]
        start = [((x >> _PIECE * i) & ((1 << k) - 1)) << 24 - k for i, k in enumerate(sizes)]
        freq = np.tile(np.array([1 << 24 - k for k in sizes], np.uint32), x.size)
        self._write(np.stack(start, 1).astype(np.uint32).reshape(-1), freq)


class StreamDecoder:
    """Words in as they come, integers out as soon as the words decide them.

    Every read is bounded: corrupt bytes give wrong symbols or a `FormatError`, never a crash. A changed word nearly
    always changes the symbols behind it, and `finish` refuses most of such streams, not all: where symbols must be
    right, put a checksum around what is sent.
    """

    def __init__(self, *, engine: Engine | None = None) -> None:
        self._engine = engine or current_engine()
        self._kernels = _kernels(self._engine)
        self._coder = np.array([0, _MASK, 0], np.uint64)  # lower, range, point
        self._at = np.array([0, 2], np.int64)  # next word, words that the point lacks
        self._words = np.zeros(0, np.uint32)
        self._parts: list[bytes] = []

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes of the stream, cut anywhere."""
        self._parts.append(bytes(data))

    def code(self, symbols: None, model: Model) -> Symbols:
        """The next symbols: int32, in the model's shape, as a tensor where the model's parameters are
        tensors.

        Raises:
            MoreDataNeeded: what was fed does not decide all of them. Nothing has changed: feed and ask again, for
                about as much as is sent at a time, since each attempt begins anew.
            FormatError: no encoder writes such bytes.
            InputError: the model's parameters are out of range.
        """
        check_none(self, symbols)
        return model.decode(self)

    def attempt(self, program: Callable[[StreamDecoder], _T]) -> _T:
        """`program(self)`, all or nothing: for programs that make several calls (and do not feed).

        Raises:
            MoreDataNeeded: the decoder is where it was before; feed and attempt again.
        """
        self._arrive()
        coder, at = self._coder.copy(), self._at.copy()
        try:
            return program(self)
        except MoreDataNeeded:
            self._coder, self._at = coder, at
            raise

    def finish(self) -> None:
        """Check that the stream ends here, as an encoder ends it.

        Raises:
            MoreDataNeeded: its last bytes have not come.
            FormatError: bytes are left, or the last ones are not those that an encoder writes.
        """
        self._arrive()
        lower, width, point = self._coder.tolist()
        at, missing = self._at.tolist()
        window = [point >> 32, point & _WORD][: 2 - missing]
        rest = self._parts[0] if self._parts else b""
        have = np.array(window, "<u4").tobytes() + self._words[at : at + 3].astype("<u4").tobytes() + rest
        want = b"" if width == _MASK else np.array(_ending(lower, width), "<u4").tobytes()
        if have == want:
            return
        if want.startswith(have):
            raise MoreDataNeeded("the last bytes of a stream are missing: it has not all come, or it is truncated")
        raise FormatError(
            "a stream does not end as an encoder ends it, or goes on: it is corrupt, of another model, or not decoded "
            "to its end"
        )

    def _arrive(self) -> None:
        """Bring what was fed into words; at most three bytes stay in `_parts`."""
        if not self._parts:
            return
        data = b"".join(self._parts)
        whole = len(data) & ~3
        self._parts = [data[whole:]] if whole < len(data) else []
        if whole:
            new = np.frombuffer(data, "<u4", whole >> 2).astype(np.uint32, copy=False)
            self._words = np.concatenate([self._words[int(self._at[0]) :], new])
            self._at[0] = 0

    def _done(self, err: int) -> None:
        if not err:
            return
        k = self._kernels
        if err == k.WAIT:
            raise MoreDataNeeded(
                "the bytes of a stream so far do not decide the next symbols: feed more, or it is truncated"
            )
        if err == k.BAD_POINT:
            raise FormatError("no encoder writes these bytes: the stream is corrupt or of another model")
        if err == k.BAD_ESCAPE:
            raise FormatError("an escaped integer of a stream is malformed: it is corrupt or of another model")
        raise AssertionError(err)

    # primitives that models are written with

    def table(self, bank: TableBank, index: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """index.size symbols under indexed tables; index (n,) uint8 or int32, offset (1,) or (n,) int32."""
        out = np.empty(index.size, np.int32)
        if not out.size:
            return out
        if not 0 <= int(index.min()) <= int(index.max()) < bank.num_tables:
            raise InputError(f"a table index is outside the bank's {bank.num_tables} tables")
        self._arrive()
        tables = (index, bank.rows, bank.pack, bank.buckets, bank.bucket_bits, bank.precision)
        self._done(self._kernels.read_table(self._coder, self._at, self._words, *tables, out))
        if offset.size > 1 or offset[0]:
            out += offset
        return out

    def mixture(self, weights: np.ndarray, means: np.ndarray, scale: np.ndarray, phi) -> np.ndarray:
        """One symbol a row of the (n, K) int32 parameters."""
        out = np.empty(weights.shape[0], np.int32)
        first, count = mixture_windows(self._engine.mixture, weights, means, scale, phi.reach)
        self._arrive()
        parameters = (weights, means, scale, first, count, phi.phi, phi.rate)
        self._done(self._kernels.read_mixture(self._coder, self._at, self._words, *parameters, out))
        return out

    def raw(self, count: int, bits: int, lo: int) -> np.ndarray:
        """`count` integers of `bits` raw bits each, plus lo."""
        self._arrive()
        if count * bits > 32 * (self._words.size - int(self._at[0]) + 4):  # before anything is allocated
            self._done(self._kernels.WAIT)
        out = np.empty(count, np.int32)
        self._done(self._kernels.read_raw(self._coder, self._at, self._words, bits, lo, out))
        return out


def _kernels(engine: Engine) -> ModuleType:
    if engine.name == "numba":
        from .compiled import stream

        return stream
    from .plain import stream

    return stream


def _ending(lower: int, width: int) -> list[int]:
    """The words that end a stream: decided by what is in [lower, lower + width), whatever follows them."""
    word = (lower + _WORD & _MASK) >> 32
    return [word, 0] if (lower + width & _MASK) >> 32 == word else [word]


def _expand(
    start: np.ndarray, freq: np.ndarray, r: np.ndarray, raw: np.ndarray | None, escape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put the equiprobable symbols of raw bits and escapes right behind the symbols they belong to."""
    parts: list[tuple[np.ndarray, int, Any, Any]] = []  # which symbols, how far behind, value, bits
    items = np.ones(start.size, np.int64)
    if raw is not None:
        for i in range(-(-int(raw.max()) // _PIECE)):
            which = np.flatnonzero(raw > _PIECE * i)
            bits = np.minimum(_PIECE, raw[which] - _PIECE * i)
            parts.append((which, 1 + i, (r[which] >> _PIECE * i) & ((1 << bits) - 1), bits))
            items[which] += 1
    which = np.flatnonzero(escape)
    z = (r[which] << 1) ^ (r[which] >> 63)
    for b in range(5):
        more = z >> 7 * (b + 1) > 0
        parts.append((which, 1 + b, ((z >> 7 * b) & 127) | np.where(more, 128, 0), np.full(which.size, 8)))
        items[which] += 1
        which, z = which[more], z[more]
        if not which.size:
            break
    total = int(items.sum())
    if total == start.size:
        return start, freq
    at = np.cumsum(items) - items
    starts, freqs = np.empty(total, np.uint32), np.empty(total, np.uint32)
    starts[at], freqs[at] = start, freq
    for which, behind, value, bits in parts:
        starts[at[which] + behind], freqs[at[which] + behind] = value << 24 - bits, 1 << 24 - bits
    return starts, freqs
