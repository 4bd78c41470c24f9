"""Random crops made where the training runs: a batch in a few calls, so that a GPU does not wait for its data."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from . import synthetic
from .data import CropSampler
from .sources import Folders

_WORKERS = 4  # processes that draw for a GPU: one would take as long as a step
_AHEAD = 8  # batches that each has drawn before they are wanted
_CUBIC = -0.5  # Keys' kernel, as Pillow and torch's antialiased bicubic have it


class Plan(NamedTuple):
    """A batch as drawn: what is needed to make it."""

    places: np.ndarray  # (B, 8) int64: picture (-1: drawn), row, column, side, mirror, flip, transpose, number if drawn
    levels: np.ndarray  # (B, 3, 256) uint8
    drawn: list[np.ndarray]  # synthetic pictures (S, S, 3), of those that no stock has


class DeviceCropSampler(CropSampler):
    """The crops of `CropSampler`, from pictures that lie in the device's memory (3 bytes a pixel).

    Resizing filters with an antialiased bicubic instead of Lanczos; all else is as there, but for ``stock``.

    Args:
        device: where pictures and batches lie.
        stock: synthetic pictures are taken from so many, drawn at the start by all processors, and flipped and
            transposed at random; 0 draws each anew, as the host does.
    """

    def __init__(
        self,
        data: Folders,
        batch: int,
        size: int,
        seed: int,
        start: int = 0,
        device: torch.device | str = "cuda",
        stock: int = 0,
        **shares: float,
    ) -> None:
        super().__init__(data, batch, size, seed, start, **shares)
        self.device = torch.device(device)
        self.pixels = torch.cat([torch.tensor(im).reshape(-1, 3) for im in self.images]).to(self.device)
        sizes = np.array(self.sizes, np.int64)
        self.widths = sizes[:, 1]
        self.offsets = np.concatenate(([0], np.cumsum(sizes.prod(1))[:-1]))
        self.stock: Tensor | None = None
        self.stocked = stock if self.drawn else 0
        if self.stocked:
            self.stock = draw_stock(seed, stock, size).permute(0, 3, 1, 2).contiguous().to(self.device)

    def plan(self, step: int) -> Plan:
        """What is random about batch number ``step``."""
        rng = np.random.default_rng([self.seed, step])
        places = np.zeros((self.batch, 8), np.int64)
        levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (self.batch, 3, 256)).copy()
        drawn = []
        for i in range(self.batch):
            if rng.random() < self.drawn:
                places[i, 0] = -1
                if not self.stocked:
                    places[i, 7] = len(drawn)
                    drawn.append(synthetic.picture(rng, self.size))
                else:
                    places[i, 4:] = [*rng.integers(2, size=3), rng.integers(self.stocked)]
                continue
            d = self.draw(rng)
            places[i] = (d.number, d.y, d.x, d.side, d.mirror, d.flip, d.transpose, 0)
            if d.levels is not None:
                levels[i] = d.levels
        return Plan(places, levels, drawn)

    def make(self) -> Tensor:
        self.step += 1
        return self.carry_out(self.plan(self.step - 1))

    def carry_out(self, plan: Plan) -> Tensor:
        """The batch (B, 3, size, size) uint8 of a plan; nothing waits for the device."""
        places = plan.places.copy()
        made = places[:, 0] < 0
        number = np.maximum(places[:, 0], 0)
        starts = self.offsets[number] + places[:, 1] * self.widths[number] + places[:, 2]
        sides = np.where(made, self.size, places[:, 3])
        columns = np.stack([starts, np.where(made, 1, self.widths[number]), sides, *places[:, 4:].T, made], 1)
        start, width, side, mirror, flip, transpose, which, made_ = self._send(columns).unbind(1)
        reach = int(max(sides.max(), self.size))
        at = torch.arange(reach, device=self.device).minimum(side[:, None] - 1)  # (B, reach)
        part = self._gather(start, width, side, mirror, flip, at)
        if (sides != self.size).any():
            part = _resize(part, side, self.size)
        else:
            part = part[..., : self.size, : self.size]
        part = self._send(plan.levels).gather(2, part.flatten(2).long()).view(part.shape)
        if made.any():
            own = self.stock if self.stock is not None else self._send(np.stack(plan.drawn).transpose(0, 3, 1, 2))
            drawn = own[which]
            if self.stock is not None:
                drawn = torch.where(mirror.bool()[:, None, None, None], drawn.flip(3), drawn)
                drawn = torch.where(flip.bool()[:, None, None, None], drawn.flip(2), drawn)
            part = torch.where(made_.bool()[:, None, None, None], drawn, part)
        return torch.where(transpose.bool()[:, None, None, None], part.transpose(2, 3), part)

    def _gather(self, start: Tensor, width: Tensor, side: Tensor, mirror: Tensor, flip: Tensor, at: Tensor) -> Tensor:
        """Squares (B, 3, reach, reach) uint8 of the pictures, each repeated beyond its side."""
        last = side[:, None] - 1
        rows, columns = torch.where(flip[:, None] > 0, last - at, at), torch.where(mirror[:, None] > 0, last - at, at)
        index = start[:, None, None] + rows[:, :, None] * width[:, None, None] + columns[:, None, :]
        index = index.clamp(max=len(self.pixels) - 1)  # of crops that are drawn instead
        return self.pixels[index].permute(0, 3, 1, 2)

    def _send(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def __getstate__(self) -> dict[str, Any]:
        """What other processes need to draw: no pixel."""
        return {key: value for key, value in vars(self).items() if key not in ("images", "pixels", "stock")}

    def __getitem__(self, step: int) -> Plan:
        return self.plan(step)

    def __iter__(self) -> Iterator[Tensor]:
        """Batches whose plans other processes draw where there is a GPU to wait for them."""
        workers = min(_WORKERS, (os.cpu_count() or 1) - 1) if self.device.type == "cuda" else 0
        ahead = {"multiprocessing_context": "forkserver", "prefetch_factor": _AHEAD} if workers else {}
        loader: Any = DataLoader  # whose types know of tensors alone
        plans = loader(
            self, batch_size=None, sampler=_From(self.step), num_workers=workers, collate_fn=_as_it_is, **ahead
        )
        for plan in plans:
            self.step += 1
            yield self.carry_out(plan)


class _From:
    """Step numbers without an end."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first)


