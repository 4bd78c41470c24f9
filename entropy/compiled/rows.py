"""The loops of `rows`: contexts of a symbol from those before it, and its table; one body for coding and decoding.

Where numba is installed the functions are compiled; `py_func` of a compiled function is the same loop in Python.
Decoding follows `coder.decode_lut_raw`, which explains the arguments up to `precision`.
"""

from __future__ import annotations

import numpy as np

from ...kernels.compiled import usable

if usable():
    from numba import njit

    from ...kernels.compiled import compiled
    from .coder import ESCAPE_BAD, ESCAPE_END, RAW_END

    inlined = njit(inline="always", error_model="numpy", boundscheck=False)
else:
    from ..plain.coder import ESCAPE_BAD, ESCAPE_END, RAW_END

    def compiled(function):  # type: ignore[no-untyped-def]
        return function

    inlined = compiled


_u = np.uint64
WIDE = 1024  # estimates up to here have a level each in `levels`; above, an octave takes two levels


@inlined
def _open(side, raw):
    """[next word of the raw section, bits in hand, those bits]."""
    cursor = np.empty(3, np.uint64)
    cursor[0] = side[1] >> 5
    cursor[1] = 32 - (side[1] & 31)
    cursor[2] = _u(raw[cursor[0]]) >> _u(side[1] & 31)
    return cursor


@inlined
def _next(t, count, state, ptr, begin, words, side, raw, escapes, lut, entries, precision, cursor):
    """The next symbol, under table t: (value, 0 or an error code)."""
    j = (_u(side[0]) + _u(count)) & _u(state.shape[0] - 1)
    s = state[j]
    q = s & _u(0xFFFFFF)
    entry = entries[(_u(t) << _u(8)) | _u(lut[(_u(t) << _u(precision)) | (q >> _u(24 - precision))])]
    s = (s >> _u(24)) * (entry & _u(0x1FFF000)) + q - ((entry >> _u(13)) & _u(0xFFF000))
    if s < _u(0x100000000):
        p = _u(ptr[j])
        if p > _u(begin[j]):
            s = (s << _u(32)) | _u(words[p - _u(1)])
            ptr[j] = np.int64(p - _u(1))
    state[j] = s
    v, err = np.int64(entry) >> np.int64(37), 0
    b = entry & _u(31)
    if b == _u(31):
        z, err = _u(0), ESCAPE_BAD
        for i in range(5):
            if side[3] >= side[4]:
                err = ESCAPE_END
                break
            byte = _u(escapes[side[3]])
            side[3] += 1
            z |= (byte & _u(127)) << _u(7 * i)
            if byte < _u(128):
                err = 0 if z >> _u(32) == _u(0) and (i == 0 or byte != _u(0)) else ESCAPE_BAD
                break
        v = np.int64(z >> _u(1)) ^ -np.int64(z & _u(1))
    elif b > _u(0):
        if cursor[1] < _u(32):
            cursor[0] += _u(1)
            if cursor[0] << _u(5) >= _u(side[2]) + _u(32):
                err = RAW_END
            else:
                cursor[2] |= _u(raw[cursor[0]]) << cursor[1]
                cursor[1] += _u(32)
        v = (v << np.int64(b)) | np.int64(cursor[2] & ((_u(1) << b) - _u(1)))
        cursor[2] >>= b
        cursor[1] -= b
    return v, err


@inlined
def _close(side, count, cursor):
    """Note how far the loop came; RAW_END if it used more raw bits than there are."""
    used = np.int64((cursor[0] << _u(5)) + _u(32) - cursor[1])
    side[0] += count
    side[1] = used
    return RAW_END if used > side[2] else 0


@compiled
def values(
    reading, state, ptr, begin, words, side, raw, escapes, lut, entries, precision,
    rows, places, weights, tables, symbols, index, offset,
):  # fmt: skip
    """Symbols that lie near those of the rows before and beside; see `rows.ValueRows`.

    rows: (R, 5) first symbol, length, row before, row beside (-1: none), layout. places: (Y, Y, B) int32: which one
    of a row of layout a lies where symbol b of a row of layout c does. weights: (12, 7) int64. tables: (6, 4 K) int32,
    the last four for what follows zeros. index, offset: (n,) int32, filled as symbols are coded.
    Returns (how many symbols are coded, 0 or an error code).
    """
    count, cursor = 0, _open(side, raw)
    top = np.int64(tables.shape[1] // 4 - 2)
    for r in range(rows.shape[0]):
        first, n, before, beside, layout = rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3], rows[r, 4]
        kind = 4 if before < 0 else 0 if rows[before, 4] == layout else 2
        kind += 1 if beside >= 0 else 0
        missed = np.int64(0)
        for k in range(n):
            at = first + k
            w = weights[2 * kind + (k == 0)]
            guess = w[6]
            silent = k > 0 or before >= 0
            if k > 0:
                guess += w[0] * np.int64(symbols[at - 1])
                silent = silent and symbols[at - 1] == 0
            if before >= 0:
                place = places[rows[before, 4], layout]
                start, last = rows[before, 0], np.int64(rows[before, 1]) - 1
                here = np.int64(place[k])
                silent = silent and symbols[start + here] == 0
                guess += w[1] * np.int64(symbols[start + here]) + w[3] * np.int64(symbols[start + min(here + 1, last)])
                if k > 0:
                    guess += w[2] * np.int64(symbols[start + np.int64(place[k - 1])])
            if beside >= 0:
                start = rows[beside, 0]
                guess += w[4] * np.int64(symbols[start + k])
                if k > 0:
                    guess += w[5] * np.int64(symbols[start + k - 1])
            case = 4 * min(missed, top) + ((guess >> 6) & 3)
            if silent:
                guess, case = np.int64(0), 4 * (top + 1)
            whole = guess >> 8
            t = tables[kind, case]
            index[at] = t
            offset[at] = np.int32(whole)
            if reading:
                v, err = _next(t, count, state, ptr, begin, words, side, raw, escapes, lut, entries, precision, cursor)
                if err:
                    return count, err
                symbols[at] = np.int32(v + whole)
            missed = (missed + (abs((np.int64(symbols[at]) << 8) - guess) >> 7)) >> 1
            count += 1
    if reading:
        return count, _close(side, count, cursor)
    return count, 0


