"""One plane of a picture, coded sample by sample: prediction, contexts, decisions; one loop for both directions.

A sample is predicted by several recursive least-squares predictors (in integers, solved by coordinate descent;
Zakharov et al., "Low-complexity RLS algorithms using dichotomous coordinate descent iterations", 2008), each with its
own idea of which earlier samples are alike: those near in the same columns, or those with the same slopes around.
They are averaged by how well each did nearby, put right by the mean error in a context, and what the sample adds to
the prediction is coded as decisions of `entropy.adaptive`: its bucket, its sign, its place in the bucket.

A plane is stored flat with a margin of `MARGIN` samples around it. Earlier planes of the picture are references:
their samples all around are known, those to the right and below included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...entropy.adaptive import CELLS, START, decide, even, loop, part, refining
from ...entropy.lanes import WIDTH, product_sum, products_fade, rest_fade, rest_less

MARGIN = 4
MOST_WORDS = 48  # that a sample may take: one a decision
FULL = -2  # result of a loop whose encoder has no room for the words of another row
ENERGIES = 48  # levels of error energy, 3 an octave
_CLASSES = 16  # of slopes
_BIAS = 2048
_MODELLED = 2  # bits of the place in a bucket that are modelled; the others are taken as even


def _buckets() -> tuple[np.ndarray, np.ndarray]:
    """First magnitude and number of low bits of each bucket: 0 to 4, then two an octave, up to 2**17."""
    low, bits = [0, 1, 2, 3, 4], [0] * 5
    for k in range(1, 16):
        low += [low[-1] + (1 << bits[-1])]
        bits += [k]
        low += [low[-1] + (1 << k)]
        bits += [k]
    return np.array(low, np.int32), np.array(bits, np.int32)


LOW, BITS = _buckets()
SMALL = np.array([np.searchsorted(LOW, v, "right") - 1 for v in range(1024)], np.int32)  # bucket of a magnitude
LEVEL = np.array([min(30, round(3 * np.log2(1 + v / 4))) for v in range(4096)], np.int32)
SIGNED = np.searchsorted([2, 6, 14, 30, 70], np.arange(1024), "right").astype(np.int32)
# 1 / typical error of each level of energy: what samples are weighed with
WEIGHT = np.array([int(4096 * 32 / max((2 ** (e / 3) / 7) ** 0.5 * 2, 0.25)) for e in range(ENERGIES)], np.int32)
RECIPROCAL = np.array([(1 << 16) // (count + 2) for count in range(256)], np.int32)
SCALE = 1 << 9  # largest weighed difference


@loop
def bucket_of(a):  # type: ignore[no-untyped-def]
    """Bucket of a magnitude below 2**17."""
    if a < 1024:
        return int(SMALL[a])
    t, shift = a - 1, 0
    while t >> shift >= 4:
        shift += 1
    return 3 + 2 * shift + ((t >> shift) & 1)


@part
def level(v):  # type: ignore[no-untyped-def]
    """Level of an energy in eighths of a sample."""
    more = 0
    while v >= 4096:
        v >>= 1
        more += 3
    return min(int(LEVEL[v]) + more, ENERGIES - 1)


@part
def signed(d):  # type: ignore[no-untyped-def]
    """A difference in eighths as one of 11 numbers, 5 for none."""
    a = int(SIGNED[min(abs(d), 1023)])
    return 5 + a if d > 0 else 5 - a


CONTEXTS = 1452  # most that a counter's context distinguishes
MAX_COUNTERS = 24


class Predictors(NamedTuple):
    """What the predictors of a plane have learnt, each array flat, and scratch.

    Attributes:
        cov: int32, per predictor, bank and pair of inputs; rest: int64, per predictor, bank and input: what the weights
            leave of the products with the error; wgt: int32, the weights, 16 bits of fraction.
        past: int32, per predictor, three rows and a column: errors in eighths.
        inputs, weighed: int32, scratch.
        bank, guess, base, slots: int64, scratch; stretched: int32, scratch.
    """

    cov: np.ndarray
    rest: np.ndarray
    wgt: np.ndarray
    past: np.ndarray
    inputs: np.ndarray
    weighed: np.ndarray
    bank: np.ndarray
    guess: np.ndarray
    base: np.ndarray
    slots: np.ndarray
    stretched: np.ndarray


def predictors(kinds: int, banks: int, n: int, stride: int) -> Predictors:
    """Fresh ones: `kinds` of `n` inputs, with at most so many banks each."""
    room = -(-n // WIDTH) * WIDTH
    cov = np.tile(np.eye(room, dtype=np.int32).reshape(-1) << 12, kinds * banks)
    rest, wgt = np.zeros(kinds * banks * room, np.int64), np.zeros(kinds * banks * room, np.int32)
    past, inputs, weighed = np.zeros(kinds * 3 * stride, np.int32), np.zeros(room, np.int32), np.zeros(room, np.int32)
    bank, guess, base, slots = np.zeros((4, MAX_COUNTERS), np.int64)
    stretched = np.zeros(MAX_COUNTERS, np.int32)
    return Predictors(cov, rest, wgt, past, inputs, weighed, bank, guess, base, slots, stretched)


@part
def learn(cov, rest, wgt, at, v, n, room, e, decay, turn):  # type: ignore[no-untyped-def]
    """One step of recursive least squares: forget, add a sample, put three of the weights right.

    at: number of the bank; v: (room,) weighed inputs, below 2**9, the first n count; e: weighed error in eighths.
    """
    own = at * room
    whole = own * room
    for i in range(n):
        for j in range(0, room, WIDTH):
            products_fade(cov, whole + i * room, v, j, int(v[i]), decay)
    for j in range(0, room, WIDTH):
        rest_fade(rest, own, v, j, e, decay)
    for z in range(3):
        i = (turn + z) % n
        row = whole + i * room
        g = (int(rest[own + i]) << 15) // (int(cov[row + i]) + 256)
        g = min(max(g, -(1 << 18)), 1 << 18)
        wgt[own + i] = min(max(int(wgt[own + i]) + g, -(1 << 20)), 1 << 20)
        for j in range(0, room, WIDTH):
            rest_less(rest, own, cov, row, j, g)


def nodes_of(top: int) -> int:
    """How many different decisions there are in samples 0..top."""
    return 4 * (bucket_of(top) + 1) + 8


def memory_of(top: int, counters: int) -> np.ndarray:
    """Fresh memory for planes of samples 0..top."""
    nodes = nodes_of(top)
    return np.concatenate(
        [
            np.full(counters * CONTEXTS * nodes, START, np.int32),
            np.full(nodes * counters, (65536 * 22 // 10) // counters, np.int32),
            np.zeros(ENERGIES * nodes * counters, np.int32),
            refining(ENERGIES * nodes),
            np.zeros(4 * _BIAS, np.int32),
        ]
    )


@loop
def code_plane(  # type: ignore[no-untyped-def]
    coder, words, x, offset, refs, err, before, known, size, taps, near, spec, top, memory, state, counters, pace, limit
):
    """Code a plane; 0, -1 where a decoder meets what no encoder writes, or FULL.

    x: flat, with margins; filled by a decoder. Its samples are those of the picture less `offset` (of the same form).
    refs: (R, flat) earlier planes, complete; err: errors in eighths, flat, filled; before: those of the last plane.
    known: bool, samples that are not coded; size: (height, width, stride); taps: (n,) steps from a sample to its
    earlier neighbours; near: the same to the neighbours in each reference. spec: (M, 2) predictors: log2 of their
    memory, and how many columns share one (-1: those of like slopes). state: `Predictors`.
    """
    height, width, stride = size
    first = MARGIN * stride + MARGIN
    own, around, many, kinds = taps.shape[0], near.shape[0], refs.shape[0], spec.shape[0]
    n = own + around * many
    cov, rest, wgt, past, u, v, bank, guess, base, slots, stretched = state
    room = (n + WIDTH - 1) // WIDTH * WIDTH
    banks = wgt.shape[0] // max(kinds * room, 1)
    buckets = bucket_of(top) + 1
    nodes = 4 * buckets + 8
    sign_at, place_at = 2 * buckets, 2 * buckets + 8
    weights = counters * CONTEXTS * nodes
    more = weights + nodes * counters
    cells = more + ENERGIES * nodes * counters
    bias = cells + ENERGIES * nodes * CELLS
    reads = int(coder[4]) == 1
    depth = 0
    while top >> depth > 127:
        depth += 1
    turn = 0
    for y in range(height):
        if not reads and int(coder[3]) + MOST_WORDS * width + 8 > words.shape[0]:
            return FULL
        row = first + y * stride
        fill = int(x[row - stride])
        for k in range(1, MARGIN + 1):
            x[row - k] = fill
        for col in range(width):
            at = row + col
            if known[at]:
                for q in range(kinds):
                    past[(3 * q + y % 3) * stride + col + MARGIN] = 0
                continue
            w, nn, ne, nw = int(x[at - 1]), int(x[at - stride]), int(x[at - stride + 1]), int(x[at - stride - 1])
            n2 = int(x[at - 2 * stride])
            ew, en, ene, enw = (
                int(err[at - 1]),
                int(err[at - stride]),
                int(err[at - stride + 1]),
                int(err[at - stride - 1]),
            )
            energy = (
                2 * (abs(ew) + abs(en))
                + abs(ene)
                + abs(enw)
                + ((abs(int(err[at - 2])) + abs(int(err[at - 2 * stride]))) >> 1)
            )
            e1 = level(energy >> 1)
            off = int(offset[at])
            low, high = -off << 3, (top - off) << 3

            # prediction
            if kinds == 0:
                mean = min(max(w + nn - nw, min(w, nn)), max(w, nn)) << 3
                guess[0], guess[1] = (w + ((ne - nw) >> 1)) << 3, (w + nn) << 2
            else:
                m = (3 * w + 3 * nn + 2 * ne + 4) >> 3
                for i in range(own):
                    u[i] = int(x[at + taps[i]]) - m
                k = own
                for r in range(many):
                    g = int(refs[r, at])
                    for i in range(around):
                        u[k] = int(refs[r, at + near[i]]) - g
                        k += 1
                slopes = (1 if w > nn else 0) + (2 if nn > nw else 0) + (4 if ne > nn else 0) + (8 if w > nw else 0)
                num, den = 0, 0
                for q in range(kinds):
                    k = slopes if spec[q, 1] < 0 else col // spec[q, 1]
                    k += q * banks
                    bank[q] = k
                    dot = 0
                    for i in range(0, room, WIDTH):
                        dot += product_sum(wgt, k * room, u, i)
                    g = min(max((m << 3) + ((dot + 4096) >> 13), low), high)
                    guess[q] = g
                    if kinds == 1:
                        continue
                    k = 3 * q * stride + col + MARGIN
                    here, above, twice = k + y % 3 * stride, k + (y + 2) % 3 * stride, k + (y + 1) % 3 * stride
                    spread = 2 * (int(past[here - 1]) + int(past[above])) + int(past[above + 1]) + int(past[above - 1])
                    spread += (
                        int(past[here - 2]) + int(past[twice]) + int(past[above + 2]) + int(past[above - 2])
                    ) >> 1
                    spread = min(spread >> depth, 1 << 13)
                    share = (1 << 44) // (spread * spread * spread + 64)
                    num += (g - (m << 3)) * share
                    den += share
                mean = (m << 3) + num // den if kinds > 1 else guess[0]
            raw = min(max(mean, low), high)

            # the mean error in two contexts
            g = raw >> 3
            texture = (1 if nn > g else 0) | (2 if w > g else 0) | (4 if nw > g else 0) | (8 if ne > g else 0)
            texture |= (16 if n2 > g else 0) | (32 if int(x[at - 2]) > g else 0)
            texture |= (64 if 2 * nn - n2 > g else 0) | (128 if 2 * w - int(x[at - 2]) > g else 0)
            eref = int(before[at])
            b1 = bias + 2 * (texture * 8 + (e1 >> 3))
            b2 = bias + 2 * _BIAS + 2 * ((signed(eref) * 11 + signed(ew)) * 11 + signed(en))
            k = int(memory[b1]) * int(RECIPROCAL[memory[b1 + 1]]) + int(memory[b2]) * int(RECIPROCAL[memory[b2 + 1]])
            mean = raw + (k >> 17)
            mean = min(max(mean, low), high)
            p = (mean + 4) >> 3

            # contexts
            fraction = mean - (p << 3) + 4
            pa = p + off
            half = e1 >> 1
            slope = level((abs(w - nw) + abs(nn - nw) + abs(nn - ne)) << 2)
            base[0] = (e1 * 8 + fraction) * nodes
            base[1] = (half * ENERGIES + slope) * nodes
            base[2] = (half * 11 + signed(eref) if many else signed(ew) * 11 + signed(ene)) * nodes
            base[3] = (half * 11 + signed(guess[0] - mean)) * nodes
            if counters > 4:
                base[4] = (signed(ew) * 11 + signed(en)) * nodes
                base[5] = ((pa >> depth) * 6 + (e1 >> 3)) * nodes
                if many:
                    g = int(refs[many - 1, at])
                    k = w + g - int(refs[many - 1, at - 1])
                    g += nn - int(refs[many - 1, at - stride])
                else:
                    k, g = nn + w - nw, 2 * nn - n2
                base[6] = (signed((k << 3) - mean) * 11 + signed((g << 3) - mean)) * nodes
                base[7] = (half * 16 + (texture & 15)) * nodes
            if counters > 8:
                base[8] = (signed(guess[0] - mean) * 11 + signed(guess[1] - mean)) * nodes
                wide = abs(ew) + abs(en) + abs(ene) + abs(enw) + abs(int(err[at - 2])) + abs(int(err[at - 2 * stride]))
                wide += abs(int(err[at - 3])) + abs(int(err[at - stride + 2])) + abs(int(err[at - stride - 2]))
                wide += abs(int(err[at - 2 * stride + 1])) + abs(int(err[at - 2 * stride - 1]))
                base[9] = (level(wide >> 1) * 12 + (e1 >> 2)) * nodes
                wide = abs(int(before[at + 1])) + abs(int(before[at + stride])) + 2 * abs(eref)
                base[10] = ((level(wide) >> 1) * 24 + half) * nodes
                base[11] = (signed(ew) * 11 + signed(eref)) * nodes
                if counters > 12:  # how far the predictors and simpler guesses are apart
                    d0, d1, d2 = signed(guess[0] - mean), signed(guess[1] - mean), signed(guess[kinds - 1] - mean)
                    base[12] = (half * 11 + d1) * nodes
                    base[13] = (half * 11 + d2) * nodes
                    base[14] = ((d1 * 11 + d2) * 8 + fraction) * nodes
                    base[15] = (signed((w << 3) - mean) * 11 + signed((nn << 3) - mean)) * nodes
                    if counters > 16:
                        quarter = e1 >> 2
                        base[16] = ((d0 * 11 + d1) * 12 + quarter) * nodes
                        base[17] = (level(wide) * 8 + fraction) * nodes
                        east, south = signed(int(before[at + 1])), signed(int(before[at + stride]))
                        base[18] = ((signed(eref) * 11 + east) * 11 + south) * nodes
                        base[19] = ((d0 * 11 + d2) * 12 + quarter) * nodes
                        base[20] = ((d0 * 11 + d2) * 11 + d1) * nodes
                        base[21] = (half * 11 + signed(((w + nn - nw) << 3) - mean)) * nodes
                        if many:
                            g = int(refs[many - 1, at])
                            k, g = int(refs[many - 1, at + 1]) - g, int(refs[many - 1, at + stride]) - g
                        else:
                            k, g = int(x[at - 2]) - w, ne - nn
                        base[22] = ((signed(k << 3) * 11 + signed(g << 3)) * 12 + quarter) * nodes
                        k, g = signed(((w + ne - nn) << 3) - mean), signed(((2 * nn - n2) << 3) - mean)
                        base[23] = ((k * 11 + g) * 8 + fraction) * nodes
            for i in range(counters):
                base[i] += i * CONTEXTS * nodes

            # decisions: up or down from a bucket that is likely, the sign, the place in the bucket
            e = int(x[at]) - p
            a = abs(e)
            b = 0 if reads else bucket_of(a)
            most = bucket_of(max(pa, top - pa))
            t = min(max(e1 * 5 // 12 - 1, 0), 2 * 12) + 1
            start = t
            up = 1
            if t > most:
                t, up = most, 0
            stage = 0 if t > 0 else 3
            got, neg, k, place = 0, 0, 0, 0
            while stage < 3:
                if stage == 0:
                    node, bit = 2 * t - 1 + up, 1 if b >= t else 0
                elif stage == 1:
                    node, bit = sign_at + min(got, 8) - 1, 1 if e < 0 else 0
                else:
                    node = place_at + 2 * got + (int(BITS[got]) - 1 - k)
                    bit = ((a - int(LOW[got])) >> k) & 1
                for i in range(counters):
                    slots[i] = base[i] + node
                own_weights = more + (e1 * nodes + node) * counters
                cell = cells + (e1 * nodes + node) * CELLS
                if counters == 4 or stage > 1:
                    bit = decide(
                        coder, words, memory, slots, 4, weights + node * counters, own_weights, cell, pace, limit,
                        stretched, bit,
                    )  # fmt: skip
                elif counters == 8:
                    bit = decide(
                        coder, words, memory, slots, 8, weights + node * counters, own_weights, cell, pace, limit,
                        stretched, bit,
                    )  # fmt: skip
                else:
                    bit = decide(
                        coder, words, memory, slots, counters, weights + node * counters, own_weights, cell, pace,
                        limit, stretched, bit,
                    )  # fmt: skip
                if stage == 0:
                    if bit:
                        got = t
                        t += 1
                        if not up or t > most:
                            stage = 1
                    elif up and t < start + 1 and t > 1:
                        t, up = t - 1, 0
                    elif up:
                        stage = 1
                    else:
                        t -= 1
                        if t == 0:
                            stage = 1
                    if stage == 1:
                        if got == 0:
                            stage = 3
                        elif pa - int(LOW[got]) < 0 or pa + int(LOW[got]) > top:
                            neg = 1 if pa + int(LOW[got]) > top else 0
                            stage, k = 2, int(BITS[got]) - 1
                elif stage == 1:
                    neg = bit
                    stage, k = 2, int(BITS[got]) - 1
                else:
                    place = place * 2 + bit
                    k -= 1
                if stage == 2 and k < int(BITS[got]) - _MODELLED:
                    if k >= 0:
                        place = (place << (k + 1)) | even(coder, words, k + 1, (a - int(LOW[got])) & ((2 << k) - 1))
                    stage = 3
                if stage == 2 and k < 0:
                    stage = 3
            a = int(LOW[got]) + place
            s = p - a if neg else p + a
            if reads:
                if s + off < 0 or s + off > top:
                    return -1
                x[at] = s

            # learning
            e = (s << 3) - mean
            err[at] = e
            e = (s << 3) - raw
            for b in (b1, b2):
                memory[b] += e
                memory[b + 1] += 1
                if memory[b + 1] >= 255:
                    memory[b] = int(memory[b]) >> 1
                    memory[b + 1] = int(memory[b + 1]) >> 1
            if kinds:
                f = int(WEIGHT[e1])
                for i in range(n):
                    v[i] = min(max((int(u[i]) * f) >> 12, -SCALE), SCALE)
                for q in range(kinds):
                    e = (s << 3) - guess[q]
                    past[(3 * q + y % 3) * stride + col + MARGIN] = abs(e)
                    e = min(max((e * f) >> 12, -8 * SCALE), 8 * SCALE)
                    learn(cov, rest, wgt, bank[q], v, n, room, e, int(spec[q, 0]), turn)
                turn += 3
        fill, last = int(x[row + width - 1]), row + width
        for k in range(MARGIN):
            x[last + k] = fill
        for q in range(kinds):
            at = (3 * q + y % 3) * stride + width + MARGIN
            for k in range(MARGIN):
                past[at + k] = past[at - 1]
        if reads and int(coder[3]) > words.shape[0] + 4:
            return -1
    return 0
