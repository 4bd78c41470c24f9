"""The passes of `chain.Chain` in torch, for GPUs: the plain definitions, differentiated by autograd.

On CUDA one pass, forward and backward, is recorded as a graph and replayed: hundreds of small kernels cost one launch.
Sums are taken in the order that the device likes, so files may differ by some bytes from those that a CPU fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels.pyramid.constants import GAIN
from . import reference
from .nets import Floats, Nets, Size, grid_shapes, layout

_WARM_UP = 3  # passes before one is recorded, so that libraries have chosen their kernels


class DeviceChain:
    """Buffers on a device for pictures of one size, and the passes through them; see `chain.Chain`.

    Args:
        size, channels: of the nets.
        shape: (h, w) of the picture.
        device: where to compute.
    """

    def __init__(self, size: Size, channels: int, shape: tuple[int, int], device: torch.device) -> None:
        self.size, self.channels, self.shape, self.device = size, channels, shape, device
        self.shapes = grid_shapes(*shape)
        self.count = sum(h * w for h, w in self.shapes)
        self.nets_grad = Nets(size, channels)
        self.values, self.grad = self._zeros(self.count), self._zeros(self.count)
        self._flat, self._flat_grad = self._zeros(len(self.nets_grad.flat)), self._zeros(len(self.nets_grad.flat))
        self._target, self._weight = self._zeros(channels, *shape), self._zeros(*shape)
        self._price, self._sums = self._zeros(()), self._zeros(2)  # lambda over pixels; error and bits
        self._held: tuple[Any, Any] = (None, None)  # whose target and weight are in the buffers
        self._graph: torch.cuda.CUDAGraph | None = None

    def _zeros(self, *shape: Any) -> Tensor:
        return torch.zeros(*shape, device=self.device)

    def place(self, x: Floats) -> Tensor:
        """Numbers where this chain computes."""
        return torch.from_numpy(x).to(self.device)

    def grid(self, flat: Any, k: int) -> Any:
        """Grid k of all grids end to end, as a view (h, w)."""
        h, w = self.shapes[k]
        at = sum(a * b for a, b in self.shapes[:k])
        return flat[at : at + h * w].reshape(h, w)

    def _grids(self, values: Tensor) -> list[Tensor]:
        return [p.view(s) for p, s in zip(values.split([h * w for h, w in self.shapes]), self.shapes)]

    def _nets(self, flat: Tensor) -> dict[str, Tensor]:
        weights = layout(self.size, self.channels)
        return {w.name: p.view(w.shape) for w, p in zip(weights, flat.split([w.total for w in weights]))}

    # --- latents -------------------------------------------------------------------------------------------------

    def integers(self, latent: Tensor) -> Floats:
        """Values that latents are rounded to for good."""
        return (latent * GAIN).round().cpu().numpy()

    def harden(self, latent: Tensor) -> None:
        """`values` from latents, rounded for good."""
        torch.round(latent * GAIN, out=self.values)

    def soften(self, latent: Tensor, noise: Tensor, sigma: float, temperature: float, slope: Tensor) -> None:
        """`values` from latents in units of 1 / GAIN; ``slope`` is set to their derivative."""
        x = latent.detach().requires_grad_()
        with torch.enable_grad():
            y = reference.soften(x, noise[: len(x)], sigma, temperature)
            (d,) = torch.autograd.grad(y.sum(), x)
        self.values.copy_(y.detach())
        slope.copy_(d)

    def adam(
        self, latent: Tensor, slope: Tensor, m: Tensor, v: Tensor, rate: float, betas: tuple[float, float], step: int
    ) -> None:
        """One step of Adam of the latents along `grad`."""
        g, (b1, b2) = self.grad * slope, betas
        m.lerp_(g, 1 - b1)
        v.lerp_(g * g, 1 - b2)
        latent -= rate / (1 - b1**step) * m / ((v / (1 - b2**step)).sqrt() + 1e-8)

    # --- passes --------------------------------------------------------------------------------------------------

    def _take(self, nets: Nets, target: Floats | None = None, weight: Floats | None = None) -> None:
        self._flat.copy_(torch.from_numpy(nets.flat))
        if target is not None and (target is not self._held[0] or weight is not self._held[1]):
            self._target.copy_(torch.from_numpy(target))
            self._weight.fill_(1) if weight is None else self._weight.copy_(torch.from_numpy(weight))
            self._held = target, weight

    def _squared_error(self, picture: Tensor) -> Tensor:
        return ((picture - self._target).square() * self._weight).mean()

    @torch.no_grad()
    def rate(self, nets: Nets) -> float:
        """Bits of `values`."""
        self._take(nets)
        return float(reference.bits(self._grids(self.values), self._nets(self._flat), self.size))

    @torch.no_grad()
    def error(self, nets: Nets, target: Floats, weight: Floats | None = None) -> float:
        """Mean (weighted) squared error of the picture of `values`."""
        self._take(nets, target, weight)
        return float(self._squared_error(self._picture(self.values, self._flat)))

    @torch.no_grad()
    def synthesise(self, nets: Nets) -> Floats:
        """The picture of `values` (channels, h, w), about [0, 1]."""
        self._take(nets)
        return self._picture(self.values, self._flat).cpu().numpy()

    def _picture(self, values: Tensor, flat: Tensor) -> Tensor:
        return reference.synthesis(self._grids(values), self._nets(flat), self.size)

    def _pass(self, slope: Tensor | None = None) -> None:
        """Gradients of error + price * bits; with a slope, of an error whose gradient by the picture that is."""
        values, flat = self.values.detach().requires_grad_(), self._flat.detach().requires_grad_()
        with torch.enable_grad():
            bits = reference.bits(self._grids(values), self._nets(flat), self.size)
            picture = self._picture(values, flat)
            error = self._squared_error(picture) if slope is None else (picture * slope).sum()
            by_values, by_flat = torch.autograd.grad(error + self._price * bits, [values, flat])
        self.grad.copy_(by_values)
        self._flat_grad.copy_(by_flat)
        self._sums.copy_(torch.stack([error.detach(), bits.detach()]))

    def _replay(self) -> None:
        if self.device.type != "cuda":
            return self._pass()
        if self._graph is None:
            side = torch.cuda.Stream(self.device)
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._pass()
            torch.cuda.current_stream(self.device).wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._pass()
        return self._graph.replay()

    def gradients(
        self, nets: Nets, target: Floats, rate_weight: float, weight: Floats | None = None,
        objective: Callable[[Floats], tuple[float, Floats]] | None = None,
    ) -> tuple[float, float]:  # fmt: skip
        """Error and bits of `values`; their gradients go to `grad` and `nets_grad`. See `chain.Chain.gradients`."""
        self._take(nets, target, weight)
        self._price.fill_(rate_weight)
        error = None
        if objective is None:
            self._replay()
        else:
            error, slope = objective(self.synthesise(nets))
            self._pass(torch.from_numpy(np.ascontiguousarray(slope)).to(self.device))
        self.nets_grad.flat[:] = self._flat_grad.cpu().numpy()
        squared, bits = self._sums.tolist()
        return squared if error is None else error, bits