@inlined
def _scaled(rows, other, first, n, need, step, symbols, ratio, near):
    """near[1 .. need]: magnitudes of another row, brought to the n places of the row that begins at first and to its
    units; zero on both sides of the row."""
    reach = np.int64(ratio.shape[0] // 2)
    start, m = np.int64(rows[other, 0]), np.int64(rows[other, 1])
    near[0] = 0
    near[n + 1] = 0
    if m > n:
        group = m // n
        for k in range(need):
            total = np.int64(0)
            for i in range(start + k * group, start + (k + 1) * group):
                if symbols[i]:
                    d = np.int64(step[i]) - np.int64(step[first + k])
                    total += abs(np.int64(symbols[i])) * ratio[min(max(d, -reach), reach) + reach]
            near[k + 1] = total // group
    else:
        group = n // m
        for k in range(need):
            i = start + k // group
            near[k + 1] = 0
            if symbols[i]:
                d = np.int64(step[i]) - np.int64(step[first + k])
                near[k + 1] = abs(np.int64(symbols[i])) * ratio[min(max(d, -reach), reach) + reach]


@compiled
def features(rows, step, known, ratio, symbols, out, kinds):
    """What `magnitudes` weighs, for fitting: out (n, 6) int64 in 256ths, kinds (n,) uint8."""
    longest = 0
    for r in range(rows.shape[0]):
        longest = max(longest, rows[r, 1])
    near = np.zeros(longest + 2, np.int64)
    for r in range(rows.shape[0]):
        first, n, before, beside = rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3]
        kind = 4 if before < 0 else 0 if rows[before, 1] == n else 2
        kind += 1 if beside >= 0 else 0
        for side_row in range(2):
            other = beside if side_row else before
            if other >= 0:
                _scaled(rows, other, first, n, n, step, symbols, ratio, near)
                for k in range(n):
                    out[first + k, 2 + 2 * side_row] = near[k + 1]
                    out[first + k, 3 + 2 * side_row] = near[k] + near[k + 2]
        for k in range(n):
            kinds[first + k] = kind
            if k > 0:
                out[first + k, 0] = abs(np.int64(symbols[first + k - 1])) << 8
            if k > 1:
                out[first + k, 1] = abs(np.int64(symbols[first + k - 2])) << 8


@compiled
def magnitudes(
    reading, state, ptr, begin, words, side, raw, escapes, lut, entries, precision,
    rows, step, known, ratio, weights, levels, tables, symbols, index,
):  # fmt: skip
    """Symbols whose size is foretold by their neighbours' sizes; see `rows.MagnitudeRows`.

    reading: decode `symbols` instead of reading them. rows: (R, 4) first symbol, length, row before, row beside (-1:
    none). step: (n,) int16, log of the unit of each symbol. known: (n,) uint8, its class, 255: zero and not coded.
    ratio: (2D + 1,) int64, 2**(d / 8) times 256 for d = -D .. D. weights: (6, 6) int64. levels: (WIDE,) uint8.
    tables: (K, L) int32. index: (n,) int32, filled where symbols are coded.
    Returns (how many symbols are coded, 0 or an error code).
    """
    longest = 0
    for r in range(rows.shape[0]):
        longest = max(longest, rows[r, 1])
    near, pre = np.zeros(longest + 2, np.int64), np.zeros(longest, np.int64)
    top = np.int64(tables.shape[1] - 1)
    count, cursor = 0, _open(side, raw)
    for r in range(rows.shape[0]):
        first, n, before, beside = rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3]
        kind = 4 if before < 0 else 0 if rows[before, 1] == n else 2
        kind += 1 if beside >= 0 else 0
        live = np.int64(n)
        while live > 0 and known[first + live - 1] == 255:
            live -= 1
            if reading:
                symbols[first + live] = 0
        for k in range(live):
            pre[k] = 0
        for side_row in range(2):
            other = beside if side_row else before
            if other < 0:
                continue
            _scaled(rows, other, first, n, min(live + 1, np.int64(n)), step, symbols, ratio, near)
            middle, sides = weights[kind, 2 + 2 * side_row], weights[kind, 3 + 2 * side_row]
            for k in range(live):
                pre[k] += middle * near[k + 1] + sides * (near[k] + near[k + 2])
        one, two = np.int64(0), np.int64(0)
        for k in range(live):
            at = first + k
            if known[at] == 255:
                if reading:
                    symbols[at] = 0
                two, one = one, np.int64(0)
                continue
            estimate = (pre[k] + ((weights[kind, 0] * one + weights[kind, 1] * two) << 8)) >> 10
            level = np.int64(0)
            while estimate >= WIDE:
                estimate >>= 1
                level += 2
            level = min(level + np.int64(levels[estimate]), top)
            t = tables[known[at], level]
            index[at] = t
            if reading:
                v, err = _next(t, count, state, ptr, begin, words, side, raw, escapes, lut, entries, precision, cursor)
                if err:
                    return count, err
                symbols[at] = np.int32(v)
            count += 1
            two, one = one, abs(np.int64(symbols[at]))
    if reading:
        return count, _close(side, count, cursor)
    return count, 0
