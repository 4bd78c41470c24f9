"""Wavelet packets in 2-D on the GPU: all levels at once, the signal read once and the bands written once.

A program makes one tile of 64 x 64 outputs of one plane as ``A X B^T``: X is the window of inputs under the tile, A and
B the dense matrices of its row and column of tiles (`packet_plan`). Both products run on tensor cores, X in one slab of
columns at a time; what is between them stays in registers. A tile of 64 is the balance: smaller ones read their
overlap more often (a window of 128 at J = 3: four reads of a sample, three of them from the caches), larger ones
multiply more zeros of the banded matrices.

`packet2d` is a custom operator: its gradient is the mirror image with the adjoint operator, and `torch.compile`
traces through it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..packet_operators import packet_operator
from . import on
from .packet_plan import TILE, AxisPlan, axis_plan

# What a slab of columns may take: with three TF32 products for a float32 one, 64 columns no longer fit the registers
# (Triton 3.6, sm_90, 4 warps: some 220 of 255 at 32 columns, 130 with one product at 128; beyond, they spill)
_SLABS = {"tf32x3": 32, "ieee": 32, "tf32": 128}


class Shape(NamedTuple):
    """What the kernels are told of a packet: blocks along both axes, planes, and the two axes' plans."""

    blocks: tuple[int, int]
    rows: AxisPlan
    columns: AxisPlan


@triton.jit
def band_of(x, LEVELS: tl.constexpr):
    """Bits of a band along one axis, spread to every second bit of its channel."""
    out = x & 0
    for j in tl.static_range(LEVELS):
        out += ((x >> j) & 1) << (2 * j)
    return out


@triton.jit
def _address(start, blocks, other, begin, LEVELS: tl.constexpr, SIZE: tl.constexpr, BANDS: tl.constexpr,
             WRAP: tl.constexpr, AXIS: tl.constexpr, LENGTH: tl.constexpr):  # fmt: skip
    """Offsets and validity of begin .. begin + LENGTH - 1 of a window of SIZE elements that begins at block ``start``.

    The address of an element is the sum of what this says of its row (AXIS 0) and of its column (AXIS 1); ``other``
    is the number of blocks along the other axis.
    """
    i = begin + tl.arange(0, LENGTH)
    S: tl.constexpr = 1 << LEVELS
    if BANDS:
        held: tl.constexpr = SIZE // S
        band = i // held
        block = start + i % held
    else:
        band = i % S
        block = start + i // S
    inside = (block >= 0) & (block < blocks) & (i < SIZE)
    if WRAP:
        block = ((block % blocks) + blocks) % blocks
        inside = i < SIZE
    if BANDS:
        if AXIS == 0:
            at = band_of(band, LEVELS) * (blocks * other) + block * other
        else:
            at = 2 * band_of(band, LEVELS) * (blocks * other) + block
    else:
        at = block * S + band
        if AXIS == 0:
            at = at * (other * S)
    return at, inside


@triton.jit
def matrix_of(matrices, kind, begin, TILE: tl.constexpr, WINDOW: tl.constexpr, LENGTH: tl.constexpr):
    """Columns begin .. begin + LENGTH - 1 of a tile's matrix, (TILE, LENGTH)."""
    i = begin + tl.arange(0, LENGTH)
    at = matrices + kind * (TILE * WINDOW) + tl.arange(0, TILE)[:, None] * WINDOW + i[None, :]
    return tl.load(at, (i < WINDOW)[None, :], 0.0)


