"""Batches: stacked once when they are read, passed through when a DataLoader collates them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from ...entropy.errors import InputError


class LatentBatch(Sequence[dict[str, Any]]):
    """Samples that were read together; behaves as a list of them.

    Attributes:
        columns: name -> tensor (B, ...), or list of B where samples cannot be stacked.
    """

    def __init__(self, columns: dict[str, Any], size: int) -> None:
        self.columns, self._size = columns, size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._size))]
        i = range(self._size)[index]
        return {name: values[i] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(self._size))


def latent_collate(samples: LatentBatch | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples of `LatentDataset` -> one dict of tensors (B, ...); bytes and strings become lists.

    Costs nothing for a batch that was read as one (``batch_sampler`` or ``batch_size`` of a DataLoader).

    Raises:
        InputError: the samples differ in shape.
    """
    columns = samples.columns if isinstance(samples, LatentBatch) else _transposed(samples)
    return {name: _stacked(name, values) for name, values in columns.items()}


def _transposed(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    if not samples:
        raise InputError("a batch needs at least one sample")
    return {name: [sample[name] for sample in samples] for name in samples[0]}


def _stacked(name: str, values: Any) -> Any:
    if isinstance(values, Tensor) or not len(values):
        return values
    first = values[0]
    if isinstance(first, Tensor):
        shapes = {tuple(v.shape) for v in values}
        if len(shapes) > 1:
            raise InputError(
                f"{name}: samples of shapes {', '.join(map(str, sorted(shapes)[:4]))} cannot be stacked; crop them "
                "(transforms.RandomCrop), or let LatentDataset.sampler(bucket=True) put equal shapes together"
            )
        return torch.stack(list(values))
    if isinstance(first, (int, float, np.number)):
        return torch.as_tensor(np.asarray(values))
    return list(values)
