"""Products of float matrices in registers: four rows by sixteen pixels at a time, and sums of eight lanes each.

A loop over the arrays alone is compiled to code that keeps the weights in registers and runs out of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..tile import number, unpack

WIDTH = 16  # pixels of a tile
LANES = 8  # partial sums of a weight's gradient
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)
_FUSED = ("contract",)


def _at(b: Any, array: Any, row: Any, column: Any) -> Any:
    """Where a vector of an array (data, length of a row) begins."""
    data, length = array
    return b.bitcast(b.gep(data, [b.add(b.mul(row, length), column)]), _VECTOR.as_pointer())


def _spread(b: Any, value: Any) -> Any:
    undefined, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return b.shuffle_vector(b.insert_element(undefined, value, first), undefined, mask)


def _add_product(b: Any, slot: Any, x: Any, y: Any) -> None:
    b.store(b.fadd(b.load(slot), b.fmul(x, y, flags=_FUSED), flags=_FUSED), slot)


def _slots(b: Any, rows: int, columns: int) -> list[list[Any]]:
    return [[cgutils.alloca_once(b, _VECTOR) for _ in range(columns)] for _ in range(rows)]


def _product(
    b: Any, begin: list[Any], weight: Callable[[Any, int], Any], x: Any, p: Any, count: Any
) -> list[list[Any]]:
    """begin[r] + sum over k of weight(k, r) x[k, p : p + WIDTH], two vectors a row."""
    sums = _slots(b, 4, 2)
    for r in range(4):
        for v in range(2):
            b.store(begin[r], sums[r][v])
    with cgutils.for_range(b, count) as loop:
        xs = [b.load(_at(b, x, loop.index, b.add(p, number(v))), align=4) for v in (0, LANES)]
        for r in range(4):
            w = _spread(b, b.load(weight(loop.index, r)))
            for v in range(2):
                _add_product(b, sums[r][v], xs[v], w)
    return [[b.load(s) for s in row] for row in sums]


def _store(b: Any, sums: list[list[Any]], y: Any, rows: list[Any], p: Any, kept: Callable[..., Any]) -> None:
    """y[rows, p : p + WIDTH] = the sums, each as ``kept`` (its value, row and column) makes it."""
    for row, values in zip(rows, sums):
        for v, value in enumerate(values):
            column = b.add(p, number(LANES * v))
            b.store(kept(value, row, column), _at(b, y, row, column), align=4)


def _above_zero(b: Any, seen: Any, value: Any) -> Any:
    """The value where ``seen`` is above zero, else zero."""
    return b.select(b.fcmp_ordered(">", seen, _ZERO), value, _ZERO)


def _product_tile(rectified: bool) -> Any:
    @intrinsic
    def tile(typing, w, bias, x, y, o, p, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
            w, bias, x, y = unpack(context, b, signature.args[:4], args[:4])
            o, p, count = args[4:]
            rows = [b.add(o, number(r)) for r in range(4)]
            begin = [_spread(b, b.load(b.gep(bias[0], [row]))) for row in rows]
            bases = [b.mul(row, w[1]) for row in rows]
            sums = _product(b, begin, lambda k, r: b.gep(w[0], [b.add(bases[r], k)]), x, p, count)
            _store(b, sums, y, rows, p, lambda value, *_: _above_zero(b, value, value) if rectified else value)
            return context.get_dummy_value()

        i = types.intp
        return types.void(w, bias, x, y, i, i, i), generate

    return tile


product_tile = _product_tile(False)
"""y[o : o + 4, p : p + WIDTH] = bias + w x: w (rows, >= count), x (count, n), y (rows, n) float32 in C order."""
rectified_tile = _product_tile(True)
"""As `product_tile`, negative results set to zero."""


def _transposed_tile(masked: bool) -> Any:
    @intrinsic
    def tile(typing, w, g, mask, y, i, p, count):  # type: ignore[no-untyped-def]
        def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
            w, g, mask, y = unpack(context, b, signature.args[:4], args[:4])
            i, p, count = args[4:]
            rows = [b.add(i, number(r)) for r in range(4)]
            sums = _product(
                b, [_ZERO] * 4, lambda k, r: b.gep(w[0], [b.add(b.mul(k, w[1]), rows[r])]), g, p, count
            )  # fmt: skip

            def kept(value: Any, row: Any, column: Any) -> Any:
                return _above_zero(b, b.load(_at(b, mask, row, column), align=4), value) if masked else value

            _store(b, sums, y, rows, p, kept)
            return context.get_dummy_value()

        n = types.intp
        return types.void(w, g, mask, y, n, n, n), generate

    return tile


transposed_tile = _transposed_tile(False)
"""y[i : i + 4, p : p + WIDTH] = w[:count]^T g: w (>= count, columns), g (count, n), y (columns, n)."""
masked_tile = _transposed_tile(True)
"""As `transposed_tile`, zero where ``mask``, which is shaped as y, is not above zero."""


@intrinsic
def outer_tile(typing, g, x, sums, o, i, n):  # type: ignore[no-untyped-def]
    """sums[o + r, i + c] += g[o + r, :n] x[i + c, :n] for four rows and two columns, in LANES partial sums each.

    sums: (rows, columns * LANES) float32; n: a multiple of LANES.
    """

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        g, x, total = unpack(context, b, signature.args[:3], args[:3])
        o, i, n = args[3:]
        rows, columns = [b.add(o, number(r)) for r in range(4)], [b.add(i, number(c)) for c in range(2)]
        places = [[_at(b, total, row, b.mul(column, number(LANES))) for column in columns] for row in rows]
        sums = _slots(b, 4, 2)
        for r in range(4):
            for c in range(2):
                b.store(b.load(places[r][c], align=4), sums[r][c])
        with cgutils.for_range_slice(b, number(0), n, number(LANES), number(0).type) as (p, _):
            xs = [b.load(_at(b, x, column, p), align=4) for column in columns]
            for r, row in enumerate(rows):
                slope = b.load(_at(b, g, row, p), align=4)
                for c in range(2):
                    _add_product(b, sums[r][c], slope, xs[c])
        for r in range(4):
            for c in range(2):
                b.store(b.load(sums[r][c]), places[r][c], align=4)
        return context.get_dummy_value()

    k = types.intp
    return types.void(g, x, sums, k, k, k), generate


@intrinsic
def row_sums_tile(typing, g, sums, o, n):  # type: ignore[no-untyped-def]
    """sums[o + r] += the sum of g[o + r, :n] for four rows, in LANES partial sums; sums: (rows, LANES) float32."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        g, total = unpack(context, b, signature.args[:2], args[:2])
        o, n = args[2:]
        rows = [b.add(o, number(r)) for r in range(4)]
        places = [_at(b, total, row, number(0)) for row in rows]
        slots = [row[0] for row in _slots(b, 4, 1)]
        for slot, place in zip(slots, places):
            b.store(b.load(place, align=4), slot)
        with cgutils.for_range_slice(b, number(0), n, number(LANES), number(0).type) as (p, _):
            for slot, row in zip(slots, rows):
                b.store(b.fadd(b.load(slot), b.load(_at(b, g, row, p), align=4)), slot)
        for slot, place in zip(slots, places):
            b.store(b.load(slot), place, align=4)
        return context.get_dummy_value()

    k = types.intp
    return types.void(g, sums, k, k), generate
