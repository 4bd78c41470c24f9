"""The passes of a context model, compiled: what a step reads, its network and its tables, block by block.

Samples lie as their network sees them, int16 values and magnitudes, in planes padded by REACH on each side. A row
holds its even columns first and then its odd ones, so that the points of a step, which lie two or more columns
apart, are read one after the other. All sums are integers. `context.net` defines the numbers.

A network is one int32 array: its hidden units H and pairs of taps K; for every tap (what, back, dy, dx); H biases and
H shifts; (H + 2) x K pairs of weights (hidden units, then mean and scale); 2 x H / 2 pairs; 2 biases. Taps are made
even and units a multiple of four by those of weight 0.
"""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import compiled as _jit
from ...kernels.pairs import WIDTH
from ...kernels.tile import hidden_tile, last_tile

REACH = 3
BLOCK = 256  # points whose taps and sums lie in a core's nearer caches
MEAN_BITS, FRACTION_BITS, CLASS_BITS = 12, 4, 10

_BASE, _DIAGONAL, _ACROSS, _DOWN, _EVEN, _ODD = range(6)


@_jit
def _rows(kind, h, w, stride):  # type: ignore[no-untyped-def]
    """Of a step, on the grid of its stride: rows, columns, first row, step of rows, first column, step of columns."""
    rows, cols = (h + stride - 1) // stride, (w + stride - 1) // stride
    y0 = np.int64((kind == _DIAGONAL) | (kind == _DOWN))
    x0 = np.int64((kind == _DIAGONAL) | (kind == _ACROSS) | (kind == _ODD))
    dy = np.int64(1 if kind == _BASE or kind >= _EVEN else 2)
    dx = np.int64(1 if kind == _BASE else 2)
    return rows, cols, y0, dy, x0, dx


@_jit
def _first(x0, kind, y):  # type: ignore[no-untyped-def]
    """First column of row y."""
    return x0 ^ (y & 1) if kind >= _EVEN else x0


@_jit
def _mirror(i, n):  # type: ignore[no-untyped-def]
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
    for y in range(REACH, rows + REACH):
        row = base + y * 2 * half
        for k in range(2 * REACH):
            x = k if k < REACH else cols + k
            c = _mirror(x - REACH, cols) + REACH
            store[row + (x & 1) * half + (x >> 1)] = store[row + (c & 1) * half + (c >> 1)]
    for k in range(2 * REACH):
        y = k if k < REACH else rows + k
        there, here = base + y * 2 * half, base + (_mirror(y - REACH, rows) + REACH) * 2 * half
        for x in range(2 * half):
            store[there + x] = store[here + x]


@_jit
def _grid(store, planes, channel, h, w, stride):  # type: ignore[no-untyped-def]
    """Where the grid of a stride lies in the store, values before magnitudes, and the size of either."""
    plane = 2 * _half(w) * (h + 2 * REACH)
    if stride == 1:
        return 2 * plane * channel, plane
    rows, cols = (h + stride - 1) // stride, (w + stride - 1) // stride
    return 2 * plane * planes, 2 * _half(cols) * (rows + 2 * REACH)


@_jit
def room(planes, h, w):  # type: ignore[no-untyped-def]
    """How many int16 the store of a latent of so many channels takes."""
    coarse = 2 * _half((w + 1) >> 1) * (((h + 1) >> 1) + 2 * REACH)
    return 2 * planes * 2 * _half(w) * (h + 2 * REACH) + 2 * coarse + 1


@_jit
def _refine(store, base, size, values, rows, cols, samples, w, stride):  # type: ignore[no-untyped-def]
    """Begin the grid of a stride: samples at its even points, zero elsewhere."""
    half = _half(cols)
    store[base : base + 2 * size] = np.int16(0)
    for y in range(0, rows, 2):
        row = base + (y + REACH) * 2 * half + (REACH & 1) * half + (REACH >> 1)
        for x in range(0, cols, 2):
            s = min(max(samples[y * stride * w + x * stride], -127), 127) + 128
            store[row + (x >> 1)] = values[0, s]
            store[row + size + (x >> 1)] = values[1, s]
    _border(store, base, rows, cols)
    _border(store, base + size, rows, cols)


@_jit
def _conclude(y, b, start, drop, n, index, offset):  # type: ignore[no-untyped-def]
    """Sums of the last layer -> table and integer part of the mean, as in `net.conclude`."""
    unit = MEAN_BITS - FRACTION_BITS
    half, more = np.int32(b[0] + (1 << (unit - 1))), np.int32(b[1] + (1 << (CLASS_BITS - 1)))
    low, centre = np.int32((1 << FRACTION_BITS) - 1), np.int32(1 << (FRACTION_BITS - 1))
    last = np.int32(start.size - 1)
    mean, spread = y[0], y[1]
    for p in range(n):
        m = np.int32(np.int32(np.int32(mean[p] + half) >> unit) + centre)
        k = np.int32(np.int32(spread[p] + more) >> CLASS_BITS)
        k = min(max(k, np.int32(0)), last)
        index[p] = start[k] + np.int32(np.int32(m & low) >> drop[k])
        offset[p] = np.int32(m >> FRACTION_BITS)


@_jit
def _join(low, high, out):  # type: ignore[no-untyped-def]
    """Pairs of two runs of samples."""
    for i in range(out.size):
        out[i] = (np.int32(low[i]) & np.int32(0xFFFF)) | (np.int32(high[i]) << np.int32(16))


