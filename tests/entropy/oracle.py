"""Decodes a chunk with constriction alone: its coder, its integer models, and ten lines about the header."""

import constriction
import numpy as np


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
    return constriction.stream.model.Categorical((np.asarray(freq24, np.float64) - 1), perfect=False)


def decode_tables(blob: bytes, bank, index, offset=0):
    """The symbols of a chunk that holds one array under indexed tables."""
    streams, raw, escapes = split(blob)
    coders = [
        constriction.stream.stack.AnsCoder(w) if w.size else constriction.stream.stack.AnsCoder() for w in streams
    ]
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
