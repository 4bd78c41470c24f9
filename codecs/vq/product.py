"""Product quantisation of rows of channels: a rotation, then a codeword for each group of components.

After Jegou et al. (product quantisation, TPAMI 2011) and Ge et al. (optimised product quantisation, TPAMI 2014): the
rotation starts from principal components dealt out to groups of equal volume, and is then fitted in turn with the
codewords. Codewords have prices (`residual`), so that codes that are entropy-coded take fewer bits for the same error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...entropy.errors import InputError
from .residual import nearest

_SAMPLE = 1 << 15  # rows that are fitted to, at most
_ROUNDS, _PASSES = 8, 3  # of rotation and codewords; passes of k-means in a round
_FREE = 4  # rounds without prices
_LAST = 8  # passes at the end


@dataclass(frozen=True, eq=False)
class Product:
    """A fitted quantiser.

    Attributes:
        mean: (D,) float32.
        rotation: (D, m * d) float32, d = ceil(D / m), rows orthonormal; components are ``(x - mean) @ rotation``, d a
            group. Where D is no multiple of m some groups have a column of zeros.
        codewords: (m, N, d) float32, of the groups in turn.
        prices: (m, N) float32, what naming a codeword costs in squared error.
    """

    mean: Tensor
    rotation: Tensor
    codewords: Tensor
    prices: Tensor

    @property
    def parts(self) -> int:
        return self.codewords.shape[0]

    @property
    def entries(self) -> int:
        return self.codewords.shape[1]

    def groups(self, x: Tensor) -> Tensor:
        """Rows (n, D) -> components in groups (m, n, d)."""
        return _grouped((x - self.mean) @ self.rotation, self.parts)

    def codes(self, x: Tensor) -> Tensor:
        """Rows (n, D) -> codes (n, m) int64."""
        found = [nearest(y, c, p) for y, c, p in zip(self.groups(x), self.codewords, self.prices)]
        return torch.stack(found, 1)

    def rows(self, codes: Tensor) -> Tensor:
        """Codes (n, m) -> rows (n, D) float32."""
        y = torch.cat([c[numbers] for c, numbers in zip(self.codewords, codes.long().T)], 1)
        return y @ self.rotation.T + self.mean

    def tables(self, queries: Tensor) -> Tensor:
        """Queries (q, D) -> (q, m, N) float32: products of each with every codeword. With ``queries @ mean`` their sums
        are the products with decoded rows."""
        y = _grouped(queries @ self.rotation, self.parts)
        return torch.einsum("mqd,mnd->qmn", y, self.codewords).contiguous()

    def norms(self) -> Tensor:
        """(m, N) float32: sums of them, and the mean's own square, are the squared lengths of decoded rows."""
        mean = _grouped((self.mean @ self.rotation)[None], self.parts)
        return self.codewords.square().sum(2) + 2 * torch.einsum("mqd,mnd->mn", mean, self.codewords)


def _grouped(y: Tensor, parts: int) -> Tensor:
    return y.reshape(len(y), parts, -1).transpose(0, 1).contiguous()


def _dealt(energy: Tensor, parts: int) -> list[int]:
    """Column of each component, the strongest first: each in turn goes to the open group of least volume."""
    width = -(-len(energy) // parts)
    columns: list[int] = []
    room = [len(energy) // parts + (i < len(energy) % parts) for i in range(parts)]
    taken = [0] * parts
    volume = [0.0] * parts
    floor = max(float(energy[0]) * 1e-9, 1e-30)
    logs = [math.log(max(float(e), floor) / floor) for e in energy]
    for value in logs:
        at = min((i for i in range(parts) if taken[i] < room[i]), key=lambda i: volume[i])
        columns.append(at * width + taken[at])
        taken[at] += 1
        volume[at] += value
    return columns


def fit(x: Tensor, parts: int, entries: int = 256, price: float = 0.0, seed: int = 0) -> Product:
    """A quantiser of rows (n, D) float32 with ``parts`` codes a row.

    Args:
        price: of a bit, over the error a dimension that the fit without prices leaves; 0 fits for the error alone, 1 is
            what a bit earns at high rates, more makes codes sparser.

    Raises:
        InputError: fewer rows than entries, or more parts than channels allow.
    """
    n, d = x.shape
    if not 1 <= parts <= d:
        raise InputError(f"{d} channels cannot be dealt out to {parts} parts")
    if n < entries:
        raise InputError(f"{n} rows are too few for codebooks of {entries}")
    generator = torch.Generator().manual_seed(seed)
    rows = x if n <= _SAMPLE else x[torch.randperm(n, generator=generator)[:_SAMPLE]]
    mean = rows.mean(0)
    centred = rows - mean
    energy, vectors = torch.linalg.eigh((centred.double().T @ centred.double()) / len(rows))
    columns = _dealt(energy.flip(0), parts)
    rotation = torch.zeros(d, parts * -(-d // parts))
    rotation[:, columns] = vectors.flip(1).float()
    start = torch.randperm(len(rows), generator=generator)[:entries]
    codewords = _grouped(centred @ rotation, parts)[:, start]
    prices = torch.zeros(parts, entries)
    bit = 0.0  # what one costs: fixed once the error without prices is known, so that the two do not drive each other
    for turn in range(_ROUNDS + 1):
        y = _grouped(centred @ rotation, parts)
        back = torch.empty_like(y)
        for _ in range(_PASSES if turn < _ROUNDS else _LAST):
            for j in range(parts):
                back[j] = _improve(y[j], codewords[j], prices[j], bit, generator)
        if turn == _FREE - 1:
            bit = price * 2 * math.log(2) * float((y - back).square().sum()) / (len(rows) * d)
        if turn < _ROUNDS:
            decoded = back.transpose(0, 1).reshape(len(rows), -1)[:, columns]
            u, _, v = torch.linalg.svd(centred.T @ decoded)
            rotation[:, columns] = u @ v
    return Product(mean, rotation, codewords, prices)


def _improve(y: Tensor, codewords: Tensor, prices: Tensor, bit: float, generator: torch.Generator) -> Tensor:
    """A pass of k-means in place; returns what the rows were before as codewords."""
    found = nearest(y, codewords, prices)
    back = codewords[found]
    counts = torch.bincount(found, minlength=len(codewords)).float()
    sums = torch.zeros_like(codewords).index_add_(0, found, y)
    codewords.copy_(torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], codewords))
    dead = torch.nonzero(counts == 0).flatten()
    if not bit:
        codewords[dead] = y[torch.randperm(len(y), generator=generator)[: len(dead)]]
        return back
    share = (counts + 0.5) / (counts + 0.5).sum()
    prices.copy_(-bit * share.log2())
    return back
