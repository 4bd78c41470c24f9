"""Several latents of one shape under a context model, decoded in lockstep: a lane each.

Alone, a latent keeps a core waiting: each symbol of a stream needs the state that the last one left. Here the same
point of LANES latents is foretold by one product, and their streams are read in turn. Lanes know nothing of each other:
what each holds is what `passes` would decode.

The store holds two padded planes a channel, what taps make of values and of magnitudes, then the same of the coarse
grid of the channel in work, then a zero: (plane, row, column, lane) int8. Padding mirrors, as in `steps`.

A network is one array as in `passes`.
"""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit
from ...kernels.pairs import WIDTH
from ...kernels.tile import copy_line, hidden_tile, last_tile, pairs_tile
from .chunk import MAX_STREAMS, cursors, sections, words_of
from .coder import read_escape
from .passes import BASE, DIAGONAL, REACH, conclude, first_column, lattice, mirrored, parts

LANES = WIDTH
POINTS = 8  # whose taps and sums lie in a core's nearest cache
_u = np.uint64


@_jit
def room(planes, h, w):  # type: ignore[no-untyped-def]
    """How many bytes the store of latents of so many channels takes."""
    coarse = (((h + 1) >> 1) + 2 * REACH) * (((w + 1) >> 1) + 2 * REACH)
    return LANES * (2 * planes * (h + 2 * REACH) * (w + 2 * REACH) + 2 * coarse + 1)


@_jit
def _grid(planes, channel, h, w, stride):  # type: ignore[no-untyped-def]
    """Where values of the grid of a stride begin in the store, and its padded rows and columns; magnitudes follow."""
    plane = LANES * (h + 2 * REACH) * (w + 2 * REACH)
    if stride == 1:
        return 2 * plane * channel, h + 2 * REACH, w + 2 * REACH
    return 2 * plane * planes, (h + stride - 1) // stride + 2 * REACH, (w + stride - 1) // stride + 2 * REACH


@_jit
def _border(store, base, rows, cols):  # type: ignore[no-untyped-def]
    """Mirror the samples of a plane, whose padded rows and columns are given, about its border."""
    for k in range(2 * REACH):
        x = k if k < REACH else cols - 2 * REACH + k
        c = mirrored(x - REACH, cols - 2 * REACH) + REACH
        for y in range(REACH, rows - REACH):
            copy_line(store, base + LANES * (y * cols + c), store, base + LANES * (y * cols + x))  # type: ignore[call-arg]
    wide = LANES * cols
    for k in range(2 * REACH):
        y = k if k < REACH else rows - 2 * REACH + k
        there, here = base + y * wide, base + (mirrored(y - REACH, rows - 2 * REACH) + REACH) * wide
        store[there : there + wide] = store[here : here + wide]


@_jit
def _refine(store, planes, channel, h, w, stride):  # type: ignore[no-untyped-def]
    """Begin the grid of a stride: samples at its even points, zero elsewhere."""
    base, rows, cols = _grid(planes, channel, h, w, stride)
    size = LANES * rows * cols
    if stride > 1:
        full, wide = _grid(planes, channel, h, w, 1)[0], w + 2 * REACH
        plane = LANES * (h + 2 * REACH) * wide
        store[base : base + 2 * size] = 0
        for y in range(0, rows - 2 * REACH, 2):
            for x in range(0, cols - 2 * REACH, 2):
                here = full + LANES * ((y * stride + REACH) * wide + x * stride + REACH)
                there = base + LANES * ((y + REACH) * cols + x + REACH)
                copy_line(store, here, store, there)  # type: ignore[call-arg]
                copy_line(store, here + plane, store, there + size)  # type: ignore[call-arg]
    _border(store, base, rows, cols)
    _border(store, base + size, rows, cols)


