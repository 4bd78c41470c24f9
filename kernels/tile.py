"""Products of 16-bit integers with 32-bit sums, in registers: what loops alone are not compiled to.

A *pair* is two 16-bit integers in one int32. A vector of pairs times a pair, summed by twos, is one instruction on
x86 (pmaddwd); the code below says so in terms of any machine, and the compiler finds the instruction where it exists.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_I32 = ir.IntType(32)
_VECTOR, _PAIRS, _WIDE = ir.VectorType(_I32, 8), ir.VectorType(ir.IntType(16), 16), ir.VectorType(_I32, 16)


def number(n: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), n)


def _pick(b: Any, x: Any, places: range) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(places)), list(places))
    return b.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), mask)


def _spread(b: Any, value: Any) -> Any:
    one = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_I32, 0))
    mask = ir.Constant(_VECTOR, [0] * 8)
    return b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)


def _product(b: Any, x: Any, w: Any) -> Any:
    wide = b.mul(b.sext(b.bitcast(x, _PAIRS), _WIDE), b.sext(b.bitcast(w, _PAIRS), _WIDE))
    return b.add(_pick(b, wide, range(0, 16, 2)), _pick(b, wide, range(1, 16, 2)))


def _at(b: Any, array: Any, row: Any, column: Any) -> Any:
    """Where a vector of an array (data, length of a row) begins."""
    data, length = array
    return b.bitcast(b.gep(data, [b.add(b.mul(row, length), column)]), _VECTOR.as_pointer())


def _sums(b: Any, w: Any, x: Any, begin: Any, row: Any, p: Any, count: Any) -> Any:
    """begin[r][v] + w[row + r, :count] x[:count, p : p + WIDTH], two vectors a row; w and x are (data, row length)."""
    sums = [[cgutils.alloca_once(b, _VECTOR) for _ in range(2)] for _ in begin]
    for r, vectors in enumerate(begin):
        for v, value in enumerate(vectors):
            b.store(value, sums[r][v])
    weights = [b.gep(w[0], [b.mul(b.add(row, number(r)), w[1])]) for r in range(len(begin))]
    with cgutils.for_range(b, count) as loop:
        xs = [b.load(_at(b, x, loop.index, b.add(p, number(v))), align=4) for v in (0, 8)]
        for r in range(len(begin)):
            weight = _spread(b, b.load(b.gep(weights[r], [loop.index])))
            for v in range(2):
                b.store(b.add(b.load(sums[r][v]), _product(b, xs[v], weight)), sums[r][v])
    return [[b.load(s) for s in vectors] for vectors in sums]


def unpack(context: Any, b: Any, kinds: Any, values: Any) -> Any:
    """(data, length of a row) of each array."""
    arrays = [context.make_array(t)(context, b, v) for t, v in zip(kinds, values)]
    return [(a.data, cgutils.unpack_tuple(b, a.shape)[-1]) for a in arrays]


_NONE = ir.Constant(_VECTOR, None)


@intrinsic
def hidden_tile(typing, w, x, bias, shift, top, y, o, p, count):  # type: ignore[no-untyped-def]
    """Pairs of four hidden units o..o + 3: y[o / 2 + i, p : p + WIDTH], each clip((w x + bias) >> shift, 0, top).

    w: (units, count) and x: (count, n) int32 of pairs, y: (units / 2, n) int32, bias and shift int32, all in C
    order; top below 2**15. Nothing is checked.
    """

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        w, x, bias, shift = unpack(context, b, kinds[:4], args[:4])
        (y,) = unpack(context, b, kinds[5:6], args[5:6])
        o, p, count = args[6:]
        top = _spread(b, b.trunc(args[4], _I32))
        units = []
        for r, vectors in enumerate(_sums(b, w, x, [[_NONE] * 2] * 4, o, p, count)):
            add, by = (_spread(b, b.load(b.gep(a[0], [b.add(o, number(r))]))) for a in (bias, shift))
            clipped = []
            for value in vectors:
                h = b.ashr(b.add(value, add), by)
                h = b.select(b.icmp_signed(">", h, _NONE), h, _NONE)
                clipped.append(b.select(b.icmp_signed("<", h, top), h, top))
            units.append(clipped)
        for r in (0, 2):
            for v in range(2):
                pair = b.or_(units[r][v], b.shl(units[r + 1][v], ir.Constant(_VECTOR, [16] * 8)))
                row = b.lshr(b.add(o, number(r)), number(1))
                b.store(pair, _at(b, y, row, b.add(p, number(8 * v))), align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(w, x, bias, shift, i, y, i, i, i), generate


@intrinsic
def pairs_tile(typing, bytes_, at, step, x, p, count):  # type: ignore[no-untyped-def]
    """Pairs of signed bytes, WIDTH at a time: x[k, p + i] = bytes[at[2 k] + i], bytes[at[2 k + 1] + i] for k < count.

    bytes: (n,) int8; at: (2 count,) int64, to which step, (2 count,) int64, is added; x: (count, n) int32 of pairs.
    All in C order; nothing is checked.
    """

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        (data, _), (at, _), (step, _), x = unpack(context, b, signature.args[:4], args[:4])
        p, count = args[4:]
        line = ir.VectorType(ir.IntType(8), 16)
        with cgutils.for_range(b, count) as loop:
            taps = []
            for one in (0, 1):
                f = b.add(b.shl(loop.index, number(1)), number(one))
                place = b.gep(at, [f])
                here = b.load(place)
                taps.append(b.load(b.bitcast(b.gep(data, [here]), line.as_pointer()), align=1))
                b.store(b.add(here, b.load(b.gep(step, [f]))), place)
            for v in (0, 8):
                places = [i for k in range(v, v + 8) for i in (k, 16 + k)]
                mixed = b.shuffle_vector(*taps, ir.Constant(ir.VectorType(_I32, 16), places))
                pair = b.bitcast(b.sext(mixed, _PAIRS), _VECTOR)
                b.store(pair, _at(b, x, loop.index, b.add(p, number(v))), align=4)
        return context.get_dummy_value()

    return types.void(bytes_, at, step, x, types.intp, types.intp), generate


@intrinsic
def copy_line(typing, source, here, to, there):  # type: ignore[no-untyped-def]
    """to[there : there + WIDTH] = source[here : here + WIDTH], two arrays of one dtype in C order, unchecked."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        (source, _), (to, _) = unpack(context, b, signature.args[0::2], args[0::2])
        line = ir.VectorType(source.type.pointee, 16).as_pointer()
        value = b.load(b.bitcast(b.gep(source, [args[1]]), line), align=1)
        b.store(value, b.bitcast(b.gep(to, [args[3]]), line), align=1)
        return context.get_dummy_value()

    return types.void(source, types.intp, to, types.intp), generate


