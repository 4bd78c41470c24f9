"""`.npy` files: what the header says is compared with what the file holds, before anything is allocated."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np

from ..entropy.errors import InputError
from ..warn import converted


def read_npy(file: BinaryIO, name: str) -> np.ndarray:
    """The array of an open, seekable ``.npy`` file.

    Raises:
        InputError: no such file, one of Python objects, or one that is cut short.
    """
    start = file.tell()
    length = file.seek(0, os.SEEK_END)
    file.seek(start)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        size = dtype.itemsize * int(np.prod(shape, dtype=object)) if not dtype.hasobject else 0
        if size > length - file.tell():
            raise InputError(f"{name}: the file is cut short: an array {dtype}{shape} needs {size} bytes more")
        file.seek(start)
        array = np.load(file, allow_pickle=False)
    except InputError:
        raise
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        raise InputError(f"{name} is damaged, or no .npy file of numbers ({error})") from error
    if file.tell() < length:
        converted(f"{name}: {length - file.tell()} bytes after the first array are not read")
    return array
