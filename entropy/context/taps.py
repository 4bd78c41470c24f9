"""What the taps of a step read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import net
from .steps import NEAR, Geometry, mirror

ZERO = 128  # a sample x is kept as the byte x + 128


def surroundings(samples: npt.NDArray[np.uint8], h: int, w: int) -> npt.NDArray[np.uint8]:
    """What SURROUND taps read of a channel that is known: (padded plane,) from its (h * w,) bytes."""
    size = np.abs(samples.reshape(h, w).astype(np.int32) - ZERO)[mirror(h, 1)][:, mirror(w, 1)]
    rows = size[:-2] + size[1:-1] + size[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return net.log_sum(total).astype(np.uint8)[mirror(h)][:, mirror(w)].reshape(-1)


def inputs(
    step_net: net.StepNet,
    channel: int,
    known: npt.NDArray[np.uint8],
    planes: npt.NDArray[np.uint8],
    around: npt.NDArray[np.uint8],
    kind: int,
    g: Geometry,
    tables: npt.NDArray[np.float32],
    read: Any = net.read,
) -> npt.NDArray[np.float32]:
    """What the taps of a step read at its points: (F, n) float32 of integers.

    known: (h * w,) bytes of this channel; planes: (channel, padded plane) bytes of the earlier ones; around: their
    `surroundings`. A SURROUND tap of this channel sums up what touches the point on the step's grid and is known.
    """
    n = step_net
    out = np.empty((n.back.size, g.flat.size), np.float32)
    offsets = np.where(n.back == 0, n.dy * g.own_row + n.dx, n.dy * g.cross_row + n.dx)
    which = np.where(n.what == net.SURROUND, 0, 2 * (channel - n.back) + n.what)
    read(known, g.pad, g.own, planes, g.cross, n.back, offsets, tables, which, out)
    for f in np.flatnonzero(n.what == net.SURROUND):
        if n.back[f]:
            out[f] = around[channel - n.back[f]][g.cross + offsets[f]]
        else:
            size = np.abs(known[g.pad].astype(np.int32) - ZERO)
            out[f] = net.log_sum(
                sum((size[g.own + dy * g.own_row + dx] for dy, dx in NEAR[kind]), np.zeros_like(g.own))
            )
    return out
