"""Binary decisions with probabilities that adapt while coding, mixed in the logistic domain, all in integers.

Each decision has several contexts, and each context a counter: a probability and how often it was seen. Stretched
probabilities ln(p / (1 - p)) are summed with weights that learn online, squashed back, and refined by a small table
of (context, probability) -> probability; the result splits the coder's range (Mahoney, "Adaptive weighing of context
models for lossless data compression", 2005). One function, `decide`, serves both directions, so that encoder and
decoder cannot drift apart; whole models are loops around it.

All state of a model lies in one int32 array, its *memory*. Loops are written in the part of Python that numba
compiles and that gives the same integers without it: `loop` compiles where numba is there.

The coder's state is an int64 array:

    low, width     the interval; width > 2**32, low < 2**48
    value          of a decoder: the next 48 bits of the stream, less low
    at             the next word
    reads          1 of a decoder, 0 of an encoder
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from ..kernels.compiled import compiled
from .errors import FormatError
from .lanes import COMPILED, FOUR, stretched_sum, weights_step

LOW, WIDTH, VALUE, AT, READS = range(5)
START = 1 << 30  # a counter that was never used: probability 1/2, seen 0 times
REACH = 3071  # largest stretched probability, in steps of 1/256
CELLS = 33  # of a row of the refining table
_CELL = 192  # stretched steps between two cells
_TOP = (1 << 48) - 1
_PLACE = (1 << 31) - 1  # of an index: tells the compiler that it is not negative
_MOST = 1 << 20  # largest weight

F = TypeVar("F", bound=Callable[..., Any])


def loop(function: F, inline: bool = False) -> F:
    """Compile a loop with numba where it is installed and not switched off; else leave it as it is.

    Loops make no arrays: what they need besides their input is handed in.
    """
    if not COMPILED:
        return function
    # without counts of references: they would cost more than the loops, which make no arrays
    return cast(F, compiled(function, _nrt=False, forceinline=inline))


def part(function: F) -> F:
    """A `loop` that becomes a part of those that call it."""
    return loop(function, inline=True)


def _stretch() -> np.ndarray:
    p = (np.arange(4096) + 0.5) / 4096
    return np.rint(np.log(p / (1 - p)) * 256).astype(np.int16)


def _squash() -> np.ndarray:
    x = np.arange(-REACH - 1, REACH + 1) / 256
    return np.clip(np.rint(65536 / (1 + np.exp(-x))), 1, 65535).astype(np.uint16)


STRETCH = _stretch()
SQUASH = _squash()
RATE = np.array([(65536 * 10) // (10 * n + 16) for n in range(512)], np.int32)


def refining(rows: int) -> np.ndarray:
    """`rows` rows of a refining table that change nothing yet, flat."""
    at = np.clip((np.arange(CELLS) - 16) * _CELL + REACH + 1, 0, 2 * REACH + 1)
    return np.tile(SQUASH[at].astype(np.int32), rows)


@part
def _take(coder, words, width):  # type: ignore[no-untyped-def]
    """A decoder's next words, till the interval is wide enough; returns its width."""
    while width < 1 << 32:
        width <<= 16
        at = int(coder[AT])
        coder[VALUE] = (int(coder[VALUE]) << 16) | (int(words[at]) if at < words.shape[0] else 0)
        coder[AT] = at + 1
    return width


@part
def _put(coder, words, low, width):  # type: ignore[no-untyped-def]
    """An encoder's settled words, with what low carries into those before; returns the width of the interval."""
    if low > _TOP:
        low &= _TOP
        at = int(coder[AT]) - 1
        while words[at] == 65535:
            words[at] = 0
            at -= 1
        words[at] += 1
    while width < 1 << 32:
        width <<= 16
        at = int(coder[AT])
        words[at] = low >> 32
        coder[AT] = at + 1
        low = (low << 16) & _TOP
    coder[LOW] = low
    return width