@_jit
def _predict(store, net, start, drop, planes, channel, h, w, stride, kind, index, offset):  # type: ignore[no-untyped-def]
    """Table index and offset (points, lanes) of every point of a step, in the order of its rows; how many points."""
    units, pairs, taps, bias, shift, front, rear, b = parts(net)
    rows, cols, y0, dy, x0, dx = lattice(kind, h, w, stride)
    own, own_rows, own_wide = _grid(planes, channel, h, w, stride)
    own_size, wide = LANES * own_rows * own_wide, w + 2 * REACH
    plane = LANES * (h + 2 * REACH) * wide
    where, down, across = np.empty(2 * pairs, np.int64), np.empty(2 * pairs, np.int64), np.empty(2 * pairs, np.int64)
    for f in range(2 * pairs):
        what, back, ty, tx = np.int64(taps[f, 0]), np.int64(taps[f, 1]), np.int64(taps[f, 2]), np.int64(taps[f, 3])
        if back:
            where[f] = plane * (2 * (channel - back) + what) + LANES * ((ty + REACH) * wide + tx + REACH)
            down[f], across[f] = LANES * stride * wide, LANES * stride
        elif kind == BASE:  # nothing is known yet
            where[f], down[f], across[f] = store.size - LANES, 0, 0
        else:
            where[f] = own + what * own_size + LANES * ((ty + REACH) * own_wide + tx + REACH)
            down[f], across[f] = LANES * own_wide, LANES
    at, step = np.empty(2 * pairs, np.int64), dx * across

    block = POINTS * LANES
    x = np.empty((max(pairs, 1), block), np.int32)
    y, hidden = np.empty((2, block), np.int32), np.empty((units >> 1, block), np.int32)
    n, done = 0, 0
    for gy in range(y0, rows, dy):
        first = first_column(x0, kind, gy)
        for f in range(2 * pairs):
            at[f] = where[f] + gy * down[f] + first * across[f]
        for _ in range(first, cols, dx):
            pairs_tile(store, at, step, x, n, pairs)  # type: ignore[call-arg]
            for o in range(0, units, 4):
                hidden_tile(front, x, bias, shift, 255, hidden, o, n, pairs)  # type: ignore[call-arg]
            last_tile(front, x, pairs, rear, hidden, units >> 1, units, y, n)  # type: ignore[call-arg]
            n += LANES
            if n == block:
                conclude(y, b, start, drop, n, index[done : done + n], offset[done : done + n])
                done += n
                n = 0
    if n:
        conclude(y, b, start, drop, n, index[done : done + n], offset[done : done + n])
    return (done + n) // LANES


@_jit
def _aside(data, side, lane, value, bits):  # type: ignore[no-untyped-def]
    """A symbol of a lane that goes on in its side sections.

    side[lane:]: where its raw section begins in data, the next bit of it, its bits, its next escape, where they end,
    and whether something failed.
    """
    raw_at, bit, end, escape = lane, lane + _u(1), lane + _u(2), lane + _u(3)
    if bits == 31:
        error, value, side[escape] = read_escape(data, side[escape], side[lane + _u(4)])
        if error:
            side[lane + _u(5)] = 1
        return value
    begin = side[bit]
    if begin + bits > side[end]:
        side[lane + _u(5)] = 1
        return np.int64(0)
    side[bit] = begin + bits
    low = np.int64(0)
    first = side[raw_at] + (begin >> 3)
    for i in range(min(np.int64(5), (side[end] >> 3) - (begin >> 3))):
        low |= np.int64(data[_u(first + i)]) << (8 * i)
    return (value << bits) | ((low >> (begin & 7)) & ((np.int64(1) << bits) - 1))


