"""What files of embeddings have in common: `.ltz` streams of rows (N, D), opened by path."""

from __future__ import annotations

import mmap
import os
import struct
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from ...entropy import container
from ...entropy.container import Container, Header, Limits
from ...entropy.errors import FormatError
from .rows import is_number

LIMITS = Limits(samples=1 << 44, chunks=1 << 26, header=1 << 28)
VERSION = 1  # the first byte of the parameters


class RowFile(ABC):
    """A file of rows, open.

    Attributes:
        path: of the file.
        shape: (N, D).
        dtype: float32 or float16, of what was written and of what is read.
        num_bytes: of the file.
    """

    _name: ClassVar[str]  # the name in the header
    _kind: ClassVar[tuple[str, str]]  # in words: a "store" of "codes"
    _params: ClassVar[struct.Struct]

    path: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    num_bytes: int

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> Any:
        return type(self), (self.path,)

    def __getitem__(self, index: Any) -> np.ndarray:
        """A row (D,), or several (M, D), by number; negative numbers count from the end.

        Raises:
            IndexError: there is no such row.
        """
        if isinstance(index, slice):
            return self.read(range(*index.indices(len(self))))
        return self.read([index])[0] if is_number(index) else self.read(index)

    @abstractmethod
    def read(self, rows: Any) -> np.ndarray:
        """Rows (M, D) by number, in the order asked for."""

    def _mapped(self, path: str | os.PathLike[str]) -> Container:
        """The stream of a file, which is mapped into memory; see `_opened`."""
        with open(os.fspath(path), "rb") as file:  # a number would be a file that somebody else has open
            if not os.fstat(file.fileno()).st_size:
                raise FormatError(f"{os.fspath(path)}: empty: no {self._kind[0]} of {self._kind[1]}")
            return self._opened(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def _opened(self, path: str | os.PathLike[str], data: bytes | mmap.mmap) -> Container:
        """The stream that a file holds; FormatError: not one of this kind."""
        self.path, self.num_bytes = os.fspath(path), len(data)
        stream = container.read(memoryview(data), LIMITS)
        header, (what, of) = stream.header, self._kind
        if header.codec != self._name or header.modality != "tensor" or len(header.shape) != 2:
            raise FormatError(f"{self.path}: a stream of {header.codec}, not a {what} of {of}")
        if len(header.params) != self._params.size or header.params[0] != VERSION or not stream.chunks:
            raise FormatError(f"{self.path}: unknown parameters; the {what} may need a newer latentzip")
        if header.dtype not in ("float16", "float32"):
            raise self._contradiction()
        self.shape, self.dtype = (header.shape[0], header.shape[1]), np.dtype(header.dtype)
        return stream

    def _contradiction(self) -> FormatError:
        return FormatError(f"{self.path}: its sizes contradict each other; the {self._kind[0]} is corrupt")

    @classmethod
    def _header(cls, fingerprint: bytes, shape: tuple[int, int], dtype: torch.dtype, *fields: Any) -> Header:
        """Of a file to write; ``fields`` are the parameters after the version."""
        name, params = str(dtype).removeprefix("torch."), cls._params.pack(VERSION, *fields)
        return Header(cls._name, fingerprint, "tensor", "numpy", shape, name, params=params)
