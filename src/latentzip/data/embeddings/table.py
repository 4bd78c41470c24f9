"""A table of embeddings in memory, read by number: rows as levels of codes, more of them for rows that are read often.

Such as a recommender's: millions of rows, a few of which are read most of the time. A row's first level of product
codes says roughly where it lies, each further level (`codecs.vq.product`) refines it, and a level is given to the rows
where it takes most error away, weighted by how often they are read: the mean size is what was asked for. A bitmap a
level says which rows have it.
"""

from __future__ import annotations

import os
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ...codecs.outputs import atomic_writer
from ...codecs.vq.codes import ENTRIES, Codebooks, fingerprint
from ...codecs.vq.product import LARGEST, Product, fit
from ...entropy import arrays, container, opening
from ...entropy.coder import Decoder, Encoder
from ...entropy.dense import array_of
from ...entropy.errors import FormatError, InputError
from ...entropy.numbers import real, whole
from ...kernels.table_levels import index, table_levels
from .file import LIMITS, RowFile
from .rows import FIT_ROWS, finite, numbers_of, rows_of

LEVELS = 4
_GROUP = 1 << 12  # rows that are coded together
_BLOCK = 1 << 14  # rows that are quantised at once
_MAX_LEVELS = 64
_MOST = (1 << 32) - 1  # blocks of codes