@_jit
def _read(data, side, state, ptr, begin, words, mask, phase, lut, entries, n, index, symbols):  # type: ignore[no-untyped-def]
    """n symbols of every lane, as `coder.decode_lut_raw` reads them; stream j of a lane is at j * LANES + lane.

    lut: (tables << 8,) uint8, the entry in which each 256th of the quantiles begins. So all tables stay in a core's
    nearer caches, and most symbols are found at once.
    """
    one, wide = _u(1), _u(LANES)
    for i in range(_u(n)):
        for lane in range(wide):
            p = i * wide + lane
            t = _u(index[p])
            j = ((_u(phase) + i) & mask[lane]) * wide + lane
            s = state[j]
            q = s & _u(0xFFFFFF)
            t <<= _u(8)
            t |= _u(lut[t | (q >> _u(16))])
            entry = entries[t]
            while (q >> _u(12)) - ((entry >> _u(25)) & _u(0xFFF)) >= ((entry >> _u(12)) & _u(0x1FFF)):
                t += one
                entry = entries[t]
            s = (s >> _u(24)) * (entry & _u(0x1FFF000)) + q - ((entry >> _u(13)) & _u(0xFFF000))
            # a word more without a branch: nobody could foretell it
            at = ptr[j]
            more = _u(s < _u(0x100000000)) & _u(at > begin[j])
            state[j] = (s << (more << _u(5))) | (_u(words[at - one]) & (_u(0) - more))
            ptr[j] = at - more
            v = np.int64(entry) >> np.int64(37)
            if entry & _u(31):
                v = _aside(data, side, lane * _u(6), v, np.int64(entry & _u(31)))
            symbols[p] = np.int32(v)


@_jit
def _keep(store, tables, samples, symbols, offset, sizes, planes, channel, h, w, stride, kind, n, limit):  # type: ignore[no-untyped-def]
    """Put n points of a step where they belong: into samples (h * w, lanes) and the grids that later steps read.

    Samples beyond the limit are kept as the first beyond it.
    """
    rows, cols, y0, dy, x0, dx = lattice(kind, h, w, stride)
    own, own_rows, own_wide = _grid(planes, channel, h, w, stride)
    full, wide = _grid(planes, channel, h, w, 1)[0], w + 2 * REACH
    plane, own_size = LANES * (h + 2 * REACH) * wide, LANES * own_rows * own_wide
    value, magnitude = tables[2 * channel], tables[2 * channel + 1]
    least, most, gain, beyond = np.int32(-127), np.int32(127), np.int32(value[129]), np.int32(limit + 1)
    exact, seen = sizes[2 * symbols.size :].view(np.int16), _u(symbols.size)
    for i in range(_u(n * LANES)):
        v = np.int32(symbols[i] + offset[i])
        symbols[i] = v
        exact[i] = np.int16(min(max(v, -beyond), beyond))
    for i in range(_u(n * LANES)):
        sizes[i] = np.int8(min(max(min(max(symbols[i], least), most) * gain, least), most))
    for i in range(_u(n * LANES)):
        sizes[seen + i] = magnitude[_u(min(max(symbols[i], least), most) + np.int32(128))]
    done = 0
    for gy in range(y0, rows, dy):
        for gx in range(first_column(x0, kind, gy), cols, dx):
            p = full + LANES * ((gy * stride + REACH) * wide + gx * stride + REACH)
            copy_line(exact, done, samples, LANES * (gy * stride * w + gx * stride))  # type: ignore[call-arg]
            copy_line(sizes, done, store, p)  # type: ignore[call-arg]
            copy_line(sizes, symbols.size + done, store, p + plane)  # type: ignore[call-arg]
            if stride > 1 and kind != BASE:
                there = own + LANES * ((gy + REACH) * own_wide + gx + REACH)
                copy_line(sizes, done, store, there)  # type: ignore[call-arg]
                copy_line(sizes, symbols.size + done, store, there + own_size)  # type: ignore[call-arg]
            done += LANES
    if kind != BASE:
        _border(store, own, own_rows, own_wide)
        _border(store, own + own_size, own_rows, own_wide)


@_jit
def _hand_out(samples, out, first, apart, size, lanes, limit, side):  # type: ignore[no-untyped-def]
    """samples (size, LANES) of a channel into out[first + lane * apart :] of every lane, and notes those beyond."""
    some, top = _u(64), np.int32(limit)
    for begin in range(_u(0), _u(size), some):
        end = min(begin + some, _u(size))
        for lane in range(_u(lanes)):
            to, high = _u(first) + lane * _u(apart), np.int32(0)
            for i in range(begin, end):
                v = samples[i * _u(LANES) + lane]
                out[to + i] = v
                high = max(high, np.int32(abs(np.int32(v))))
            if high > top:
                side[lane * _u(6) + _u(5)] = 1


