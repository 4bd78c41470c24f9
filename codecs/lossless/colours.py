"""Pictures of few colours (text, screenshots, drawings, masks): whole colours are guessed, misses are spelt out.

A pixel is the number of its colour. Tables remember which colour followed each neighbourhood, of twelve, six and three
pixels, the last time; a match goes on where 24 pixels were seen before, along the row or below itself. These memories
and the neighbours themselves are the guesses, and each is confirmed or denied by one decision. What none guessed is
coded bit by bit in the contexts of the neighbours. Rows that are like an earlier one are copied.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...entropy.adaptive import CELLS, START, decide, even, loop, refining
from .planes import FULL, MARGIN, MOST_WORDS

COUNTERS = 6
_GUESSES = 8  # by a long match, three memories, a short match, left, above, a corner
_TABLE = 16  # log2 of the entries of each memory
_HASHED = 18  # log2 of the counters of each hashed context
_SMALL = 8192  # counters of each direct context
_LITERAL = _SMALL // 2  # from here on those of colours that none guessed
_ROWS = 2048  # sets of weights


def memory_of() -> np.ndarray:
    """Fresh memory."""
    return np.concatenate(
        [
            np.full(3 * _SMALL + 3 * (1 << _HASHED), START, np.int32),
            np.full(_ROWS * COUNTERS, 65536 * 4 // 10, np.int32),
            np.zeros(_ROWS * COUNTERS, np.int32),
            refining(_ROWS),
        ]
    )


class Recall(NamedTuple):
    """What colour followed each neighbourhood the last time, how often that was right since, and scratch."""

    known: np.ndarray
    trust: np.ndarray
    seen: np.ndarray
    shift: np.ndarray
    length: np.ndarray
    guess: np.ndarray
    source: np.ndarray
    place: np.ndarray
    slots: np.ndarray
    stretched: np.ndarray


def recall(samples: int) -> Recall:
    """Of nothing yet, for a plane of so many samples, margins included."""
    known, trust = np.full((3, 1 << _TABLE), -1, np.int32), np.zeros((4, 1 << _TABLE), np.int32)
    guess, source, place, slots = np.zeros((4, _GUESSES), np.int64)
    seen, (shift, length) = np.zeros(1 << _TABLE, np.int32), np.zeros((2, samples), np.int32)
    return Recall(known, trust, seen, shift, length, guess, source, place, slots, np.zeros(COUNTERS, np.int32))


@loop
def mixed(a, b):  # type: ignore[no-untyped-def]
    """One number of two, 31 bits."""
    h = (a * 0x2F0B4F + b * 0x5BD1E9 + 0x3C6EF3) & 0x7FFFFFFF
    return ((h ^ (h >> 15)) * 0x2C1B3D) & 0x7FFFFFFF


@loop
def _wide(x, at, stride, h12):  # type: ignore[no-untyped-def]
    """Place in the table of matches: a number of 24 pixels."""
    h = h12
    for k in range(-4, 5):
        h = mixed(h, int(x[at - 3 * stride + k]))
    for k in (-4, -3, 3, 4):
        h = mixed(h, int(x[at - 2 * stride + k]))
    return mixed(h, int(x[at - 4])) >> 15


@loop
def _like(x, row, width, stride, y, up):  # type: ignore[no-untyped-def]
    """How far above the nearest equal row is, `up` where that one is equal; 0 where none is."""
    for k in range(y + 1):
        far = up if k == 0 else k
        if far == 0 or far > y:
            continue
        same = True
        for at in range(row, row + width):
            if x[at] != x[at - far * stride]:
                same = False
                break
        if same:
            return far
    return 0


@loop
def code_colours(coder, words, x, size, colours, memory, state, pace, limit):  # type: ignore[no-untyped-def]
    """Code the colour numbers of a chunk, flat with margins of `MARGIN`; 0, -1 at nonsense, or FULL."""
    height, width, stride = size
    bits = 0
    while (1 << bits) < colours:
        bits += 1
    known, trust, seen, shift, length, guess, source, place, slots, stretched = state
    wide = 3 * _SMALL
    weights = wide + 3 * (1 << _HASHED)
    more = weights + _ROWS * COUNTERS
    cells = more + _ROWS * COUNTERS
    reads = int(coder[4]) == 1
    copied, up = 0, 0  # rows that were copied, up to the last one; from how far above
    run, last = 0, 0  # pixels whose first guess was right, up to the last one; its octave
    for y in range(height):
        if not reads and int(coder[3]) + MOST_WORDS * (width + 1) > words.shape[0]:
            return FULL
        row = (MARGIN + y) * stride + MARGIN
        for k in range(1, MARGIN + 1):
            x[row - k] = x[row - stride]
        if y > 0:
            found = 0 if reads else _like(x, row, width, stride, y, up)
            for k in range(3):
                # as far above as the last one, or as the row above, or how far
                if (k == 0 and not 0 < up < y + 1) or (k == 1 and up == 1):
                    continue
                slots[0] = 1024 + (k * 8 + min(copied, 7)) * 2 + (1 if up == 1 else 0)
                for i in range(1, COUNTERS):
                    slots[i] = 1100 + (i * 3 + k) * 16 + (min(copied, 15) if i < 3 else last if i < 5 else 0)
                bit = decide(
                    coder, words, memory, slots, COUNTERS, weights + (96 + k) * COUNTERS, more + 1400 * COUNTERS,
                    cells + (600 + k) * CELLS, pace, limit, stretched,
                    1 if found and (found == up if k == 0 else found == 1 if k == 1 else True) else 0,
                )  # fmt: skip
                if bit:
                    if k == 1:
                        found = 1
                    elif k == 2:
                        found = even(coder, words, 9, found)
                    else:
                        found = up
                    if found == 0 or found > y:
                        return -1
                    break
                found = found if k < 2 else 0
            if found:
                up, copied = found, copied + 1
                for at in range(row, row + width):
                    x[at] = x[at - found * stride]
                    shift[at] = found * stride
                    length[at] = min(int(length[at - stride]) + 16, 1 << 24)
                for k in range(MARGIN):
                    x[row + width + k] = x[row + width - 1]
                continue
            copied = 0
        for col in range(width):
            at = row + col
            w, n, nw, ne = int(x[at - 1]), int(x[at - stride]), int(x[at - stride - 1]), int(x[at - stride + 1])
            ww, nn = int(x[at - 2]), int(x[at - 2 * stride])
            h3 = mixed(mixed(w, n), ne)
            h6 = mixed(mixed(h3, nw), mixed(ww, nn))
            h12 = mixed(
                mixed(h6, mixed(int(x[at - 3]), int(x[at - stride + 2]))),
                mixed(int(x[at - stride - 2]), int(x[at - 2 * stride + 1])),
            )
            h12 = mixed(h12, mixed(int(x[at - 2 * stride - 1]), int(x[at - 3 * stride])))
            place[1], place[2], place[3] = h12 >> 15, h6 >> 15, h3 >> 15
            far = -1
            back, long = int(shift[at - 1]), int(length[at - 1])
            if long == 0 or length[at - stride] > long:
                back, long = int(shift[at - stride]), int(length[at - stride])
            if long == 0:
                back = 0
                if not (w == n and n == ne and w == nw and w == ww and n == nn):
                    far = _wide(x, at, stride, h12)
                    back = at - int(seen[far]) if seen[far] > 0 else 0
            follow = int(x[at - back]) if back else -1
            sure = 0
            while sure < 15 and long >> sure:
                sure += 1
            trust[0, 0] = sure
            many = 0
            for k in range(_GUESSES):
                if k == 0:
                    g = follow if sure > 3 else -1
                elif k < 4:
                    g = int(known[k - 1, place[k]])
                elif k == 4:
                    g = follow
                elif k == 5:
                    g = w
                elif k == 6:
                    g = n
                else:
                    g = ne if ne != w and ne != n else nw
                new = g >= 0
                for j in range(many):
                    if guess[j] == g:
                        new = False
                if new:
                    guess[many], source[many] = g, k
                    many += 1
            shape = (1 if w == n else 0) + (2 if n == ne else 0) + (4 if w == nw else 0) + (8 if n == nw else 0)
            shape += (16 if w == ww else 0) + (32 if n == nn else 0)
            s = int(x[at])
            hit = -1
            for k in range(many):
                g = int(guess[k])
                kind = int(source[k])
                sure = int(trust[kind, place[kind]]) if kind < 4 else 0
                agree = 0
                for j in range(3):
                    if known[j, place[j + 1]] == g:
                        agree += 1 << j
                agree += (8 if w == g else 0) + (16 if n == g else 0) + (32 if follow == g else 0)
                slots[0] = (min(k, 3) * 8 + kind) * 16 + sure
                slots[1] = _SMALL + (min(k, 3) * 64 + agree) * 16 + sure
                slots[2] = 2 * _SMALL + (min(k, 3) * 64 + shape) * 16 + last
                slots[3] = wide + (mixed(h3 + k, g) >> 13)
                slots[4] = wide + (1 << _HASHED) + (mixed(h6 + k, g) >> 13)
                slots[5] = wide + (2 << _HASHED) + (mixed(mixed(w, g), n * 8 + k) >> 13)
                which = min(k, 3) * 16 + sure
                also = 64 + agree * 16 + last
                bit = decide(
                    coder, words, memory, slots, COUNTERS, weights + which * COUNTERS, more + also * COUNTERS,
                    cells + (which * 4 + min(kind, 3)) * CELLS, pace, limit, stretched, 1 if s == g else 0,
                )  # fmt: skip
                if bit:
                    s, hit = g, k
                    break
            if hit < 0:
                node, value = 1, 0
                for k in range(bits - 1, -1, -1):
                    slots[0] = _LITERAL + node % _LITERAL
                    slots[1] = _SMALL + _LITERAL + (node * 4 + min(last, 3)) % _LITERAL
                    slots[2] = 2 * _SMALL + _LITERAL + (node * 16 + last) % _LITERAL
                    slots[3] = wide + (mixed(mixed(w, 77), node) >> 13)
                    slots[4] = wide + (1 << _HASHED) + (mixed(mixed(n, 99), node) >> 13)
                    slots[5] = wide + (2 << _HASHED) + (mixed(mixed(w, n), node) >> 13)
                    which = 64 + k
                    bit = decide(
                        coder, words, memory, slots, COUNTERS, weights + which * COUNTERS,
                        more + (1088 + min(node, 255)) * COUNTERS, cells + (512 + k) * CELLS, pace, limit, stretched,
                        (s >> k) & 1,
                    )  # fmt: skip
                    node = node * 2 + bit
                    value = value * 2 + bit
                s = value
                if s >= colours:
                    return -1
            run = run + 1 if hit == 0 else 0
            last = 0
            while last < 15 and run >> last:
                last += 1
            if reads:
                x[at] = s
            for k in range(3):
                i = place[k + 1]
                if known[k, i] == s:
                    trust[k + 1, i] = min(int(trust[k + 1, i]) + 1, 15)
                elif trust[k + 1, i] > 3 and k < 2:
                    trust[k + 1, i] = int(trust[k + 1, i]) >> 2
                else:
                    known[k, i] = s
                    trust[k + 1, i] = 0
            if far >= 0:
                seen[far] = at
            if back:
                shift[at] = back
                length[at] = min(long + 1, 1 << 24) if follow == s else 0
        for k in range(MARGIN):
            x[row + width + k] = x[row + width - 1]
        if reads and int(coder[3]) > words.shape[0] + 4:
            return -1
    return 0