@triton.jit
def window_product(
    base, a, b, row_kind, column_kind, row_start, column_start, nh, nw,
    LEVELS: tl.constexpr, INVERSE: tl.constexpr, WRAP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SLAB: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
    BYTES: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """A X B^T of one tile, (TILE, TILE) float32. Bytes stand for 0 to 1; SHIFT is added to what is read."""
    out = tl.zeros([TILE, TILE], tl.float32)
    for column in range(0, COLUMNS, SLAB):
        across, x_in = _address(column_start, nw, nh, column, LEVELS, COLUMNS, INVERSE, WRAP, 1, SLAB)
        half = tl.zeros([TILE, SLAB], tl.float32)
        for row in range(0, ROWS, CHUNK):
            down, y_in = _address(row_start, nh, nw, row, LEVELS, ROWS, INVERSE, WRAP, 0, CHUNK)
            x = tl.load(base + down[:, None] + across[None, :], y_in[:, None] & x_in[None, :], 0).to(tl.float32)
            if BYTES:
                x = tl.div_rn(x, 255.0)
            half = tl.dot(matrix_of(a, row_kind, row, TILE, ROWS, CHUNK), x + SHIFT, half, input_precision=PRECISION)
        right = matrix_of(b, column_kind, column, TILE, COLUMNS, SLAB)
        out = tl.dot(half, tl.trans(right), out, input_precision=PRECISION)
    return out


@triton.jit
def packet_kernel(
    x, y, a, b, row_kinds, column_kinds, row_starts, column_starts, nh, nw,
    LEVELS: tl.constexpr, INVERSE: tl.constexpr, WRAP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SLAB: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one plane: x and y are planes of nh * nw blocks, signal or bands."""
    S: tl.constexpr = 1 << LEVELS
    column, row, plane = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    size = plane * (nh * nw) * (S * S)
    out = window_product(
        x + size, a, b, tl.load(row_kinds + row), tl.load(column_kinds + column), tl.load(row_starts + row),
        tl.load(column_starts + column), nh, nw, LEVELS, INVERSE, WRAP, ROWS, COLUMNS, SLAB, CHUNK, TILE, PRECISION,
        False, 0.0,
    )  # fmt: skip
    per: tl.constexpr = TILE // S
    down, y_in = _address(row * per, nh, nw, 0, LEVELS, TILE, not INVERSE, False, 0, TILE)
    across, x_in = _address(column * per, nw, nh, 0, LEVELS, TILE, not INVERSE, False, 1, TILE)
    tl.store(y + size + down[:, None] + across[None, :], out.to(y.dtype.element_ty), y_in[:, None] & x_in[None, :])


def by_rows(levels: int, device: torch.device) -> Tensor:
    """Numbers of the bands in the order [y, x]; their bits are [y1 x1 y2 x2 ...], x the more significant of a level."""
    number = torch.arange(1 << 2 * levels, device=device).view([2] * (2 * levels))
    return number.permute(*range(1, 2 * levels, 2), *range(0, 2 * levels, 2)).flatten()


def shape_of(nh: int, nw: int, levels: int, wavelet: str, mode: Any, inverse: bool, adjoint: bool,
             device: torch.device) -> Shape:  # fmt: skip
    """Plans of a packet of nh x nw blocks.

    Raises:
        ValueError: a plane of 2**31 elements or more, beyond the kernels' offsets.
    """
    if nh * nw << 2 * levels >= 1 << 31:
        raise ValueError(f"a plane of {nh << levels} x {nw << levels} samples is too large for the GPU: use tiles")
    op = packet_operator(levels, wavelet, mode, inverse != adjoint)
    op = op.adjoint if adjoint else op
    wrap = mode == "periodization"
    return Shape((nh, nw), axis_plan(op, nh, inverse, wrap, device), axis_plan(op, nw, inverse, wrap, device))


def constants(shape: Shape, levels: int, inverse: bool, precision: str) -> dict[str, Any]:
    """Compile-time arguments of the kernels."""
    rows, columns = shape.rows, shape.columns
    return {
        "LEVELS": levels, "INVERSE": inverse, "WRAP": rows.wrap, "ROWS": rows.window, "COLUMNS": columns.window,
        "SLAB": _SLABS[precision], "CHUNK": 32, "TILE": TILE, "PRECISION": precision, "num_stages": 2,
    }  # fmt: skip


def arguments(shape: Shape) -> tuple[Any, ...]:
    """Run-time arguments of the kernels behind their tensors."""
    rows, columns = shape.rows, shape.columns
    return rows.matrices, columns.matrices, rows.kind, columns.kind, rows.start, columns.start, *shape.blocks


@torch.library.custom_op("latentzip::packet2d", mutates_args=())
def packet2d(
    x: Tensor, levels: int, wavelet: str, mode: str, inverse: bool, adjoint: bool, precision: str = "tf32x3"
) -> Tensor:
    """One stage of a packet, 1 to 4 levels: (B, C, H, W) to (B, C * 4**levels, H / 2**levels, W / 2**levels).

    Args:
        x: float32, float16 or bfloat16; sums are float32. Sides of signals are multiples of ``2**levels``.
        inverse: from bands to the signal.
        adjoint: the transposed operator of the other direction (what back-propagation needs).
        precision: of the products, as in Triton: "tf32x3" is near float32, "tf32" about three digits, "ieee" float32
            without tensor cores.
    """
    f, s = 4**levels, 1 << levels
    b, c, h, w = x.shape
    nh, nw = (h, w) if inverse else (h // s, w // s)
    out = x.new_empty((b, c // f, h * s, w * s) if inverse else (b, c * f, nh, nw))
    planes = b * (c // f if inverse else c)
    if not out.numel():
        return out
    x = x.contiguous()
    shape = shape_of(nh, nw, levels, wavelet, mode, inverse, adjoint, x.device)
    per = TILE // s
    with on(x):
        packet_kernel[(-(-nw // per), -(-nh // per), planes)](
            x, out, *arguments(shape), **constants(shape, levels, inverse, precision), num_warps=4
        )
    return out


@packet2d.register_fake
def _(x: Tensor, levels: int, wavelet: str, mode: str, inverse: bool, adjoint: bool, precision: str = "tf32x3"):  # type: ignore[no-untyped-def]
    f, s = 4**levels, 1 << levels
    b, c, h, w = x.shape
    return x.new_empty((b, c // f, h * s, w * s) if inverse else (b, c * f, h // s, w // s))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.rest = inputs[1:]


def _backward(ctx: Any, grad: Tensor) -> Any:
    levels, wavelet, mode, inverse, adjoint, precision = ctx.rest
    return packet2d(grad, levels, wavelet, mode, not inverse, not adjoint, precision), *[None] * 6


packet2d.register_autograd(_backward, setup_context=_setup)
