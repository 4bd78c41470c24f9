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

from ..codecs.vq.prior import PASSES, SLOTS, Prior, neighbours, references
from ..entropy.tables import normalise

TABLES = 32
PRECISION = 14
_BATCH = 4096  # tokens of a step
_SHARP = 6.0  # factor on the scores at the end
_PRIOR = 40.0  # tokens that a trained table counts for beside those that were seen
_RATE = 0.05

Grids = Sequence[npt.NDArray[np.int16]]


def _context(grids: Grids, level: int, entries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token of a level: itself (n,), its pass (n,), and rows of scores that speak (n, J), slot * (N + 1) +
    token; ``SLOTS * (N + 1)`` where none does."""
    none = SLOTS * (entries + 1)
    tokens, passes, rows = [], [], []
    for grid in grids:
        k, h, w = grid.shape
        known = np.concatenate([grid.reshape(k, -1), np.full((k, 1), entries, np.int16)], 1).astype(np.int64)
        for number in range(PASSES):
            found = references(level, h, w, number)
            flat, _ = neighbours(h, w, number)
            row = np.full((len(flat), 14), none, np.int64)
            for j, (slot, source, at) in enumerate(found):
                row[:, j] = slot * (entries + 1) + known[source, at]
            tokens.append(known[level, flat])
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (SLOTS * (N + 1), C) int8, bias (PASSES, C) int16, and the tables' probabilities (C, N)."""
    seen = torch.bincount(tokens, minlength=entries).float() + 0.5
    logits = (seen / seen.sum()).log() + 0.3 * torch.randn(count, entries, generator=generator)
    scores = 0.1 * torch.randn(SLOTS * (entries + 1) + 1, count, generator=generator)
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
    grids: Grids, entries: int, steps: int, seed: int, log: Callable[[str], None] = print, count: int = TABLES
) -> Prior:
    """The prior of tokens like these grids (K, h, w), ``count`` tables a level."""
    generator = torch.Generator().manual_seed(seed)
    levels = grids[0].shape[0]
    all_scores, all_bias, all_tables = [], [], []
    for level in range(levels):
        tokens, passes, rows = _context(grids, level, entries)
        scores, bias, tables = _fit_level(tokens, passes, rows, entries, steps, generator, count)
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
        log(f"level {level + 1}: {bits:.2f} bits a token")
        all_scores.append(scores.reshape(SLOTS, entries + 1, count).numpy())
        all_bias.append(bias.numpy())
        all_tables.append(frequencies.astype(np.int16))
    return Prior(np.stack(all_scores), np.stack(all_bias), np.stack(all_tables), PRECISION)
