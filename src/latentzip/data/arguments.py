"""Arguments that users hand to the functions of this folder, beside numbers (`entropy.numbers`)."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..entropy.errors import InputError


def names(what: str, value: Any) -> tuple[str, ...]:
    """A sequence of texts; raises InputError: one text, which would be its letters, and anything else."""
    if not isinstance(value, str):
        try:
            found = tuple(value)
        except TypeError:
            found = (None,)
        if all(isinstance(name, str) for name in found):
            return tuple(map(str, found))
    raise InputError(f"{what} is {value!r:.60}; a list of names is needed")


def mapping(what: str, value: Any, example: str) -> dict[str, Any]:
    """A mapping whose keys are texts, None for an empty one; raises InputError: anything else."""
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    raise InputError(f"{what} is {value!r:.60}; a dict such as {example} is needed")


def sample_numbers(indices: Any, count: int, where: str) -> np.ndarray:
    """(B,) int64 numbers of samples from 0 on; negative ones count from the end.

    Raises:
        InputError: no list of integers: of floats, truths and texts the wrong samples would be read.
        IndexError: there is no such sample among ``count``; so loops over a sequence end.
    """
    numbers = np.asarray(indices)
    if numbers.ndim != 1:
        raise InputError(f"indices have shape {numbers.shape}; a list of numbers is needed")
    if numbers.dtype.kind not in "iu":  # numpy makes floats of signed and unsigned integers in one list
        try:
            numbers = np.array([operator.index(n) for n in indices if not isinstance(n, (bool, np.bool_))], np.int64)
        except (TypeError, ValueError, OverflowError):
            numbers = numbers[:0]
        if len(numbers) < len(indices):
            raise InputError(
                f"samples are asked for by integers, not {indices!r:.60}; of a mask take numpy.flatnonzero"
            )
    if numbers.size and not (-count <= int(numbers.min()) and int(numbers.max()) < count):
        raise IndexError(f"sample {int(numbers[np.argmax(np.abs(numbers))])} of {where} of {count}")
    numbers = numbers.astype(np.int64)
    return np.where(numbers < 0, numbers + count, numbers)
