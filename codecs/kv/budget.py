"""A budget of bits over the layers: the best choice of one measured point each, by dynamic programming.

L-GreCo (Markov et al. 2022, arXiv:2210.17357) allocates the compression of gradients in this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...entropy.errors import InputError

_CELLS = 4096  # to how many parts the budget is resolved


def allocate(points: Sequence[Sequence[tuple[float, float]]], budget: float) -> list[int]:
    """Choose a point for each layer so that bits stay within a budget and the sum of damages is least.

    Args:
        points: for each layer its choices (bits, damage).
        budget: bits of all layers together, at most. Bits are rounded up to 1/4096 of it.

    Returns:
        The number of the choice of each layer.

    Raises:
        InputError: no choice fits into the budget.
    """
    cheapest = sum(min(bits for bits, _ in layer) for layer in points)
    cost = [np.ceil(np.array([bits for bits, _ in layer]) * (_CELLS / budget) - 1e-9).astype(int) for layer in points]
    best = np.zeros(_CELLS + 1)  # least damage of the layers so far within 0.._CELLS
    taken = []
    for layer, cells in zip(points, cost):
        new, choice = np.full(_CELLS + 1, np.inf), np.full(_CELLS + 1, -1)
        for number, ((_, damage), used) in enumerate(zip(layer, cells)):
            if used > _CELLS:
                continue
            total = best[: _CELLS + 1 - used] + damage
            better = total < new[used:]
            new[used:][better], choice[used:][better] = total[better], number
        best = new
        taken.append(choice)
    if not np.isfinite(best[-1]):
        raise InputError(f"the budget of {budget:.4g} bits is too small: the cheapest choices take {cheapest:.4g}")
    out, left = [], _CELLS
    for choice, cells in zip(reversed(taken), reversed(cost)):
        out.append(int(choice[left]))
        left -= int(cells[out[-1]])
    return out[::-1]