def _as_it_is(plan: Plan) -> Plan:
    return plan


def _resize(x: Tensor, side: Tensor, size: int) -> Tensor:
    """Squares (B, 3, R, R) uint8, of which the first ``side`` rows and columns count, to ``size``: bicubic, wider where
    it shrinks, as two products with the filters of each picture."""
    reach = x.shape[-1]
    ratio = (side.float() / size)[:, None, None]
    stretch = ratio.clamp_min(1)
    at = torch.arange(reach, device=x.device)
    centre = ratio * (torch.arange(size, device=x.device)[:, None] + 0.5)
    w = _cubic((at + 0.5 - centre) / stretch)  # (B, size, reach)
    w = torch.where(at < side[:, None, None], w, 0)
    w = (w / w.sum(2, keepdim=True))[:, None]
    y = w @ x.float() @ w.transpose(2, 3)
    return y.round().clamp(0, 255).to(torch.uint8)


def _cubic(t: Tensor) -> Tensor:
    """Keys, IEEE Trans. ASSP 29 (1981), eq. 4."""
    a, t = _CUBIC, t.abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t < 1, near, torch.where(t < 2, far, 0))


def _draw(task: tuple[int, int, int]) -> np.ndarray:
    seed, number, size = task
    return synthetic.picture(np.random.default_rng([seed, number, 1]), size)


def draw_stock(seed: int, count: int, size: int, workers: int | None = None) -> Tensor:
    """Synthetic pictures (count, size, size, 3) uint8, the same whatever the number of processes that draw them."""
    tasks = [(seed, number, size) for number in range(count)]
    workers = min(16, os.cpu_count() or 1) if workers is None else workers
    if workers <= 1 or count < 256:
        return torch.from_numpy(np.stack([_draw(task) for task in tasks]))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
        return torch.from_numpy(np.stack(list(pool.map(_draw, tasks, chunksize=16))))
