"""Steps of adaptive models on several numbers at once, in registers: what loops alone are not compiled to.

Each is one intrinsic over `WIDTH` neighbours in memory; `plain.lanes` is the definition. Nothing is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

WIDTH = 8
FOUR = 4
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _data(context: Any, b: Any, kind: Any, value: Any, at: Any) -> Any:
    return b.gep(context.make_array(kind)(context, b, value).data, [at])


def _load(b: Any, place: Any, count: int, bits: int = 32) -> Any:
    return b.load(b.bitcast(place, ir.VectorType(ir.IntType(bits), count).as_pointer()), align=bits // 8)


def _store(b: Any, value: Any, place: Any) -> None:
    b.store(value, b.bitcast(place, value.type.as_pointer()), align=value.type.element.width // 8)


def _spread(b: Any, value: Any, count: int) -> Any:
    kind = ir.VectorType(value.type, count)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_I32, count), [0] * count))


def _all(kind: Any, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _wide(b: Any, x: Any) -> Any:
    return b.sext(x, ir.VectorType(_I64, x.type.count))


def _sum(b: Any, x: Any) -> Any:
    count = x.type.count
    while count > 1:
        count //= 2
        mask = [ir.Constant(ir.VectorType(_I32, count), list(range(s, s + count))) for s in (0, count)]
        low, high = (b.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), m) for m in mask)
        x = b.add(low, high)
    return b.extract_element(x, ir.Constant(_I32, 0))


@intrinsic
def stretched_sum(_, memory, slots, i, first, second, table, out):  # type: ignore[no-untyped-def]
    """See `plain.lanes.stretched_sum`."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        memory, slots, i, first, second, table, out = args
        places = _load(b, _data(context, b, kinds[1], slots, i), FOUR, 64)
        found: Any = ir.Constant(ir.VectorType(_I32, FOUR), ir.Undefined)
        for k in range(FOUR):
            place = b.extract_element(places, ir.Constant(_I32, k))
            state = b.load(_data(context, b, kinds[0], memory, place))
            at = b.zext(b.lshr(state, ir.Constant(_I32, 19)), _I64)
            value = b.sext(b.load(_data(context, b, kinds[5], table, at)), _I32)
            found = b.insert_element(found, value, ir.Constant(_I32, k))
        _store(b, found, _data(context, b, kinds[6], out, i))
        weights = [_load(b, _data(context, b, kinds[0], memory, b.add(w, i)), FOUR) for w in (first, second)]
        return _sum(b, b.mul(_wide(b, found), _wide(b, b.add(*weights))))

    n = types.int64
    return n(memory, slots, n, n, n, table, out), build


@intrinsic
def weights_step(_, memory, at, out, i, error, most):  # type: ignore[no-untyped-def]
    """See `plain.lanes.weights_step`."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        memory, at, out, i, error, most = args
        kind = ir.VectorType(_I32, FOUR)
        x = _load(b, _data(context, b, kinds[2], out, i), FOUR)
        step = b.mul(x, _spread(b, b.trunc(error, _I32), FOUR))
        step = b.ashr(b.add(step, _all(kind, 1 << 17)), _all(kind, 18))
        top = _spread(b, b.trunc(most, _I32), FOUR)
        place = _data(context, b, kinds[0], memory, b.add(at, i))
        w = b.add(_load(b, place, FOUR), step)
        w = b.select(b.icmp_signed("<", w, top), w, top)
        low = b.neg(top)
        _store(b, b.select(b.icmp_signed(">", w, low), w, low), place)
        return context.get_dummy_value()

    n = types.int64
    return types.void(memory, n, out, n, n, n), build


@intrinsic
def product_sum(_, a, at, x, i):  # type: ignore[no-untyped-def]
    """See `plain.lanes.product_sum`."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        left = _load(b, _data(context, b, kinds[0], args[0], b.add(args[1], args[3])), WIDTH)
        right = _load(b, _data(context, b, kinds[2], args[2], args[3]), WIDTH)
        return _sum(b, b.mul(_wide(b, left), _wide(b, right)))

    n = types.int64
    return n(a, n, x, n), build


@intrinsic
def products_fade(_, cov, at, v, j, g, fade):  # type: ignore[no-untyped-def]
    """See `plain.lanes.products_fade`."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        cov, at, v, j, g, fade = args
        place = _data(context, b, kinds[0], cov, b.add(at, j))
        c = _load(b, place, WIDTH)
        x = _load(b, _data(context, b, kinds[2], v, j), WIDTH)
        more = b.mul(x, _spread(b, b.trunc(g, _I32), WIDTH))
        less = b.ashr(c, _spread(b, b.trunc(fade, _I32), WIDTH))
        _store(b, b.sub(b.add(c, more), less), place)
        return context.get_dummy_value()

    n = types.int64
    return types.void(cov, n, v, n, n, n), build


@intrinsic
def rest_fade(_, rest, at, v, j, e, decay):  # type: ignore[no-untyped-def]
    """See `plain.lanes.rest_fade`."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        rest, at, v, j, e, decay = args
        place = _data(context, b, kinds[0], rest, b.add(at, j))
        r = _load(b, place, WIDTH, 64)
        x = _load(b, _data(context, b, kinds[2], v, j), WIDTH)
        more = b.ashr(b.mul(x, _spread(b, b.trunc(e, _I32), WIDTH)), _all(x.type, 2))
        less = b.ashr(r, _spread(b, decay, WIDTH))
        _store(b, b.sub(b.add(r, _wide(b, more)), less), place)
        return context.get_dummy_value()

    n = types.int64
    return types.void(rest, n, v, n, n, n), build


@intrinsic
def rest_less(_, rest, at, cov, row, j, g):  # type: ignore[no-untyped-def]
    """See `plain.lanes.rest_less`."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        rest, at, cov, row, j, g = args
        place = _data(context, b, kinds[0], rest, b.add(at, j))
        r = _load(b, place, WIDTH, 64)
        c = _wide(b, _load(b, _data(context, b, kinds[2], cov, b.add(row, j)), WIDTH))
        less = b.mul(c, _wide(b, _spread(b, b.trunc(g, _I32), WIDTH)))
        _store(b, b.sub(r, b.ashr(less, _all(less.type, 15))), place)
        return context.get_dummy_value()

    n = types.int64
    return types.void(rest, n, cov, n, n, n), build