@part
def decide(coder, words, memory, slots, n, first, second, cell, pace, limit, stretched, bit):  # type: ignore[no-untyped-def]
    """Code one decision; returns it.

    coder, words: the coder's state and its uint16 words; memory: int32; slots: where the n counters lie in it;
    first, second: where two sets of n weights lie (16 bits of fraction; their sum counts); cell: where the row of the
    refining table lies; pace: how fast weights learn; limit: how often a counter counts; stretched: scratch (n,) int32;
    bit: 0 or 1, ignored by a decoder.
    """
    whole = n & ~(FOUR - 1)
    dot = 0
    for i in range(0, whole, FOUR):
        dot += stretched_sum(memory, slots, i, first, second, STRETCH, stretched)
    for i in range(whole, n):
        stretched[i] = STRETCH[memory[slots[i] & _PLACE] >> 19]
        dot += int(stretched[i]) * (int(memory[first + i & _PLACE]) + int(memory[second + i & _PLACE]))
    z = min(max(dot >> 16, -REACH), REACH) + REACH + 1
    p = int(SQUASH[z & 8191])
    j = ((z * 43691) >> 23) & 63  # z // _CELL
    f = z - j * _CELL
    left = (cell + j) & _PLACE
    between = (int(memory[left]) * (_CELL - f) + int(memory[left + 1]) * f) & _PLACE
    final = (p + between // _CELL + 1) >> 1
    final = min(max(final, 1), 65535)

    width = int(coder[WIDTH])
    bound = (width >> 16) * final
    if coder[READS]:
        bit = 1 if int(coder[VALUE]) < bound else 0
        if bit:
            width = bound
        else:
            coder[VALUE] -= bound
            width -= bound
        width = _take(coder, words, width)
    else:
        low = int(coder[LOW])
        if bit:
            width = bound
        else:
            low += bound
            width -= bound
        width = _put(coder, words, low, width)
    coder[WIDTH] = width

    error = ((bit << 16) - p) * pace
    for at in (first, second):
        for i in range(0, whole, FOUR):
            weights_step(memory, at, stretched, i, error, _MOST)
        for i in range(whole, n):
            step = (int(stretched[i]) * error + (1 << 17)) >> 18
            memory[at + i & _PLACE] = min(max(int(memory[at + i & _PLACE]) + step, -_MOST), _MOST)
    for i in range(n):
        at = slots[i] & _PLACE
        state = int(memory[at])
        count = state & 511
        chance = state >> 9
        chance += (((bit << 22) - bit - chance) * int(RATE[count])) >> 16
        memory[at] = (chance << 9) | min(count + 1, limit)
    target = bit * 65535
    memory[left] += (target - int(memory[left])) >> 6
    memory[left + 1] += (target - int(memory[left + 1])) >> 6
    return bit


@part
def even(coder, words, bits, value):  # type: ignore[no-untyped-def]
    """Code `bits` (at most 16) equiprobable bits; returns their value."""
    width = int(coder[WIDTH]) >> bits
    if coder[READS]:
        value = min(int(coder[VALUE]) // width, (1 << bits) - 1)
        coder[VALUE] -= value * width
        width = _take(coder, words, width)
    else:
        low = int(coder[LOW]) + value * width
        width = _put(coder, words, low, width)
    coder[WIDTH] = width
    return value


def writer(room: int) -> tuple[np.ndarray, np.ndarray]:
    """State and words (uint16) of an encoder that has room for so many words."""
    coder = np.zeros(5, np.int64)
    coder[WIDTH] = _TOP
    return coder, np.zeros(room + 8, np.uint16)


def reader(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """State and words of a decoder; what is missing at the end of a stream counts as zeros.

    Raises:
        FormatError: not a whole number of words.
    """
    if len(data) & 1:
        raise FormatError("a chunk has an odd number of bytes: it is corrupt or of another coding")
    words = np.frombuffer(data, "<u2").astype(np.uint16)
    coder = np.zeros(5, np.int64)
    coder[WIDTH], coder[READS], coder[AT] = _TOP, 1, 3
    head = np.zeros(3, np.int64)
    head[: min(3, words.size)] = words[:3]
    coder[VALUE] = int(head[0]) << 32 | int(head[1]) << 16 | int(head[2])
    return coder, words


def finished(coder: np.ndarray, words: np.ndarray) -> bytes:
    """The encoder's bytes: as few words as decide the last symbols when zeros follow them."""
    low, width, at = int(coder[LOW]), int(coder[WIDTH]), int(coder[AT])
    for kept in (0, 1, 2, 3):
        unit = 1 << (48 - 16 * kept)
        value = -(-low // unit) * unit
        if value < low + width:
            break
    body = words[:at].astype(np.int64)
    if value > _TOP:
        value &= _TOP
        i = at - 1
        while body[i] == 65535:
            body[i] = 0
            i -= 1
        body[i] += 1
    tail = [value >> 32 & 65535, value >> 16 & 65535, value & 65535][:kept]
    whole = np.concatenate([body, np.array(tail, np.int64)]).astype("<u2")
    end = whole.size
    while end and whole[end - 1] == 0:
        end -= 1
    return whole[:end].tobytes()


def check_end(coder: np.ndarray, words: np.ndarray) -> None:
    """Raises FormatError where a decoder has left words, or read far beyond them."""
    if not words.size <= int(coder[AT]) or int(coder[VALUE]) >= int(coder[WIDTH]):
        raise FormatError("a chunk goes on after its last symbol: it is corrupt or of another coding")
