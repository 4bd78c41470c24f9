"""The passes of a context model, compiled: what a step reads, its network and its tables, block by block.

Samples lie as their network sees them, int16 values, magnitudes and log sums around, in planes padded by REACH on each
side. A row holds its even columns first and then its odd ones, so that the points of a step, which lie two or more
columns apart, are read one after the other. All sums are integers. `context.net` defines the numbers.

The store holds three such planes a channel, then the sizes (absolute samples) of the channel in work, then values,
magnitudes and sizes of its coarse grid, a row of sums around the points of a step, and a zero.

A network is one int32 array: its hidden units H and pairs of taps K; for every tap (what, back, dy, dx); H biases and
H shifts; (H + 2) x K pairs of weights (hidden units, then mean and scale); 2 x H / 2 pairs; 2 biases. Taps are made
even and units a multiple of four by those of weight 0.
"""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit
from ...kernels.pairs import WIDTH
from ...kernels.tile import hidden_tile, last_tile
from .coder import decode_four, decode_lut_raw
from .rows import inlined

REACH = 3
SOME = 64  # symbols that the general loop reads before four streams are tried again
BLOCK = 256  # points whose taps and sums lie in a core's nearer caches
MEAN_BITS, FRACTION_BITS, CLASS_BITS = 12, 4, 10

BASE, DIAGONAL, ACROSS, DOWN, EVEN, ODD = range(6)


@_jit
def lattice(kind, h, w, stride):  # type: ignore[no-untyped-def]
    """Of a step, on the grid of its stride: rows, columns, first row, step of rows, first column, step of columns."""
    rows, cols = (h + stride - 1) // stride, (w + stride - 1) // stride
    y0 = np.int64((kind == DIAGONAL) | (kind == DOWN))
    x0 = np.int64((kind == DIAGONAL) | (kind == ACROSS) | (kind == ODD))
    dy = np.int64(1 if kind == BASE or kind >= EVEN else 2)
    dx = np.int64(1 if kind == BASE else 2)
    return rows, cols, y0, dy, x0, dx


@_jit
def first_column(x0, kind, y):  # type: ignore[no-untyped-def]
    """First column of row y."""
    return x0 ^ (y & 1) if kind >= EVEN else x0


@_jit
def mirrored(i, n):  # type: ignore[no-untyped-def]
    if n == 1:
        return 0
    i %= 2 * (n - 1)
    return 2 * (n - 1) - i if i >= n else i


@_jit
def _half(cols):  # type: ignore[no-untyped-def]
    """Columns of either parity in a padded row."""
    return (cols + 2 * REACH + 1) >> 1


@_jit
def _border(store, base, rows, cols):  # type: ignore[no-untyped-def]
    """Mirror the samples of a padded plane about its border."""
    half = _half(cols)
    wide = np.uint64(2 * half)
    for k in range(2 * REACH):
        x = k if k < REACH else cols + k
        c = mirrored(x - REACH, cols) + REACH
        there = np.uint64(base + REACH * 2 * half + (x & 1) * half + (x >> 1))
        here = np.uint64(base + REACH * 2 * half + (c & 1) * half + (c >> 1))
        for _ in range(rows):
            store[there] = store[here]
            there += wide
            here += wide
    for k in range(2 * REACH):
        y = k if k < REACH else rows + k
        there, here = base + y * 2 * half, base + (mirrored(y - REACH, rows) + REACH) * 2 * half
        store[there : there + 2 * half] = store[here : here + 2 * half]


@_jit
def _grid(planes, channel, h, w, stride):  # type: ignore[no-untyped-def]
    """Where values and sizes of the grid of a stride lie in the store, and the size of a plane; magnitudes follow
    values."""
    plane = 2 * _half(w) * (h + 2 * REACH)
    if stride == 1:
        return 3 * plane * channel, 3 * plane * planes, plane
    rows, cols = (h + stride - 1) // stride, (w + stride - 1) // stride
    coarse = 2 * _half(cols) * (rows + 2 * REACH)
    base = (3 * planes + 1) * plane
    return base, base + 2 * coarse, coarse


@_jit
def room(planes, h, w):  # type: ignore[no-untyped-def]
    """How many int16 the store of a latent of so many channels takes."""
    coarse = 2 * _half((w + 1) >> 1) * (((h + 1) >> 1) + 2 * REACH)
    return (3 * planes + 1) * 2 * _half(w) * (h + 2 * REACH) + 3 * coarse + _half(w) + 1


