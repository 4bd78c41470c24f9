"""Product quantisation of rows of channels: a rotation, then codewords for each group of components.

After Jegou et al. (product quantisation, TPAMI 2011) and Ge et al. (optimised product quantisation, TPAMI 2014): the
rotation starts from principal components dealt out to groups of equal volume, and is then fitted in turn with the
codewords. It may be of low rank, and leave out the weakest components. A group may have several levels of codewords,
each for what those before have left. Codewords have prices (`residual`), so that codes that are entropy-coded take
fewer bits for the same error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...entropy.errors import InputError
from .residual import nearest

LARGEST, SMALLEST = 2.0**50, 2.0**-30  # squares of values, and sums of them, stay normal numbers of float32
_SAMPLE = 1 << 15  # rows that are fitted to, at most
_ROUNDS, _PASSES = 8, 3  # of rotation and codewords; passes of k-means in a round
_FREE = 4  # rounds without prices
_LAST = 8  # passes at the end
_WORTH = 6.0  # bits a code, of which the rank is made: of real embeddings it leaves less error than 8, and than all


@dataclass(frozen=True, eq=False)
class Product:
    """A fitted quantiser of G groups of components and L levels of codewords: m = L G codes a row, the first G of which
    are the coarsest level.

    Attributes:
        mean: (D,) float32.
        rotation: (D, G * d) float32; components are ``(x - mean) @ rotation``, d a group. Its columns are orthonormal,
            but for some of zeros where their number is no multiple of G.
        codewords: (m, N, d) float32, level by level of the groups in turn.
        prices: (m, N) float32, what naming a codeword costs in squared error.
        levels: L.
    """

    mean: Tensor
    rotation: Tensor
    codewords: Tensor
    prices: Tensor
    levels: int = 1

    @property
    def parts(self) -> int:
        """Codes a row."""
        return self.codewords.shape[0]

    @property
    def groups(self) -> int:
        return self.parts // self.levels

    @property
    def entries(self) -> int:
        return self.codewords.shape[1]

    @property
    def channels(self) -> int:
        return self.mean.shape[0]

    def codes(self, x: Tensor) -> Tensor:
        """Rows (n, D) -> codes (n, m) int64."""
        rest = _grouped((x - self.mean) @ self.rotation, self.groups)
        found = []
        for j, (words, prices) in enumerate(zip(self.codewords, self.prices)):
            left = rest[j % self.groups]
            found.append(nearest(left, words, prices))
            if j + self.groups < self.parts:
                left -= words[found[-1]]
        return torch.stack(found, 1)

    def rows(self, codes: Tensor) -> Tensor:
        """Codes (n, k) of the first k // G levels -> rows (n, D) float32."""
        back = self.codewords.new_zeros(self.groups, len(codes), self.codewords.shape[2])
        for j, numbers in enumerate(codes.long().T):
            back[j % self.groups] += self.codewords[j][numbers]
        return back.transpose(0, 1).reshape(len(codes), -1) @ self.rotation.T + self.mean

    def vectors(self) -> Tensor:
        """(m, N, D) float32: what each code adds to a row, beside the mean."""
        turns = self.rotation.reshape(self.channels, self.groups, -1).repeat(1, self.levels, 1)
        return torch.einsum("mnd,cmd->mnc", self.codewords, turns).contiguous()

    def tables(self, queries: Tensor) -> Tensor:
        """Queries (q, D) -> (q, m, N) float32: products of each with every codeword. With ``queries @ mean`` their sums
        are the products with decoded rows."""
        y = _grouped(queries @ self.rotation, self.groups).repeat(self.levels, 1, 1)
        return torch.einsum("mqd,mnd->qmn", y, self.codewords).contiguous()

    def norms(self) -> Tensor:
        """(m, N) float32: of one level, sums of them and the mean's own square are the squared lengths of decoded
        rows."""
        mean = _grouped((self.mean @ self.rotation)[None], self.groups).repeat(self.levels, 1, 1)
        return self.codewords.square().sum(2) + 2 * torch.einsum("mqd,mnd->mn", mean, self.codewords)


