"""The compiled body of `table_levels`: a few rows' codes are fetched before their vectors are summed in registers.

Codes lie anywhere in memory: fetched together, they are waited for together. A loop alone would write a sum back after
each vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .compiled import compiled
from .tile import number

_LANES = 8  # channels of a vector register
_WIDE = 4 * _LANES
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_ROWS = 32  # whose codes are fetched together


def _sum(registers: int) -> Any:
    @intrinsic
    def tile(typing, vectors, codes, r, count, first, out, i, k):  # type: ignore[no-untyped-def]
        def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
            arrays = [context.make_array(signature.args[a])(context, b, args[a]) for a in (0, 1, 4, 5)]
            vectors, codes, first, out = (a.data for a in arrays)
            (_, entries, d), (_, most) = (cgutils.unpack_tuple(b, a.shape) for a in arrays[:2])
            _, _, r, count, _, _, i, k = args

            def at(data: Any, place: Any, v: int) -> Any:
                return b.bitcast(b.gep(data, [b.add(place, number(_LANES * v))]), _VECTOR.as_pointer())

            sums = [cgutils.alloca_once(b, _VECTOR) for _ in range(registers)]
            for v, slot in enumerate(sums):
                b.store(b.load(at(first, k, v), align=4), slot)
            names = b.gep(codes, [b.mul(r, most)])
            with cgutils.for_range(b, count) as part:
                code = b.zext(b.load(b.gep(names, [part.index])), d.type)
                place = b.add(b.mul(b.add(b.mul(part.index, entries), code), d), k)
                for v, slot in enumerate(sums):
                    b.store(b.fadd(b.load(slot), b.load(at(vectors, place, v), align=4)), slot)
            place = b.add(b.mul(i, d), k)
            for v, slot in enumerate(sums):
                b.store(b.load(slot), at(out, place, v), align=4)
            return context.get_dummy_value()

        n = types.intp
        return types.void(vectors, codes, n, n, first, out, n, n), generate

    return tile


_wide_sum = _sum(_WIDE // _LANES)
"""out[i, k : k + _WIDE] = first[k : k + _WIDE] + vectors[p, codes[r, p], k : k + _WIDE] for p < count, in this order.

vectors: (P, N, D) float32; codes: (_ROWS, P) uint8 below N; first: (D,); out: (rows, D). All in C order; nothing is
checked.
"""
_narrow_sum = _sum(1)
"""As `_wide_sum`, _LANES channels."""


@compiled
def add_levels(vectors, codes, sizes, words, rank, numbers, first, out):  # type: ignore[no-untyped-def]
    """As `table_levels.plain`, into ``out``; vectors are (L * G, N, D)."""
    parts, groups, d = vectors.shape[0], codes.shape[1], first.shape[0]
    near, counts = np.empty((_ROWS, parts), np.uint8), np.empty(_ROWS, np.int64)
    one = np.uint64(1)
    for begin in range(0, numbers.shape[0], _ROWS):
        rows = min(_ROWS, numbers.shape[0] - begin)
        for r in range(rows):
            block, start, word0, count, level = numbers[begin + r], np.int64(0), np.int64(0), 0, 0
            while True:
                for j in range(groups):
                    near[r, count + j] = codes[block, j]
                count += groups
                if count == parts:
                    break
                at = block - start
                word, bit = words[word0 + (at >> 6)], np.uint64(at & 63)
                if (word >> bit) & one == 0:
                    break
                x = word & ((one << bit) - one)
                x -= (x >> one) & np.uint64(0x5555555555555555)
                x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
                x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                ones = (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
                block = np.int64(rank[word0 + (at >> 6)]) + np.int64(ones)
                start += sizes[level]
                word0 += (sizes[level] + 63) >> 6
                level += 1
            counts[r] = count
        for r in range(rows):
            i, k = begin + r, 0
            while k + _WIDE <= d:
                _wide_sum(vectors, near, r, counts[r], first, out, i, k)
                k += _WIDE
            while k + _LANES <= d:
                _narrow_sum(vectors, near, r, counts[r], first, out, i, k)
                k += _LANES
            while k < d:
                total = first[k]
                for part in range(counts[r]):
                    total += vectors[part, near[r, part], k]
                out[i, k] = total
                k += 1
