"""One chunk of sound, coded sample by sample: predictors in cascade, decisions; one loop for both directions.

One or two channels go together, the second knows the first's present sample. A sample is predicted by least squares
over earlier samples of both (`squares`), what that leaves by normalised least mean squares filters, long ones first,
each over what the last one left (as in MPEG-4 ALS' RLS-LMS mode); how much each is believed is again found by least
squares. What the sample adds is a count of steps, coded as decisions of `entropy.adaptive` in contexts of the last
magnitudes, and low bits that are taken as even.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...entropy.adaptive import CELLS, START, decide, even, loop, part, refining
from .effort import Cascade
from .squares import TAP, fold, gather, scratch, solve

MAX_BITS = 26  # of a sample, sign included
FRONT = 64  # zeros before a chunk, so that lags need no test
POINT = 4  # bits of fraction of a prediction
LEVELS = 112  # of mean magnitudes, four an octave
COUNTS = 20  # decisions of a count; what is larger is spelt out
FINE = 16  # levels under which signs depend on the fraction of the prediction
CONTEXTS = 2048  # of a counter
RIDGE, TRUST = 1e-9, 1e-3  # what steadies least squares of samples, and of predictions
LEVEL = np.array([round(4 * np.log2(1 + v / 16)) for v in range(4096)], np.int32)
ROOM = 32  # words that the decisions of a sample may take
_NODES = COUNTS + 2  # decisions that differ: counts, signs
_CLIP = (1 << 15) - 1  # of what filters see
_REACH = 1 << 29  # of their weights, which have 24 bits of fraction


class Memory(NamedTuple):
    """What a chunk's predictors have learnt, and scratch.

    Attributes:
        gram: float64, by window products of lags; fresh: those of the last block; space: scratch of `squares`.
        order: int64, by channel the rows of gram that predict; wgt: int32, by channel and window their weights.
        left: int32, by channel and filter what came before it; taps: int32, its weights; power: int64.
        said, guess, firsts: int64, predictions; heard, old: float64, their products; vote: int32, their weights.
        level, base, slots, places, numbers: int64, scratch; stretched: int32, scratch.
        mind: int32, memory of `decide`.
    """

    gram: np.ndarray
    fresh: np.ndarray
    space: np.ndarray
    order: np.ndarray
    wgt: np.ndarray
    left: np.ndarray
    taps: np.ndarray
    power: np.ndarray
    said: np.ndarray
    guess: np.ndarray
    firsts: np.ndarray
    heard: np.ndarray
    old: np.ndarray
    vote: np.ndarray
    level: np.ndarray
    base: np.ndarray
    slots: np.ndarray
    places: np.ndarray
    numbers: np.ndarray
    stretched: np.ndarray
    mind: np.ndarray


def lags_of(cascade: Cascade, channels: int) -> tuple[int, int]:
    """How many earlier samples of its own and of its partner predict a sample."""
    return (cascade.own, cascade.other) if channels == 2 else (cascade.alone, 0)


def memory_of(cascade: Cascade, channels: int, samples: int) -> Memory:
    """Fresh memory."""
    own, other = lags_of(cascade, channels)
    lags, stages, kinds, counters = max(own, other), cascade.stages, len(cascade.keeps), cascade.counters
    w, many, n, voices = lags + 1, len(stages), own + other, len(cascade.keeps) - 1 + len(stages)
    width = channels * w
    order = [list(range(lags - own, lags))]
    if channels == 2:
        order = [order[0] + list(range(w + lags - other, w + lags))]
        order += [list(range(w - other, w)) + list(range(w + lags - own, w + lags))]
    wgt = np.zeros((channels, kinds, n), np.int32)
    wgt[0, :, own - 1] = wgt[-1, :, n - 1] = 1 << TAP  # at first the last sample comes again
    vote = np.zeros((channels, voices), np.int32)
    vote[:, kinds - 1 :] = 1 << TAP
    mind = np.concatenate(
        [
            np.full(counters * CONTEXTS * COUNTS + FINE * 64 + 64, START, np.int32),
            np.full(_NODES * counters, (65536 * 9 // 10) // counters, np.int32),
            np.zeros(LEVELS * counters, np.int32),
            refining(LEVELS * _NODES),
        ]
    )
    room = samples + max(stages, default=0)
    return Memory(
        np.zeros(kinds * width * width), np.zeros(width * width), scratch(max(n, voices, w)),
        np.array(order, np.int64).reshape(-1), wgt.reshape(-1), np.zeros(channels * many * room, np.int32),
        np.zeros(channels * sum(stages), np.int32), np.zeros(channels * many, np.int64),
        np.zeros(voices + 1, np.int64), np.zeros(many, np.int64), np.zeros(kinds, np.int64),
        np.zeros(channels * (voices + 1) ** 2), np.zeros(channels * (voices + 1) ** 2), vote.reshape(-1),
        np.zeros(channels * 4, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(channels, np.int64),
        np.arange(voices, dtype=np.int64), np.zeros(3, np.int32), mind,
    )  # fmt: skip


@part
def _level(v):  # type: ignore[no-untyped-def]
    """Level of a magnitude in sixteenths: about four times the base-2 logarithm of 1 + magnitude."""
    if v < 4096:
        return int(LEVEL[v])
    if v < 1 << 18:
        return int(LEVEL[v >> 6]) + 24
    return min(int(LEVEL[min(v >> 12, 4095)]) + 48, LEVELS - 1)


@part
def _near(level, mean, bias):  # type: ignore[no-untyped-def]
    """A level against a mean's, one of 16."""
    return min(max((level - mean + bias) >> 1, 0), 15)


