"""Random numbers that belong to a sample, not to a process: the same for any number of ranks, workers and threads."""

from __future__ import annotations

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014) on uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Draw:
    """Uniform numbers for the samples of a batch, a function of (seed, epoch, sample number, how many were drawn).

    Args:
        seed, epoch: integers.
        indices: (B,) numbers of the samples.
    """

    def __init__(self, seed: int, epoch: int, indices: np.ndarray) -> None:
        keys = np.array([seed & _MASK, epoch & _MASK], np.uint64)
        with np.errstate(over="ignore"):
            key = _mix(_mix(keys[:1] + np.uint64(_GOLDEN)) + keys[1:])
            self._state = _mix(np.asarray(indices).astype(np.uint64) * np.uint64(_GOLDEN) + key)

    def uniform(self) -> np.ndarray:
        """(B,) float64 in [0, 1), new ones at every call."""
        with np.errstate(over="ignore"):
            self._state = self._state + np.uint64(_GOLDEN)
            return (_mix(self._state) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, below: np.ndarray | int) -> np.ndarray:
        """(B,) integers in 0..below-1."""
        return np.floor(self.uniform() * below).astype(np.int64)
