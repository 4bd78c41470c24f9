"""Arrays in files of others: their headers are compared with what is expected before they are believed."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from .errors import FormatError
from .opening import metadata, open_regular

_NPY_HEAD = 1 << 16  # bytes that the header of an array may have


def npy_header(file: BinaryIO, where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a ``.npy`` file; the file stands at its first value afterwards.

    Raises:
        FormatError: not the header of an array of numbers or texts in C order.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=_NPY_HEAD)
    except Exception as error:  # a literal is evaluated there: whatever that raises means the same
        raise FormatError(f"{where}: no array: {type(error).__name__} {error}") from None
    if fortran or dtype.hasobject or not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in shape):
        raise FormatError(f"{where}: an array of {dtype}{shape}, which is not read here")
    return shape, dtype


def map_array(path: str | os.PathLike[str], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array file, memory-mapped, which must be what it is expected to be, to its last byte.

    Raises:
        FormatError: missing, damaged, or of another dtype or shape.
        OSError: it cannot be read.
    """
    where = os.fspath(path)
    with os.fdopen(open_regular(path), "rb") as file:
        found = npy_header(file, where)
        if found != (shape, dtype):
            raise FormatError(f"{where}: an array of {dtype}{shape} was expected, not {found[1]}{found[0]}")
        at, size = file.tell(), math.prod(shape) * dtype.itemsize
        if os.fstat(file.fileno()).st_size != at + size:
            raise FormatError(f"{where}: cut short, or longer than its array of {dtype}{shape}")
        if size == 0:
            return np.empty(shape, dtype)
        # a plain view: memmap's own indexing costs several times as much
        return np.memmap(file, dtype, "r", at, shape).view(np.ndarray)


def npz_array(path: str | os.PathLike[str], name: str, count: int, kinds: str, most: int) -> np.ndarray:
    """One vector of an ``.npz`` file.

    Args:
        count: entries that it must have.
        kinds: what dtypes may be, as in `numpy.dtype.kind`.
        most: bytes that an entry may have.

    Raises:
        FormatError: damaged, or no such vector; nothing larger than what is expected is unpacked.
        OSError: it cannot be read.
    """
    where = f"{os.fspath(path)}: column {name}"
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            with zipfile.ZipFile(file) as box, box.open(f"{name}.npy") as member:
                shape, dtype = npy_header(member, where)  # type: ignore[arg-type]
                if len(shape) != 1 or dtype.kind not in kinds or dtype.itemsize > most:
                    raise FormatError(f"{where}: {dtype}{shape} is no such column")
                if shape != (count,):
                    raise FormatError(f"{where} has {shape[0]} entries for {count} samples")
                size = count * dtype.itemsize
                data = member.read(size + 1)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, NotImplementedError, RuntimeError) as e:
            raise FormatError(f"{where}: damaged: {e}") from None
    if len(data) != size:
        raise FormatError(f"{where}: {len(data)} bytes, not {size}: damaged")
    return np.frombuffer(bytearray(data), dtype)


def tensors(data: bytes, where: str = "weights file") -> dict[str, Any]:
    """The tensors of a safetensors file; every float in them is finite.

    Raises:
        FormatError: not such a file, or one that holds NaN or infinite values.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    metadata(data, where)
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise FormatError(f"{where}: not a safetensors file: {error}") from None
    for name, value in found.items():
        if value.is_floating_point() and not np.isfinite(value.float().numpy()).all():
            raise FormatError(f"{where}: {name} holds NaN or infinite values; the weights are damaged")
    return found


def take(found: Mapping[str, Any], name: str, dtype: Any, shape: tuple[int, ...], where: str = "weights file") -> Any:
    """A tensor by name, which must have this dtype and shape (-1: any length).

    Raises:
        FormatError: missing, or another one.
    """
    value = found.get(name)
    if value is None:
        raise FormatError(f"{where} lacks the tensor {name}")
    fits = len(value.shape) == len(shape) and all(b in (-1, a) for a, b in zip(value.shape, shape))
    if value.dtype != dtype or not fits:
        raise FormatError(f"{where}: {name} is {value.dtype} {tuple(value.shape)}, not {dtype} {shape}")
    return value
