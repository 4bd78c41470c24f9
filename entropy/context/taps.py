"""What the taps of a step read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import net
from .steps import Geometry

ZERO = 128  # a sample x is kept as the byte x + 128


def inputs(
    step_net: net.StepNet,
    channel: int,
    known: npt.NDArray[np.uint8],
    planes: npt.NDArray[np.uint8],
    g: Geometry,
    tables: npt.NDArray[np.float32],
    read: Any = net.read,
) -> npt.NDArray[np.float32]:
    """What the taps of a step read at its points: (F, n) float32 of integers.

    known: (h * w,) bytes of this channel; planes: (channel, padded plane) bytes of the earlier ones.
    """
    n = step_net
    out = np.empty((n.back.size, g.flat.size), np.float32)
    offsets = np.where(n.back == 0, n.dy * g.own_row + n.dx, n.dy * g.cross_row + n.dx)
    read(known, g.pad, g.own, planes, g.cross, n.back, offsets, tables, 2 * (channel - n.back) + n.what, out)
    return out
