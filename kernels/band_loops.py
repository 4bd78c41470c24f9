"""The compiled loops of the codec `audio` over rows of coefficients and their bands: cached on disk, GIL released.

A row is a block of one channel. `rows` (R, 4 or 5) hold the first symbol and the length of each, as `entropy.rows`
takes them, `at` (R, 3) its frame and where in the columns of that its levels and its coefficients begin. Coefficients
of channels lie in y (C, frames * frame size). Multiplications and additions are not fused and not reordered.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled as _jit


@_jit
def take(columns, rows, at, part, out):  # type: ignore[no-untyped-def]
    """What rows hold of columns (frames, n): out, row after row. part: which of `at` says where."""
    for r in range(rows.shape[0]):
        column, begin, first = columns[at[r, 0]], at[r, part], rows[r, 0]
        for k in range(rows[r, 1]):
            out[first + k] = column[begin + k]


@_jit
def put(values, rows, at, part, columns):  # type: ignore[no-untyped-def]
    """The inverse of `take`."""
    for r in range(rows.shape[0]):
        column, begin, first = columns[at[r, 0]], at[r, part], rows[r, 0]
        for k in range(rows[r, 1]):
            column[begin + k] = values[first + k]


@_jit
def powers(y, frame, shift, at, levels, count, out):  # type: ignore[no-untyped-def]
    """Mean squares out (L,) of the bands of y; `levels` are the rows of levels, count (L,) coefficients of each band.

    frame: samples. shift: where in a column the coefficients begin.
    """
    for r in range(levels.shape[0]):
        c, t = (at[r, 2] - shift) // frame, (at[r, 2] - shift) % frame + at[r, 0] * frame
        for j in range(levels[r, 0], levels[r, 0] + levels[r, 1]):
            total = 0.0
            for i in range(t, t + count[j]):
                v = np.float64(y[c, i])
                total += v * v
            t += count[j]
            out[j] = total / count[j]


@_jit
def quantise(y, frame, shift, at, levels, count, step, live, one, more, columns):  # type: ignore[no-untyped-def]
    """Symbols of y with the steps of their bands, written into columns; bands that are not live stay as they are."""
    most = np.float32(32767.0)
    for r in range(levels.shape[0]):
        c, t = (at[r, 2] - shift) // frame, (at[r, 2] - shift) % frame + at[r, 0] * frame
        column, k = columns[at[r, 0]], at[r, 2]
        for j in range(levels[r, 0], levels[r, 0] + levels[r, 1]):
            if live[j]:
                for i in range(count[j]):
                    v = y[c, t + i]
                    size = abs(v) / step[j]
                    size = min(np.floor(size + (one if size < np.float32(1.0) else more)), most)
                    column[k + i] = np.int32(-size) if v < 0 else np.int32(size)
            t += count[j]
            k += count[j]


@_jit
def restore(
    columns, frame, shift, at, levels, count, known, step, below, power, most, beside, part, origin, y
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Coefficients y of the symbols in columns: centroids of their cells, and noise for zeros.

    known, step, power, most, part: (L,) of the bands: class, width of a cell, mean square that the level says, the
    most that is filled in beside symbols, and the part of what is missing where there are none. beside: that part
    where there are some. below: (classes, sizes) how far below its magnitude a symbol is restored. origin: place of
    the first coefficient, which with each one's own gives the noise its sign (a multiplicative hash).
    """
    last = below.shape[1] - 1
    channels = y.shape[0]
    for r in range(levels.shape[0]):
        c, start = (at[r, 2] - shift) // frame, (at[r, 2] - shift) % frame
        t, column, k = start + at[r, 0] * frame, columns[at[r, 0]], at[r, 2]
        place = np.uint64(origin + (at[r, 0] * channels + c) * frame + start)
        for j in range(levels[r, 0], levels[r, 0] + levels[r, 1]):
            there, zeros = 0.0, 0
            for i in range(count[j]):
                s = column[k + i]
                if s == 0:
                    zeros += 1
                    continue
                v = (np.float64(abs(s)) - np.float64(below[known[j], min(abs(s), last)])) * np.float64(step[j])
                there += v * v
                y[c, t + i] = np.float32(-v if s < 0 else v)
            if zeros:
                missing = np.sqrt(max(power[j] * count[j] - there, 0.0) / zeros)
                if zeros < count[j]:
                    noise = np.float32(beside * min(missing, np.float64(most[j])))
                else:
                    noise = np.float32(part[j] * missing)
                for i in range(count[j]):
                    if column[k + i] == 0:
                        v = (place + np.uint64(i)) & np.uint64(0xFFFFFFFF)
                        v = ((v ^ (v >> np.uint64(16))) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
                        v = ((v ^ (v >> np.uint64(16))) * np.uint64(0x45D9F3B)) & np.uint64(0xFFFFFFFF)
                        y[c, t + i] = noise if v & np.uint64(0x10000) else -noise
            t += count[j]
            k += count[j]
            place += np.uint64(count[j])


@_jit
def products(y, frame, depths, stereo, out):  # type: ignore[no-untyped-def]
    """Add up squares and products of two channels y by stereo band: out (3, frames, bands).

    depths: (B,) of all blocks, in time; a block has frame >> depth coefficients. stereo: their stereo bands, depth
    after depth.
    """
    t = 0
    for d in depths:
        n, f, first = frame >> d, t // frame, 2 * frame - (2 * frame >> d)
        for k in range(n):
            left, right, b = np.float64(y[0, t + k]), np.float64(y[1, t + k]), stereo[first + k]
            out[0, f, b] += left * left
            out[1, f, b] += right * right
            out[2, f, b] += left * right
        t += n


@_jit
def turn(y, frame, depths, stereo, angle, cosines, sines):  # type: ignore[no-untyped-def]
    """Rotate two channels y in place, by the angle (frames, bands) of the stereo band of each coefficient."""
    t = 0
    for d in depths:
        n, f, first = frame >> d, t // frame, 2 * frame - (2 * frame >> d)
        for k in range(n):
            a = angle[f, stereo[first + k]]
            c, s, left, right = cosines[a], sines[a], y[0, t + k], y[1, t + k]
            y[0, t + k] = c * left + s * right
            y[1, t + k] = c * right - s * left
        t += n
