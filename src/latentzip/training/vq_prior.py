"""The prior of the codec `vq`: scores and tables, trained level by level as a mixture that hardens into a choice.

While training, a token's probability is the mean of all tables, weighted by the softmax of the scores. The scores are
sharpened towards the end, so that little is lost when the best table alone is taken; tables are then counted anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..codecs.vq.blocks import CELLS, grids
from ..codecs.vq.prior import FEW, PASSES, SLOTS, Prior, neighbours, references, row_of
from ..entropy.tables import normalise

TABLES = 32
COARSE_TABLES = 8  # with coarse levels, whose tokens are few to learn from
PRECISION = 14
_BATCH = 4096  # tokens of a step
_SHARP = 6.0  # factor on the scores at the end
_PRIOR = 40.0  # tokens that a trained table counts for beside those that were seen
_RATE = 0.05

Grids = Sequence[npt.NDArray[np.int16]]


def _context(pictures: Grids, book: int, entries: int, slots: int, coarse: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token of a codebook: itself (n,), its pass (n,), and rows of scores that speak (n, J), slot * (N + 1) +
    token; ``slots * (N + 1)`` where none does."""
    none = slots * (entries + 1)
    tokens, passes, rows = [], [], []
    for planes in pictures:
        found = grids(planes, coarse)[max(0, book - 2) : book + 1]
        h, w = found[-1].shape
        known = [np.append(grid.reshape(-1), entries).astype(np.int64) for grid in found]
        for number in range(PASSES):
            flat, _ = neighbours(h, w, number)
            row = np.full((len(flat), 14), none, np.int64)
            for j, (slot, source, at) in enumerate(references(book, h, w, number, CELLS * coarse)):
                row[:, j] = row_of(slot, slots) * (entries + 1) + known[source - book - 1][at]
            tokens.append(known[-1][flat])
            passes.append(np.full(len(flat), number))
            rows.append(row.astype(np.int32))
    return (torch.from_numpy(np.concatenate(part).astype(np.int64)) for part in (tokens, passes, rows))  # type: ignore[return-value]


def _fit_level(
    tokens: Tensor,
    passes: Tensor,
    rows: Tensor,
    entries: int,
    steps: int,
    generator: torch.Generator,
    count: int,
    slots: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (slots * (N + 1), C) int8, bias (PASSES, C) int16, and the tables' probabilities (C, N)."""
    seen = torch.bincount(tokens, minlength=entries).float() + 0.5
    logits = (seen / seen.sum()).log() + 0.3 * torch.randn(count, entries, generator=generator)
    scores = 0.1 * torch.randn(slots * (entries + 1) + 1, count, generator=generator)
    scores[-1] = 0
    bias = torch.zeros(PASSES, count)
    parameters = [logits.requires_grad_(), scores.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.Adam(parameters, _RATE, betas=(0.9, 0.98))
    for step in range(steps):
        at = torch.randint(len(tokens), (min(_BATCH, len(tokens)),), generator=generator)
        progress = step / max(1, steps)
        sharp = 1 + (_SHARP - 1) * max(0.0, 2 * progress - 1)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - progress) ** 0.7
        said = F.embedding_bag(rows[at], scores, mode="sum", padding_idx=len(scores) - 1) + bias[passes[at]]
        chosen = F.log_softmax(sharp * said, 1)
        costs = F.log_softmax(logits, 1)[:, tokens[at]].T
        loss = -torch.logsumexp(chosen + costs, 1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        unit = max(float(scores.abs().max()), 1e-6) / 127
        return (
            (scores[:-1] / unit).round().to(torch.int8),
            (bias / unit).round().clamp(-30000, 30000).to(torch.int16),
            logits.softmax(1),
        )


def fit_prior(
    pictures: Grids, entries: int, steps: int, seed: int, log: Callable[[str], None] = print,
    count: int | None = None, coarse: int = 0,
) -> Prior:  # fmt: skip
    """The prior of tokens like these planes (K, h, w), ``coarse`` of them at half the resolution.

    Args:
        steps: a codebook. count: tables of a codebook; fewer by default where there are coarse levels.
    """
    generator = torch.Generator().manual_seed(seed)
    slots = FEW if coarse else SLOTS
    count = count or (COARSE_TABLES if coarse else TABLES)
    all_scores, all_bias, all_tables = [], [], []
    for book in range(len(grids(pictures[0], coarse))):
        tokens, passes, rows = _context(pictures, book, entries, slots, coarse)
        scores, bias, tables = _fit_level(tokens, passes, rows, entries, steps, generator, count, slots)
        speaks = torch.cat([scores.int(), torch.zeros(1, count, dtype=torch.int32)])
        counts = np.zeros((count, entries))
        for part in torch.arange(len(tokens)).split(1 << 15):
            total = bias[passes[part]].int()
            for column in rows[part].T:
                total = total + speaks[column]
            np.add.at(counts, (total.argmax(1).numpy(), tokens[part].numpy()), 1)
        weights = np.concatenate([counts + _PRIOR * tables.double().numpy(), np.full((count, 1), 1e-3)], 1)
        frequencies = np.stack([normalise(row, PRECISION) for row in weights])
        bits = float(-(counts * np.log2(frequencies[:, :-1] / 2**PRECISION)).sum() / counts.sum())
        log(f"codebook {book + 1}: {bits:.2f} bits a token")
        all_scores.append(scores.reshape(slots, entries + 1, count).numpy())
        all_bias.append(bias.numpy())
        all_tables.append(frequencies.astype(np.int16))
    return Prior(np.stack(all_scores), np.stack(all_bias), np.stack(all_tables), PRECISION, coarse)
