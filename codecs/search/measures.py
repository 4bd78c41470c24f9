"""What a search counts as distortion: squared error, MS-SSIM or any differentiable function of two pictures.

All are brought to one scale, that of the squared error of 8-bit samples summed over pixels, since the weight of a
distortion against bits (`lambda`) is stated on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy.dense import tensor_of
from ...entropy.errors import InputError
from .msssim import LEAST, ms_ssim

Function = Callable[[Tensor, Tensor], Tensor]
OBJECTIVES = ("mse", "ms-ssim")
MSSSIM_UNIT = 1300.0  # 1 - MS-SSIM in units of an 8-bit squared error, as in training
Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels


def check_objective(objective: str | Function) -> None:
    """Raises InputError unless this is a known objective or can be called."""
    if not callable(objective) and objective not in OBJECTIVES:
        raise InputError(
            f"objective is {objective!r}; 'mse', 'ms-ssim', or a differentiable function of two batches of pictures "
            "(x, x_hat), such as a FeatureDistortion"
        )


def weight_map(weight: Any, size: tuple[int, int]) -> Tensor:
    """A map of importance as the measures take it: (H, W) float32 with mean 1.

    Args:
        weight: array or tensor (H, W) of finite numbers from 0; only ratios count.
        size: (H, W) of the picture.

    Raises:
        InputError: another size, negative or non-finite values, or no weight anywhere.
    """
    found = tensor_of(weight, "biuf", "weight, an array of numbers of shape (H, W),").cpu().to(torch.float32)
    found = found.contiguous()  # sums depend on how values lie
    if tuple(found.shape) != tuple(size):
        raise InputError(
            f"the weight map has shape {tuple(found.shape)}, the picture {tuple(size)}: one weight a pixel is needed"
        )
    if not bool(torch.isfinite(found).all()) or float(found.min()) < 0:
        raise InputError("weights must be finite and not negative")
    if float(found.max()) <= 0:
        raise InputError("the weight map is zero everywhere: give what matters a weight above 0")
    found = found / found.max()  # so that a mean of huge values stays finite
    return found / found.mean()


class Objective:
    """Distortion of one picture, asked for piece by piece.

    Args:
        x: the original (C, H, W) in [0, 1].
        objective: ``"mse"``, ``"ms-ssim"`` or a function ``(x, x_hat) -> (B,)`` or scalar, differentiable by x_hat,
            both (B, C, H, W) in [0, 1]; it sees pieces of a large picture one after the other.
        weight: (H, W), see `weight_map`; for "mse" and "ms-ssim".

    Raises:
        InputError: an objective that is not known, a map that does not fit, or a picture too small for MS-SSIM.
    """

    def __init__(self, x: Tensor, objective: str | Function = "mse", weight: Any = None) -> None:
        check_objective(objective)
        size = (x.shape[-2], x.shape[-1])
        if weight is not None and callable(objective):
            raise InputError("weight goes with objective 'mse' or 'ms-ssim'; a function of one's own weighs by itself")
        if objective == "ms-ssim" and min(size) < LEAST:
            raise InputError(f"a picture of {size[0]} x {size[1]} is too small for ms-ssim: {LEAST} a side are needed")
        self.x, self.kind = x, objective
        self.weight = None if weight is None else weight_map(weight, size).to(x.device)

    def piece(self, box: Box) -> Measure:
        """The measure of a part of the picture; for "ms-ssim" a part below 161 a side is measured as squared error."""
        top, left, bottom, right = box
        x = self.x[None, :, top:bottom, left:right]
        return Measure(x, self.kind, None if self.weight is None else self.weight[top:bottom, left:right])


class Measure:
    """Distortion of a decoded part (1, C, H, W): a scalar tensor, in 8-bit squared errors summed over pixels."""

    def __init__(self, x: Tensor, kind: str | Function, weight: Tensor | None) -> None:
        self.x, self.weight, self.pixels = x, weight, x.shape[-2] * x.shape[-1]
        self.kind: str | Function = "mse" if kind == "ms-ssim" and min(x.shape[-2:]) < LEAST else kind
        self.unit = MSSSIM_UNIT if self.kind == "ms-ssim" else 1.0

    @torch.no_grad()
    def settle(self, x_hat: Tensor) -> None:
        """Bring a function of one's own to the common scale: of the first reconstruction, both say the same."""
        if callable(self.kind):
            here = float(self._own(x_hat).mean())
            if not math.isfinite(here) or here < 0:
                raise InputError(f"the objective gave {here} for a first reconstruction; it must be finite and >= 0")
            error = float(self._squared(x_hat)) / self.pixels
            self.unit = error / here if here > 0 else 1.0

    def __call__(self, x_hat: Tensor) -> Tensor:
        if self.kind == "mse":
            return self._squared(x_hat)
        if callable(self.kind):
            return self.unit * self.pixels * self._own(x_hat).mean()
        return self.unit * self.pixels * (1 - ms_ssim(self.x, x_hat.clamp(0, 1), self.weight)).mean()

    def _squared(self, x_hat: Tensor) -> Tensor:
        error = (x_hat.clamp(0, 1) - self.x).square().mean((0, 1))
        return 255**2 * (error if self.weight is None else error * self.weight).sum()

    def _own(self, x_hat: Tensor) -> Tensor:
        assert callable(self.kind)
        found = self.kind(self.x, x_hat.clamp(0, 1))
        if not isinstance(found, Tensor):
            raise InputError(f"the objective must return a tensor, not {type(found).__name__}")
        return found.float()

    def shares(self, cell: int, size: tuple[int, int]) -> Tensor | float:
        """Mean weight of cells of ``cell`` x ``cell`` pixels, (1, 1, *size), zero beyond the picture: how much a latent
        position matters."""
        if self.weight is None:
            return 1.0
        height, width = self.weight.shape
        padded = F.pad(self.weight[None, None], (0, size[1] * cell - width, 0, size[0] * cell - height))
        return F.avg_pool2d(padded, cell)
