"""Two 16-bit integers in one int32: what `tile` multiplies."""

import numpy as np
import numpy.typing as npt

WIDTH = 16  # points of a tile: two vectors of eight


def pairs(weights: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Neighbours of a row, (R, 2 K) within 16 bits, in one number each: (R, K)."""
    return np.ascontiguousarray((weights[:, ::2] & 0xFFFF) | (weights[:, 1::2] << 16))
