"""exp, log2 and tanh on bits, for compiled loops.

The polynomials are vectorised where calls of the C library would not be; their relative error is below 2e-6.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import inlined

f4 = np.float32
i4 = np.int32


@intrinsic
def _as_float(_, x):  # type: ignore[no-untyped-def]
    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), build


@intrinsic
def _as_int(_, x):  # type: ignore[no-untyped-def]
    def build(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), build


_x = np.cos((np.arange(64) + 0.5) * np.pi / 64) * 0.5 - 0.5
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = (f4(v) for v in np.polyfit(_x, 2.0**_x, 6)[::-1])  # 2**f for -1 <= f <= 0
_x = np.cos((np.arange(200) + 0.5) * np.pi / 200) * 0.5 + 1.5
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (f4(v) for v in np.polyfit(_x - 1, np.log2(_x) / (_x - 1), 8)[::-1])
_LOG2_E = f4(1.4426950408889634)


@inlined
def exp_negative(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0; 2e-38 below -86."""
    t = max(x * _LOG2_E, f4(-125.0))
    i = i4(t)
    f = t - f4(i)
    p = _E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return p * _as_float(i4((i + i4(127)) << i4(23)))  # pyright: ignore[reportCallIssue]


@inlined
def log2(x):  # type: ignore[no-untyped-def]
    """log2(x) of a normal number above 0."""
    i = _as_int(x)  # pyright: ignore[reportCallIssue]
    e = i4((i >> i4(23)) - i4(127))
    m = _as_float(i4((i & i4(0x7FFFFF)) | i4(0x3F800000))) - f4(1)  # pyright: ignore[reportCallIssue]
    p = _L4 + m * (_L5 + m * (_L6 + m * (_L7 + m * _L8)))
    return f4(e) + m * (_L0 + m * (_L1 + m * (_L2 + m * (_L3 + m * p))))


@inlined
def tanh(x):  # type: ignore[no-untyped-def]
    """tanh(x)."""
    e = exp_negative(-abs(x) * f4(2))
    r = (f4(1) - e) / (f4(1) + e)
    return r if x >= f4(0) else -r


@inlined
def floor(x):  # type: ignore[no-untyped-def]
    """The largest integer not above x, as a float; for abs(x) < 2**31."""
    f = f4(i4(x))
    return f if f <= x else f - f4(1)