@_jit
def predict(store, tables, samples, net, start, drop, planes, channel, h, w, stride, kind, index, offset):  # type: ignore[no-untyped-def]
    """Table index and offset of every point of a step, in the order of its rows.

    store: int16, the planes of `planes` channels, then room for a coarse grid, then a zero; tables: (2 planes, 256)
    int16; samples: (h * w,) int32 of this channel.
    """
    units, pairs = net[0], net[1]
    taps = net[2 : 2 + 8 * pairs].reshape(2 * pairs, 4)
    at = 2 + 8 * pairs
    bias, shift = net[at : at + units], net[at + units : at + 2 * units]
    at += 2 * units
    front = net[at : at + (units + 2) * pairs].reshape(units + 2, pairs)
    at += (units + 2) * pairs
    rear = net[at : at + units].reshape(2, units >> 1)
    b = net[at + units : at + units + 2]

    rows, cols, y0, dy, x0, dx = _rows(kind, h, w, stride)
    own, own_size = _grid(store, planes, channel, h, w, stride)
    if kind == _DIAGONAL:
        _refine(store, own, own_size, tables[2 * channel : 2 * channel + 2], rows, cols, samples, w, stride)
    where, down, across = (
        np.empty((2, 2 * pairs), np.int64),
        np.empty(2 * pairs, np.int64),
        np.empty(2 * pairs, np.int64),
    )
    half, own_half = _half(w), _half(cols)
    plane = 2 * half * (h + 2 * REACH)
    for f in range(2 * pairs):
        what, back, ty, tx = np.int64(taps[f, 0]), np.int64(taps[f, 1]), np.int64(taps[f, 2]), np.int64(taps[f, 3])
        for odd in range(2):
            gx = _first(x0, kind, odd)
            if back:
                base, wide, c = (2 * (channel - back) + what) * plane, half, gx * stride + tx + REACH
                down[f], across[f] = 2 * half * stride, (dx * stride) >> 1
            elif kind == _BASE:  # nothing is known yet
                base, wide, c = store.size - 1 - 2 * (ty + REACH), 1, 0
                down[f], across[f] = 0, 0
            else:
                base, wide, c = own + what * own_size, own_half, gx + tx + REACH
                down[f], across[f] = 2 * own_half, 1
            where[odd, f] = base + 2 * wide * (ty + REACH) + (c & 1) * wide + (c >> 1)

    x = np.empty((pairs, BLOCK), np.int32)
    y = np.empty((2, BLOCK), np.int32)
    hidden = np.empty((units >> 1, BLOCK), np.int32)
    done = 0
    gy, begun = y0, np.int64(0)  # the next point: its row, and how many points of the row went before
    while gy < rows:
        # gather a block: whole pieces of rows
        n = 0
        while gy < rows and n < BLOCK:
            gx = _first(x0, kind, gy)
            here = min((cols - gx + dx - 1) // dx - begun, BLOCK - n)
            if here > 0:
                first = where[gy & 1]
                for k in range(pairs):
                    s0, s1 = across[2 * k], across[2 * k + 1]
                    p0 = first[2 * k] + gy * down[2 * k] + begun * s0
                    p1 = first[2 * k + 1] + gy * down[2 * k + 1] + begun * s1
                    out = x[k, n : n + here]
                    if s0 == 1 and s1 == 1:
                        _join(store[p0 : p0 + here], store[p1 : p1 + here], out)
                    else:
                        for i in range(here):
                            a = np.int32(store[p0 + i * s0]) & np.int32(0xFFFF)
                            out[i] = a | (np.int32(store[p1 + i * s1]) << np.int32(16))
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
        _conclude(y, b, start, drop, n, index[done : done + n], offset[done : done + n])
        done += n
    return done


@_jit
def keep(store, tables, samples, symbols, planes, channel, h, w, stride, kind):  # type: ignore[no-untyped-def]
    """Put the symbols of a step where they belong: into the channel, and into the grid that later steps read."""
    rows, cols, y0, dy, x0, dx = _rows(kind, h, w, stride)
    own, size = _grid(store, planes, channel, h, w, stride)
    half = _half(cols)
    value, magnitude = tables[2 * channel], tables[2 * channel + 1]
    i = 0
    for gy in range(y0, rows, dy):
        gx = _first(x0, kind, gy)
        n = (cols - gx + dx - 1) // dx
        flat = gy * stride * w + gx * stride
        for k in range(n):
            samples[flat + k * dx * stride] = symbols[i + k]
        if kind != _BASE:
            c = gx + REACH
            row = own + 2 * half * (gy + REACH) + (c & 1) * half + (c >> 1)
            for k in range(n):
                s = min(max(symbols[i + k], np.int32(-127)), np.int32(127)) + 128
                store[row + k] = value[s]
                store[row + size + k] = magnitude[s]
        i += n
    if kind != _BASE:
        _border(store, own, rows, cols)
        _border(store, own + size, rows, cols)
    return i


@_jit
def take(samples, symbols, h, w, stride, kind):  # type: ignore[no-untyped-def]
    """The samples of a step, in its order; returns how many."""
    rows, cols, y0, dy, x0, dx = _rows(kind, h, w, stride)
    i = 0
    for gy in range(y0, rows, dy):
        gx = _first(x0, kind, gy)
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
            store,
            tables,
            samples,
            net,
            start,
            drop,
            latent.shape[0],
            channel,
            h,
            w,
            stride,
            kind,
            index[done:],
            offset[done:],
        )
        keep(store, tables, samples, symbols[done : done + n], latent.shape[0], channel, h, w, stride, kind)
        done += n
    return done