@part
def _product(a, b, n):  # type: ignore[no-untyped-def]
    dot = np.int64(0)
    for i in range(n):
        dot += np.int64(a[i]) * np.int64(b[i])
    return dot


@part
def _follow(taps, left, n, g):  # type: ignore[no-untyped-def]
    """One step of least mean squares; g is the error by the power."""
    g = np.int32(g)
    for i in range(n):
        step = np.int32(np.int32(g * left[i]) >> np.int32(12))
        taps[i] = min(max(np.int32(taps[i] + step), np.int32(-_REACH)), np.int32(_REACH))


@loop
def _refit(x, t, block, loss, size, lags, keeps, belief, memory):  # type: ignore[no-untyped-def]
    """New weights of least squares from the block before t; blocks that were hard to predict count less."""
    channels, samples = size
    gram, fresh, space, order, wgt = memory.gram, memory.fresh, memory.space, memory.order, memory.wgt
    heard, old, vote, places, numbers = memory.heard, memory.old, memory.vote, memory.places, memory.numbers
    w, kinds, n = lags + 1, keeps.shape[0], order.shape[0] // channels
    width, voices = channels * w, numbers.shape[0]
    share = block / (float(loss) + block)
    for c in range(channels):
        places[c] = c * (samples + FRONT) + FRONT + t - block - lags
    gather(x, places, block, lags, fresh, space)
    for q in range(kinds):
        own = gram[q * width * width : (q + 1) * width * width]
        fold(own, fresh, width, keeps[q], share)
        for c in range(channels):
            k = (c * kinds + q) * n
            solve(own, width, order[c * n : c * n + n], c * w + lags, space, wgt[k : k + n], RIDGE)
    if voices == 0:
        return 0
    k = (voices + 1) * (voices + 1)
    for c in range(channels):
        own = old[c * k : c * k + k]
        fold(own, heard[c * k : c * k + k], voices + 1, belief, share)
        for i in range(k):
            heard[c * k + i] = 0.0
        solve(own, voices + 1, numbers, voices, space, vote[c * voices : c * voices + voices], TRUST)
        for i in range(c * voices + kinds - 1, c * voices + voices):
            vote[i] += 1 << TAP
    return 0


