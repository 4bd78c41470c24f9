"""Train a WaLLoC codec: linear solution first (PCA of the wavelet bands), then rate-distortion optimisation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..codecs.walloc import Walloc, WallocConfig
from ..kernels.wavelet import wavelet_packet2d
from .data import CropSampler, list_images, load_rgb
from .rate import CausalRate


@dataclass(frozen=True)
class Recipe:
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        lmbda: weight of the mean squared error (8-bit scale) against bits per pixel.
        gain: factor on the PCA latents at the start; sets the first quantisation step.
        steps, batch, crop: length of the run, crops a step, crop side in pixels.
        noise_until: fraction of the run with additive noise; afterwards latents are rounded, gradients passed through.
        prefix: share of the samples whose last channels are dropped at random (ordered latents).
    """

    name: str = "walloc-rgb-16x"
    summary: str = "photos at 16x fewer numbers (12 int8 channels at 1/8): train on latents, small files"
    model: WallocConfig = field(default_factory=WallocConfig)
    lmbda: float = 0.04
    gain: float = 8.0
    steps: int = 5600
    batch: int = 8
    crop: int = 256
    lr: float = 5e-4
    warmup: int = 100
    noise_until: float = 0.6
    prefix: float = 0.05
    ema: float = 0.998
    seed: int = 1