@intrinsic
def last_tile(typing, w, x, count, rear, hidden, pairs, o, y, p):  # type: ignore[no-untyped-def]
    """y[:2, p : p + WIDTH] = w[o : o + 2, :count] x + rear[:2, :pairs] hidden; arrays as in `hidden_tile`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        w, x, count, rear, hidden, pairs, o, y, p = args
        kinds = signature.args
        w, x, rear, hidden, y = unpack(context, b, [kinds[i] for i in (0, 1, 3, 4, 7)], [w, x, rear, hidden, y])
        sums = _sums(b, w, x, [[_NONE] * 2] * 2, o, p, count)
        sums = _sums(b, rear, hidden, sums, number(0), p, pairs)
        for r in range(2):
            for v in range(2):
                b.store(sums[r][v], _at(b, y, number(r), b.add(p, number(8 * v))), align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(w, x, i, rear, hidden, i, i, y, i), generate


@intrinsic
def sums_tile(typing, w, x, y, p, count):  # type: ignore[no-untyped-def]
    """y[:4, p : p + WIDTH] = w[:4, :count] x; arrays as in `hidden_tile`."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        w, x, y = unpack(context, b, signature.args[:3], args[:3])
        p, count = args[3:]
        for r, vectors in enumerate(_sums(b, w, x, [[_NONE] * 2] * 4, number(0), p, count)):
            for v, value in enumerate(vectors):
                b.store(value, _at(b, y, number(r), b.add(p, number(8 * v))), align=4)
        return context.get_dummy_value()

    return types.void(w, x, y, types.intp, types.intp), generate
