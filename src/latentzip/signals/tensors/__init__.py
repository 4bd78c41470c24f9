"""Tensors of any shape: an array or `.npy` file is a stream, a `.safetensors` or `.npz` file an archive of streams."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...entropy.container import Header
from ..kind import Kind

SETS = (".safetensors", ".npz")  # files of several tensors


class Tensors(Kind):
    name, noun, one = "tensor", "tensors", "tensor"
    suffixes = frozenset({".npy", *SETS})
    rate, rate_label, speed_unit = "bits", "bits a value", "MB/s"
    module = ".tensors.coding"

    def suffix(self, header: Header) -> str:
        """An array, whatever it was."""
        return ".npy"

    def shape(self, header: Header, region: Sequence[int] | None, span: Sequence[float] | None) -> list[int]:
        """Any, or of a region (start, stop) along the first axis."""
        shape = list(header.shape)
        if region is not None and len(region) == 2:
            shape[0] = region[1] - region[0]
        return shape

    def positions(self, header: Header) -> int:
        """Values."""
        return math.prod(header.shape)


TENSORS = Tensors()
