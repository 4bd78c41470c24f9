"""Encoding a picture: the fit within an effort or a time, the steps of the nets, the chunks' bytes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...entropy.coder import Encoder
from ...entropy.errors import InputError
from ...entropy.tables import TableBank
from ...entropy.wavefront import LIMIT
from ..search.measures import Function, Measure, Objective
from ..tiling import Tile
from . import decoder, weights
from .chain import Chain
from .decoder import Ints
from .device import DeviceChain
from .fit import Fit, Part, Passes, Schedule
from .nets import Floats
from .options import EFFORT, EFFORTS
from .rates import Penalty, Storage, choose_steps, polish, usual
from .refine import Costs, refine
from .weights import Start
from .workers import Workers

_FIT_SHARE = 0.85  # of a time that is given; the rest chooses steps and codes
_FEWEST_STEPS, _MOST_STEPS = 20, 10 * EFFORTS[9]
_REFINE_FROM, _POLISH_FROM = 4, 7  # efforts from which values of the finest grid, and weights, are gone through

Progress = Callable[[float, float, dict[str, float]], None]


@dataclass(frozen=True)
class Options:
    """How long and on what to fit; see `OverfitCodec.compress`."""

    effort: int = EFFORT.default
    seconds: float | None = None
    objective: str | Function = "mse"
    weight: Any = None
    keep_best: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise InputError(f"effort is {self.effort!r}; overfit takes 1 (fast) to 9 (small)")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds!r}; a time above 0 is needed")


def encode(
    picture: Floats, tiles: list[Tile], start: Start, price: float, options: Options, workers: Workers,
    bank: TableBank, device: torch.device,
) -> tuple[bytes, list[bytes]]:  # fmt: skip
    """Fit a picture and code it.

    Args:
        picture: (C, H, W) float32 in [0, 1].
        tiles: its chunks.
        price: lambda of the error + lambda * bits a pixel.
        device: where to fit; what is stored is chosen and coded on the CPU.

    Returns:
        The nets and the chunks, as bytes.
    """
    whole = Objective(torch.from_numpy(picture), options.objective, options.weight)
    parts = []
    for t in tiles:
        measure = whole.piece((t.y0, t.x0, t.y1, t.x1))
        target = np.ascontiguousarray(picture[:, t.y0 : t.y1, t.x0 : t.x1])
        if measure.kind == "mse":
            parts.append(Part(target, None if measure.weight is None else measure.weight.contiguous().numpy()))
        else:
            parts.append(Part(target, judge=MeasureJudge(measure)))

    def chain_for(shape: tuple[int, int]) -> Passes:
        if device.type == "cpu":
            return Chain(start.size, start.channels, shape, workers)
        return DeviceChain(start.size, start.channels, shape, device)

    fit, storage = _fit(start, parts, price, options, chain_for)
    if options.seconds is None and options.effort >= _POLISH_FROM:
        polish(fit, storage)
    moved = storage.moved(fit.nets)
    nets = weights.apply(start, storage.steps, moved)
    grids = [_grids(fit, part) for part in fit.parts]
    if options.seconds is None and options.effort >= _REFINE_FROM:
        for part, chunk in zip(fit.parts, grids):
            if part.judge is None:
                refine(chunk[0], Costs(chunk, part.target, part.weight, nets, bank, price, workers))
    chunks: list[bytes] = [b""] * len(grids)

    def code(i: int) -> None:
        coder = Encoder()
        decoder.program(coder, grids[i], fit.chain(fit.parts[i]).shapes[0], nets, bank)
        chunks[i] = coder.finish()

    workers.run([lambda i=i: code(i) for i in range(len(chunks))])
    return weights.encode(moved, start, storage.steps), chunks


def _grids(fit: Fit, part: Part) -> list[Ints]:
    """A chunk's integers, finest grid first."""
    values, chain = fit.rounded(part).clip(-LIMIT, LIMIT).astype(np.int32), fit.chain(part)
    return [np.ascontiguousarray(chain.grid(values, k)) for k in range(len(chain.shapes))]


def _fit(
    start: Start, parts: list[Part], price: float, options: Options, chain_for: Callable[[tuple[int, int]], Passes]
) -> tuple[Fit, Storage]:
    pixels = sum(p.target[0].size for p in parts)
    steps, bit_weight = usual(price), price / pixels

    def settle(fit: Fit) -> Storage:
        return Storage(start, choose_steps(fit, start, bit_weight, steps), bit_weight)

    schedule = Schedule(EFFORTS[options.effort], price)
    fit = Fit(start.nets.copy(), parts, schedule, chain_for, Penalty(start, bit_weight), settle)
    begin = time.monotonic()
    try:
        while fit.step_number < fit.total_steps:
            fit.step()
            done = fit.step_number
            if options.seconds is not None and fit.stored is None and done % len(parts) == 0:
                fit.schedule = _paced(fit.schedule, done // len(parts), time.monotonic() - begin, options.seconds)
            if options.progress is not None:
                psnr = -10 * math.log10(max(fit.error, 1e-12))
                options.progress(done, fit.total_steps, {"bpp": fit.bits * len(parts) / pixels, "psnr": psnr})
    except KeyboardInterrupt:
        if not options.keep_best or any(p.latent is None for p in fit.parts):
            raise
    return fit, fit.stored if isinstance(fit.stored, Storage) else Storage(start, steps, bit_weight)


def _paced(schedule: Schedule, done: int, elapsed: float, seconds: float) -> Schedule:
    """The schedule with as many steps as the time has room for at the pace so far."""
    steps = max(done, min(int(_FIT_SHARE * seconds * done / max(elapsed, 1e-9)), _MOST_STEPS))
    # a schedule that is followed is changed for good reason only: its phases would go to and fro
    near = abs(steps - schedule.steps) <= 0.02 * schedule.steps
    return schedule if near else replace(schedule, steps=max(steps, _FEWEST_STEPS))


class MeasureJudge:
    """A measure of `codecs.search` for the fit: pictures in arrays, errors on the scale of the mean squared error."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._scale = 1 / (255**2 * measure.pixels)

    def settle(self, picture: Floats) -> None:
        self.measure.settle(torch.from_numpy(picture[None].copy()))

    def __call__(self, picture: Floats) -> tuple[float, Floats]:
        x = torch.from_numpy(picture[None].copy()).requires_grad_()
        with torch.enable_grad():
            error = self.measure(x) * self._scale
            (slope,) = torch.autograd.grad(error, x)
        return float(error.detach()), slope[0].numpy()