@_jit
def _refine(store, base, sizes, plane, values, rows, cols, samples, w, stride):  # type: ignore[no-untyped-def]
    """Begin the grid of a stride: samples at its even points, zero elsewhere."""
    half = _half(cols)
    store[base : base + 2 * plane] = np.int16(0)
    store[sizes : sizes + plane] = np.int16(0)
    for y in range(0, rows, 2):
        row = (y + REACH) * 2 * half + (REACH & 1) * half + (REACH >> 1)
        for x in range(0, cols, 2):
            s = min(max(samples[y * stride * w + x * stride], -127), 127)
            store[base + row + (x >> 1)] = values[0, s + 128]
            store[base + row + plane + (x >> 1)] = values[1, s + 128]
            store[sizes + row + (x >> 1)] = abs(s)
    _border(store, base, rows, cols)
    _border(store, base + plane, rows, cols)
    _border(store, sizes, rows, cols)


# Loops that are called a row at a time are inlined: counting the references of arrays costs more than a row's symbols.
# Positions are unsigned: numba would let signed ones count from the end, and not vectorise for it.


@inlined
def _logs(total, floats, bits, store, at, n):  # type: ignore[no-untyped-def]
    """n sums of sizes to what taps read of them, as in `net.log_sum`; bits are those of floats."""
    for i in range(np.uint64(n)):
        floats[i] = np.float32(np.int32(1) + np.int32(total[i]))
    for i in range(np.uint64(n)):
        store[np.uint64(at) + i] = np.int16((bits[i] >> np.int32(20)) - np.int32(127 << 3))


@_jit
def _surround(store, sizes, out, rows, cols):  # type: ignore[no-untyped-def]
    """Sums around every sample of a channel that is known, from its sizes to the plane at out; forgets the sizes."""
    half = np.uint64(_half(cols))
    one, wide = np.uint64(1), np.uint64(2) * half
    column, total, floats = np.empty(wide, np.int16), np.zeros(wide, np.int16), np.empty(wide, np.float32)
    bits = floats.view(np.int32)
    for y in range(REACH, rows + REACH):
        a = np.uint64(sizes) + np.uint64(y - 1) * wide
        b, c = a + wide, a + wide + wide
        for i in range(wide):
            column[i] = store[a + i] + store[b + i] + store[c + i]
        for i in range(half - one):
            total[i + one] = column[half + i] + column[i + one] + column[half + i + one]
            total[half + i] = column[i] + column[half + i] + column[i + one]
        _logs(total, floats, bits, store, np.uint64(out) + np.uint64(y) * wide, wide)
    _border(store, out, rows, cols)
    store[sizes : sizes + 2 * _half(cols) * (rows + 2 * REACH)] = np.int16(0)


@inlined
def _around(store, total, floats, bits, sizes, half, kind, gy, c, n, out):  # type: ignore[no-untyped-def]
    """Sums of what is known and touches the points of a step: n from padded column c of row gy on, two apart."""
    for i in range(np.uint64(n)):
        total[i] = np.int16(0)
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            edge = (dy == 0) != (dx == 0)
            corner = dy != 0 and dx != 0
            if (edge and kind != DIAGONAL) or (corner and kind in (DIAGONAL, DOWN)):
                p = np.uint64(sizes + 2 * half * (gy + REACH + dy) + ((c + dx) & 1) * half + ((c + dx) >> 1))
                for i in range(np.uint64(n)):
                    total[i] += store[p + i]
    _logs(total, floats, bits, store, out, n)


@_jit
def conclude(y, b, start, drop, n, index, offset):  # type: ignore[no-untyped-def]
    """Sums of the last layer -> table and integer part of the mean, as in `net.conclude`."""
    unit = MEAN_BITS - FRACTION_BITS
    half, more = np.int32(b[0] + (1 << (unit - 1))), np.int32(b[1] + (1 << (CLASS_BITS - 1)))
    low, centre = np.int32((1 << FRACTION_BITS) - 1), np.int32(1 << (FRACTION_BITS - 1))
    last = np.int32(start.size - 1)
    mean, spread = y[0], y[1]
    for p in range(np.uint64(n)):
        m = np.int32(np.int32(np.int32(mean[p] + half) >> unit) + centre)
        k = np.int32(np.int32(spread[p] + more) >> CLASS_BITS)
        k = min(max(k, np.int32(0)), last)
        index[p] = start[k] + np.int32(np.int32(m & low) >> drop[k])
        offset[p] = np.int32(m >> FRACTION_BITS)


@_jit
def parts(net):  # type: ignore[no-untyped-def]
    """The arrays that a network is made of, in their order."""
    units, pairs = net[0], net[1]
    taps = net[2 : 2 + 8 * pairs].reshape(2 * pairs, 4)
    at = 2 + 8 * pairs
    bias, shift = net[at : at + units], net[at + units : at + 2 * units]
    at += 2 * units
    front = net[at : at + (units + 2) * pairs].reshape(units + 2, pairs)
    at += (units + 2) * pairs
    rear = net[at : at + units].reshape(2, units >> 1)
    b = net[at + units : at + units + 2]
    return units, pairs, taps, bias, shift, front, rear, b


