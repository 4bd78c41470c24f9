"""A store of product codes: rows as a few bytes each, searched without being decoded.

The quantiser (`codecs.vq.product`) and the frequencies of its codes travel in the file; groups of rows are
entropy-coded under them and decode alone. A search holds the codes, a byte each, and adds up one table entry a byte.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ...codecs.outputs import atomic_writer
from ...codecs.vq.codes import ENTRIES, MOST, Codebooks, fingerprint
from ...codecs.vq.product import LARGEST, Product, fit
from ...entropy import arrays, container
from ...entropy.errors import InputError
from ...entropy.numbers import real, whole
from ...kernels.table_levels import table_rows
from ...kernels.table_sums import table_sums
from .file import LIMITS, RowFile
from .rows import FIT_ROWS, Nearest, asked, finite, first_parts, grouped, numbers_of, parts_of

GROUP = 1024  # rows
PRICE = 1.0  # of a bit in the fit: fewer bytes at equal overlap of neighbours than 0 and than smaller sizes
_BLOCK = 1 << 14  # rows that are compared at once
_QUERIES = 64
_CACHED = 1 << 18  # floats


class CodeStore(RowFile):
    """Embeddings as product codes in a file; made with `CodeStore.write`.

    Args:
        path: of the file; it is mapped into memory, codes are decoded at the first search.

    Attributes:
        shape: (N, D).
        dtype: float32 or float16, of what was written and of what is read.
        product: the quantiser: rotation and codewords.

    Raises:
        FormatError: not a store of codes, or a damaged one; damage of a group shows when it is read.
        OSError: the file cannot be read.

    Example:
        >>> import numpy as np, os, tempfile
        >>> x = np.random.default_rng(0).standard_normal((1000, 16)).astype("float32")
        >>> path = os.path.join(tempfile.mkdtemp(), "codes.ltz")
        >>> store = CodeStore.write(path, x, size=8)
        >>> store.codes.shape, store.codes.dtype, store[[5, 900]].shape
        ((1000, 8), dtype('uint8'), (2, 16))
        >>> scores, numbers = store.search(x[:2], k=5)
        >>> numbers.shape
        (2, 5)
    """

    _name = "embedding-codes"
    _kind = ("store", "codes")
    _params = struct.Struct("<BIHH")  # version, rows of a group, parts, entries

    def __init__(self, path: str | os.PathLike[str]) -> None:
        stream = self._mapped(path)
        _, self.group, parts, entries = self._params.unpack(stream.header.params)
        head = bytes(stream.chunks[0])
        self._books = Codebooks.of_tensors(arrays.tensors(head, self.path), 1, self.path)
        self.product = self._books.product
        sound = (self.product.channels, self.product.parts, self.product.entries) == (self.shape[1], parts, entries)
        sound = sound and fingerprint(head) == stream.header.fingerprint
        sound = sound and self.group > 0 and self.group * parts <= MOST
        if not sound or len(stream.chunks) != 1 + -(-self.shape[0] // self.group):
            raise self._contradiction()
        self._chunks = stream.chunks

    def __repr__(self) -> str:
        return f"CodeStore({self.path!r}, shape={self.shape}, {self.num_bytes} bytes)"

    @property
    def once(self) -> int:
        """Bytes of the file that do not grow with the rows: rotation, codewords, frequencies."""
        return len(self._chunks[0])

    @property
    def codebooks(self) -> Tensor:
        """(m, N, D) float32: what each code adds to a row, beside the mean `product.mean`."""
        return self.product.vectors()

    @classmethod
    def write(
        cls, path: str | os.PathLike[str], vectors: Any, *, size: int = 48, product: Product | None = None,
        price: float = PRICE, group: int = GROUP, force: bool = False,
    ) -> Self:  # fmt: skip
        """Code embeddings into a file; it appears whole or not at all.

        Args:
            path: of the file to write.
            vectors: (N, D) array or tensor, float32 or float16; or an iterable of such arrays, taken one by one.
            size: codes a row, a byte each in memory; in the file they take fewer.
            product: a quantiser of `latentzip.codecs.vq.product`. None: fitted to the rows, of an iterable to the first
                65,536.
            price: of a bit in the fit, see `latentzip.codecs.vq.product.fit`; 0 fits for the error alone, 4
                about halves the bytes of the file.
            group: rows that are coded together.
            force: replace an existing file.

        Returns:
            The store, open.

        Raises:
            InputError: too few rows, rows of other sizes or dtypes, values that are not finite, or an existing file.
        """
        group, size = whole("group", group, 1), whole("size", size, 1)
        if not 0 <= (price := real("price", price, "a number from 0 to 100")) <= 100:
            raise InputError(f"price is {price}; a number from 0 to 100 is needed")
        parts, _ = parts_of(vectors)
        first = first_parts(parts, product is None)
        kind = first[0]
        if product is None:
            product = fit(finite(torch.cat(first)[:FIT_ROWS], 0), size, ENTRIES, price)
        if product.channels != kind.shape[1] or product.entries > ENTRIES or product.levels != 1:
            raise InputError(
                f"a quantiser of {product.channels} channels, {product.entries} entries and {product.levels} levels; "
                f"the embeddings have {kind.shape[1]} channels, {ENTRIES} entries are the most, and one level"
            )
        if group * product.parts > MOST:
            raise InputError(f"group is {group}; {MOST // product.parts} rows of these are the most")
        books, codes, count = Codebooks.of(product), [], 0
        for rows in grouped(chain(first, parts), kind, group):
            codes.append(books.product.codes(finite(rows, count, LARGEST)).to(torch.uint8).numpy())
            count += len(rows)
        books = books.counted(np.concatenate(codes).T)
        head = save(books.tensors())
        chunks = [head, *(books.coded(part) for part in codes)]
        fields = group, product.parts, product.entries
        header = cls._header(fingerprint(head), (count, kind.shape[1]), kind.dtype, *fields)
        with atomic_writer(Path(path), force) as file:
            file.write(container.write(header, chunks, limits=LIMITS))
        return cls(path)

    # --- reading -------------------------------------------------------------------------------------------------

    @cached_property
    def codes(self) -> np.ndarray:
        """(N, m) uint8 of all rows; decoded at first use, and kept.

        Raises:
            FormatError: a group is damaged.
        """
        groups = [self._decode(g) for g in range(len(self._chunks) - 1)]
        return np.concatenate(groups) if groups else np.empty((0, self.product.parts), np.uint8)

    def _decode(self, group: int) -> np.ndarray:
        if "codes" in self.__dict__:
            return self.codes[group * self.group : (group + 1) * self.group]
        count = min(self.group, len(self) - group * self.group)
        return self._books.decoded(bytes(self._chunks[group + 1]), count, f"{self.path}: group {group}")

    def codes_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Codes (M, m) uint8 of rows by number, in the order asked for; each group that they lie in is decoded once.

        Raises:
            IndexError: there is no such row.
            FormatError: a group is damaged.
        """
        numbers = numbers_of(rows, len(self))
        out = np.empty((numbers.size, self.product.parts), np.uint8)
        home = numbers // self.group
        for group in np.unique(home):
            here = home == group
            out[here] = self._decode(int(group))[numbers[here] - group * self.group]
        return out

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows (M, D) by number, in the order asked for; errors as `codes_of`.

        After ``store.codes`` has been asked for, codes are taken from memory: millions of short rows a second.
        """
        vectors, numbers = self._vectors, numbers_of(rows, len(self))
        if vectors is None:
            found = self.product.rows(torch.from_numpy(self.codes_of(numbers))).numpy()
        elif "codes" in self.__dict__:
            found = table_rows(vectors, self.codes, numbers, self.product.mean.numpy())
        else:
            found = table_rows(vectors, self.codes_of(numbers), np.arange(numbers.size), self.product.mean.numpy())
        if self.dtype == np.float32:
            return found
        limit = float(np.finfo(self.dtype).max)
        return found.clip(-limit, limit).astype(self.dtype)

    @cached_property
    def _vectors(self) -> np.ndarray | None:
        """(m, N, D) what each code adds to a row, where that is small enough to stay in a processor's cache."""
        p = self.product
        return p.vectors().numpy() if p.parts * p.entries * self.shape[1] <= _CACHED else None

    def search(
        self, queries: Any, k: int = 10, metric: Literal["cosine", "dot"] = "cosine"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest rows of each query, by comparing it with the codes of all: queries stay as fine as they are.

        Args:
            queries: (Q, D) float array or tensor.
            k: how many; at most as many as there are rows.
            metric: "cosine", or "dot" for the product without norms.

        Returns:
            Scores (Q, k) float32, the best first, and row numbers (Q, k) int64.

        Raises:
            InputError: queries that do not fit, or another metric.
        """
        q = asked(queries, k, metric, self.shape)
        found = [self._nearest(part, k, metric == "cosine") for part in q.split(_QUERIES)]
        return torch.cat([s for s, _ in found]).numpy(), torch.cat([n for _, n in found]).numpy()

    def _nearest(self, q: Tensor, k: int, cosine: bool) -> tuple[Tensor, Tensor]:
        tables, about = self.product.tables(q).numpy(), (q @ self.product.mean)[:, None]
        nearest = Nearest(len(q), k)
        for start in range(0, len(self), _BLOCK):
            codes = np.ascontiguousarray(self.codes[start : start + _BLOCK])
            scores = torch.from_numpy(table_sums(tables, codes)) + about
            if cosine:
                scores = scores / self._lengths[start : start + _BLOCK]
            nearest.add(scores, start)
        return nearest.scores, nearest.numbers

    @cached_property
    def _lengths(self) -> Tensor:
        """(N,) of the decoded rows."""
        squares = table_sums(self.product.norms()[None].contiguous().numpy(), self.codes)[0]
        return (torch.from_numpy(squares) + self.product.mean.square().sum()).clamp_min(1e-24).sqrt()
