"""Start a larger hyperprior model from a trained smaller one: it computes the same at first, and trains on from there.

After Net2Net (Chen et al., arXiv 1511.05641), with fresh instead of copied units: what is new reads from everything
and is read by nothing, until training connects it. New latent channels carry what the linear transforms left over.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..codecs.hyperprior.codec import LOG_STEP, HyperpriorCodec, HyperpriorConfig
from ..entropy.banks import NUM_SCALES, scales
from ..entropy.exact import QatConv2d

_GROWS = ("width", "analysis_depth", "synthesis_depth", "latent")


def can_grow(small: HyperpriorConfig, large: HyperpriorConfig) -> bool:
    """Whether the two differ, and only by sizes that can grow: the trunk's width and depths and the latent."""
    same = {k: v for k, v in vars(small).items() if k not in _GROWS}
    return (
        same == {k: v for k, v in vars(large).items() if k not in _GROWS}
        and all(getattr(small, k) <= getattr(large, k) for k in _GROWS)
        and small != large
    )


@torch.no_grad()
def grow(small: HyperpriorCodec, large: HyperpriorCodec, crops: Tensor) -> None:
    """Set ``large`` to what ``small`` computes.

    Args:
        small: a trained model, not exported.
        large: a freshly initialised model for which `can_grow` holds; changed in place. Layers that start at zero
            do so already.
        crops: (N, 3, H, W) uint8, from which the transforms of new latent channels are taken.
    """
    own, given = large.state_dict(), small.state_dict()
    for key, value in given.items():
        _place(own[key], value, *_positions(key, value, small.config, large.config))
    large.load_state_dict(own)
    if small.config.latent < large.config.latent:
        _add_latents(small, large, crops)


def _latents(small: HyperpriorConfig, large: HyperpriorConfig) -> Tensor:
    """Where the latent channels of the small model lie in the large one: each quarter stays a quarter (`Means`)."""
    m, n = small.latent // 4, large.latent // 4
    at = torch.arange(small.latent)
    return at // m * n + at % m


def _positions(key: str, value: Tensor, small: HyperpriorConfig, large: HyperpriorConfig) -> tuple[Tensor, Tensor]:
    """Rows (outputs) and columns (inputs) of the large model's tensor that a tensor of the small one goes to."""
    latents = _latents(small, large)
    rows = torch.arange(value.shape[0] if value.ndim else 1)
    columns = torch.arange(value.shape[1] if value.ndim > 1 else 1)
    if key.startswith("log_gain."):
        return rows, latents
    if key == "std" or key.startswith(("analysis_transform.linear", "analysis_transform.tail", "means.first")):
        return latents, columns
    if key.startswith("means.refine"):
        return latents, columns
    if key.startswith("means.adapt") and value.ndim == 4:
        return rows, torch.cat((torch.arange(small.features), small.features + latents))
    if key.startswith(("synthesis_transform.linear", "synthesis_transform.head", "hyper_analysis.head")):
        return rows, latents if value.ndim == 4 else columns
    if key.startswith("scale_net.2."):
        return (latents[:, None] * 16 + torch.arange(16)).flatten(), columns
    if ".trunk." in key and ".gate_in." in key:
        half = value.shape[0] // 2  # u, then v
        offset = half * large.width // small.width
        return torch.cat((torch.arange(half), offset + torch.arange(half))), columns
    return rows, columns


def _place(own: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Old outputs see old inputs alone; new outputs keep their start."""
    if own.shape == value.shape:
        own.copy_(value)
    elif (value.ndim == 4 and value.shape[1] > 1) or value.ndim == 2:
        part = own.new_zeros(len(rows), *own.shape[1:])
        part[:, columns] = value
        own[rows] = part
    else:
        own[rows] = value


def first_scale_numbers(deviation: Tensor, log_gain: Tensor) -> Tensor:
    """Scale numbers of latents of some deviation under the best quality's gain: where the scale network starts."""
    number = (torch.log(deviation / float(scales()[0])) + log_gain) / LOG_STEP
    return number.clamp(0, NUM_SCALES - 1)


def _add_latents(small: HyperpriorCodec, large: HyperpriorCodec, crops: Tensor) -> None:
    """New channels: principal components of what no linear synthesis of the small model reaches of 16x16 blocks."""
    device = crops.device
    taken = set(_latents(small.config, large.config).tolist())
    new = torch.tensor(sorted(set(range(large.config.latent)) - taken), device=device)
    blocks = F.pixel_unshuffle(crops.float() / 255 - 0.5, 16).permute(0, 2, 3, 1).reshape(-1, 768)
    span, _ = torch.linalg.qr(small.synthesis_transform.linear.weight.flatten(1))
    rest = (blocks - blocks @ span @ span.T).double()
    _, vectors = torch.linalg.eigh(rest.T @ rest / len(rest))
    basis = vectors.flip(1)[:, : len(new)].T.float()
    linear = large.analysis_transform.linear
    linear.weight[new] = basis[:, :, None, None]
    cast(Tensor, linear.bias)[new] = 0
    large.synthesis_transform.linear.weight[:, new] = basis.T[:, :, None, None]
    deviation = (blocks @ basis.T).square().mean(0).sqrt().clamp_min(1e-3)
    large.std[new] = deviation[:, None, None]
    large.log_gain.values[:, new] = small.log_gain.values.mean(1, keepdim=True)
    last = cast(QatConv2d, large.scale_net[2])
    at = (new[:, None] * 16 + torch.arange(16, device=device)).flatten()
    last.weight[at] = 0
    last.bias[at] = first_scale_numbers(deviation, large.log_gain.values[-1, new]).repeat_interleave(16)
