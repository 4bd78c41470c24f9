"""Vectors of floats that lie side by side: what loops alone are compiled to only with checks at every line."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8
_VECTOR, _INDEX = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)


def _spread(b: Any, factor: Any) -> Any:
    one = b.insert_element(ir.Constant(_VECTOR, ir.Undefined), factor, ir.Constant(ir.IntType(32), 0))
    return b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INDEX, [0] * LANES))


def _added(b: Any, x: Any, factor: Any, one: Any, other: Any) -> Any:
    """x + factor * (one + other), fused where the machine can."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    together = cgutils.get_or_insert_function(b.module, kind, f"llvm.fmuladd.v{LANES}f32")
    return b.call(together, [factor, b.fadd(one, other), x])


def _lines(context: Any, b: Any, kind: Any, flat: Any, places: list[Any]) -> list[Any]:
    data = context.make_array(kind)(context, b, flat).data
    return [b.bitcast(b.gep(data, [p]), _VECTOR.as_pointer()) for p in places]


@intrinsic
def lift_line(typing, flat, at, before, after, count, factor):  # type: ignore[no-untyped-def]
    """flat[at + i] += factor * (flat[before + i] + flat[after + i]) for i < count, float32.

    count is a multiple of LANES; nothing is checked.
    """

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        lines = _lines(context, b, signature.args[0], args[0], list(args[1:4]))
        factor = _spread(b, args[5])
        with cgutils.for_range(b, b.lshr(args[4], ir.Constant(args[4].type, 3))) as loop:
            x, one, other = (b.gep(line, [loop.index]) for line in lines)
            values = [b.load(p, align=4) for p in (x, one, other)]
            b.store(_added(b, values[0], factor, *values[1:]), x, align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(flat, i, i, i, i, types.float32), generate


@intrinsic
def lift_lines(typing, flat, at, pitch, count, first, second, third, fourth):  # type: ignore[no-untyped-def]
    """`lift_line` of the line at ``at``, then of the three before it, each between its neighbours a pitch away, with a
    factor each; what one writes the next one reads."""

    def generate(context: Any, b: Any, signature: Any, args: Any) -> Any:
        at, pitch, count = args[1:4]
        places = [b.add(at, pitch)]
        for _ in range(5):
            places.append(b.sub(places[-1], pitch))
        lines = _lines(context, b, signature.args[0], args[0], places)
        factors = [_spread(b, f) for f in args[4:]]
        with cgutils.for_range(b, b.lshr(count, ir.Constant(count.type, 3))) as loop:
            here = [b.gep(line, [loop.index]) for line in lines]
            values = [b.load(p, align=4) for p in here]
            for k, factor in enumerate(factors, 1):
                values[k] = _added(b, values[k], factor, values[k - 1], values[k + 1])
                b.store(values[k], here[k], align=4)
        return context.get_dummy_value()

    i, f = types.intp, types.float32
    return types.void(flat, i, i, i, f, f, f, f), generate
