"""What may be done to latents because it means the same on the signal; a codec declares it, the rest is refused.

There is no flip here: a mirrored picture has another latent (bior4.4 packets and learnt channels are not symmetric), so
mirrored twins are stored (`codec-cli pack --mirror`) and chosen by `LatentDataset(mirror=0.5)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...api import loaded
from ...codecs.base import Codec
from ...codecs.contract import NamedCodec
from ...entropy.errors import InputError, UnsupportedError
from ...entropy.numbers import real, whole
from ..arguments import mapping
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
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2:
        raise InputError(f"size is {size!r:.60}; a side or (height, width) in latent positions is needed")
    h, w = (whole("size", side, 1) for side in sides)
    return h, w


class _Crop:
    """A window of each latent, and the same window of pictures that are paired with them."""

    operation = "crop"

    def __init__(self, size: int | tuple[int, int], paired: Mapping[str, int] | None = None) -> None:
        self.size = _pair(size)
        self.paired = {
            name: whole(f"samples a latent position of stream {name}", scale, 1)
            for name, scale in mapping("paired", paired, '{"mask": 8}').items()
        }

    def _room(self, batch: dict[str, Any]) -> np.ndarray:
        """(samples, 2) how far down and to the right each window may lie."""
        shapes = np.array([z.shape[-2:] for z in batch["latent"]]).reshape(-1, 2)
        for name, scale in self.paired.items():
            if name not in batch:
                raise InputError(f"no stream {name!r} to crop; the data set reads {', '.join(sorted(batch))}")
            inside = np.array([x.shape[-2:] for x in batch[name]]).reshape(-1, 2) // scale
            if (inside < shapes - 1).any() or (inside > shapes).any():
                raise InputError(f"stream {name} does not have {scale} samples a latent position")
            shapes = np.minimum(shapes, inside)
        return shapes - self.size

    def _cropped(self, batch: dict[str, Any], top: np.ndarray, left: np.ndarray) -> dict[str, Any]:
        h, w = self.size
        found = {"latent": _crop(batch["latent"], self.size, top, left)}
        for name, scale in self.paired.items():
            places = zip(batch[name], (scale * top).tolist(), (scale * left).tolist())
            windows = [x[:, y0 : y0 + scale * h, x0 : x0 + scale * w] for x, y0, x0 in places]
            found[name] = torch.stack(windows) if windows else batch[name]
        return batch | found


class RandomCrop(_Crop):
    """A window of each latent at a random place, for `LatentDataset(transform=...)`.

    Where it lies is a function of seed, epoch and sample number. Positions nearer to the window's edge than the
    codec's analysis halo still remember what lay outside, which the latent of a cropped picture would not.

    Args:
        size: side, or (height, width), in latent positions: times the codec's stride in pixels.
        paired: streams of pictures that the same window is cut out of, such as masks: name -> samples a latent position
            (the codec's stride, where they have the size of the picture). What is left of a stride at the right and at
            the bottom is then never part of a window.

    Raises:
        InputError: an empty window; when called, one that is larger than a latent, or streams of other sizes.
    """

    def __call__(self, batch: dict[str, Any], draw: Draw) -> dict[str, Any]:
        room = self._room(batch)
        top, left = (np.zeros(0, np.int64),) * 2
        if len(room):
            top, left = draw.integers(np.maximum(room[:, 0], 0) + 1), draw.integers(np.maximum(room[:, 1], 0) + 1)
        return self._cropped(batch, top, left)


class CenterCrop(_Crop):
    """The middle of each latent, for evaluation; arguments as of `RandomCrop`."""

    def __call__(self, batch: dict[str, Any], draw: Draw) -> dict[str, Any]:
        room = self._room(batch)
        return self._cropped(batch, room[:, 0] // 2, room[:, 1] // 2)


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

    def __init__(self, codec: NamedCodec | Codec, classes: int, alpha: float = 0.2) -> None:
        check_declared(loaded(codec), self.operation)
        self.classes, self.alpha = whole("classes", classes, 1), real("alpha", alpha, "a number above 0")
        if self.alpha <= 0:
            raise InputError(f"alpha is {alpha}; a number above 0 is needed")

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
