"""Palettes in few bytes: colours in order, as steps from one to the next, in binary decisions that adapt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...entropy.adaptive import CELLS, START, check_end, decide, finished, loop, reader, refining, writer
from ...entropy.errors import FormatError

_NODES = 64  # of a step: is it 0, its sign, its octave, its upper bits
_CONTEXTS = 4 * 8 * 4
_OCTAVES = 17


def _memory() -> np.ndarray:
    return np.concatenate(
        [
            np.full(3 * _CONTEXTS * _NODES, START, np.int32),
            np.full(3 * _NODES, 65536 * 2 // 3, np.int32),
            np.zeros(3, np.int32),
            refining(_NODES),
        ]
    )


@loop
def code_steps(coder, words, steps, channels, memory, slots, stretched):  # type: ignore[no-untyped-def]
    """Code steps, flat, colour by colour; 0, or -1 where a decoder meets what no encoder writes."""
    weights = 3 * _CONTEXTS * _NODES
    none = weights + 3 * _NODES
    cells = none + 3
    for at in range(steps.shape[0]):
        k = at % channels
        zeros, before, same = 0, 0, 0
        if at >= channels:
            same = abs(int(steps[at - channels]))
        for j in range(k):
            a = abs(int(steps[at - 1 - j]))
            zeros += 1 if a == 0 else 0
            before += a
        near, far = 0, 0
        while near < 7 and same >> near:
            near += 1
        while far < 7 and before >> far:
            far += 1
        d = int(steps[at])
        a = abs(d)
        octave, stage, bits, place, negative = 0, 0, 0, 0, 0
        while stage < 4:
            if stage == 0:
                node, bit = 0, 1 if a > 0 else 0
            elif stage == 1:
                node, bit = 1, 1 if d < 0 else 0
            elif stage == 2:
                node, bit = 2 + octave, 1 if a >> (octave + 1) else 0
            else:
                node, bit = 20 + octave * 2 + (0 if bits == octave - 1 else 1), (a >> bits) & 1
            slots[0] = k * _NODES + node
            slots[1] = (_CONTEXTS + (k * 8 + near) * 4 + zeros) * _NODES + node
            slots[2] = (2 * _CONTEXTS + (k * 8 + far) * 4 + zeros) * _NODES + node
            cell = cells + node * CELLS
            bit = decide(coder, words, memory, slots, 3, weights + node * 3, none, cell, 6, 60, stretched, bit)
            if stage == 0:
                stage = 1 if bit else 4
                if bit:
                    place = 1
            elif stage == 1:
                negative, stage = bit, 2
            elif stage == 2:
                if bit:
                    octave += 1
                if not bit or octave == _OCTAVES - 1:
                    stage = 3 if octave else 4
                    bits = octave - 1
            else:
                place = place * 2 + bit
                bits -= 1
                if bits < 0:
                    stage = 4
        steps[at] = -place if negative else place
    return 0


def _ordered(palette: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Columns as they are coded, alpha and green first, red and blue less green; and which column was which."""
    channels = palette.shape[1]
    columns = {1: [0], 2: [1, 0], 3: [1, 0, 2], 4: [3, 1, 0, 2]}[channels]
    return palette[:, columns], columns


def order(palette: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """The order in which a palette (colours, channels) is short."""
    columns, _ = _ordered(palette)
    return np.lexsort(columns.T[::-1])


def pack(palette: npt.NDArray[np.int32]) -> bytes:
    """A palette (colours, channels) in the order of `order`."""
    columns, _ = _ordered(palette)
    columns = columns.astype(np.int32)
    if columns.shape[1] > 2:
        columns[:, -2:] -= columns[:, -3:-2]
    steps = np.diff(columns, axis=0, prepend=0).astype(np.int32).reshape(-1)
    coder, words = writer(2 * (_OCTAVES + 1) * steps.size + 64)
    code_steps(coder, words, steps, palette.shape[1], _memory(), np.zeros(3, np.int64), np.zeros(3, np.int32))
    return finished(coder, words)


def unpack(data: bytes, colours: int, channels: int, most: int) -> npt.NDArray[np.int32]:
    """Inverse of `pack`.

    Raises:
        FormatError: not what `pack` writes for so many colours of values up to `most`.
    """
    coder, words = reader(data)
    steps = np.zeros(colours * channels, np.int32)
    code_steps(coder, words, steps, channels, _memory(), np.zeros(3, np.int64), np.zeros(3, np.int32))
    check_end(coder, words)
    coded = np.cumsum(steps.reshape(-1, channels), 0, dtype=np.int64)
    if channels > 2:
        coded[:, -2:] += coded[:, -3:-2]
    palette = np.empty_like(coded)
    palette[:, _ordered(coded)[1]] = coded
    if palette.min() < 0 or palette.max() > most:
        raise FormatError("lossless: a palette of colours that the samples cannot have")
    return palette.astype(np.int32)