@_jit
def decode(data, cuts, lut, entries, store, tables, nets, starts, steps, start, drop, limit, h, w, out, good):  # type: ignore[no-untyped-def]
    """Decode chunks, each data[cuts[i] : cuts[i + 1]], into out (n, C, h * w); good[i] says whether that worked.

    At most LANES of them; lut, entries: of the model's bank, see `_read`. tables: (2 C, 256) int16. nets: as in
    `passes`, that of step i from starts[i] on; steps: (n, 3) channel, stride and kind. limit: largest magnitude
    allowed.
    """
    lanes, planes, size = out.shape
    state, mask = np.zeros(MAX_STREAMS * LANES, np.uint64), np.zeros(LANES, np.uint64)
    ptr, begin = np.ones(MAX_STREAMS * LANES, np.uint64), np.ones(MAX_STREAMS * LANES, np.uint64)
    side, count = np.zeros(6 * LANES, np.int64), np.empty(MAX_STREAMS, np.int64)
    first, unread, none = (
        np.empty(MAX_STREAMS, np.uint64),
        np.empty(MAX_STREAMS, np.int64),
        np.empty(MAX_STREAMS, np.int64),
    )
    words = np.zeros(((cuts[lanes] - cuts[0]) >> 2) + lanes + 2, np.uint32)
    at = np.int64(1)
    for lane in range(lanes):
        chunk, its = data[cuts[lane] : cuts[lane + 1]], side[6 * lane : 6 * lane + 6]
        streams, pos, raw_size, escape_size = sections(chunk, count)
        its[5] = 1
        if streams:
            total = words_of(chunk, pos + raw_size + escape_size, words, at)
            if cursors(words, count, streams, at, first, unread, none):
                pos += cuts[lane]
                its[0], its[2] = pos, 8 * raw_size
                its[3], its[4], its[5] = pos + raw_size, pos + raw_size + escape_size, 0
                mask[lane] = _u(streams - 1)
                for j in range(streams):
                    k = j * LANES + lane
                    state[k], ptr[k], begin[k] = first[j], _u(unread[j]), _u(none[j])
            at += total

    most = size * LANES
    index, offset, symbols = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    samples, sizes, flat = np.empty(most, np.int16), np.empty(4 * most, np.int8), out.reshape(-1)
    plane = 2 * LANES * (h + 2 * REACH) * (w + 2 * REACH)
    store[store.size - LANES :] = 0
    phase, before = np.int64(0), np.int64(-1)
    for i in range(steps.shape[0]):
        channel, stride, kind = steps[i]
        if channel != before:
            store[plane * channel : plane * (channel + 1)] = 0
            before = channel
        if kind == DIAGONAL:
            _refine(store, planes, channel, h, w, stride)
        net = nets[starts[i] : starts[i + 1]]
        n = _predict(store, net, start, drop, planes, channel, h, w, stride, kind, index, offset)
        _read(data, side, state, ptr, begin, words, mask, phase, lut, entries, n, index, symbols)
        phase += n
        _keep(store, tables, samples, symbols, offset, sizes, planes, channel, h, w, stride, kind, n, limit)
        if i + 1 == steps.shape[0] or steps[i + 1, 0] != channel:
            _hand_out(samples, flat, channel * size, planes * size, size, lanes, limit, side)

    for lane in range(lanes):
        raw_at, bit, bits, escape, end, failed = side[6 * lane : 6 * lane + 6]
        ok = not failed and escape == end and (bit + 7) >> 3 << 3 == bits  # all was read
        if ok and bit & 7:
            ok = data[raw_at + (bit >> 3)] >> (bit & 7) == 0
        for j in range(lane, MAX_STREAMS * LANES, LANES):
            ok = ok and state[j] == 0 and ptr[j] == begin[j]
        good[lane] = ok
