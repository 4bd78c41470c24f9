"""Distortion as a network sees it: distances between what its layers make of two inputs.

Serves the first stage of supervised compression (Matsubara et al., "Supervised Compression for Resource-Constrained
Edge Computing Systems", WACV 2022) and codecs of pictures for machines, such as the identity preserving ones of Xiao
et al. (arXiv 2204.10869): `rate + lambda * (MSE + weight * FeatureDistortion)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..entropy.errors import InputError


def taps(model: nn.Module, layers: Sequence[str], x: Tensor) -> list[Tensor]:
    """Run a network on x and return what the named layers gave, in the order of the names.

    Raises:
        InputError: a layer that does not exist, was not reached, or gave something other than a tensor.
    """
    known = dict(model.named_modules())
    found: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        found[name] = output

    with ExitStack() as stack:
        for name in layers:
            if name not in known:
                raise InputError(f"no layer {name!r}; the network has {', '.join(n for n in known if n)}")
            stack.callback(known[name].register_forward_hook(partial(keep, name)).remove)
        model(x)
    for name in layers:
        if not isinstance(found.get(name), Tensor):
            raise InputError(f"layer {name!r} gave no tensor: name layers that are called and return one")
    return [found[name] for name in layers]


def mean_squared(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of b over the mean square of a, (B,): features of any size count alike."""
    a, b = a.float().flatten(1), b.float().flatten(1)
    return (a - b).square().mean(1) / a.square().mean().clamp_min(1e-12)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """One minus the cosine between a and b, (B,): what embeddings are compared by."""
    return 1 - F.cosine_similarity(a.float().flatten(1), b.float().flatten(1))


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mean_squared, "cosine": cosine}


class FeatureDistortion(nn.Module):
    """Mean distance between the features of two inputs; differentiable by both.

    Args:
        model: any network; a copy of it is kept, frozen and in eval mode.
        layers: names of layers whose outputs count, as `named_modules` has them.
        metric: ``"mse"``, over the features' mean square, or ``"cosine"``, one minus it.
        prepare: applied to the inputs first, such as the normalisation that the network was trained with.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> distortion = FeatureDistortion(net, ["1"])
        >>> x = torch.rand(2, 3, 8, 8)
        >>> distortion(x, x)
        tensor([0., 0.])
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        metric: str = "mse",
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if metric not in METRICS or not layers:
            raise InputError(
                f"metric is {metric!r} of layers {list(layers)}; one of {', '.join(METRICS)}, of some layer"
            )
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.layers, self.metric, self.prepare = tuple(layers), METRICS[metric], prepare

    def train(self, mode: bool = True) -> FeatureDistortion:
        """The network stays in eval mode."""
        return self

    def features(self, x: Tensor) -> list[Tensor]:
        """What the layers make of inputs (B, ...)."""
        return taps(self.model, self.layers, x if self.prepare is None else self.prepare(x))

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """(B,) mean distance over the layers, of features that are known already."""
        return torch.stack([self.metric(u, v) for u, v in zip(a, b, strict=True)]).mean(0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,) distortion of y against x, two batches of inputs."""
        with torch.no_grad():
            wanted = self.features(x)
        return self.between(wanted, self.features(y))
