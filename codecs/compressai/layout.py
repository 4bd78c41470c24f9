"""How the symbols of a hyper-latent lie in a latent, and which table a deviation takes."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

Z_CELL = 4  # positions of y that one of z covers, along an axis
HYPER_HALO = 4  # of h_s, in positions of z
_SCALE_MIN, _SCALE_MAX, _SCALES = 0.11, 256.0, 64  # CompressAI's scale table, which is ours as well
_SCALE_STEP = np.log(_SCALE_MAX / _SCALE_MIN) / (_SCALES - 1)


def fold(z: Array) -> Array:
    """(N, h, w) -> (ceil(N / 16), 4 h, 4 w): 16 channels in the places of a 4 x 4 block, zeros in free ones."""
    n, h, w = z.shape
    padded = np.pad(z, ((0, -n % Z_CELL**2), (0, 0), (0, 0)))
    return padded.reshape(-1, Z_CELL, Z_CELL, h, w).transpose(0, 3, 1, 4, 2).reshape(-1, h * Z_CELL, w * Z_CELL)


def unfold(z: Array, channels: int) -> Array:
    """Inverse of `fold`."""
    k, h, w = z.shape
    blocks = z.reshape(k, h // Z_CELL, Z_CELL, w // Z_CELL, Z_CELL).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(blocks.reshape(-1, h // Z_CELL, w // Z_CELL)[:channels])


def scale_number(deviations: Array) -> Array:
    """Deviations as fractional numbers of the 64 tables, evenly spaced in log."""
    return np.log(deviations.clip(_SCALE_MIN, _SCALE_MAX) / _SCALE_MIN) / _SCALE_STEP