class EmbeddingTable(RowFile):
    """Rows of embeddings by number, from a few bytes each in memory; made with `EmbeddingTable.write`.

    Args:
        path: of the file, which is read whole.

    Attributes:
        shape: (N, D).
        dtype: float32 or float16, of what was written and of what is read.
        product: the quantiser.
        sizes: how many rows have each level.

    Raises:
        FormatError: not a table, or a damaged one.
        OSError: the file cannot be read.

    Example:
        >>> import numpy as np, os, tempfile
        >>> x = np.random.default_rng(0).standard_normal((1000, 16)).astype("float32")
        >>> reads = 1000 / np.arange(1, 1001)  # how often each row is asked for
        >>> path = os.path.join(tempfile.mkdtemp(), "table.ltz")
        >>> table = EmbeddingTable.write(path, x, counts=reads, size=4)
        >>> table[[5, 900, 5]].shape, len(table), table.sizes[0]
        ((3, 16), 1000, 1000)
    """

    _name = "embedding-table"
    _kind = ("table", "embeddings")
    _params = struct.Struct("<BB")  # version, levels

    def __init__(self, path: str | os.PathLike[str]) -> None:
        stream = self._opened(path, opening.read_file(os.fspath(path), LIMITS.samples))
        _, levels = self._params.unpack(stream.header.params)
        chunks = stream.chunks
        books = Codebooks.of_tensors(arrays.tensors(bytes(chunks[0]), self.path), levels, self.path)
        self.product = books.product
        sound = self.product.channels == self.shape[1]
        sound = sound and fingerprint(bytes(chunks[0])) == stream.header.fingerprint
        if not sound or levels > _MAX_LEVELS or len(chunks) < levels + -(-self.shape[0] // _GROUP):
            raise self._contradiction()
        self.sizes, members = self._members([bytes(c) for c in chunks[1:levels]])
        if sum(self.sizes) > _MOST:
            raise FormatError(f"{self.path}: {sum(self.sizes)} blocks of codes; {_MOST} are the most")
        groups = [(level, min(_GROUP, n - at)) for level, n in enumerate(self.sizes) for at in range(0, n, _GROUP)]
        if len(chunks) != levels + len(groups):
            raise self._contradiction()
        parts = [self._read(books, bytes(c), *group) for c, group in zip(chunks[levels:], groups)]
        self._codes = np.concatenate(parts) if parts else np.empty((0, self.product.groups), np.uint8)
        self._words, self._rank = index(members, self.shape[0])
        p = self.product
        self._vectors = p.vectors().numpy().reshape(p.levels, p.groups, p.entries, p.channels)
        self._first = p.mean.numpy()

    def __repr__(self) -> str:
        return f"EmbeddingTable({self.path!r}, shape={self.shape}, {self.memory} bytes in memory)"

    @property
    def once(self) -> int:
        """Bytes in memory that do not grow with the rows: what each code stands for."""
        return self._vectors.nbytes + self._first.nbytes

    @property
    def memory(self) -> int:
        """Bytes in memory: codes, bitmaps with their counts, and what codes stand for."""
        return self._codes.nbytes + self._words.nbytes + self._rank.nbytes + self.once

    # --- writing -------------------------------------------------------------------------------------------------

    @classmethod
    def write(
        cls, path: str | os.PathLike[str], vectors: Any, *, counts: Any = None, size: float = 8,
        width: int | None = None, levels: int = LEVELS, force: bool = False,
    ) -> Self:  # fmt: skip
        """Code a table into a file; it appears whole or not at all.

        Args:
            path: of the file to write.
            vectors: (N, D) array or tensor, float32 or float16.
            counts: (N,) how often each row is read, or anything in proportion; None: all alike.
            size: codes a row in the mean, a byte each in memory; at least ``width``.
            width: codes of a level. None: half the size.
            levels: at most.
            force: replace an existing file.

        Returns:
            The table, open.

        Raises:
            InputError: too few rows, counts or sizes that do not fit, values that are not finite, or an existing file.
        """
        rows = rows_of(vectors)
        n, d = rows.shape
        if n < 2:
            raise InputError("a table needs embeddings: two rows or more")
        size, levels = real("size", size, "a number of codes"), whole("levels", levels, 1)
        width = max(1, int(size // 2)) if width is None else whole("width", width, 1)
        if not 1 <= width <= min(size, d) or not size <= width * levels or not 1 <= levels <= _MAX_LEVELS:
            raise InputError(
                f"size is {size}, width {width} and levels {levels}; {d} channels take a width of 1 to {d} codes, and "
                f"sizes from one level to all of 1 to {_MAX_LEVELS}"
            )
        weights = _weights(counts, n)
        sample = np.random.default_rng(0).choice(n, FIT_ROWS, p=weights / weights.sum() / 2 + 0.5 / n)
        x = finite(rows[torch.from_numpy(np.sort(sample if n > FIT_ROWS // 8 else sample[: 8 * n]))], 0)
        books = Codebooks.of(fit(x, width * levels, min(ENTRIES, n), levels=levels))
        codes, errors = _coded(books.product, rows)
        given = _given(errors, weights, int((size - width) * n / width))
        blocks = [codes[given > level, level * width : (level + 1) * width] for level in range(levels)]
        books = books.counted([part[:, j] for part in blocks for j in range(width)])
        bitmaps = [(given > level)[given >= level] for level in range(1, levels)]
        chunks = [save(books.tensors())]
        chunks += [zlib.compress(np.packbits(bits).tobytes(), 9) for bits in bitmaps]
        for level, part in enumerate(blocks):
            for at in range(0, len(part), _GROUP):
                encoder = Encoder()
                books.code_level(encoder, part[at : at + _GROUP], level, len(part[at : at + _GROUP]), "")
                chunks.append(encoder.finish())
        header = cls._header(fingerprint(chunks[0]), (n, d), rows.dtype, levels)
        with atomic_writer(Path(path), force) as file:
            file.write(container.write(header, chunks, limits=LIMITS))
        return cls(path)

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, rows: Any) -> np.ndarray:
        """Rows (M, D) by number, in the order asked for.

        Raises:
            IndexError: there is no such row.
        """
        numbers = numbers_of(rows, len(self))
        sizes = np.array(self.sizes, np.int64)
        found = table_levels(self._vectors, self._codes, sizes, self._words, self._rank, numbers, self._first)
        if self.dtype == np.float32:
            return found
        limit = float(np.finfo(self.dtype).max)
        return found.clip(-limit, limit).astype(self.dtype)

    def _members(self, chunks: list[bytes]) -> tuple[list[int], list[np.ndarray]]:
        """How many rows have each level, and which of them have the next one."""
        counts, members = [self.shape[0]], []
        for data in chunks:
            size = -(-counts[-1] // 8)
            unzip = zlib.decompressobj()
            try:
                raw = unzip.decompress(data, size + 1)
            except zlib.error as error:
                raise FormatError(f"{self.path}: a bitmap is damaged ({error})") from error
            if len(raw) != size:
                raise FormatError(f"{self.path}: a bitmap does not fit its rows; the table is corrupt")
            members.append(np.unpackbits(np.frombuffer(raw, np.uint8), count=counts[-1]).astype(bool))
            counts.append(int(members[-1].sum()))
        return counts, members

    def _read(self, books: Codebooks, data: bytes, level: int, count: int) -> np.ndarray:
        decoder = Decoder(data)
        codes = books.code_level(decoder, None, level, count, self.path)
        decoder.finish()
        return codes


def _weights(counts: Any, rows: int) -> np.ndarray:
    """(N,) float64; InputError where counts are none."""
    if counts is None:
        return np.ones(rows)
    found = array_of(counts, "iuf", "counts").astype(np.float64)
    if found.shape != (rows,) or not np.isfinite(found).all() or found.min() < 0 or not found.sum() > 0:
        raise InputError(f"counts have shape {found.shape}; ({rows},) numbers from 0 are needed, not all of them 0")
    return found


def _coded(product: Product, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, m) uint8 of all levels, and (L, N) the squared error that each level leaves."""
    codes, errors = [], []
    for start in range(0, len(rows), _BLOCK):
        x = finite(rows[start : start + _BLOCK], start, LARGEST)
        found = product.codes(x)
        codes.append(found.to(torch.uint8).numpy())
        ends = range(product.groups, product.parts + 1, product.groups)
        errors.append(np.stack([(x - product.rows(found[:, :k])).square().sum(1).numpy() for k in ends]))
    return np.concatenate(codes), np.concatenate(errors, 1)


def _given(errors: np.ndarray, weights: np.ndarray, more: int) -> np.ndarray:
    """(N,) levels of each row: one, and so many further ones in all, where they take most weighted error away."""
    if len(errors) == 1 or more < 1:
        return np.ones(len(weights), np.int64)
    gains = np.stack([(a - b) * weights for a, b in pairwise(errors)])
    gains = np.minimum.accumulate(gains, axis=0)  # a level comes after those before it
    least = np.partition(gains.reshape(-1), max(0, gains.size - more))[max(0, gains.size - more)]
    return 1 + ((gains >= least) & (gains > 0)).sum(0)
