"""One verb, three readings: an encoder, a decoder and a rate meter that all answer `code(symbols, model)`.

    def program(coder, z, y):                     # written once
        z = coder.code(z, prior)                  # encoder: returns z; decoder: reads z; meter: counts bits
        y = coder.code(y, Gaussian(scale_net(z)))
        return z, y

The encoder buffers integer intervals and codes them backwards in `finish`; the decoder reads forwards, call
by call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import ans
from .contract import Model
from .engine import Engine, current_engine
from .errors import FormatError, InputError
from .fronts import EncoderFront, check_none, mixture_windows
from .symbols import Symbols, as_int32
from .tables import TableBank

SAMPLES = 4096  # pairs looked at to choose the number of streams


class Encoder(EncoderFront):
    """Integers in, one entropy-coded chunk out.

    Args:
        streams: number of ANS streams (a power of two, 1..64); by default chosen from the payload.

    Example:
        >>> from latentzip.entropy import Decoder, Encoder, Gaussian
        >>> model = Gaussian(np.array([20, 30, 40]))
        >>> encoder = Encoder()
        >>> _ = encoder.code(np.array([0, -3, 100]), model)
        >>> decoder = Decoder(encoder.finish())
        >>> decoder.code(None, model)
        array([  0,  -3, 100], dtype=int32)
        >>> decoder.finish()
    """

    joins_calls = True  # symbols coded in one call or in several of the same tables make the same chunk
    _MORE = "this encoder is finished: make a new Encoder for the next chunk"
    _AGAIN = "this encoder is finished: its chunk was handed out already"

    def __init__(self, streams: int | None = None, *, engine: Engine | None = None) -> None:
        super().__init__(engine)
        if streams is not None and streams not in (1, 2, 4, 8, 16, 32, 64):
            raise InputError(f"streams must be a power of two in 1..64, not {streams}")
        self._streams = streams
        self._pairs = _borrow(1024)
        self._used = 0
        self._segments: list[list[int]] = []  # first, count, precision, wide
        self._raw = np.zeros(16, np.uint32)
        self._raw_bits = 0
        self._escapes: list[np.ndarray] = []
        self._away = np.empty(256, np.uint32)

    def finish(self) -> bytes:
        """The chunk. An empty one takes a byte."""
        self._end()
        core = self._engine.core
        segments = np.array(self._segments or np.zeros((0, 4)), np.int64).reshape(-1, 4)
        total = int(segments[:, 1].sum())
        if self._streams is None:
            every = max(1, total // SAMPLES)
            log_k = ans.choose_log_streams(core.estimate_bits(self._pairs, segments, every) >> 11)
        else:
            log_k = self._streams.bit_length() - 1
        streams = 1 << log_k
        # a symbol takes at most its precision in bits; two words more hold a final state, two are slack
        widest = int(segments[:, 2].max(initial=1))
        capacity = (-(-total // streams) * widest + 31) // 32 + 4
        buffer = _borrow(streams * capacity)
        out = buffer[: streams * capacity].reshape(streams, capacity)
        used = np.zeros(streams, np.int64)
        core.encode(self._pairs, segments, log_k, out, used)
        words = np.concatenate([out[j, : used[j]] for j in range(streams)])
        _give_back(buffer)
        _give_back(self._pairs)
        raw = self._raw.astype("<u4", copy=False).view(np.uint8)[: (self._raw_bits + 7) >> 3].tobytes()
        escapes = ans.leb128(np.concatenate(self._escapes)) if self._escapes else b""
        return ans.pack(ans.Sections(words, used, raw, escapes))

    # primitives that models are written with

    def table(self, symbols: Symbols, bank: TableBank, index: np.ndarray, offset: np.ndarray, shape: tuple) -> None:
        """Append symbols under indexed tables; index (n,) uint8 or int32, offset (1,) or (n,) int32."""
        x = as_int32(symbols, shape)
        n = x.size
        if n == 0:
            return
        if offset.size > 1 or offset[0]:
            x = x - offset  # modulo 2**32, so that any symbol and offset have a residual
        core, rows = self._engine.core, bank.rows
        room = self._room(n)
        if bank.max_raw_bits:
            self._raw_room(n * bank.max_raw_bits)
        away = self._away
        escapes, bits = core.ranges_table(x, index, rows, bank.pack, bank.plain, room, away, self._raw, self._raw_bits)
        if escapes < 0:
            raise InputError(f"a table index is outside the bank's {bank.num_tables} tables")
        self._raw_bits = int(bits)
        if escapes:
            values = away[:escapes].copy()
            if escapes > away.size:
                values = np.empty(escapes, np.uint32)
                core.escapes_table(x, index, rows, values)
            self._escapes.append(values)
        self._advance(n, bank.precision, 0)

    def _mixture(self, x: np.ndarray, parameters: tuple) -> None:
        first, count = parameters[3:5]
        if self._engine.mixture.ranges_mixture(x, *parameters, self._room(2 * x.size)):
            away = x[(x < first) | (x >= first + count)].astype(np.int64)
            self._escapes.append(((away << 1) ^ (away >> 63)).astype(np.uint32))
        self._advance(x.size, 24, 1)

    def _raw_integers(self, x: np.ndarray, bits: int, lo: int) -> None:
        self._raw_room(x.size * bits)
        self._raw_bits = int(self._engine.core.write_raw(x, bits, lo, self._raw, self._raw_bits))

    def _room(self, n: int) -> np.ndarray:
        need = self._used + n
        if need > self._pairs.size:
            grown = _borrow(max(need, 2 * self._pairs.size))
            grown[: self._used] = self._pairs[: self._used]
            _give_back(self._pairs)
            self._pairs = grown
        return self._pairs[self._used : need]

    def _raw_room(self, bits: int) -> None:
        need = ((self._raw_bits + bits) >> 5) + 2
        if need > self._raw.size:
            grown = np.zeros(max(need, 2 * self._raw.size), np.uint32)
            grown[: self._raw.size] = self._raw
            self._raw = grown

    def _advance(self, n: int, precision: int, wide: int) -> None:
        last = self._segments[-1] if self._segments else None
        if last is not None and last[2] == precision and last[3] == wide:
            last[1] += n
        else:
            self._segments.append([self._used, n, precision, wide])
        self._used += 2 * n if wide else n


class Decoder:
    """One entropy-coded chunk in, integers out, in the order in which they were encoded.

    Raises:
        FormatError: the bytes are no chunk. Every read is bounded: corrupt bytes give wrong symbols or this
            error, never a crash; `finish` tells whether all was used up, a checksum around it the rest.
    """

    def __init__(self, blob: bytes | bytearray | memoryview, *, engine: Engine | None = None) -> None:
        sections = ans.unpack(blob)
        self._engine = engine or current_engine()
        words = sections.words
        # the word in front lets the kernels read before they check
        self._words = np.zeros(words.size + 1, np.uint32)
        self._words[1:] = words
        end = np.cumsum(sections.counts) + 1
        self._begin = end - sections.counts
        taken = np.minimum(sections.counts, 2)
        high = self._words[end - 1].astype(np.uint64)
        low = self._words[np.maximum(end - 2, 0)].astype(np.uint64)
        self._state = np.where(taken == 2, high << np.uint64(32) | low, np.where(taken == 1, high, np.uint64(0)))
        self._ptr = end - taken
        padding = bytes(12 - len(sections.raw) % 4 + 4)
        self._raw = np.frombuffer(sections.raw + padding, "<u4").astype(np.uint32, copy=False)
        self._escapes = np.frombuffer(sections.escapes or b"\0", np.uint8)
        # symbols so far, raw position and size in bits, escape position and size in bytes
        self._side = np.array([0, 0, 8 * len(sections.raw), 0, len(sections.escapes)], np.int64)

    def code(self, symbols: None, model: Model) -> Symbols:
        """The next symbols: int32, in the model's shape, as a tensor where the model's parameters are
        tensors.

        Raises:
            FormatError: a side section ends early.
            InputError: the model's parameters are out of range.
        """
        check_none(self, symbols)
        return model.decode(self)

    def finish(self) -> None:
        """Check that the chunk was decoded to its end.

        Raises:
            FormatError: words, raw bits or escapes are left, or a stream is not back in its initial state.
        """
        side = self._side
        left = int((self._ptr - self._begin).sum())
        if left or self._state.any():
            raise FormatError(
                f"an entropy-coded chunk did not end where it should ({left} words left, "
                f"{int((self._state != 0).sum())} of {self._state.size} streams open): "
                "it is corrupt or of another model"
            )
        if (side[1] + 7) >> 3 << 3 != side[2] or side[3] != side[4]:
            raise FormatError("an entropy-coded chunk has side bytes left over: it is corrupt or of another model")
        if side[1] & 7 and int(self._raw[side[1] >> 5]) >> (side[1] & 31):
            raise FormatError("the raw section of an entropy-coded chunk is not padded with zeros: it is corrupt")

    def tell(self) -> bytes:
        """A restart point: hand it to `seek` of a new Decoder of the same bytes to go on from here.

        It costs about ten bytes a stream, belongs beside the chunk and can be added or dropped without
        recoding.
        """
        out = bytearray()
        for v in (int(self._side[0]), int(self._side[1]), int(self._side[3])):
            _put(out, v)
        for p, b, s in zip(self._ptr.tolist(), self._begin.tolist(), self._state.tolist()):
            _put(out, p - b)
            out += s.to_bytes(8, "little")
        return bytes(out)

    def seek(self, point: bytes) -> None:
        """Go to a restart point.

        Raises:
            FormatError: the point does not belong to these bytes.
        """
        pos, side = 0, []
        for _ in range(3):
            v, pos = _get(point, pos)
            side.append(v)
        counts = self._counts()
        ptr, state = [], []
        for count in counts.tolist():
            v, pos = _get(point, pos)
            if v > count or pos + 8 > len(point):
                raise FormatError("a restart point does not fit this chunk")
            ptr.append(v)
            state.append(int.from_bytes(point[pos : pos + 8], "little"))
            pos += 8
        if pos != len(point) or side[1] > self._side[2] or side[2] > self._side[4] or side[0] >= 1 << 62:
            raise FormatError("a restart point does not fit this chunk")
        self._side[0], self._side[1], self._side[3] = side
        self._ptr = self._begin + np.array(ptr, np.int64)
        self._state = np.array(state, np.uint64)

    def _counts(self) -> np.ndarray:
        return np.append(self._begin[1:], self._words.size) - self._begin

    # primitives that models are written with

    def table(self, bank: TableBank, index: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """index.size symbols under indexed tables; index (n,) uint8 or int32, offset (1,) or (n,) int32."""
        out = np.empty(index.size, np.int32)
        if not out.size:
            return out
        core = self._engine.core
        head = (self._state, self._ptr, self._begin, self._words, self._side, self._raw, self._escapes, index)
        if bank.has_lut and self._engine.name == "numba":
            loop = core.decode_lut_raw if self._side[2] else core.decode_lut
            err = loop(*head, bank.num_tables, bank.lut, bank.entries, bank.precision, out)
        else:
            err = core.decode_search(*head, bank.rows, bank.pack, bank.buckets, bank.bucket_bits, bank.precision, out)
        if err:
            _fail(err, f"a table index is outside the bank's {bank.num_tables} tables")
        if offset.size > 1 or offset[0]:
            out += offset
        return out

    def loop(self, bank: TableBank, body: Callable[[tuple, bool], int]) -> None:
        """Let a compiled loop of a model read symbols one by one, each under a table that earlier ones choose.

        Args:
            bank: the tables, with lookup slots.
            body: called with this decoder's state as `compiled.rows` takes it, and whether to run uncompiled; returns
                0 or an error code.
        """
        head = (self._state, self._ptr, self._begin, self._words, self._side, self._raw, self._escapes)
        err = body((*head, bank.lut, bank.entries, bank.precision), self._engine.name == "plain")
        if err:
            _fail(err, "")

    def mixture(self, weights: np.ndarray, means: np.ndarray, scale: np.ndarray, phi) -> np.ndarray:
        """One symbol a row of the (n, K) int32 parameters."""
        out = np.empty(weights.shape[0], np.int32)
        kernels = self._engine.mixture
        window = mixture_windows(kernels, weights, means, scale, phi.reach)
        head = (self._state, self._ptr, self._begin, self._words, self._side, self._escapes)
        err = kernels.decode_mixture(*head, weights, means, scale, *window, phi.phi, phi.rate, out)
        if err:
            _fail(err, "")
        return out

    def raw(self, count: int, bits: int, lo: int) -> np.ndarray:
        """`count` integers of `bits` raw bits each, plus lo."""
        if count * bits > int(self._side[2] - self._side[1]):  # before anything is allocated
            _fail(self._engine.core.RAW_END, "")
        out = np.empty(count, np.int32)
        err = self._engine.core.decode_raw(self._side, self._raw, bits, lo, out)
        if err:
            _fail(err, "")
        return out


class RateMeter:
    """Adds up -log2 p instead of coding: for training (differentiable) and for fast evaluation.

    `bits` is a float, or a torch scalar as soon as one of the symbols was a float tensor.
    """

    def __init__(self) -> None:
        self.bits: Any = 0.0

    def code(self, symbols: Symbols, model: Model) -> Symbols:
        """Count bits (of integers exactly, of float tensors differentiably); returns what it was given."""
        self.bits = self.bits + model.bits(symbols)
        return symbols


# Encoders hand their buffers on: fresh pages cost as much as a quarter of the coding. list.append and pop are atomic.
_SPARE: list[np.ndarray] = []
_MAX_SPARE, _MAX_SPARE_WORDS = 8, 1 << 22


def _borrow(n: int) -> np.ndarray:
    try:
        spare = _SPARE.pop()
    except IndexError:
        return np.empty(n, np.uint32)
    return spare if spare.size >= n else np.empty(n, np.uint32)


def _give_back(buffer: np.ndarray) -> None:
    if 1 << 14 <= buffer.size <= _MAX_SPARE_WORDS and len(_SPARE) < _MAX_SPARE:
        _SPARE.append(buffer)


def _fail(err: int, bad_parameters: str) -> None:
    if err == -1:
        raise InputError(bad_parameters)
    what = {-2: "raw section ends early", -3: "escape section ends early", -4: "escape section is malformed"}[err]
    raise FormatError(f"the {what}: the entropy-coded chunk is truncated, corrupt or of another model")


def _put(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _get(data: bytes, pos: int) -> tuple[int, int]:
    value = 0
    for b in range(9):
        if pos >= len(data):
            break
        value |= (data[pos] & 127) << (7 * b)
        pos += 1
        if data[pos - 1] < 128:
            return value, pos
    raise FormatError("a restart point does not fit this chunk")
