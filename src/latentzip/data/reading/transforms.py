"""What may be done to latents because it means the same on the signal; a codec declares it, the rest is refused.

There is no flip here: a mirrored picture has another latent (bior4.4 packets and learnt channels are not symmetric), so
mirrored twins are stored (`codec-cli pack --mirror`) and chosen by `LatentDataset(mirror=0.5)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...codecs.base import Codec
from ...codecs.registry import load_codec
from ...entropy.errors import InputError, UnsupportedError
from .draw import Draw


def check_declared(codec: Codec, operation: str) -> None:
    """Raises UnsupportedError when the codec does not declare the operation."""
    if operation not in codec.latent_transforms:
        allowed = ", ".join(sorted(codec.latent_transforms)) or "none"
        raise UnsupportedError(
            f"{operation} of {codec.name} latents does not amount to {operation} on the signal (declared: {allowed}); "
            "do it on decoded signals (to='signal') or before packing"
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    h, w = (size, size) if isinstance(size, int) else size
    if min(h, w) < 1:
        raise InputError(f"a crop of {h} x {w} latent positions is empty")
    return h, w


class RandomCrop:
    """A window of each latent at a random place, for `LatentDataset(transform=...)`.

    Where it lies is a function of seed, epoch and sample number. Positions nearer to the window's edge than the
    codec's analysis halo still remember what lay outside, which the latent of a cropped picture would not.

    Args:
        size: side, or (height, width), in latent positions: times the codec's stride in pixels.
    """

    operation = "crop"

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = _pair(size)

    def __call__(self, batch: dict[str, Any], draw: Draw) -> dict[str, Any]:
        room = np.array([np.array(z.shape[-2:]) - self.size for z in batch["latent"]]).reshape(-1, 2)
        top, left = (np.zeros(0, np.int64),) * 2
        if len(room):
            top, left = draw.integers(room[:, 0] + 1), draw.integers(room[:, 1] + 1)
        return batch | {"latent": _crop(batch["latent"], self.size, top, left)}


class CenterCrop:
    """The middle of each latent, for evaluation; ``size`` as in `RandomCrop`."""

    operation = "crop"

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = _pair(size)

    def __call__(self, batch: dict[str, Any], draw: Draw) -> dict[str, Any]:
        room = np.array([np.array(z.shape[-2:]) - self.size for z in batch["latent"]]).reshape(-1, 2)
        return batch | {"latent": _crop(batch["latent"], self.size, room[:, 0] // 2, room[:, 1] // 2)}


def _crop(latents: Any, size: tuple[int, int], top: np.ndarray, left: np.ndarray) -> Any:
    h, w = size
    for z in latents:
        if z.shape[-2] < h or z.shape[-1] < w:
            raise InputError(
                f"a latent of {z.shape[-2]} x {z.shape[-1]} positions cannot be cropped to {h} x {w}; pack with a "
                "--size that is large enough"
            )
    if not len(latents):
        return latents
    return np.stack([z[:, y : y + h, x : x + w] for z, y, x in zip(latents, top.tolist(), left.tolist())])


class Mixup:
    """Convex mixtures of dequantised latents and their labels (Zhang et al., mixup, ICLR 2018).

    The analysis of the codecs that declare it is linear, so a mixture of dequantised latents is what the mixed pictures
    would give, up to rounding. Goes behind `Dequantize`, on the device.

    Args:
        codec: name or codec whose latents come in.
        classes: number of classes.
        alpha: parameter of the Beta distribution of the share.

    Raises:
        UnsupportedError: the codec does not declare it.
    """

    operation = "mixup"

    def __init__(self, codec: str | Codec, classes: int, alpha: float = 0.2) -> None:
        check_declared(load_codec(codec) if isinstance(codec, str) else codec, self.operation)
        if alpha <= 0 or classes < 1:
            raise InputError(f"alpha is {alpha}, classes {classes}; both must be positive")
        self.classes, self.alpha = classes, alpha

    def __call__(self, x: Tensor, label: Tensor, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, L, h, w) float; label: (B,) integers. Returns the mixtures and (B, classes) float targets."""
        if not x.is_floating_point():
            raise InputError(f"mixup takes dequantised latents, not {x.dtype}: apply Dequantize first")
        rng = rng or np.random.default_rng()
        share = torch.from_numpy(rng.beta(self.alpha, self.alpha, len(x))).to(x)
        other = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        target = F.one_hot(label.long(), self.classes).to(x.dtype)
        mixed = torch.lerp(x[other], x, share[:, None, None, None])
        return mixed, torch.lerp(target[other], target, share[:, None])
