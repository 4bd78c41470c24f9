"""A grown model computes what the small one did, and its new latent channels help at once."""

from __future__ import annotations

from dataclasses import replace

import torch

from latentzip.codecs.hyperprior.codec import HyperpriorCodec, HyperpriorConfig
from latentzip.training.growth import can_grow, grow

SMALL = HyperpriorConfig(
    width=16, analysis_depth=1, synthesis_depth=2, latent=16, hyper=16, features=16, scale_width=16
)


def trained_like(config: HyperpriorConfig) -> HyperpriorCodec:
    """Every layer does something, those that start at zero too."""
    torch.manual_seed(0)
    codec = HyperpriorCodec(config)
    with torch.no_grad():
        for p in codec.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return codec.eval()


def picture() -> torch.Tensor:
    coarse = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1)


@torch.no_grad()
def test_a_wider_and_deeper_trunk_computes_the_same() -> None:
    small = trained_like(SMALL)
    large = HyperpriorCodec(replace(SMALL, width=24, analysis_depth=2, synthesis_depth=3)).eval()
    grow(small, large, (picture() * 255).byte())
    quality = torch.tensor([5.0, 30.0, 60.0, 95.0])
    ours, theirs = large(picture(), quality, hard=True), small(picture(), quality, hard=True)
    torch.testing.assert_close(ours["x_hat"], theirs["x_hat"], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(ours["bits"], theirs["bits"], atol=1e-2, rtol=1e-3)


@torch.no_grad()
def test_new_latent_channels_bring_the_picture_nearer() -> None:
    small = trained_like(SMALL)
    large = HyperpriorCodec(replace(SMALL, latent=32)).eval()
    grow(small, large, (picture() * 255).byte())
    x, quality = picture(), torch.full((4,), 100.0)
    for codec in (small, large):  # steps far below the signal: what is left is what the channels cannot say
        codec.log_gain.values.fill_(8.0)
    error = [(codec(x, quality, hard=True)["x_hat"] - x).square().mean() for codec in (small, large)]
    assert error[1] < 0.9 * error[0]


def test_only_sizes_that_can_grow_do() -> None:
    assert can_grow(SMALL, replace(SMALL, width=24, latent=32))
    assert not can_grow(SMALL, SMALL)
    assert not can_grow(SMALL, replace(SMALL, width=8))
    assert not can_grow(SMALL, replace(SMALL, region=True))
    assert not can_grow(SMALL, replace(SMALL, width=24, hyper=32))
