"""Rows as product codes: from a tensor to chunks of codes and back, under codebooks of a profile or of the stream."""

from __future__ import annotations

from math import ceil, inf
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from ...entropy import arrays
from ...entropy.coder import Decoder, Encoder
from ...entropy.errors import FormatError, InputError
from ...kernels.parallel import parallel
from ..base import Compressed
from ..vq.codes import MOST, Codebooks
from . import blocks
from . import codebooks as codebooks_
from .codebooks import CodeProfile
from .encoder import Goal, Job, bits_used
from .layout import CODES, PROFILE, SIDE, Params, View

_WHERE = "features: a chunk"
_MARGIN = 0.999  # float16 tensors lose something by being rounded


def check_goal(goal: Goal, asked: bool, profiled: bool) -> None:
    """Raises InputError for goals that codewords do not have.

    Args:
        asked: whether a goal was given.
    """
    if goal.kind in ("max_error", "relative_error"):
        raise InputError(f"{goal.kind}: codewords bound no single value; give nmse or bits, or another transform")
    if not asked and not profiled:
        raise InputError("transform 'vq' needs a goal, nmse or bits; or a profile: FeatureCodec.fit(x, transform='vq')")


def encode(job: Job, profile: CodeProfile | None) -> Compressed | None:
    """The shortest stream found for the goal of the job; None where it asks for keeping every bit."""
    return _own(job) if profile is None else _profiled(job, profile)


def _profiled(job: Job, profile: CodeProfile) -> Compressed:
    """As many levels of the profile's codes as the goal needs, or as it has room for."""
    product, goal = profile.product, job.goal
    codes = codebooks_.codes_of(product, job.x)
    if goal.kind == "step":
        return _stream(job, profile.books, codes, product.levels, True)[0]
    tried = range(1, product.levels + 1)
    if goal.kind == "bits":
        found = [_stream(job, profile.books, codes, levels, True)[0] for levels in tried]
        fitting = [packed for packed in found if bits_used(packed) <= goal.value * job.x.numel()]
        if not fitting:
            raise _too_few(goal.value * job.x.numel())
        return fitting[-1]
    error = inf
    for levels in tried:
        packed, error = _stream(job, profile.books, codes, levels, True)
        if error <= goal.value:
            return packed
    raise InputError(
        f"the codebooks leave a mean squared error of {error:.3g}, and {goal.value:.3g} was asked for: fit a profile "
        "of more codes (size=), or leave the goal out"
    )


def _own(job: Job) -> Compressed | None:
    """Codebooks fitted to the tensor and sent along: the fewest codes that keep to an error, or the most that fit."""
    goal, (n, d) = job.goal, job.x.shape
    codebooks_.check_rows(n, d)
    if goal.kind == "mse":
        found = codebooks_.fewest(job.x, goal.value * _MARGIN, 1, codebooks_.PRICE)
        if found is None:
            return None
        packed, error = _stream(job, *found, 1, False)
        return packed if error <= goal.value else None
    target, fitting = goal.value * job.x.numel(), {}

    def ahead(count: int) -> float:
        packed = _stream(job, *codebooks_.fitted(job.x, count, 1, codebooks_.PRICE), 1, False)[0]
        rows = 8 * sum(map(len, packed.chunks[1:]))
        if bits_used(packed) <= target:
            fitting[count] = packed
        return (target - bits_used(packed)) * count / max(1, rows)

    codebooks_.near(ahead, ceil(0.8 * target / (8 * n)), d, 1)
    if not fitting:
        raise _too_few(target)
    return fitting[max(fitting)]


def _too_few(target: float) -> InputError:
    return InputError(f"bits: {target:.0f} bits for the whole tensor are fewer than the shortest stream takes")


def _stream(job: Job, books: Codebooks, codes: np.ndarray, levels: int, profiled: bool) -> tuple[Compressed, float]:
    """The stream of so many levels of codes, and the mean squared error that decoding it will have."""
    block, used = _block(books, job.view), levels * books.product.groups

    def one(start: int) -> tuple[bytes, float]:
        part = codes[start : start + block]
        x, data = job.x[start : start + block], job.data[start : start + block]
        back = books.product.rows(torch.from_numpy(part[:, :used]))
        kept, error = job.keep(back, data, x, start, 0.0)
        return blocks.join(kept, _coded(books, part, levels)), error

    done = list(parallel(one, list(range(0, len(codes), block))))
    side = [] if profiled else [save(books.tensors())]
    flags = PROFILE if profiled else SIDE
    params = Params(CODES, flags=flags, axis=job.view.axis, offset=levels, chunk=block)
    return Compressed(params.pack(), side + [chunk for chunk, _ in done]), sum(e for _, e in done) / job.x.numel()


def of_codes(profile: CodeProfile, codes: np.ndarray, levels: int, view: View) -> Compressed:
    """The stream of codes (N, k) of a profile, and of nothing else."""
    block = _block(profile.books, view)
    parts = [
        blocks.join(None, _coded(profile.books, codes[i : i + block], levels)) for i in range(0, len(codes), block)
    ]
    params = Params(CODES, flags=PROFILE, axis=view.axis, offset=levels, chunk=block)
    return Compressed(params.pack(), parts)


def _block(books: Codebooks, view: View) -> int:
    return max(1, min(view.block, MOST // books.product.parts))


def _coded(books: Codebooks, codes: np.ndarray, levels: int) -> bytes:
    encoder = Encoder()
    books.code_levels(encoder, codes, levels, len(codes), _WHERE)
    return encoder.finish()


def books_of(p: Params, side: bytes | None, profile: Any, channels: int) -> Codebooks:
    """The codebooks of a stream; FormatError where it has none that fit."""
    if p.flags & PROFILE:
        books = profile.books if isinstance(profile, CodeProfile) else None
    else:
        books = None if side is None else Codebooks.of_tensors(arrays.tensors(side, "features"), 1, "features")
    if books is None or books.product.channels != channels or not 1 <= p.offset <= books.product.levels:
        raise FormatError("features: the stream's codes do not fit its codebooks; it is corrupt")
    if p.chunk * books.product.groups * p.offset > MOST:
        raise FormatError(f"features: {p.chunk} rows of a chunk are too many; the stream is corrupt")
    return books


def decode(books: Codebooks, data: bytes, count: int, levels: int, whole: bool) -> np.ndarray:
    """Codes (n, k) uint8 of a chunk's first levels; FormatError where it is corrupt."""
    decoder = Decoder(data)
    codes = books.code_levels(decoder, None, levels, count, _WHERE)
    if whole:
        decoder.finish()
    return codes
