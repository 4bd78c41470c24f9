"""The chunks of a feature stream: coded rows, corrections where an error bound asks for them, single values kept."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...entropy.coder import Decoder, Encoder
from ...entropy.errors import FormatError
from . import rows as rows_
from .rows import Rows

Ints = npt.NDArray[np.int32]


@dataclass
class Kept:
    """Values of a block kept bit by bit: positions (M,) int64 ascending, patterns (M,) uint16 or uint32."""

    at: npt.NDArray[np.int64]
    bits: npt.NDArray[Any]


def join(kept: Kept | None, *sections: bytes) -> bytes:
    """Sections of a chunk, each but the last preceded by its length; the kept values first."""
    first = b""
    if kept is not None and kept.at.size:
        gaps = np.diff(kept.at, prepend=-1).astype("<u4")
        first = zlib.compress(gaps.tobytes() + kept.bits.astype(f"<u{kept.bits.itemsize}").tobytes(), 9)
        first = kept.at.size.to_bytes(4, "little") + first
    parts = [first, *sections]
    return b"".join(len(p).to_bytes(4, "little") + p for p in parts[:-1]) + parts[-1]


def split(chunk: bytes, sections: int, size: int, itemsize: int) -> tuple[Kept | None, list[bytes]]:
    """Inverse of `join` for a block of `size` values of so many bytes.

    Raises:
        FormatError: the chunk is corrupt.
    """
    parts = []
    for _ in range(sections):
        length = int.from_bytes(chunk[:4], "little")
        if len(chunk) < 4 + length:
            raise FormatError("a chunk of features is cut short: the stream is corrupt")
        parts.append(chunk[4 : 4 + length])
        chunk = chunk[4 + length :]
    parts.append(chunk)
    return _kept(parts[0], size, itemsize), parts[1:]


def _kept(data: bytes, size: int, itemsize: int) -> Kept | None:
    if not data:
        return None
    count = int.from_bytes(data[:4], "little")
    if not 0 < count <= size:
        raise FormatError("a chunk of features keeps more values than it has: the stream is corrupt")
    expected = count * (4 + itemsize)
    unzip = zlib.decompressobj()
    try:
        raw = unzip.decompress(data[4:], expected + 1)
    except zlib.error as error:
        raise FormatError(f"the kept values of a chunk of features are corrupt ({error})") from error
    if len(raw) != expected or not unzip.eof or unzip.unused_data:
        raise FormatError("the kept values of a chunk of features do not fit their number: the stream is corrupt")
    at = np.cumsum(np.frombuffer(raw[: 4 * count], "<u4").astype(np.int64)) - 1
    if int(at[0]) < 0 or int(at[-1]) >= size or (np.diff(at) < 1).any():
        raise FormatError("a chunk of features keeps values outside itself: the stream is corrupt")
    return Kept(at, np.frombuffer(raw[4 * count :], f"<u{itemsize}").astype(f"u{itemsize}"))


def encode_rows(rows: Rows, prior: Ints | None) -> bytes:
    """The entropy-coded bytes of one block."""
    encoder = Encoder(4 if rows.ref.size * rows.level.shape[1] >= 1 << 14 else 1)
    rows_.program(encoder, rows, rows.ref.size, rows.level.shape[1], prior=prior)
    return encoder.finish()


def decode_rows(data: bytes, count: int, components: int, depth: int | None, prior: Ints | None) -> Rows:
    """Inverse of `encode_rows`; with a depth the first components only."""
    decoder = Decoder(data)
    rows = rows_.program(decoder, None, count, components, depth, prior)
    if depth is None or depth >= components:
        decoder.finish()
    return rows


def encode_corrections(r: Ints) -> bytes:
    """Integers (N, D), nearly all zero: rows of their own, without references and gains."""
    return encode_rows(rows_.plain(np.ascontiguousarray(r.T)), None)


def decode_corrections(data: bytes, shape: tuple[int, int]) -> Ints:
    """Inverse of `encode_corrections`."""
    return np.ascontiguousarray(decode_rows(data, *shape, None, None).whole(shape[1]).T)
