"""Wavelet packets in 1-D on the GPU: one stage of up to four levels as a matrix product over overlapping windows.

Block b of the output is the same ``taps (s x k)`` times the k inputs from ``b s + first`` on, so the stage is a product
of a matrix of windows, which exists only as addresses, with the transposed taps. A program takes 128 blocks of one
signal: 16 columns fill a tensor core's width at four levels, and consecutive blocks are consecutive addresses of a
band. The few blocks at symmetric ends, whose rows differ, are a small product beside it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..block_operator import BlockOperator
from ..packet_operators import packet_operator
from . import on

BLOCKS = 128
_CHUNK = 32


@triton.jit
def packet1d_kernel(
    x, y, taps, blocks, begin, end, first,
    S: tl.constexpr, OUT: tl.constexpr, WINDOW: tl.constexpr, HELD: tl.constexpr, INVERSE: tl.constexpr,
    WRAP: tl.constexpr, BLOCKS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Blocks begin .. end - 1 of one signal a program's second index. taps: (WINDOW, OUT), outputs padded to OUT.

    INVERSE: inputs are bands, and a window counts [band, block] with HELD blocks from ``first`` on; else ``first`` is
    in samples.
    """
    signal = tl.program_id(1).to(tl.int64) * blocks * S
    b = begin + tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    out = tl.arange(0, OUT)
    total = tl.zeros([BLOCKS, OUT], tl.float32)
    for k0 in range(0, WINDOW, CHUNK):
        k = k0 + tl.arange(0, CHUNK)
        if INVERSE:
            block = b[:, None] + first + k[None, :] % HELD
            if WRAP:
                block = ((block % blocks) + blocks) % blocks
            at = k[None, :] // HELD * blocks + block
            inside = (block >= 0) & (block < blocks) & (k < S * HELD)[None, :]
        else:
            at = b[:, None] * S + first + k[None, :]
            if WRAP:
                at = ((at % (blocks * S)) + blocks * S) % (blocks * S)
            inside = (at >= 0) & (at < blocks * S)
        part = tl.load(x + signal + at, inside & (b < end)[:, None], 0).to(tl.float32)
        total = tl.dot(part, tl.load(taps + k[:, None] * OUT + out[None, :]), total, input_precision=PRECISION)
    if INVERSE:
        at = b[:, None] * S + out[None, :]
    else:
        at = out[None, :] * blocks + b[:, None]
    tl.store(y + signal + at, total.to(y.dtype.element_ty), (b < end)[:, None] & (out < S)[None, :])


@lru_cache(maxsize=64)
def _taps(op: BlockOperator, inverse: bool, device: torch.device) -> tuple[Tensor, int, int]:
    """(window, outputs) float32, where windows begin, and the blocks that a window of bands holds."""
    s, first, rows = op.step_in, op.first, op.taps
    held = 1
    if inverse:
        start = first // s
        held = -(-(first + rows.shape[1]) // s) - start
        whole = np.zeros((s, held * s))
        whole[:, first - start * s :][:, : rows.shape[1]] = rows
        rows = whole.reshape(s, held, s).transpose(0, 2, 1).reshape(s, -1)
        first = start
    window, out = -(-rows.shape[1] // _CHUNK) * _CHUNK, max(16, s)
    padded = np.zeros((window, out), np.float32)
    padded[: rows.shape[1], :s] = rows.T
    # inference tensors in this cache could not take part in a later training step
    with torch.inference_mode(False):
        return torch.from_numpy(padded).to(device), first, held


def _blocks_of(x: Tensor, s: int, inverse: bool) -> Tensor:
    """Signals (R, n s) or bands (R, s, n) -> (R, n s) in the operator's order [block, band]."""
    return x.transpose(1, 2).reshape(len(x), -1) if inverse else x.reshape(len(x), -1)


def _ends(op: BlockOperator, x: Tensor, out: Tensor, s: int, inverse: bool) -> None:
    """The blocks at both ends (all of them in a short signal), into ``out``."""
    r, n = len(x), x.numel() // len(x) // s
    kind = x.float().view(r, s, n) if inverse else x.float().view(r, n * s)
    target = out.view(r, n, s) if inverse else out.view(r, s, n).transpose(1, 2)
    if n < op.min_blocks:
        rows = op.dense_on(n, x.device, torch.float32)
        target.copy_((_blocks_of(kind, s, inverse) @ rows.t()).view(r, n, s))
        return
    e, some = op.ends, -(-op.reach // s)
    head = _blocks_of(kind[..., :some] if inverse else kind[..., : some * s], s, inverse)[:, : op.reach]
    tail = _blocks_of(kind[..., -some:] if inverse else kind[..., -some * s :], s, inverse)[:, -op.reach :]
    ends = (torch.cat((head, tail), 1) @ op.on(x.device, torch.float32)[1].t()).view(r, 2 * e, s)
    target[:, :e] = ends[:, :e].to(out.dtype)
    target[:, n - e :] = ends[:, e:].to(out.dtype)


@torch.library.custom_op("latentzip::packet1d", mutates_args=())
def packet1d(
    x: Tensor, levels: int, wavelet: str, mode: str, inverse: bool, adjoint: bool, precision: str = "tf32x3"
) -> Tensor:
    """One stage of a packet, 1 to 4 levels: (B, C, L) to (B, C * 2**levels, L / 2**levels); arguments as in
    `packet.packet2d`."""
    s = 1 << levels
    b, c, length = x.shape
    out = x.new_empty((b, c // s, length * s) if inverse else (b, c * s, length // s))
    if not out.numel():
        return out
    op = packet_operator(levels, wavelet, mode, inverse != adjoint)  # type: ignore[arg-type]
    op = op.adjoint if adjoint else op
    signals = b * (c // s if inverse else c)
    n = x.numel() // signals // s
    x, wrap = x.contiguous(), mode == "periodization"
    begin, end = (0, n) if wrap else (op.ends, n - op.ends)
    if wrap or n >= op.min_blocks:
        taps, first, held = _taps(op, inverse, x.device)
        with on(x):
            packet1d_kernel[(-(-(end - begin) // BLOCKS), signals)](
                x, out, taps, n, begin, end, first, S=s, OUT=taps.shape[1], WINDOW=taps.shape[0], HELD=held,
                INVERSE=inverse, WRAP=wrap, BLOCKS=BLOCKS, CHUNK=_CHUNK, PRECISION=precision, num_warps=4,
            )  # fmt: skip
    if not wrap:
        _ends(op, x.view(signals, -1), out.view(signals, -1), s, inverse)
    return out


@packet1d.register_fake
def _(x: Tensor, levels: int, wavelet: str, mode: str, inverse: bool, adjoint: bool, precision: str = "tf32x3"):  # type: ignore[no-untyped-def]
    b, c, length = x.shape
    s = 1 << levels
    return x.new_empty((b, c // s, length * s) if inverse else (b, c * s, length // s))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.rest = inputs[1:]


def _backward(ctx: Any, grad: Tensor) -> Any:
    levels, wavelet, mode, inverse, adjoint, precision = ctx.rest
    return packet1d(grad, levels, wavelet, mode, not inverse, not adjoint, precision), *[None] * 6


packet1d.register_autograd(_backward, setup_context=_setup)
