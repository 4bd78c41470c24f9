"""Block-adaptive coding of integer latents: no network, a table a block, made to be decoded fast.

A latent (C, h, w) is coded channel by channel. Each channel says whether its samples are predicted from their
neighbours (the median edge detector of LOCO-I, Weinberger et al. 2000) or taken as they are; each block of 8 x 8
positions then names one of 32 frozen Laplacian tables, as the difference to the block on its left; and the
residuals follow in raster order, each under the table of its block. Everything that the decoder does is integers, and
there is nothing to fit: the same program serves every codec. It costs some percent more bytes than
`context.ContextModel` and decodes many times faster.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import banks
from .coder import Decoder, Encoder
from .engine import current_engine
from .errors import FormatError, InputError
from .models import TableModel

BLOCK = 8  # side of a block, positions
PREDICTOR_TABLE = 9  # codes the predictor's number: nearly a bit each
STEP_TABLE = 22  # codes the differences between scale numbers
SCALE_UNIT = 2  # scale number n is table 2 n of the bank: finer steps cost more than they save
NUM_SCALES = 32
FIRST_SCALE = 10  # what the first scale number of a latent is the difference to
PLAIN, MED = 0, 1  # predictors; the numbers stand in streams
_STREAMS = 4  # as fast as it gets, for 16 bytes
_STREAMS_FROM = 2048  # symbols from which on these bytes are a few tenths of a percent
_REACH = 600  # residuals beyond cost an encoder's choice the same


def program(coder: Any, latent: npt.NDArray[Any] | None, shape: tuple[int, int, int]) -> npt.NDArray[np.int32]:
    """Code one latent with `coder` (encoder, decoder or rate meter).

    Args:
        latent: integer array of `shape`, or None to decode.
        shape: (C, h, w). A decoder may ask for fewer channels than were coded, a prefix.

    Returns:
        int32 array of `shape`: the latent.

    Raises:
        InputError: the latent is no integer array of `shape`.
        FormatError: decoded bytes are not of this program.
    """
    c, h, w = (int(n) for n in shape)
    if min(c, h, w) < 1:
        raise InputError(f"a latent has at least one sample along each axis, not {tuple(shape)}")
    if latent is not None and (latent.shape != (c, h, w) or latent.dtype.kind not in "iu"):
        raise InputError(f"expected an integer latent of shape {(c, h, w)}, not {latent.dtype}{latent.shape}")
    bank = banks.frozen_bank("laplace")
    out = np.empty((c, h, w), np.int32)
    first = FIRST_SCALE
    for channel in range(c):
        plan = None if latent is None else _plan(latent[channel], first)
        predictor = coder.code(
            None if plan is None else np.array([plan[0]], np.int32), TableModel(bank, np.uint8([PREDICTOR_TABLE]))
        )
        grid = (-(-h // BLOCK), -(-w // BLOCK))
        steps = coder.code(
            None if plan is None else scale_steps(plan[1], first), TableModel(bank, np.uint8(STEP_TABLE), 0, grid)
        )
        scale = scales_from(steps, first)
        if int(scale.min()) < 0 or int(scale.max()) >= NUM_SCALES or int(predictor[0]) not in (PLAIN, MED):
            raise FormatError(
                "a block names a table or predictor that does not exist: the chunk is corrupt or of another coding"
            )
        index = _spread(SCALE_UNIT * scale, h, w).astype(np.uint8)
        residual = np.asarray(coder.code(None if plan is None else plan[2], TableModel(bank, index)))
        out[channel] = from_med(residual) if int(predictor[0]) == MED else residual
        first = int(scale[0, 0])
    return out


def encode(latent: npt.NDArray[Any]) -> bytes:
    """The chunk of one latent (C, h, w) of integers."""
    encoder = Encoder(_STREAMS if latent.size >= _STREAMS_FROM else 1)
    program(encoder, latent, latent.shape)  # type: ignore[arg-type]
    return encoder.finish()


def decode(chunk: bytes, out: npt.NDArray[Any], limit: int, whole: bool = True) -> None:
    """Decode a chunk into `out`.

    Args:
        out: (C, h, w) int8, int16 or int32; need not be contiguous.
        limit: largest magnitude that may occur; it fits the dtype of `out`.
        whole: whether `out` takes all channels of the chunk, so that its end is checked too.

    Raises:
        FormatError: the chunk is corrupt, or holds latents beyond the limit.
    """
    if current_engine().name == "numba":
        from .compiled import blocks

        bank = banks.frozen_bank("laplace")
        if blocks.decode(np.frombuffer(chunk, np.uint8), bank.lut, bank.entries, limit, whole, out):
            return
    decoder = Decoder(chunk)
    latent = program(decoder, None, out.shape)  # type: ignore[arg-type]
    if whole:
        decoder.finish()
    if np.abs(latent.astype(np.int64)).max() > limit:
        raise FormatError(f"the chunk holds latents beyond +-{limit}")
    out[...] = latent


@cache
def _costs() -> npt.NDArray[np.float32]:
    """(64, 2 * _REACH + 1): bits that each table takes for each residual."""
    bank = banks.frozen_bank("laplace")
    residuals = np.arange(-_REACH, _REACH + 1)
    return np.stack([bank.costs(residuals, t) for t in range(bank.num_tables)]).astype(np.float32)


def _plan(x: npt.NDArray[Any], first: int) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Predictor, scale numbers of the blocks and residuals that take the fewest bits; a choice, so floats may do it."""
    best = None
    for predictor, residual in ((PLAIN, x.astype(np.int64)), (MED, to_med(x))):
        scale, bits = _choose_scales(residual)
        bits += float(_costs()[STEP_TABLE, np.diff(scale[:, 0], prepend=first) + _REACH].sum())
        if best is None or bits < best[0]:
            best = bits, predictor, scale, residual
    assert best is not None
    return best[1:]


