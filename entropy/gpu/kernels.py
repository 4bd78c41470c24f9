"""Triton kernels of the interleaved rANS of `ans`: one lane a stream, so that a row of K symbols is one step.

Lanes are laid out (chunks a program, streams): a warp holds 32 / K chunks, and programs with other numbers of streams
are other launches. Within a row the positions of raw bits and escapes are prefix sums over the K lanes, since both
sections are written in the order of the symbols. The state is a 64-bit integer in registers; a table costs a byte and
a 64-bit gather, which the 384 kB of a bank of 64 tables serve from the caches. Division by a frequency is a
multiplication by its reciprocal, put right by at most one, so that no float takes part.

Numbers here are those of `plain.coder`, which is the definition.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret  # kernels run on the CPU, step by step: for tests
BAD_INDEX, RAW_END, ESCAPE_END = 1, 2, 4  # bits of the note that a kernel leaves for a chunk


@triton.jit
def _lanes(order, lane0, slots, K: tl.constexpr, GROUP: tl.constexpr):
    """Chunk numbers (GROUP,), which of them exist, and their lanes (GROUP, K)."""
    slot = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    live = slot < slots
    chunk = tl.load(order + slot, live, 0)
    lane = tl.load(lane0 + chunk)[:, None] + tl.arange(0, K)[None, :]
    return chunk, live, lane


@triton.jit
def decode_kernel(
    words, state, ptr, begin, order, lane0, phase, raw, raw_at, raw_end, escapes, escape_at, escape_end, notes,
    index, first, count, out, lut, entries, rows, pack, buckets, slots, tables,
    K: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr, BUCKET_BITS: tl.constexpr,
    SEARCH: tl.constexpr, SIDES: tl.constexpr,
):  # fmt: skip
    """count[c] symbols of each chunk c to out[first[c]:], under the tables named in index[first[c]:].

    words (n,) int32; state, ptr, begin (lanes,) int64; phase, raw_at, raw_end, escape_at, escape_end (chunks,) int64;
    index uint8 or int32; lut, entries as in `TableBank`, or with SEARCH rows, pack and buckets. SIDES: whether any of
    these chunks has raw bits or escapes.
    """
    chunk, live, lane = _lanes(order, lane0, slots, K, GROUP)
    on_lane = live[:, None] & (tl.arange(0, K)[None, :] < K)
    n = tl.load(count + chunk, live, 0).to(tl.int64)[:, None]
    turn = (tl.load(phase + chunk, live, 0) & (K - 1))[:, None]
    base = tl.load(first + chunk, live, 0)[:, None] - turn
    s = tl.load(state + lane, on_lane, 0).to(tl.uint64, bitcast=True)
    p = tl.load(ptr + lane, on_lane, 0)
    bottom = tl.load(begin + lane, on_lane, 0)
    bit = tl.load(raw_at + chunk, live, 0)[:, None]
    bit_end = tl.load(raw_end + chunk, live, 0)[:, None]
    away = tl.load(escape_at + chunk, live, 0)[:, None]
    away_end = tl.load(escape_end + chunk, live, 0)[:, None]
    note = tl.zeros([GROUP, K], tl.int32)

    steps = tl.max((n + turn + K - 1) // K)
    i = tl.arange(0, K)[None, :] - turn
    on = (i >= 0) & (i < n)
    ahead = tl.load(index + base + turn + i, on, 0).to(tl.int32)
    for _ in range(steps):
        t = tl.minimum(tl.maximum(ahead, 0), tables - 1)
        note = tl.where(on & (t != ahead), note | 1, note)
        # the next row's tables are on their way while this row's states wait for theirs
        later = (i + K >= 0) & (i + K < n)
        ahead = tl.load(index + base + turn + i + K, later, 0).to(tl.int32)
        q = s & 0xFFFFFF
        shift: tl.constexpr = 24 - PRECISION
        if SEARCH:
            lo = tl.load(rows + 4 * t).to(tl.int64)
            k = tl.load(rows + 4 * t + 1).to(tl.int64)
            last = tl.load(rows + 4 * t + 2)
            table = tl.load(rows + 4 * t + 3)
            slot = (q >> shift).to(tl.int32)
            e = tl.load(buckets + (t << BUCKET_BITS) + (q >> (24 - BUCKET_BITS)).to(tl.int32)).to(tl.int32)
            onward = (e < last) & (((tl.load(pack + table + e + 1, e < last, 0) >> 16) & 0xFFFF) <= slot)
            while tl.max(onward.to(tl.int32)) > 0:
                e += onward.to(tl.int32)
                onward = (e < last) & (((tl.load(pack + table + e + 1, e < last, 0) >> 16) & 0xFFFF) <= slot)
            pair = tl.load(pack + table + e).to(tl.uint32, bitcast=True).to(tl.uint64)
            f = (pair & 0xFFFF) << shift
            start = (pair >> 16) << shift
            v = e.to(tl.int64) + lo
            away_here = on & (e == last)
        else:
            e = tl.load(lut + (t << PRECISION) + (q >> shift).to(tl.int32)).to(tl.int32)
            entry = tl.load(entries + (t << 8) + e)
            u = entry.to(tl.uint64, bitcast=True)
            f = u & 0x1FFF000
            start = (u >> 13) & 0xFFF000
            v = entry >> 37
            k = entry & 31
            away_here = on & (k == 31)
        new = (s >> 24) * f + q - start
        refill = on & (new < 0x100000000) & (p > bottom)
        w = tl.load(words + p - 1, refill, 0).to(tl.uint32, bitcast=True).to(tl.uint64)
        new = tl.where(refill, (new << 32) | w, new)
        p = tl.where(refill, p - 1, p)
        s = tl.where(on, new, s)
        k = tl.where(on & ~away_here, k, 0)
        if SIDES:
            so_far = tl.cumsum(k, axis=1)
            at = bit + so_far - k
            note = tl.where((k > 0) & (at + k > bit_end), note | 2, note)
            inside = (k > 0) & (at + k <= bit_end)
            low = tl.load(raw + (at >> 5), inside, 0).to(tl.uint32, bitcast=True).to(tl.uint64)
            high = tl.load(raw + (at >> 5) + 1, inside, 0).to(tl.uint32, bitcast=True).to(tl.uint64)
            both = ((high << 32) | low) >> (at & 31).to(tl.uint64)
            v = (v << k) | (both & ((1 << k) - 1).to(tl.uint64)).to(tl.int64)
            bit += tl.sum(k, axis=1)[:, None]
            nth = tl.cumsum(away_here.to(tl.int64), axis=1)
            note = tl.where(away_here & (away + nth > away_end), note | 4, note)
            found = tl.load(escapes + away + nth - 1, away_here & (away + nth <= away_end), 0).to(tl.int64)
            v = tl.where(away_here, found, v)
            away += tl.sum(away_here.to(tl.int64), axis=1)[:, None]
        else:
            note = tl.where(k > 0, note | 2, note)
            note = tl.where(away_here, note | 4, note)
        tl.store(out + base + turn + i, v.to(tl.int32), on)
        i += K
        on = later

    tl.store(state + lane, s.to(tl.int64, bitcast=True), on_lane)
    tl.store(ptr + lane, p, on_lane)
    if SIDES:
        one = tl.arange(0, K)[None, :] == 0
        tl.store(raw_at + chunk[:, None] + tl.zeros([GROUP, K], tl.int32), bit + tl.zeros([GROUP, K], tl.int64),
                 on_lane & one)  # fmt: skip
        tl.store(escape_at + chunk[:, None] + tl.zeros([GROUP, K], tl.int32), away + tl.zeros([GROUP, K], tl.int64),
                 on_lane & one)  # fmt: skip
    tl.atomic_or(notes + chunk[:, None] + tl.zeros([GROUP, K], tl.int32), note, on_lane & (note != 0))


@triton.jit
def _entry(x, t, rows):
    """Entry of each integer in its table, whether that is the escape, raw bits that follow, where the table begins."""
    k = tl.load(rows + 4 * t + 1)
    last = tl.load(rows + 4 * t + 2).to(tl.int64)
    e = (x >> k).to(tl.int64) - tl.load(rows + 4 * t).to(tl.int64)
    escape = (e < 0) | (e >= last)
    e = tl.where(escape, last, e)
    return e, escape, tl.where(escape, 0, k).to(tl.int64), tl.load(rows + 4 * t + 3)


@triton.jit
def sides_kernel(
    symbols, index, first, count, rows, raw, raw_first, raw_at, escapes, escape_first, escape_at, notes, tables,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Append one chunk's raw bits (to zeroed raw[raw_first[c]:], int32 words) and escaped integers, in order."""
    c = tl.program_id(0)
    n, at = tl.load(count + c), tl.load(first + c)
    bit, away = tl.load(raw_at + c), tl.load(escape_at + c)
    raw_base, away_base = raw + tl.load(raw_first + c), escapes + tl.load(escape_first + c)
    bad = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, n, BLOCK):
        i = begin + tl.arange(0, BLOCK)
        on = i < n
        given = tl.load(index + at + i, on, 0).to(tl.int32)
        t = tl.minimum(tl.maximum(given, 0), tables - 1)
        bad = tl.where(on & (t != given), 1, bad)
        x = tl.load(symbols + at + i, on, 0)
        _, escape, k, _ = _entry(x, t, rows)
        escape = escape & on
        k = tl.where(on, k, 0)
        position = bit + tl.cumsum(k, axis=0) - k
        value = x.to(tl.int64).to(tl.uint64, bitcast=True) & ((1 << k) - 1).to(tl.uint64)
        value = value << (position & 31).to(tl.uint64)
        low = (value & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True)
        high = (value >> 32).to(tl.uint32).to(tl.int32, bitcast=True)
        tl.atomic_or(raw_base + (position >> 5), low, low != 0)
        tl.atomic_or(raw_base + (position >> 5) + 1, high, high != 0)
        bit += tl.sum(k, axis=0)
        nth = tl.cumsum(escape.to(tl.int64), axis=0)
        tl.store(away_base + away + nth - 1, x, escape)
        away += tl.sum(escape.to(tl.int64), axis=0)
    tl.store(raw_at + c, bit)
    tl.store(escape_at + c, away)
    tl.store(notes + c, tl.load(notes + c) | tl.max(bad))