@_jit
def predict(store, tables, samples, net, start, drop, planes, channel, h, w, stride, kind, index, offset):  # type: ignore[no-untyped-def]
    """Table index and offset of every point of a step, in the order of its rows.

    store: int16, see above; tables: (2 planes, 256) int16; samples: (h * w,) int32 of this channel.
    """
    units, pairs, taps, bias, shift, front, rear, b = parts(net)
    rows, cols, y0, dy, x0, dx = lattice(kind, h, w, stride)
    own, sizes, own_size = _grid(planes, channel, h, w, stride)
    if kind == DIAGONAL:
        _refine(store, own, sizes, own_size, tables[2 * channel : 2 * channel + 2], rows, cols, samples, w, stride)
    where, down, across = (
        np.empty((2, 2 * pairs), np.int64),
        np.empty(2 * pairs, np.int64),
        np.empty(2 * pairs, np.int64),
    )
    half, own_half = _half(w), _half(cols)
    plane = 2 * half * (h + 2 * REACH)
    sums, summing = np.int64(store.size - 1 - half), False
    total, floats = np.empty(half, np.int16), np.empty(half, np.float32)
    bits = floats.view(np.int32)
    for f in range(2 * pairs):
        what, back, ty, tx = np.int64(taps[f, 0]), np.int64(taps[f, 1]), np.int64(taps[f, 2]), np.int64(taps[f, 3])
        for odd in range(2):
            gx = first_column(x0, kind, odd)
            if back:
                base, wide, c = (3 * (channel - back) + what) * plane, half, gx * stride + tx + REACH
                down[f], across[f] = 2 * half * stride, (dx * stride) >> 1
            elif kind == BASE or (what == 2 and kind == EVEN):  # nothing is known yet
                base, wide, c = store.size - 1 - 2 * (ty + REACH), 1, 0
                down[f], across[f] = 0, 0
            elif what == 2:
                base, wide, c = sums - 2 * (ty + REACH), 1, 0
                down[f], across[f], summing = 0, 1, True
            else:
                base, wide, c = own + what * own_size, own_half, gx + tx + REACH
                down[f], across[f] = 2 * own_half, 1
            where[odd, f] = base + 2 * wide * (ty + REACH) + (c & 1) * wide + (c >> 1)

    x = np.empty((pairs, BLOCK), np.int32)
    flat = x.reshape(-1)
    y = np.empty((2, BLOCK), np.int32)
    hidden = np.empty((units >> 1, BLOCK), np.int32)
    done = 0
    gy, begun = y0, np.int64(0)  # the next point: its row, and how many points of the row went before
    while gy < rows:
        # gather a block: whole pieces of rows
        n = 0
        while gy < rows and n < BLOCK:
            gx = first_column(x0, kind, gy)
            here = min((cols - gx + dx - 1) // dx - begun, BLOCK - n)
            if here > 0:
                if summing:
                    c = gx + REACH + 2 * begun
                    _around(store, total, floats, bits, sizes, own_half, kind, gy, c, here, sums + begun)
                odd = gy & 1
                for k in range(pairs):
                    s0, s1 = np.uint64(across[2 * k]), np.uint64(across[2 * k + 1])
                    p0 = np.uint64(where[odd, 2 * k] + gy * down[2 * k] + begun * across[2 * k])
                    p1 = np.uint64(where[odd, 2 * k + 1] + gy * down[2 * k + 1] + begun * across[2 * k + 1])
                    out = np.uint64(k * BLOCK + n)
                    if s0 == np.uint64(1) and s1 == np.uint64(1):
                        for i in range(np.uint64(here)):
                            a = np.int32(store[p0 + i]) & np.int32(0xFFFF)
                            flat[out + i] = a | (np.int32(store[p1 + i]) << np.int32(16))
                    else:
                        for i in range(np.uint64(here)):
                            a = np.int32(store[p0 + i * s0]) & np.int32(0xFFFF)
                            flat[out + i] = a | (np.int32(store[p1 + i * s1]) << np.int32(16))
                n += here
                begun += here
            if here <= 0 or begun >= (cols - gx + dx - 1) // dx:
                gy += dy
                begun = 0
        if n == 0:
            break
        for p in range(0, n, WIDTH):
            for o in range(0, units, 4):
                hidden_tile(front, x, bias, shift, 255, hidden, o, p, pairs)  # type: ignore[call-arg]
            last_tile(front, x, pairs, rear, hidden, units >> 1, units, y, p)  # type: ignore[call-arg]
        conclude(y, b, start, drop, n, index[done : done + n], offset[done : done + n])
        done += n
    return done


@_jit
def keep(store, tables, samples, symbols, planes, channel, h, w, stride, kind):  # type: ignore[no-untyped-def]
    """Put the symbols of a step where they belong: into the channel, and into the grid that later steps read."""
    rows, cols, y0, dy, x0, dx = lattice(kind, h, w, stride)
    own, sizes, plane = _grid(planes, channel, h, w, stride)
    half = _half(cols)
    value, magnitude = tables[2 * channel], tables[2 * channel + 1]
    low, high, gain = np.int32(-127), np.int32(127), np.int32(value[129])
    apart, there = np.uint64(dx * stride), np.uint64(sizes - own)
    done = np.uint64(0)
    for gy in range(y0, rows, dy):
        gx = first_column(x0, kind, gy)
        n = np.uint64(max((cols - gx + dx - 1) // dx, 0))
        at = np.uint64(gy * stride * w + gx * stride)
        for k in range(n):
            samples[at + k * apart] = symbols[done + k]
        if kind != BASE:
            c = gx + REACH
            p = np.uint64(own + 2 * half * (gy + REACH) + (c & 1) * half + (c >> 1))
            q, r = p + np.uint64(plane), p + there
            for k in range(n):
                s = min(max(symbols[done + k], low), high)
                store[p + k] = np.int16(min(max(s * gain, low), high))
            for k in range(n):
                store[r + k] = np.int16(abs(min(max(symbols[done + k], low), high)))
            for k in range(n):
                s = min(max(symbols[done + k], low), high)
                store[q + k] = magnitude[np.uint64(np.int64(s) + 128)]
        done += n
    if kind != BASE:
        _border(store, own, rows, cols)
        _border(store, own + plane, rows, cols)
        _border(store, sizes, rows, cols)
        if stride == 1 and kind in (DOWN, ODD):
            _surround(store, sizes, own + 2 * plane, h, w)
    return np.int64(done)


@_jit
def take(samples, symbols, h, w, stride, kind):  # type: ignore[no-untyped-def]
    """The samples of a step, in its order; returns how many."""
    rows, cols, y0, dy, x0, dx = lattice(kind, h, w, stride)
    i = 0
    for gy in range(y0, rows, dy):
        gx = first_column(x0, kind, gy)
        flat = gy * stride * w + gx * stride
        n = (cols - gx + dx - 1) // dx
        for k in range(n):
            symbols[i + k] = samples[flat + k * dx * stride]
        i += max(n, 0)
    return i


@_jit
def foretell(store, tables, latent, nets, starts, steps, start, drop, h, w, symbols, index, offset):  # type: ignore[no-untyped-def]
    """All steps of a known latent: symbols, table indices and offsets in coding order.

    latent: (C, h * w) int32; nets: the networks one after the other, that of step i from starts[i] on; steps: (n, 3)
    channel, stride and kind.
    """
    done = 0
    for i in range(steps.shape[0]):
        channel, stride, kind = steps[i]
        samples = latent[channel]
        n = take(samples, symbols[done:], h, w, stride, kind)
        net = nets[starts[i] : starts[i + 1]]
        predict(
            store, tables, samples, net, start, drop, latent.shape[0], channel, h, w, stride, kind, index[done:],
            offset[done:],
        )  # fmt: skip
        keep(store, tables, samples, symbols[done : done + n], latent.shape[0], channel, h, w, stride, kind)
        done += n
    return done


@_jit
def decode(
    state, ptr, begin, words, side, raw, escapes, lut, entries, precision,
    store, tables, latent, nets, starts, steps, start, drop, h, w, symbols, index, offset,
):  # fmt: skip
    """All steps of a latent that is read: fills latent (C, h * w) int32; returns 0 or an error code.

    State and tables as in `coder.decode_lut_raw`, networks as in `foretell`; symbols, index and offset are room for a
    channel.
    """
    count = np.int64(entries.size >> 8)
    for i in range(steps.shape[0]):
        channel, stride, kind = steps[i]
        samples = latent[channel]
        net = nets[starts[i] : starts[i + 1]]
        n = predict(
            store, tables, samples, net, start, drop, latent.shape[0], channel, h, w, stride, kind, index, offset
        )
        done = np.int64(0)
        while done < n:
            if precision == 12:
                done += decode_four(state, ptr, begin, words, side, index[done:n], lut, entries, symbols[done:n])
            some = index[done : min(done + SOME, n)]
            out = symbols[done : done + some.size]
            err = decode_lut_raw(
                state, ptr, begin, words, side, raw, escapes, some, count, lut, entries, precision, out
            )
            if err:
                return err
            done += some.size
        for k in range(np.uint64(n)):
            symbols[k] += offset[k]
        keep(store, tables, samples, symbols[:n], latent.shape[0], channel, h, w, stride, kind)
    return 0