def _choose_scales(residual: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], float]:
    """Scale numbers (rows, columns) of the blocks of residuals (h, w), and the bits that scales and residuals take.

    The best path along each row of blocks (Viterbi) over the numbers around what the deviation asks for.
    """
    h, w = residual.shape
    deviation = np.sqrt(2) * _block_sum(np.abs(residual)) / _block_sum(np.ones((h, w)))
    near = np.searchsorted(banks.scales()[::SCALE_UNIT], deviation)
    r = np.clip(residual, -_REACH, _REACH) + _REACH
    number = np.clip(near + np.arange(-4, 3)[:, None, None], 0, NUM_SCALES - 1)  # (candidates, rows, columns)
    bits = np.stack([_block_sum(_costs()[_spread(n * SCALE_UNIT, h, w), r]) for n in number])
    step_bits = _costs()[STEP_TABLE]
    total, back = bits[:, :, 0], []
    for column in range(1, number.shape[2]):
        steps = number[:, None, :, column] - number[None, :, :, column - 1]
        through = total[None] + step_bits[steps + _REACH]
        back.append(through.argmin(1))
        total = through.min(1) + bits[:, :, column]
    at, rows = total.argmin(0), np.arange(number.shape[1])
    picks = [at]
    for came in reversed(back):
        at = came[at, rows]
        picks.append(at)
    return np.take_along_axis(number, np.stack(picks[::-1], 1)[None], 0)[0], float(total.min(0).sum())


def _block_sum(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums over the blocks of (h, w)."""
    rows = np.add.reduceat(a, np.arange(0, a.shape[0], BLOCK), 0)
    return np.add.reduceat(rows, np.arange(0, a.shape[1], BLOCK), 1)


def _spread(blocks: npt.NDArray[Any], h: int, w: int) -> npt.NDArray[Any]:
    """A number a block -> a number a position, (h, w)."""
    return blocks.repeat(BLOCK, 0)[:h].repeat(BLOCK, 1)[:, :w]


def scale_steps(scale: npt.NDArray[Any], first: int) -> npt.NDArray[Any]:
    """Differences to the block on the left; at the start of a row to the one above, at the very start to `first`."""
    steps = np.diff(scale, axis=1, prepend=0)
    steps[:, 0] = np.diff(scale[:, 0], prepend=first)
    return steps


def scales_from(steps: npt.NDArray[Any], first: int) -> npt.NDArray[np.int64]:
    """Inverse of `scale_steps`."""
    out = np.array(steps, np.int64)
    out[:, 0] = np.cumsum(out[:, 0]) + first
    return np.cumsum(out, 1)


def _neighbours(x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The prediction of every sample from those on its left (a), above (b) and above left (c)."""
    a, b, c = (np.zeros(x.shape, np.int64) for _ in range(3))
    a[:, 1:], b[1:], c[1:, 1:] = x[:, :-1], x[:-1], x[:-1, :-1]
    b[0], c[0] = a[0], a[0]
    a[1:, 0], c[1:, 0] = b[1:, 0], b[1:, 0]
    return np.clip(a + b - c, np.minimum(a, b), np.maximum(a, b))


def to_med(x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Samples (h, w) minus their predictions: median of left, above, and left + above - above left.

    The first row is predicted from the left, the first column from above, the first sample as 0.
    """
    return x.astype(np.int64) - _neighbours(x)


def from_med(residual: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Inverse of `to_med`, modulo 2**32."""
    h, w = residual.shape
    out = residual.astype(np.int64).tolist()
    for y in range(h):
        for x in range(w):
            a = out[y][x - 1] if x else (out[y - 1][0] if y else 0)
            b = out[y - 1][x] if y else a
            c = out[y - 1][x - 1] if x and y else b if not x else a
            value = out[y][x] + min(max(a + b - c, min(a, b)), max(a, b))
            out[y][x] = ((value + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
    return np.array(out, np.int32)
