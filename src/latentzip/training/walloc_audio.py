"""Train a WaLLoC codec of sound: principal components of the packet bands first, then rate-distortion optimisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..codecs.walloc_audio import WallocAudio, WallocAudioConfig
from ..kernels.wavelet import wavelet_packet1d
from . import trainer
from .audio_data import MixtureSampler
from .spectral import FrameRate, MelLoss

_RATE = 44100  # for kb/s


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        lmbda: weight of a kb/s beside the logarithm of the squared error.
        mel: weight of a dB of log-mel distance.
        gain: factor on the principal components at the start; sets the first quantisation step.
        noise_until: fraction of the run with additive noise; afterwards latents are rounded, gradients passed through.
    """

    name: str = "walloc-audio-5x"
    summary: str = "stereo sound at 4.7x fewer numbers (108 int8 channels at 1/256): train on latents"
    model: WallocAudioConfig = field(default_factory=WallocAudioConfig)
    steps: int = 1200
    batch: int = 8
    crop: int = 40960
    lmbda: float = 0.008
    mel: float = 0.1
    gain: float = 40.0
    noise_until: float = 0.6


RECIPES: dict[str, Recipe] = {
    "walloc-audio-5x": Recipe(),
    "walloc-audio-20x": Recipe(
        name="walloc-audio-20x",
        summary="stereo sound at 19x fewer numbers (27 int8 channels at 1/256): the smallest latents",
        model=WallocAudioConfig(latent_channels=27),
        steps=800,
        lmbda=0.01,
        gain=25.0,
    ),
}


@torch.no_grad()
def fit_linear(model: WallocAudio, mixtures: Tensor, gain: float) -> None:
    """Set encoder and linear decoder to the principal components of the packet bands of ``mixtures`` (N, 2, T)."""
    config = model.config
    bands = wavelet_packet1d(mixtures, config.levels, config.wavelet)
    flat = bands.transpose(1, 2).reshape(-1, bands.shape[1]).double()
    _, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))  # about zero: sound has no offset
    basis = vectors.flip(1)[:, : config.latent_channels].T  # (L, K)
    basis = basis * torch.sign(basis.sum(1, keepdim=True))
    latents = flat @ basis.T
    inverse = torch.linalg.lstsq(latents, flat).solution  # (L, K): the bands are not orthonormal
    model.encoder.weight.copy_(basis[:, :, None])
    model.encoder.bias.zero_()  # type: ignore[union-attr]
    model.log_gain.fill_(math.log(gain))
    model.decoder.linear.weight.copy_(inverse.T[:, :, None])
    model.decoder.linear.bias.zero_()  # type: ignore[union-attr]
    model.decoder.latent_std.copy_(latents.std(0)[:, None].clamp_min(1e-4))
    model.decoder.error_std.copy_((flat - latents @ inverse).std(0)[:, None].clamp_min(1e-4))


class Trainer(trainer.Trainer):
    """Trains the codec together with a differentiable estimate of its rate."""

    recipe: Recipe
    columns = ("snr", "mel", "kbps")
    loader = "latentzip.codecs.walloc_audio:load_bundled"

    def build(self) -> nn.ModuleDict:
        r = self.recipe
        self.model, self.rate = WallocAudio(r.model, r.name), FrameRate(r.model.latent_channels)
        self.mel = MelLoss()
        return nn.ModuleDict({"model": self.model, "rate": self.rate})

    def make_sampler(self, data: str) -> MixtureSampler:
        r = self.recipe
        return MixtureSampler(data, r.batch, r.crop, r.seed, self.step)

    def parameter_groups(self) -> list[dict[str, Any]]:
        lr = self.recipe.lr
        return [
            {"params": [*self.model.decoder.parameters()], "lr": lr},
            {"params": [*self.model.encoder.parameters()], "lr": lr / 4},
            {"params": [self.model.log_gain], "lr": lr * 8},  # the steps have far to go
            {"params": [*self.rate.parameters()], "lr": lr * 8},
        ]

    def initialise(self, crops: Tensor) -> None:
        fit_linear(self.model, crops, self.recipe.gain)

    def compile(self) -> None:
        self.model.decoder.compile()

    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, float]]:
        r = self.recipe
        x = crops.to(self.device, non_blocking=True)
        shape = (len(x), r.model.latent_channels, x.shape[-1] >> r.model.levels)
        noise = None
        if self.step < r.noise_until * r.steps:
            noise = torch.rand(shape, device=self.device) - 0.5
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            x_hat, z = self.model(x, noise)
        x_hat = x_hat.float()
        power = x.square().mean((1, 2))
        error = (x_hat - x).square().mean((1, 2))
        distance = self.mel(x_hat, x)
        bits = self.rate(z.float() + (torch.rand_like(z) - 0.5 if noise is None else noise))
        kbps = bits.sum() / x.shape[0] / (x.shape[-1] / _RATE) / 1000
        loss = torch.log10(error + 1e-7).mean() + r.mel * distance + r.lmbda * kbps
        snr = 10 * torch.log10((power + 1e-9) / (error + 1e-9)).mean()
        return loss, {"snr": snr.item(), "mel": distance.item(), "kbps": kbps.item()}
