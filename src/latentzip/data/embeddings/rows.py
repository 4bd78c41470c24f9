"""Rows of embeddings as they are handed in: an array, or parts of one; finite, of one width and one dtype."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...entropy.dense import tensor_of, to_numpy
from ...entropy.errors import InputError
from ...entropy.numbers import whole

FIT_ROWS = 1 << 16  # of an iterable, from which a transform is learned
HUGE = 1e30


def rows_of(x: Any) -> Tensor:
    """Rows (N, D) of float32 or float16 on the CPU; InputError for anything else."""
    x = tensor_of(x, "f", "rows (N, D) of embeddings") if isinstance(x, (np.ndarray, Tensor)) else x
    if not isinstance(x, Tensor) or x.ndim != 2 or not x.shape[1] or x.dtype not in (torch.float16, torch.float32):
        what = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"embeddings are rows (N, D) of float32 or float16; this is {what}")
    return x.cpu()


def parts_of(vectors: Any) -> tuple[Iterator[Tensor], bool]:
    """Rows part by part, and whether they are all at hand."""
    whole = isinstance(vectors, (Tensor, np.ndarray))
    if not whole and (isinstance(vectors, (str, bytes, dict)) or not hasattr(vectors, "__iter__")):
        raise InputError(f"embeddings are an array, a tensor, or several of them, not a {type(vectors).__name__}")
    return (rows_of(part) for part in ([vectors] if whole else vectors)), whole


def first_parts(parts: Iterator[Tensor], fit: bool) -> list[Tensor]:
    """As many parts as a profile is fitted to, or the first one that has rows."""
    first: list[Tensor] = []
    for part in parts:
        first.append(part)
        _check_alike(part, first[0])
        if sum(map(len, first)) >= (FIT_ROWS if fit else 1):
            break
    if sum(map(len, first)) < (2 if fit else 1):
        raise InputError("a store needs embeddings: two rows or more, with a codec one")
    return first


def _check_alike(part: Tensor, kind: Tensor) -> None:
    if part.shape[1] != kind.shape[1] or part.dtype != kind.dtype:
        raise InputError(
            f"embeddings of {part.shape[1]} channels, {part.dtype}, after some of {kind.shape[1]}, {kind.dtype}"
        )


def grouped(parts: Iterable[Tensor], kind: Tensor, group: int) -> Iterator[Tensor]:
    """Rows in groups of equal size, the last one shorter."""
    rest = kind[:0]
    for part in parts:
        _check_alike(part, kind)
        rest = torch.cat([rest, part]) if len(rest) else part
        whole = len(rest) // group * group
        yield from rest[:whole].split(group) if whole else ()
        rest = rest[whole:].clone()
    if len(rest):
        yield rest


def finite(rows: Tensor, start: int, most: float = HUGE) -> Tensor:
    """As float32; InputError names the first row, counted from ``start``, that is not finite, or above ``most``."""
    x = rows.float()
    bad = torch.nonzero(~(x.abs() < most).all(1)).reshape(-1)
    if len(bad):
        raise InputError(f"row {start + int(bad[0])} holds NaN, infinite or huge values; a store takes finite ones")
    return x


def is_number(index: Any) -> bool:
    """Whether one row is asked for, by its number. A truth is none."""
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool)


def numbers_of(rows: Sequence[int] | np.ndarray, count: int) -> npt.NDArray[np.int64]:
    """Numbers of rows of a store of so many, from 0; negative ones count from the end.

    Raises:
        IndexError: there is no such row.
        InputError: no whole numbers.
    """
    numbers = to_numpy(rows, "rows")
    if numbers.size and numbers.dtype.kind not in "iu":
        raise InputError(f"rows are whole numbers, not {numbers.dtype}; of a mask take numpy.flatnonzero(mask)")
    numbers = numbers.astype(np.int64).reshape(-1)
    if numbers.size and not -count <= int(numbers.min()) <= int(numbers.max()) < count:
        raise IndexError(f"rows {int(numbers.min())}..{int(numbers.max())} of a store of {count}")
    return numbers % max(1, count)


def asked(queries: Any, k: int, metric: str, shape: tuple[int, int]) -> Tensor:
    """Queries (Q, D) of a search in a store of this shape, normalised where cosines are asked for; ``k`` is checked.

    Raises:
        InputError: queries that do not fit, or another metric.
    """
    if metric not in ("cosine", "dot"):
        raise InputError(f"metric is {metric!r}; one of 'cosine', 'dot'")
    q = finite(rows_of(queries), 0)
    if q.shape[1] != shape[1]:
        raise InputError(f"queries have {q.shape[1]} channels, the store has {shape[1]}")
    whole("k", k, 1, shape[0])
    return torch.nn.functional.normalize(q) if metric == "cosine" else q


class Nearest:
    """The k best rows of each query so far, as scores come block by block.

    Attributes:
        scores, numbers: (Q, up to k) float32 and int64, the best first.
    """

    def __init__(self, queries: int, k: int) -> None:
        self._k = int(k)
        self.scores, self.numbers = torch.empty(queries, 0), torch.empty(queries, 0, dtype=torch.int64)

    def add(self, scores: Tensor, start: int) -> None:
        """Scores (Q, n) of the rows from ``start``."""
        both = torch.cat([self.scores, scores], 1)
        numbers = torch.arange(start, start + scores.shape[1]).expand(len(scores), -1)
        self.scores, at = both.topk(min(self._k, both.shape[1]))
        self.numbers = torch.cat([self.numbers, numbers], 1).gather(1, at)