@loop
def code_wave(  # type: ignore[no-untyped-def]
    coder, words, x, size, lags, log_block, keeps, belief, stages, speeds, memory, limits, scale, counters, limit
):
    """Code a chunk; 0, or -1 where a decoder meets what no encoder writes, or an encoder runs out of words.

    x: int32, channel by channel with FRONT zeros before each; filled by a decoder. size: (channels, samples).
    lags: of the channel itself, and of its partner; log_block: log2 of the samples that share weights; keeps, belief,
    stages, speeds, counters: as in `effort.Cascade`. limits: lowest and highest sample; scale: low bits of what least
    squares leave that the filters do not see; limit: as in `adaptive.decide`.
    """
    channels, samples = size
    own, other = lags
    wgt, left, taps, power, vote = memory.wgt, memory.left, memory.taps, memory.power, memory.vote
    said, guess, firsts, heard, levels = memory.said, memory.guess, memory.firsts, memory.heard, memory.level
    base, slots, stretched, mind = memory.base, memory.slots, memory.stretched, memory.mind
    kinds, many, n = keeps.shape[0], stages.shape[0], own + other
    voices = kinds - 1 + many
    span, block = samples + FRONT, 1 << log_block
    every, pad = 0, 0
    for k in range(many):
        every += stages[k]
        pad = max(pad, stages[k])
    room = samples + pad
    reads = int(coder[4]) == 1
    signs = counters * CONTEXTS * COUNTS
    weights = signs + FINE * 64 + 64
    more = weights + _NODES * counters
    cells = more + LEVELS * counters
    low_value, high_value = limits
    lo, hi = low_value << POINT, high_value << POINT
    loss = 0
    for t in range(samples):
        if t > 0 and t & (block - 1) == 0:
            _refit(x, t, block, loss, size, max(own, other), keeps, belief, memory)
            loss = 0
        for c in range(channels):
            at = c * span + FRONT + t
            # prediction
            for q in range(kinds):
                k = (c * kinds + q) * n
                if channels == 1:
                    dot = _product(wgt[k : k + own], x[at - own : at], own)
                elif c == 0:
                    there = at + span
                    dot = _product(wgt[k : k + own], x[at - own : at], own)
                    dot += _product(wgt[k + own : k + n], x[there - other : there], other)
                else:
                    there = at - span + 1
                    dot = _product(wgt[k : k + other], x[there - other : there], other)
                    dot += _product(wgt[k + other : k + n], x[at - own : at], own)
                firsts[q] = min(max((dot + (1 << (TAP - POINT - 1))) >> (TAP - POINT), lo), hi)
            first = int(firsts[0])
            for q in range(1, kinds):
                said[q - 1] = firsts[q] - first
            bank = c * every
            for k in range(many):
                m, here = int(stages[k]), (c * many + k) * room + pad + t
                dot = _product(taps[bank : bank + m], left[here - m : here], m)
                guess[k] = min(max(((dot + (1 << 23)) >> 24) << scale, lo - hi), hi - lo)
                said[kinds - 1 + k] = guess[k]
                bank += m
            dot = 1 << (TAP - 1)
            for k in range(voices):
                dot += int(vote[c * voices + k]) * int(said[k])
            whole = min(max(first + (dot >> TAP), lo), hi)
            p = (whole + (1 << (POINT - 1))) >> POINT
            fraction = whole - (p << POINT)  # -8..7

            # contexts
            fast, slow = int(levels[c * 4]), int(levels[c * 4 + 1])
            mean = _level((fast + slow) >> 5)
            low = max((mean >> 2) - 1, 0)
            phase = (mean - 4 * low) * 256
            base[0] = (mean * 16 + min(abs(fraction), 7) * 2) * COUNTS
            base[1] = phase + _near(_level(fast >> 4), mean, 16) * 16 + _near(_level(slow >> 4), mean, 16)
            base[1] = (base[1] + CONTEXTS) * COUNTS
            if counters > 2:
                base[2] = phase + _near(levels[c * 4 + 2], mean, 20) * 16 + _near(levels[c * 4 + 3], mean, 20)
                base[2] = (base[2] + 2 * CONTEXTS) * COUNTS

            # what the sample adds
            e = int(x[at]) - p
            a = abs(e)
            want, count = a >> low, 0
            while count < COUNTS - 1:
                first_weight, second_weight = weights + count * counters, more + mean * counters
                cell = cells + (mean * _NODES + count) * CELLS
                slots[0], slots[1] = base[0] + count, base[1] + count
                bit = 1 if want > count else 0
                if counters > 2:
                    slots[2] = base[2] + count
                    bit = decide(
                        coder, words, mind, slots, 3, first_weight, second_weight, cell, 3, limit, stretched, bit
                    )
                else:
                    bit = decide(
                        coder, words, mind, slots, 2, first_weight, second_weight, cell, 3, limit, stretched, bit
                    )
                if not bit:
                    break
                count += 1
            if count == COUNTS - 1:  # an octave, and its bits
                octave = 0
                while not reads and (want - count + 1) >> (octave + 1):
                    octave += 1
                octave = even(coder, words, 5, octave)
                if octave > MAX_BITS:
                    return -1
                far, high = want - count + 1 - (1 << octave), max(octave - 12, 0)
                top = even(coder, words, high, far >> 12) if high else 0
                far = (top << 12) | even(coder, words, octave - high, far & ((1 << (octave - high)) - 1))
                count += (1 << octave) - 1 + far
                if count >> (MAX_BITS + 1 - low):
                    return -1
            got, k = count, low
            while k > 0:
                m = min(k, 12)
                k -= m
                got = (got << m) | even(coder, words, m, (a >> k) & ((1 << m) - 1))
            negative = 0
            if got > 0 and mean < FINE:
                k = min(got, 4) - 1
                slots[0] = signs + (mean * 16 + fraction + 8) * 4 + k
                slots[1] = signs + FINE * 64 + (fraction + 8) * 4 + k
                negative = decide(
                    coder, words, mind, slots, 2, weights + COUNTS * counters, more + mean * counters,
                    cells + (mean * _NODES + COUNTS) * CELLS, 3, limit, stretched, 1 if e < 0 else 0,
                )  # fmt: skip
            elif got > 0:
                negative = even(coder, words, 1, 1 if e < 0 else 0)
            s = p - got if negative else p + got
            if reads:
                if s < low_value or s > high_value:
                    return -1
                x[at] = s

            # learning
            a = got << 8
            levels[c * 4] = fast + ((a - fast) >> 4)
            levels[c * 4 + 1] = slow + ((a - slow) >> 7)
            levels[c * 4 + 3], levels[c * 4 + 2] = levels[c * 4 + 2], _level(a >> 4)
            loss += got * got
            e = (s << POINT) - first
            if voices:
                said[voices] = e
                for k in range(many):
                    said[voices] -= guess[k]
                k = c * (voices + 1) * (voices + 1)
                for i in range(voices + 1):
                    for j in range(i + 1):
                        heard[k + i * (voices + 1) + j] += float(said[i]) * float(said[j])
            bank = c * every
            for k in range(many):
                m, i, here = int(stages[k]), c * many + k, (c * many + k) * room + pad + t
                h = min(max(e >> scale, -_CLIP), _CLIP)
                e -= int(guess[k])
                g = (min(max(e >> scale, -2 * _CLIP), 2 * _CLIP) << 36) // ((int(power[i]) + 64 * m) * int(speeds[k]))
                _follow(taps[bank : bank + m], left[here - m : here], m, min(max(g, -(1 << 16)), 1 << 16))
                gone = int(left[here - m])
                left[here] = h
                power[i] += h * h - gone * gone
                bank += m
        if reads and int(coder[3]) > words.shape[0] + 4:
            return -1
        if not reads and int(coder[3]) + 2 * ROOM > words.shape[0]:
            return -1
    return 0