@triton.jit
def estimate_kernel(
    symbols, index, first, count, before, every, rows, pack, part, seen, tables,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add to part[c] and seen[c] what `plain.coder.estimate_bits` does for each every[c]-th pair of a run of symbols.

    before: how many symbols of the run came earlier.
    """
    c = tl.program_id(0)
    n, at, gap = tl.load(count + c).to(tl.int64), tl.load(first + c), tl.load(every + c)
    start = (gap - tl.load(before + c) % gap) % gap
    samples = tl.maximum((n - start + gap - 1) // gap, 0)
    total = tl.load(part + c)
    for begin in range(0, samples, BLOCK):
        m = begin + tl.arange(0, BLOCK).to(tl.int64)
        on = m < samples
        i = start + m * gap
        t = tl.minimum(tl.maximum(tl.load(index + at + i, on, 0).to(tl.int32), 0), tables - 1)
        x = tl.load(symbols + at + i, on, 0)
        e, _, _, table = _entry(x, t, rows)
        f = tl.load(pack + table + e).to(tl.int64) & 0xFFFF
        log = ((f.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127).to(tl.int64)
        rest = ((f << 8) >> log) - 256
        bits = ((PRECISION - log) << 8) - rest - ((88 * rest * (256 - rest)) >> 16)
        total += tl.sum(tl.where(on, bits, 0), axis=0)
    tl.store(part + c, total)
    tl.store(seen + c, tl.load(seen + c) + samples)


@triton.jit
def encode_kernel(
    symbols, index, first, count, phase, order, lane0, state, used, words, home, rows, pack, reciprocals, slots, tables,
    K: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Push the symbols of each chunk, last first; phase[c] symbols of the chunk come before them.

    state, used (lanes,) int64; words int32, those of lane l from home[l] on. LAST: nothing comes before, so the states
    are written out too.
    """
    chunk, live, lane = _lanes(order, lane0, slots, K, GROUP)
    on_lane = live[:, None] & (tl.arange(0, K)[None, :] < K)
    n = tl.load(count + chunk, live, 0).to(tl.int64)[:, None]
    turn = (tl.load(phase + chunk, live, 0) & (K - 1))[:, None]
    base = tl.load(first + chunk, live, 0)[:, None]
    s = tl.load(state + lane, on_lane, 0).to(tl.uint64, bitcast=True)
    have = tl.load(used + lane, on_lane, 0)
    target = words + tl.load(home + lane, on_lane, 0)

    steps = tl.max((n + turn + K - 1) // K)
    i = (steps - 1) * K + tl.arange(0, K)[None, :] - turn
    for _ in range(steps):
        on = (i >= 0) & (i < n)
        t = tl.minimum(tl.maximum(tl.load(index + base + i, on, 0).to(tl.int32), 0), tables - 1)
        e, _, _, table = _entry(tl.load(symbols + base + i, on, 0), t, rows)
        pair = tl.load(pack + table + e).to(tl.uint32, bitcast=True).to(tl.uint64)
        shift: tl.constexpr = 24 - PRECISION
        f = (pair & 0xFFFF) << shift
        start = (pair >> 16) << shift
        over = on & ((s >> 40) >= f)
        tl.store(target + have, (s & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True), over)
        have = tl.where(over, have + 1, have)
        low = tl.where(over, s >> 32, s)
        # floor(2**64 / f) gives the quotient or one less
        quotient = tl.umulhi(low, tl.load(reciprocals + table + e).to(tl.uint64, bitcast=True))
        rest = low - quotient * f
        short = rest >= f
        quotient = tl.where(short, quotient + 1, quotient)
        rest = tl.where(short, rest - f, rest)
        s = tl.where(on, (quotient << 24) + start + rest, s)
        i -= K
    if LAST:
        for _ in tl.static_range(2):
            full = on_lane & (s != 0)
            tl.store(target + have, (s & 0xFFFFFFFF).to(tl.uint32).to(tl.int32, bitcast=True), full)
            have = tl.where(full, have + 1, have)
            s = s >> 32
    tl.store(state + lane, s.to(tl.int64, bitcast=True), on_lane)
    tl.store(used + lane, have, on_lane)


@triton.jit
def gather_kernel(source, source_first, target, target_first, size, BLOCK: tl.constexpr):
    """target[target_first[r]:][:size[r]] = source[source_first[r]:][:size[r]] for each r, int32."""
    r = tl.program_id(0)
    n = tl.load(size + r)
    a, b = source + tl.load(source_first + r), target + tl.load(target_first + r)
    for begin in range(0, n, BLOCK):
        i = begin + tl.arange(0, BLOCK)
        tl.store(b + i, tl.load(a + i, i < n), i < n)
