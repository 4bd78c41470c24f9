"""Train a WaLLoC codec: linear solution first (PCA of the wavelet bands), then rate-distortion optimisation."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import pretrained
from ..codecs.walloc.codec import NEUTRAL, Walloc, WallocConfig, from_bytes
from ..codecs.walloc.weights import round_weights, to_tensors
from ..entropy.context.model import ContextModel
from ..kernels.wavelet import wavelet_packet2d
from . import trainer
from .packets import PacketTrainer, principal
from .precision import mixed
from .rate import CausalRate

_COARSE_COUNTS = 0.4  # power of the gain that errors are weighted with: coarser latents have larger ones


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        lmbda: weight of the mean squared error (8-bit scale) against bits per pixel.
        gain: factor on the PCA latents at the start; sets the first quantisation step.
        noise_until: fraction of the run with additive noise; afterwards latents are rounded, gradients passed through.
        prefix: share of the samples whose last channels are dropped at random (ordered latents).
        decoder_only: whether encoder and steps stay as they are, and with them the latents.
    """

    name: str = "walloc-rgb-16x"
    summary: str = "photos at 16x fewer numbers (12 int8 channels at 1/8): train on latents, small files"
    model: WallocConfig = field(default_factory=WallocConfig)
    steps: int = 5600
    lmbda: float = 0.04
    gain: float = 8.0
    noise_until: float = 0.6
    prefix: float = 0.05
    decoder_only: bool = False


RECIPES: dict[str, Recipe] = {
    "walloc-rgb-16x": Recipe(model=WallocConfig(variable_rate=True)),
    "walloc-rgb-4x": Recipe(
        name="walloc-rgb-4x",
        summary="photos at 4x fewer numbers (48 int8 channels at 1/8): near-transparent reconstructions",
        model=WallocConfig(latent_channels=48, variable_rate=True),
        lmbda=0.25,
        gain=17.0,
        steps=2200,
    ),
    "walloc-rgb-linear": Recipe(
        name="walloc-rgb-linear",
        summary="no network at all: fastest to decode, quality 1..100, for weak devices",
        model=WallocConfig(latent_channels=48, depth=0, variable_rate=True),
        gain=1.0,
        steps=0,
    ),
}


@torch.no_grad()
def fit_linear(model: Walloc, crops: Tensor, gain: float) -> None:
    """Set encoder and linear decoder to the PCA of the packet bands of ``crops`` (N, 3, H, W) uint8."""
    bands = wavelet_packet2d(crops.float() / 255 - 0.5, model.config.levels, model.config.wavelet)
    principal(model, bands, gain, 1e-3)


@torch.inference_mode()
def validate(
    model: Walloc, rate: CausalRate | None, images: list[np.ndarray], quality: int | None = None
) -> dict[str, float]:
    """Mean PSNR over 8-bit reconstructions, and estimated bits per pixel."""
    psnr, bpp = [], []
    for image in images:
        x = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
        z = model.analysis(x, quality)
        y = model.synthesis(z, (image.shape[0], image.shape[1]), quality).clamp(0, 1).mul(255).round()
        psnr.append(10 * math.log10(255**2 / (y - x * 255).square().mean().item()))
        if rate is not None:
            bpp.append(rate(z.float()).sum().item() / (image.shape[0] * image.shape[1]))
    return {"psnr": float(np.mean(psnr)), "bpp": float(np.mean(bpp)) if bpp else float("nan")}