RECIPES: dict[str, Recipe] = {
    "walloc-rgb-16x": Recipe(),
    "walloc-rgb-4x": Recipe(
        name="walloc-rgb-4x",
        summary="photos at 4x fewer numbers (48 int8 channels at 1/8): near-transparent reconstructions",
        model=WallocConfig(latent_channels=48),
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
    """Set encoder and linear decoder to the PCA of the packet bands of ``crops`` (N, 3, H, W) uint8.

    The decoder is the least-squares map from the latents to the bands, not the transpose: the latents' mean carries
    what the dropped components share with them.
    """
    config = model.config
    bands = wavelet_packet2d(crops.float() / 255 - 0.5, config.levels, config.wavelet)
    flat = bands.permute(0, 2, 3, 1).reshape(-1, bands.shape[1]).double()
    second = flat.T @ flat / len(flat)  # about zero: mid grey is the natural origin, and needs no bias
    _, vectors = torch.linalg.eigh(second)
    basis = vectors.flip(1)[:, : config.latent_channels].T  # (L, K)
    basis = basis * torch.sign(basis.sum(1, keepdim=True))
    latents = flat @ basis.T
    inverse = torch.linalg.lstsq(latents, flat).solution  # (L, K)
    model.encoder.weight.copy_(basis[:, :, None, None])
    model.encoder.bias.zero_()  # type: ignore[union-attr]
    model.log_gain.fill_(math.log(gain))
    model.decoder.linear.weight.copy_(inverse.T[:, :, None, None])
    model.decoder.linear.bias.zero_()  # type: ignore[union-attr]
    model.decoder.latent_std.copy_(latents.std(0)[:, None, None].clamp_min(1e-3))
    model.decoder.error_std.copy_((flat - latents @ inverse).std(0)[:, None, None].clamp_min(1e-3))


@torch.inference_mode()
def validate(model: Walloc, rate: CausalRate | None, images: list[np.ndarray]) -> dict[str, float]:
    """Mean PSNR over 8-bit reconstructions, and estimated bits per pixel."""
    psnr, bpp = [], []
    for image in images:
        x = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
        z = model.analysis(x)
        y = model.synthesis(z, (image.shape[0], image.shape[1])).clamp(0, 1).mul(255).round()
        psnr.append(10 * math.log10(255**2 / (y - x * 255).square().mean().item()))
        if rate is not None:
            bpp.append(rate(z.float()).sum().item() / (image.shape[0] * image.shape[1]))
    return {"psnr": float(np.mean(psnr)), "bpp": float(np.mean(bpp)) if bpp else float("nan")}


class Trainer:
    """One run: model, rate estimate, optimiser, averaged weights, checkpoint and resume."""

    def __init__(self, recipe: Recipe, data: str, run: Path, device: str = "cpu", compiled: bool = False) -> None:
        self.recipe, self.run, self.device = recipe, run, torch.device(device)
        torch.manual_seed(recipe.seed)
        self.model = Walloc(recipe.model, recipe.name).to(memory_format=torch.channels_last).to(self.device)  # type: ignore[call-overload]
        self.rate = CausalRate(recipe.model.latent_channels).to(self.device)
        both = nn.ModuleDict({"model": self.model, "rate": self.rate})
        self.both = both
        self.average = torch.optim.swa_utils.AveragedModel(
            both, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
        )
        groups = [
            {"params": [*self.model.decoder.parameters()], "lr": recipe.lr},
            {"params": [*self.model.encoder.parameters()], "lr": recipe.lr / 4},
            {"params": [self.model.log_gain], "lr": recipe.lr * 8},  # the steps have far to go
            {"params": [*self.rate.parameters()], "lr": recipe.lr * 4},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99))
        self.base_lrs = [g["lr"] for g in self.optimizer.param_groups]
        self.step, self.seconds = 0, 0.0
        self.run.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.run / "checkpoint.pt"
        if self.checkpoint.exists():
            self.load()
        self.sampler = CropSampler(data, recipe.batch, recipe.crop, recipe.seed, self.step)
        if self.step == 0:
            crops = torch.cat([self.sampler.make() for _ in range(max(1, 240 // recipe.batch))])
            self.sampler.step = 0
            fit_linear(self.model, crops, recipe.gain)
            self.average.module.load_state_dict(both.state_dict())
        if compiled:
            self.model.decoder.compile()

    def lr_factor(self) -> float:
        t = self.step / self.recipe.steps
        return min(1.0, (self.step + 1) / self.recipe.warmup) * 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))

    def loss(self, crops: Tensor) -> tuple[Tensor, float, float]:
        r = self.recipe
        x = crops.to(self.device, non_blocking=True).float() / 255
        n, _, h, w = x.shape
        shape = (n, r.model.latent_channels, h >> r.model.levels, w >> r.model.levels)
        noise = None
        if self.step < r.noise_until * r.steps:
            noise = torch.rand(shape, device=self.device) - 0.5
        keep = None
        if r.prefix:
            c = torch.randint(1, shape[1], (n, 1, 1, 1), device=self.device)
            c = torch.where(torch.rand(n, 1, 1, 1, device=self.device) < r.prefix, c, shape[1])
            keep = (torch.arange(shape[1], device=self.device)[None, :, None, None] < c).float()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            x_hat, z = self.model(x, noise, keep)
        mse = F.mse_loss(x_hat.float(), x) * 255**2
        bits = self.rate(z.float() + (torch.rand_like(z) - 0.5 if noise is None else noise))
        bpp = bits.sum() / (n * h * w)
        return r.lmbda * mse + bpp, mse.item(), bpp.item()

    def train(
        self,
        val: str | None,
        log: Callable[[str], None] = print,
        every: int = 250,
        until: float = math.inf,
        until_step: int | None = None,
    ) -> None:
        """Run to the recipe's end, or for ``until`` seconds, or up to a step; validates and saves every ``every``."""
        last_step = self.recipe.steps if until_step is None else until_step
        images = [load_rgb(p) for p in list_images(val)] if val else []
        start, last = time.time(), time.time()
        sums = np.zeros(3)
        for crops in self.sampler:
            if self.step >= last_step or time.time() - start > until:
                break
            for group, base in zip(self.optimizer.param_groups, self.base_lrs):
                group["lr"] = base * self.lr_factor()
            loss, mse, bpp = self.loss(crops)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
            self.optimizer.step()
            self.average.update_parameters(self.both)
            self.step += 1
            sums += (loss.item(), mse, bpp)
            if self.step % 50 == 0:
                now = time.time()
                self.seconds += now - last
                mean = sums / 50
                psnr = 10 * math.log10(255**2 / mean[1])
                log(
                    f"{self.step:6d}/{self.recipe.steps} loss {mean[0]:.4f} psnr {psnr:.2f} dB bpp {mean[2]:.4f} "
                    f"{(now - last) / 50:.2f} s/step"
                )
                last, sums = now, np.zeros(3)
            if self.step % every == 0 or self.step == self.recipe.steps:
                self.save()
                if images:
                    result = self.validate(images)
                    log(f"       validation psnr {result['psnr']:.3f} dB, estimated bpp {result['bpp']:.4f}")
                last = time.time()

    def averaged(self) -> tuple[Walloc, CausalRate]:
        both = self.average.module
        return both.get_submodule("model"), both.get_submodule("rate")  # type: ignore[return-value]

    def validate(self, images: list[np.ndarray]) -> dict[str, float]:
        model, rate = self.averaged()
        return validate(model, rate, images)

    def save(self) -> None:
        state = {
            "recipe": json.dumps(asdict(self.recipe)),
            "both": self.both.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.both.load_state_dict(state["both"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "rng" in state:
            torch.set_rng_state(state["rng"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]
