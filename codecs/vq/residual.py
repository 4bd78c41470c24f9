"""Residual vector quantisation: each level names the codeword nearest to what the levels before have left over.

After Juang & Gray (1982), with prices as in entropy-constrained vector quantisation (Chou, Lookabaugh & Gray 1989): a
codeword costs its squared distance plus a price, so that rare codewords have to earn their bits. Entry 0 of a level is
the zero vector: a level can say "nothing more", and tokens of levels that are missing are zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...entropy.errors import InputError

_ROWS = 1 << 14  # whose distances are held at once
_SAMPLE = 1 << 16  # rows of a pass of the fit; the last passes see all of them
_RARE = 0.02  # of the mean count of a codeword: below this it is dead and moves
_PRICED = 2  # passes before prices count
_ZERO = 0.1  # share of the zero vector in its price, at least, until it has found its rows


@dataclass(frozen=True)
class Schedule:
    """How a level is fitted.

    Attributes:
        passes: in all; the last `whole` of them see every row and move no dead codewords.
        price: of a bit, in the distortion that the level leaves a dimension; 0 fits for distortion alone.
        dimensions: over which the distortion spreads.
    """

    passes: int = 12
    whole: int = 3
    price: float = 0.25
    dimensions: float = 40.0


DEFAULT = Schedule()


def nearest(x: Tensor, codewords: Tensor, prices: Tensor) -> Tensor:
    """Rows (n, d) -> numbers (n,) int64 of the codewords (N, d) of least squared distance plus price (N,)."""
    cost = codewords.square().sum(1) + prices
    parts = [torch.addmm(cost, part, codewords.T, alpha=-2.0).argmin(1) for part in x.split(_ROWS)]
    return torch.cat(parts) if parts else x.new_zeros(0, dtype=torch.int64)


def tokens_of(x: Tensor, codebooks: Tensor, prices: Tensor) -> Tensor:
    """Rows (n, d) -> tokens (K, n) int64 under codebooks (K, N, d) and prices (K, N)."""
    rest, out = x, []
    for codewords, price in zip(codebooks, prices):
        out.append(nearest(rest, codewords, price))
        rest = rest - codewords[out[-1]]
    return torch.stack(out) if out else torch.zeros(0, len(x), dtype=torch.int64)


def vectors_of(tokens: Tensor, codebooks: Tensor) -> Tensor:
    """Tokens (K, n) int64 -> rows (n, d) float32: sums of codewords of the first K of the codebooks (L, N, d)."""
    out = codebooks.new_zeros(tokens.shape[1], codebooks.shape[2])
    for numbers, codewords in zip(tokens, codebooks):
        out += codewords[numbers]
    return out


def check_tokens(tokens: Tensor, levels: int, entries: int) -> None:
    """Raises InputError unless tokens (K, ...) are integers, 1 <= K <= levels, from 0 to entries - 1."""
    if tokens.dtype.is_floating_point or tokens.dtype.is_complex or tokens.dtype == torch.bool:
        raise InputError(f"tokens are integers, not {tokens.dtype}")
    if not 1 <= tokens.shape[0] <= levels:
        raise InputError(f"tokens of {tokens.shape[0]} levels; there are codebooks for 1 to {levels}")
    wide = tokens.long()
    if wide.numel() and not 0 <= int(wide.min()) <= int(wide.max()) < entries:
        raise InputError(f"tokens reach from {int(wide.min())} to {int(wide.max())}; a codebook has 0 to {entries - 1}")


def usage(tokens: Tensor, entries: int) -> list[tuple[int, float]]:
    """Of each of tokens (K, ...): how many codewords occur, and bits a token at their frequencies."""
    counts = [torch.bincount(part.long().flatten(), minlength=entries) for part in tokens]
    return [(int((c > 0).sum()), entropy(c)) for c in counts]


def entropy(counts: Tensor) -> float:
    """Bits a token at these counts."""
    share = counts.double() / counts.sum().clamp_min(1)
    return float(-(share * share.clamp_min(1e-300).log2()).sum())


def fit_level(
    x: Tensor, entries: int, generator: torch.Generator, schedule: Schedule, beside: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Codewords (N, d) and prices (N,) of a level, fitted to rows (n, d) by k-means with prices.

    Dead codewords move to random rows.

    Args:
        beside: squared error of a row in dimensions that ``x`` has left out; prices are those of the whole.

    Raises:
        InputError: fewer rows than entries.
    """
    n, d = x.shape
    if n < entries:
        raise InputError(f"{n} rows are too few for a codebook of {entries}")
    codewords = torch.cat([x.new_zeros(1, d), x[torch.randperm(n, generator=generator)[: entries - 1]]])
    prices = x.new_zeros(entries)
    for step in range(schedule.passes):
        whole = step >= schedule.passes - schedule.whole
        rows = x if whole or n <= _SAMPLE else x[torch.randperm(n, generator=generator)[:_SAMPLE]]
        found = nearest(rows, codewords, prices)
        counts = torch.bincount(found, minlength=entries).float()
        left = float((rows - codewords[found]).square().sum(1).mean()) + beside
        sums = torch.zeros_like(codewords).index_add_(0, found, rows)
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], codewords)
        moved[0] = 0
        share = (counts + 0.5) / (counts + 0.5).sum()
        if not whole:
            dead = torch.nonzero(counts < _RARE * len(rows) / entries).flatten()
            dead = dead[dead > 0]
            moved[dead] = rows[torch.randperm(len(rows), generator=generator)[: len(dead)]]
            share[dead] = 1 / entries
            share[0] = share[0].clamp_min(_ZERO)
        codewords = moved
        if step >= _PRICED:
            bit = schedule.price * 2 * math.log(2) * left / schedule.dimensions
            prices = -bit * share.log2()
    return codewords, prices


def fit(
    x: Tensor, levels: int, entries: int, schedule: Schedule = DEFAULT, seed: int = 0
) -> tuple[Tensor, Tensor, list[tuple[float, float]]]:
    """Codebooks (K, N, d) and prices (K, N) fitted to rows (n, d) level by level.

    Returns:
        And of each level the squared error a row that it leaves, and the entropy of its tokens in bits.

    Raises:
        InputError: fewer rows than entries.
    """
    generator = torch.Generator().manual_seed(seed)
    rest, books, prices, figures = x, [], [], []
    for _ in range(levels):
        codewords, price = fit_level(rest, entries, generator, schedule)
        found = nearest(rest, codewords, price)
        rest = rest - codewords[found]
        books.append(codewords)
        prices.append(price)
        left = float(rest.square().sum(1).mean())
        figures.append((left, entropy(torch.bincount(found, minlength=entries))))
    return torch.stack(books), torch.stack(prices), figures