class Trainer(PacketTrainer):
    """Trains a codec of pictures."""

    recipe: Recipe
    columns = ("mse", "bpp")
    loader = "latentzip.codecs.walloc:load_bundled"

    def build(self) -> nn.ModuleDict:
        r = self.recipe
        self.model = Walloc(r.model, r.name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rate = CausalRate(r.model.latent_channels)
        return nn.ModuleDict({"model": self.model, "rate": self.rate})

    def initialise(self, crops: Tensor) -> None:
        fit_linear(self.model, crops, self.recipe.gain)

    def signals(self, crops: Tensor) -> Tensor:
        return crops.float() / 255

    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, Any]]:
        r = self.recipe
        x = crops.to(self.device, non_blocking=True).float() / 255
        n, _, h, w = x.shape
        shape = (n, r.model.latent_channels, h >> r.model.levels, w >> r.model.levels)
        noise = None
        if self.phase():
            noise = torch.rand(shape, device=self.device) - 0.5
        keep = None
        if r.prefix:
            c = torch.randint(1, shape[1], (n, 1, 1, 1), device=self.device)
            c = torch.where(torch.rand(n, 1, 1, 1, device=self.device) < r.prefix, c, shape[1])
            keep = (torch.arange(shape[1], device=self.device)[None, :, None, None] < c).float()
        quality, weight = self._qualities(n)
        with mixed(self.device):
            x_hat, z = self.model(x, noise, keep, quality)
        mse = ((x_hat.float() - x).square().mean((1, 2, 3)) * weight).mean() * 255**2
        if r.decoder_only:
            return r.lmbda * mse, {"mse": mse.detach(), "bpp": torch.zeros_like(mse)}
        z = z[: self._neutral(n)]
        bits = self.rate(z.float() + (torch.rand_like(z) - 0.5 if noise is None else noise[: len(z)]))
        bpp = bits.sum() / (len(z) * h * w)
        return r.lmbda * mse + bpp, {"mse": mse.detach(), "bpp": bpp.detach()}

    def _neutral(self, count: int) -> int:
        """How many of so many crops, the first, are of the quality that the encoder learns from."""
        return -(-count // 3) if self.recipe.model.variable_rate else count

    def _qualities(self, count: int) -> tuple[Tensor | None, Tensor]:
        """Of so many crops, and what their errors count."""
        if not self.recipe.model.variable_rate:
            return None, torch.ones(count, device=self.device)
        quality = 1 + 99 * torch.rand(count, device=self.device)
        quality[: self._neutral(count)] = NEUTRAL
        return quality, self.model.rate_gain(quality) ** _COARSE_COUNTS

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = super().parameter_groups()
        if self.recipe.decoder_only:
            self.modules.requires_grad_(False)
            self.model.decoder.requires_grad_(True)
        return groups[:1] if self.recipe.decoder_only else groups

    def take(self, given: dict[str, Tensor], config: dict[str, Any], crops: Tensor) -> str:
        """As the base says; a decoder that is told the quality begins as one that is not."""
        key = "model.decoder.conv_in.weight"
        own = self.modules.state_dict().get(key)
        if own is not None and key in given and given[key].shape[1] + 1 == own.shape[1]:
            given = {**given, key: F.pad(given[key], (0, 0, 0, 0, 0, 1))}
        return super().take(given, config, crops)

    def validate(self, images: list[np.ndarray]) -> dict[str, float]:
        both = self.averaged()
        model, rate = cast(Walloc, both["model"]), cast(CausalRate, both["rate"])
        found = validate(model, rate, images)
        if self.recipe.model.variable_rate:
            found |= {f"psnr_{q}": validate(model, None, images, q)["psnr"] for q in (20, 45, 95)}
        return found

    def release(
        self, pictures: list[Tensor], log: trainer.Log, **options: Any
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        model: Walloc = copy.deepcopy(self.averaged()["model"]).cpu().eval()  # type: ignore[assignment]
        round_weights(model)
        if kept := self._kept():
            model.context = self.from_bytes(kept.read()).context
            return to_tensors(model)
        qualities: list[int | None] = [15, 30, 45, 60, 75, 95] if model.variable_rate else [None]
        if model.variable_rate and model.config.depth:  # half of them as most files will be
            qualities = [NEUTRAL, NEUTRAL, 35, 50]
        options = {"chunk": model.chunk, "sums": False, **options}  # batches of pictures are decoded together
        latents = [model.latent(x, qualities[i % len(qualities)]).numpy() for i, x in enumerate(pictures)]
        log(f"{len(latents)} latents; fitting the entropy model")
        model.context = ContextModel.fit(latents, **options)
        return to_tensors(model)

    def _kept(self) -> pretrained.Entry | None:
        """The release whose latents, and with them its entropy model, a run keeps."""
        if not (self.recipe.decoder_only and self.origin.startswith("from release")):
            return None
        _, _, version, _, name = self.origin.split()
        return pretrained.release(name, version)

    def describe_entropy(self, fitted: str) -> str:
        kept = self._kept()
        return f"that of release {kept.version}" if kept else super().describe_entropy(fitted)

    def from_bytes(self, data: bytes) -> Walloc:
        return from_bytes(data)

    def describe(self, codec: Walloc) -> str:
        config = codec.config
        reduction = config.channels * 4**config.levels / config.latent_channels
        return (
            f"{config.levels}-level {config.wavelet} wavelet packets, linear encoder to {config.latent_channels} "
            f"channels of int8 at 1/{codec.stride} ({reduction:g}x fewer numbers), {config.depth} residual blocks of "
            f"width {config.width}"
        )

    def describe_loss(self) -> str:
        if self.recipe.decoder_only:
            return "MSE, by quality; of the decoder alone"
        return f"{self.recipe.lmbda} * MSE (8-bit scale) + bits per pixel"
