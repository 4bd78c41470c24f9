"""Decodes chunks and streams with constriction alone: its coders, its integer models, and some lines about headers."""

from typing import Any

import constriction
import numpy as np

stream: Any = constriction.stream  # type: ignore[attr-defined]


def split(blob: bytes):
    """(words of each stream, raw section, escape section), read from the format's description."""
    pos = 1

    def varint():
        nonlocal pos
        value = shift = 0
        while True:
            byte = blob[pos]
            pos += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    streams = 1 << (blob[0] & 7)
    raw_size = varint() if blob[0] >> 3 & 1 else 0
    escape_size = varint() if blob[0] >> 4 & 1 else 0
    zigzag = [varint() for _ in range(streams - 1)]
    raw = blob[pos : pos + raw_size]
    escapes = blob[pos + raw_size : pos + raw_size + escape_size]
    data = blob[pos + raw_size + escape_size :]
    words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
    counts = [len(words) // streams + ((z >> 1) ^ -(z & 1)) for z in zigzag]
    counts.append(len(words) - sum(counts))
    return np.split(words, np.cumsum(counts)[:-1]), raw, escapes


def zigzags(section: bytes):
    """The integers of an escape section, in order."""
    z = shift = 0
    for byte in section:
        z |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield (z >> 1) ^ -(z & 1)
            z = shift = 0
    assert shift == 0


def exact_model(freq24):
    """constriction's model of integer 24-bit frequencies, without any rounding."""
    return stream.model.Categorical((np.asarray(freq24, np.float64) - 1), perfect=False)


def decode_tables(blob: bytes, bank, index, offset=0):
    """The symbols of a chunk that holds one array under indexed tables."""
    streams, raw, escapes = split(blob)
    coders = [stream.stack.AnsCoder(w) if w.size else stream.stack.AnsCoder() for w in streams]
    models = [exact_model(bank.table(t).astype(np.int64) << (24 - bank.precision)) for t in range(bank.num_tables)]
    bits = int.from_bytes(raw, "little")
    at = 0
    escaped = zigzags(escapes)
    index = np.asarray(index)
    offset = np.broadcast_to(offset, index.shape).reshape(-1)
    out = []
    for i, t in enumerate(index.reshape(-1).tolist()):
        entry = int(coders[i % len(coders)].decode(models[t]))
        lo, k, n, _ = bank.info[t].tolist()
        if entry == n - 1:
            value = next(escaped)
        else:
            value = (lo + entry << k) | (bits & (1 << k) - 1)
            bits >>= k
            at += k
        value += int(offset[i])
        out.append((value + 2**31) % 2**32 - 2**31)
    assert all(c.is_empty() for c in coders)
    assert next(escaped, None) is None
    assert (at + 7) // 8 == len(raw)
    return np.array(out, np.int64).reshape(index.shape)


def mixture_rows(parameters):
    """(first value, integer 24-bit frequencies, escape last) of each mixture of weights, means and scale."""
    from latentzip.entropy.banks import phi_table
    from latentzip.entropy.plain.mixture import _starts, windows

    w, mu, scale = (np.asarray(a).reshape(-1, np.shape(a)[-1]).astype(np.int64) for a in parameters)
    first, count = np.empty(len(w), np.int64), np.empty(len(w), np.int64)
    phi = phi_table()
    assert windows(w, mu, scale, phi.reach, first, count) == 0
    for i in range(len(w)):
        e = np.arange(count[i] + 2)
        w_, mu_, scale_, first_, count_ = (np.repeat(a[i : i + 1], e.size, 0) for a in (w, mu, scale, first, count))
        yield int(first[i]), np.diff(_starts(w_, mu_, scale_, first_, count_, e, phi.phi, phi.rate))


class Queue:
    """A live stream written (`words=None`) or read by constriction's range coder alone."""

    def __init__(self, words: np.ndarray | None = None):
        self.coder = stream.queue.RangeEncoder() if words is None else stream.queue.RangeDecoder(words)
        self.reads = words is not None

    def one(self, value, model) -> int:
        """One symbol of a constriction model, as its number."""
        if self.reads:
            return int(self.coder.decode(model))
        self.coder.encode(int(value), model)
        return int(value)

    def bits(self, value, count) -> int:
        """Equiprobable symbols of at most 16 bits, low bits first."""
        out = 0
        for done in range(0, count, 16):
            size = min(16, count - done)
            piece = value >> done & (1 << size) - 1
            out |= self.one(piece, stream.model.Uniform(1 << size)) << done
        return out

    def integer(self, value) -> int:
        """An escaped integer."""
        left, z, byte, at = (value << 1) ^ (value >> 63), 0, 128, 0
        while byte > 127:
            byte = self.one(left & 127 | (128 if left > 127 else 0), stream.model.Uniform(256))
            left >>= 7
            z |= (byte & 127) << at
            at += 7
        return (z >> 1) ^ -(z & 1)

    def tables(self, symbols, bank, index, offset=0):
        """An array under indexed tables; the symbols are read over when decoding."""
        freqs = [bank.table(t).astype(np.int64) << (24 - bank.precision) for t in range(bank.num_tables)]
        models = [exact_model(f) for f in freqs]
        index = np.asarray(index)
        offset = np.broadcast_to(offset, index.shape).reshape(-1)
        symbols = np.zeros(index.size, np.int64) if symbols is None else np.asarray(symbols).reshape(-1)
        out = []
        for x, t, mean in zip(symbols.tolist(), index.reshape(-1).tolist(), offset.tolist()):
            lo, k, n, _ = bank.info[t].tolist()
            r = (x - mean + 2**31) % 2**32 - 2**31
            e = (r >> k) - lo
            e = self.one(e if 0 <= e < n - 1 else n - 1, models[t])
            r = self.integer(r) if e == n - 1 else (lo + e << k) + self.bits(r & (1 << k) - 1, k)
            out.append((r + mean + 2**31) % 2**32 - 2**31)
        return np.array(out, np.int64).reshape(index.shape)

    def mixture(self, symbols, parameters):
        """An array under mixtures: weights, means and scale."""
        shape = np.shape(parameters[0])[:-1]
        given = [0] * int(np.prod(shape)) if symbols is None else np.asarray(symbols).reshape(-1).tolist()
        out = []
        for x, (first, freq) in zip(given, mixture_rows(parameters)):
            last = freq.size - 1
            entry = self.one(x - first if 0 <= x - first < last else last, exact_model(freq))
            out.append(self.integer(x) if entry == last else first + entry)
        return np.array(out, np.int64).reshape(shape)

    def code(self, symbols, model):
        """The same verb, for every kind of model."""
        if hasattr(model, "weights"):
            return self.mixture(symbols, (model.weights, model.means, model.scale))
        if hasattr(model, "bank"):
            return self.tables(symbols, model.bank, *(a.reshape(-1) for a in model.lowered())).reshape(model.shape)
        if model._raw:
            given = np.full(model.shape, model.lo) if symbols is None else np.asarray(symbols, np.int64)
            out = [model.lo + self.bits(x - model.lo, model._bits) for x in given.reshape(-1).tolist()]
            return np.array(out, np.int64).reshape(model.shape)
        top, move = model._tables(), model.lo + model._centre
        residuals = None if symbols is None else np.asarray(symbols, np.int64) - move
        index, _ = top.lowered()
        return self.tables(residuals, top.bank, index).reshape(model.shape) + move

    def words(self) -> bytes:
        """What was written."""
        return self.coder.get_compressed().astype("<u4").tobytes()