def _grouped(y: Tensor, parts: int) -> Tensor:
    return y.reshape(len(y), parts, y.shape[1] // parts).transpose(0, 1).contiguous()


def _ungrouped(y: Tensor) -> Tensor:
    return y.transpose(0, 1).reshape(y.shape[1], -1)


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


def rank_of(energy: Tensor, parts: int) -> int:
    """How many of the components of these energies, the strongest first, are worth a part of the codes: those above the
    water where a code is worth 6 bits."""
    logs = energy.double().clamp_min(max(float(energy[0]) * 1e-12, 1e-30)).log2() / 2
    above = logs.cumsum(0) - torch.arange(1, len(logs) + 1) * logs
    return int((above <= _WORTH * parts).sum())


def fit(
    x: Tensor, parts: int, entries: int = 256, price: float = 0.0, seed: int = 0, *, rank: int | None = None,
    levels: int = 1,
) -> Product:  # fmt: skip
    """A quantiser of rows (n, D) float32 with ``parts`` codes a row.

    Args:
        price: of a bit, over the error a dimension that the fit without prices leaves; 0 fits for the error alone, 1 is
            what a bit earns at high rates, more makes codes sparser.
        rank: components that are kept, the strongest ones. None: those that are worth a part of the codes.
        levels: of codewords; each has ``parts / levels`` codes.

    Raises:
        InputError: fewer rows than entries, more codes than channels allow, or values of a scale whose squares float32
            does not hold.
    """
    n, d = x.shape
    largest = float(x.abs().max()) if x.numel() else 0.0
    if largest and not SMALLEST <= largest <= LARGEST:
        raise InputError(f"values up to {largest:.3g} are beyond what codebooks hold: multiply rows by a power of two")
    if levels < 1 or parts % levels:
        raise InputError(f"{parts} codes cannot be dealt out to {levels} levels")
    groups = parts // levels
    if not 1 <= groups <= (d if rank is None else rank) <= d:
        raise InputError(f"{d if rank is None else rank} channels cannot be dealt out to {groups} parts")
    if n < entries:
        raise InputError(f"{n} rows are too few for codebooks of {entries}")
    generator = torch.Generator().manual_seed(seed)
    rows = x if n <= _SAMPLE else x[torch.randperm(n, generator=generator)[:_SAMPLE]]
    mean = rows.mean(0)
    centred = rows - mean
    energy, vectors = torch.linalg.eigh((centred.double().T @ centred.double()) / len(rows))
    if rank is None:
        rank = max(groups, rank_of(energy.flip(0), parts))
    columns = _dealt(energy.flip(0)[:rank], groups)
    rotation = torch.zeros(d, groups * -(-rank // groups))
    rotation[:, columns] = vectors.flip(1)[:, :rank].float()
    start = torch.randperm(len(rows), generator=generator)[:entries]
    codewords = _grouped(centred @ rotation, groups)[:, start]
    codewords = torch.cat([codewords, torch.zeros_like(codewords).repeat(levels - 1, 1, 1)])
    prices = torch.zeros(parts, entries)
    bit = 0.0  # what one costs: fixed once the error without prices is known, so that the two do not drive each other
    for turn in range(_ROUNDS + 1):
        y = _grouped(centred @ rotation, groups)
        back = torch.empty_like(y)
        for _ in range(_PASSES if turn < _ROUNDS else _LAST):
            back.zero_()
            for j in range(parts):
                g = j % groups
                back[g] += _improve(y[g] - back[g], codewords[j], prices[j], bit, generator)
        if turn == _FREE - 1:
            bit = price * 2 * math.log(2) * float((centred - _ungrouped(back) @ rotation.T).square().mean())
        if turn < _ROUNDS:
            u, _, v = torch.linalg.svd(centred.T @ _ungrouped(back)[:, columns], full_matrices=False)
            rotation[:, columns] = u @ v
    return Product(mean, rotation, codewords, prices, levels)


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
