"""Linear maps along one axis that repeat every few samples, run as overlapping block products.

A filter bank with hop `s` and `r` bands is a banded matrix whose rows repeat, shifted by `s`, everywhere but near the
two ends. `BlockOperator` reads that structure off a small dense example and applies it to any length: one batched
matrix product over an overlapping strided view for the interior (nothing is copied), one small product for both ends.
The adjoint, which back-propagation needs, is the operator of the transposed matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_TOLERANCE = 1e-12  # entries below this are zeros of the exact filters
_TOGETHER = 64  # samples that one row of a product makes when samples lie along the last axis


class BlockOperator:
    """``y = A x`` along axis 1 of (R, n * step_in, W) -> (R, n * step_out, W), for every ``n >= 1``.

    Args:
        dense: gives the exact (n * step_out, n * step_in) float64 matrix for ``n`` blocks.
        step_in, step_out: samples a block has before and after.
    """

    def __init__(self, dense: Callable[[int], np.ndarray], step_in: int, step_out: int) -> None:
        self.dense = dense  # the exact matrix for so many blocks
        self.step_in, self.step_out = step_in, step_out
        self._tensors: dict[tuple, tuple[Tensor, ...]] = {}
        self._find_structure()

    @cached_property
    def adjoint(self) -> BlockOperator:
        return BlockOperator(lambda n: np.ascontiguousarray(self.dense(n).T), self.step_out, self.step_in)

    def _find_structure(self) -> None:
        """Interior rows, how many blocks at each end differ from them, and which samples those need."""
        si, so = self.step_in, self.step_out
        n = 8
        while True:
            a = self.dense(n)
            mid = n // 2
            rows = a[mid * so : (mid + 1) * so]
            cols = np.flatnonzero(np.abs(rows).max(0) > _TOLERANCE)
            first, last = int(cols[0]) - mid * si, int(cols[-1]) + 1 - mid * si  # relative to the block's start
            taps = rows[:, cols[0] : cols[-1] + 1]
            regular = []
            for k in range(n):
                lo, hi = k * si + first, k * si + last
                expected = np.zeros((so, n * si))
                if lo < 0 or hi > n * si:
                    regular.append(False)
                    continue
                expected[:, lo:hi] = taps
                regular.append(bool(np.abs(a[k * so : (k + 1) * so] - expected).max() < 1e-9))
            inner = np.flatnonzero(regular)
            ends = max(int(inner[0]), n - 1 - int(inner[-1])) if len(inner) else n
            if n >= 2 * ends + 4 and all(regular[ends : n - ends]):
                edge = np.concatenate([a[: ends * so], a[(n - ends) * so :]])
                used = np.flatnonzero((np.abs(edge) > _TOLERANCE).any(0))
                half = n * si // 2
                reach = int(max(used[used < half].max(initial=-1) + 1, n * si - used[used >= half].min(initial=n * si)))
                if 2 * reach < n * si - 2 * si:
                    break
            n *= 2
            if n > 512:
                raise ValueError("no repeating structure found")
        self.taps, self.first, self.ends, self.reach = taps, first, ends, reach
        head, tail = edge[:, :reach], edge[:, n * si - reach :]
        self.edge = np.concatenate([head, tail], axis=1)  # (2 * ends * so, 2 * reach)
        self.min_blocks = max(2 * ends + 1, -(-2 * reach // si))

    def on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`taps` and `edge` as tensors."""
        key = (device, dtype)
        if key not in self._tensors:
            # clone: inference tensors in this cache could not take part in a later training step
            with torch.inference_mode(False):
                self._tensors[key] = (
                    torch.tensor(self.taps, dtype=dtype, device=device),
                    torch.tensor(self.edge, dtype=dtype, device=device),
                )
        return self._tensors[key]  # type: ignore[return-value]

    def dense_on(self, n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (n, device, dtype)
        if key not in self._tensors:
            with torch.inference_mode(False):
                self._tensors[key] = (torch.tensor(self.dense(n), dtype=dtype, device=device),)
        return self._tensors[key][0]

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """x: (R, n * step_in, W) contiguous in its last two axes. Returns (R, n * step_out, W). No autograd."""
        r, length, w = x.shape
        si, so = self.step_in, self.step_out
        n = length // si
        if out is None:
            out = x.new_empty(r, n * so, w)
        if n < self.min_blocks:
            return torch.matmul(self.dense_on(n, x.device, x.dtype), x, out=out)
        taps, edge = self.on(x.device, x.dtype)
        e, k, inner = self.ends, taps.shape[1], n - 2 * self.ends
        start = e * si + self.first
        for xi, oi in zip(x, out):
            windows = xi.as_strided((inner, k, w), (si * w, w, 1), xi.storage_offset() + start * w)
            torch.bmm(taps.expand(inner, -1, -1), windows, out=oi[e * so : (n - e) * so].view(inner, so, w))
            if e:
                ends = edge @ torch.cat([xi[: self.reach], xi[-self.reach :]])
                oi[: e * so] = ends[: e * so]
                oi[(n - e) * so :] = ends[e * so :]
        return out

    def along_rows(self, x: Tensor) -> Tensor:
        """The same along the last axis: (R, n * step_in) -> (R, n * step_out). No autograd.

        Several blocks are one row of the product: their windows overlap, so that less is copied.
        """
        with torch.autocast(x.device.type, enabled=False):  # transforms must not lose digits
            return self._along_rows(x)

    def _along_rows(self, x: Tensor) -> Tensor:
        r, length = x.shape
        si, so = self.step_in, self.step_out
        n, many = length // si, max(1, _TOGETHER // self.step_out)
        inner = n - 2 * self.ends
        if n < self.min_blocks or inner < many:
            return x @ self.dense_on(n, x.device, x.dtype).T
        x = x.contiguous()
        out = x.new_empty(r, n * so)
        wide = self._wide_on(many, x.device, x.dtype)  # (window, many * step_out)
        begin = self.ends * si + self.first
        groups, rest = divmod(inner, many)
        windows = x.as_strided((r, groups, len(wide)), (length, many * si, 1), x.storage_offset() + begin)
        e = self.ends * so
        out[:, e : e + groups * many * so] = (windows @ wide).view(r, -1)
        if rest:
            at = inner - many  # the last group overlaps the one before
            windows = x.as_strided((r, len(wide)), (length, 1), x.storage_offset() + begin + at * si)
            out[:, e + at * so : e + inner * so] = windows @ wide
        if e:
            edge = self.on(x.device, x.dtype)[1]
            ends = torch.cat([x[:, : self.reach], x[:, -self.reach :]], 1) @ edge.T
            out[:, :e], out[:, -e:] = ends[:, :e], ends[:, e:]
        return out

    def _wide_on(self, many: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = ("wide", many, device, dtype)
        if key not in self._tensors:
            si, so = self.step_in, self.step_out
            wide = np.zeros((many * so, (many - 1) * si + self.taps.shape[1]))
            for i in range(many):
                wide[i * so : (i + 1) * so, i * si : i * si + self.taps.shape[1]] = self.taps
            with torch.inference_mode(False):
                self._tensors[key] = (torch.tensor(np.ascontiguousarray(wide.T), dtype=dtype, device=device),)
        return self._tensors[key][0]
