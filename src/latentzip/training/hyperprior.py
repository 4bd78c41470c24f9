"""Train a hyperprior codec: a linear transform codec at first (PCA of 16x16 blocks), then rate and distortion at all
qualities at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import pretrained
from ..codecs import storage
from ..codecs.hyperprior.codec import (
    HyperpriorCodec,
    HyperpriorConfig,
    from_bytes,
    round_weights,
    to_tensors,
)
from ..codecs.hyperprior.priors import HyperPriors
from ..codecs.layers import ANCHORS, Block
from ..entropy import exact
from ..entropy.errors import InputError
from ..entropy.exact import QatConv2d
from ..entropy.tables import TableBank
from . import trainer
from .data import CropSampler
from .growth import can_grow, first_scale_numbers, grow
from .precision import mixed
from .regions import segment
from .restore import trainable_hyperprior
from .scale_context import DEFAULT, Schedule, fit, with_context


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        metric: distortion, ``"mse"`` (8-bit scale), ``"ms-ssim"`` (1 - MS-SSIM; crops of at least 192) or
            ``"features"``: MSE and what a network makes of the pictures, see `Trainer.features`.
        feature_weight: of the distortion of features against MSE.
        lambda_low, lambda_high: weight of the distortion at quality 1 and 100, geometric in between.
        qat_from: fraction of the run after which the scale network trains on its integer grids.
        base: a bundled codec whose weights the model starts from and keeps: only what that has not is trained (and the
            exact networks, where there is a mixture), and only that is stored.
        masked: share of the steps whose regions are segments instead of a grid (region-adaptive models).
    """

    name: str = "hyperprior-fast"
    summary: str = "photos, quality 1..100: small files, light enough for a CPU"
    model: HyperpriorConfig = field(default_factory=lambda: HyperpriorConfig(latent=288, context=64))
    steps: int = 20000
    batch: int = 4
    lr: float = 1e-3
    warmup: int = 200
    ema: float = 0.999
    metric: str = "mse"
    feature_weight: float = 300.0
    lambda_low: float = 0.001
    lambda_high: float = 0.15
    qat_from: float = 0.7
    masked: float = 0.5
    base: str = ""


RECIPES: dict[str, Recipe] = {
    "hyperprior-fast": Recipe(),
    "hyperprior": Recipe(
        name="hyperprior",
        summary="photos, quality 1..100: the smallest files, for a GPU or patience",
        model=HyperpriorConfig(width=192, analysis_depth=4, synthesis_depth=7, latent=384, context=64),
    ),
    "gmm": Recipe(
        name="gmm",
        summary="hyperprior-fast with a mixture of three Gaussians a latent: for comparisons",
        model=HyperpriorConfig(latent=288, components=3),
        base="hyperprior-fast",
    ),
    "region": Recipe(
        name="region",
        summary="hyperprior-fast with a region-adaptive transform: for comparisons",
        model=HyperpriorConfig(latent=288, region=True),
        base="hyperprior-fast",
    ),
}


def lambda_of(recipe: Recipe, quality: Tensor) -> Tensor:
    """Weight of the distortion against bits per pixel at each quality."""
    low, high = math.log(recipe.lambda_low), math.log(recipe.lambda_high)
    return torch.exp(low + (high - low) * (quality - 1) / 99)


def say_of(recipe: Recipe, quality: Tensor) -> Tensor:
    """Weight of each quality in a loss: lambda^-1/2 gives the ends of the range an equal say."""
    return (math.sqrt(recipe.lambda_low * recipe.lambda_high) / lambda_of(recipe, quality)).sqrt()


def spread_qualities(x: Tensor) -> Tensor:
    """One quality a picture (B,), each from another of B even ranges: less spread in the loss than free draws."""
    n = len(x)
    return 1 + 99 * (torch.arange(n, device=x.device) + torch.rand(n, device=x.device)) / n


def exact_parameters(model: HyperpriorCodec) -> list[nn.Parameter]:
    """Of the networks that decide intervals."""
    nets = [model.scale_net] if model.mixture_net is None else [model.scale_net, model.mixture_net]
    return [p for net in nets for p in net.parameters()]


@torch.no_grad()
def fit_linear(model: HyperpriorCodec, crops: Tensor, recipe: Recipe) -> None:
    """Set the linear transforms to the PCA of the 16x16 blocks of ``crops`` (N, 3, H, W) uint8, and the gains to the
    steps that a uniform quantiser at high rate would take for each lambda (Sullivan & Wiegand 1998)."""
    flat = torch.cat(
        [
            F.pixel_unshuffle(part.float() / 255 - 0.5, 16).permute(0, 2, 3, 1).reshape(-1, 768)
            for part in crops.split(8)
        ]
    ).double()
    _, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    basis = vectors.flip(1)[:, : recipe.model.latent].T.float()
    basis = basis * torch.sign(basis.sum(1, keepdim=True))
    analysis, synthesis = model.analysis_transform.linear, model.synthesis_transform.linear
    analysis.weight.copy_(basis[:, :, None, None])
    synthesis.weight.copy_(basis.T[:, :, None, None])
    for layer in (analysis, synthesis):
        layer.bias.zero_()  # type: ignore[union-attr]
    # mid grey is far from the mean of nothing: the deviation about zero is what networks have to scale
    model.std.copy_((flat.float() @ basis.T).square().mean(0).sqrt()[:, None, None].clamp_min(1e-3))
    anchors = torch.linspace(1, 100, ANCHORS, device=crops.device)
    step = torch.sqrt(36 / (2 * math.log(2) * lambda_of(recipe, anchors) * 255**2))
    model.log_gain.values.copy_(-torch.log(step)[:, None].expand(-1, recipe.model.latent))
    # the scale network starts at each coefficient's deviation in steps of the best quality
    last = cast(QatConv2d, model.scale_net[2])
    last.bias.copy_(first_scale_numbers(model.std.flatten(), -torch.log(step[-1])).repeat_interleave(16))


class Trainer(trainer.Trainer):
    """Trains the codec together with the distributions of its hyper-latent, a set a group of qualities.

    Attributes:
        features: for ``metric="features"``: distortion (B,) of pictures (B, 3, H, W) in [0, 1] against originals, such
            as a `FeatureDistortion` of the network that the pictures are for; to be set before training.
    """

    features: Callable[[Tensor, Tensor], Tensor] | None = None

    recipe: Recipe
    columns = ("psnr", "bpp", "hyper")
    loader = "latentzip.codecs.hyperprior:load_bundled"

    def build(self) -> nn.ModuleDict:
        r = self.recipe
        # the networks that refine scales are fitted at export, to rounded symbols
        self.model = HyperpriorCodec(replace(r.model, context=0), r.name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.priors = HyperPriors(r.model.hyper)
        if r.base:
            kept = HyperpriorCodec(replace(r.model, components=1, region=False)).state_dict()
            exact_too = {id(p) for p in exact_parameters(self.model)} if r.model.components > 1 else set()
            for key, p in self.model.named_parameters():
                p.requires_grad_(key not in kept or id(p) in exact_too)
        return nn.ModuleDict({"model": self.model, "priors": self.priors})

    def parameter_groups(self) -> list[dict[str, Any]]:
        r, m = self.recipe, self.model
        linear = [*m.analysis_transform.linear.parameters(), *m.synthesis_transform.linear.parameters()]
        slow = {id(p) for p in (*linear, *m.log_gain.parameters())}
        groups = [
            {"params": [p for p in m.parameters() if id(p) not in slow], "lr": r.lr},
            {"params": linear, "lr": r.lr / 5},
            {"params": [*m.log_gain.parameters()], "lr": r.lr},
            {"params": [*self.priors.parameters()], "lr": r.lr * 10},
        ]
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        return [group for group in groups if group["params"]]

    def initialise(self, crops: Tensor) -> None:
        fit_linear(self.model, crops, self.recipe)
        if self.recipe.base:
            entry = pretrained.find(self.recipe.base)
            self.take(self.released(from_bytes(entry.read())), asdict(self.recipe.model), crops)
            self.origin = f"on release {entry.version} of {entry.name}"

    def released(self, codec: HyperpriorCodec) -> dict[str, Tensor]:
        return trainable_hyperprior(codec).state_dict()

    def take(self, given: dict[str, Tensor], config: dict[str, Any], crops: Tensor) -> str:
        """As the base says; a smaller model grows to this one's size."""
        small = replace(HyperpriorConfig(**config), context=0)
        if not can_grow(small, self.model.config):
            return super().take(given, config, crops)
        both = nn.ModuleDict({"model": HyperpriorCodec(small), "priors": HyperPriors(small.hyper)}).to(self.device)
        both.load_state_dict(given)
        grow(cast(HyperpriorCodec, both["model"]), self.model, crops)
        self.priors.load_state_dict(both["priors"].state_dict())
        return "grown from"

    def compile(self) -> None:
        for layer in self.model.modules():  # blocks alone: those of a width share what is compiled, in seconds
            if isinstance(layer, Block):
                layer.compile()

    @property
    def graphable(self) -> bool:  # type: ignore[override]
        return not self.recipe.model.region  # segments are drawn by the host

    def phase(self) -> bool:
        """Whether the scale network is on its integer grids."""
        return self.progress() >= self.recipe.qat_from

    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, Any]]:
        r = self.recipe
        exact.set_quantised(self.model, self.phase())
        x = crops.to(self.device, non_blocking=True).float() / 255
        h, w = x.shape[2:]
        quality = spread_qualities(x)
        regions = None
        if r.model.region and torch.rand(()) < r.masked:
            regions = segment(crops.to(self.device))
        with mixed(self.device):
            out = self.model(x, quality, regions=regions)
        x_hat = out["x_hat"].float()
        mse = (x_hat - x).square().mean((1, 2, 3)) * 255**2
        noisy = out["z"] + torch.rand_like(out["z"]) - 0.5
        hyper = self.priors.bits(noisy, quality) / (h * w)
        latent = out["bits"].sum((1, 2, 3)) / (h * w)
        lmbda = lambda_of(r, quality)
        distortion = mse
        if r.metric == "ms-ssim":
            from pytorch_msssim import ms_ssim

            distortion = 1300 * (1 - ms_ssim(x_hat.clamp(0, 1), x, data_range=1.0, size_average=False))
        elif r.metric == "features":
            if self.features is None:
                raise InputError("metric is 'features': set trainer.features, e.g. to a FeatureDistortion")
            distortion = mse + r.feature_weight * self.features(x, x_hat)
        loss = (say_of(r, quality) * (lmbda * distortion + latent + hyper)).mean()
        psnr = (10 * torch.log10(255**2 / mse.detach())).mean()
        bpp = (latent + hyper).detach().mean()
        return loss, {"psnr": psnr, "bpp": bpp, "hyper": hyper.detach().mean()}

    def validate(self, images: list[np.ndarray]) -> dict[str, float]:
        return validate(*self._parts(self.averaged()), images)

    @staticmethod
    def _parts(both: nn.ModuleDict) -> tuple[HyperpriorCodec, HyperPriors]:
        return cast(HyperpriorCodec, both["model"]), cast(HyperPriors, both["priors"])

    def release(
        self,
        pictures: list[Tensor],
        log: trainer.Log,
        calibration: int = 1000,
        refinement: Schedule = DEFAULT,
        **options: Any,
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """See the base; ``calibration`` is the number of steps of `calibrate`, ``refinement`` is of `scale_context`."""
        model, priors = self._parts(copy.deepcopy(self.averaged()).eval())
        round_weights(model)
        self.sampler.step = self.step  # the same crops whenever it is done
        self.sampler.batch = min(self.sampler.batch, 4)  # what a small network learns from
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            if any(p.requires_grad for p in exact_parameters(model)):
                bits = calibrate(model, self.recipe, self.sampler, calibration)
                log(f"scale network: {bits:.4f} times the bits before")
        model, priors = model.cpu(), priors.cpu()
        model.freeze(hyper_tables(model, priors, pictures))
        log(f"tables of the hyper-latent fitted to {len(pictures)} pictures")
        if width := self.recipe.model.context:
            model = with_context(model, fit(model, self.sampler, replace(refinement, width=width), log))
        tensors, metadata = to_tensors(model)
        if self.recipe.base:
            storage.share(tensors, metadata, pretrained.find(self.recipe.base))
        return tensors, metadata

    def from_bytes(self, data: bytes) -> HyperpriorCodec:
        return from_bytes(data)

    def describe(self, codec: HyperpriorCodec) -> str:
        c = codec.config
        return (
            f"mean-scale hyperprior with an exact scale network; trunk of width {c.width} at 1/8, {c.analysis_depth} "
            f"blocks to encode and {c.synthesis_depth} to decode; {c.latent} latent channels at 1/16, {c.hyper} "
            "hyper-latent channels at 1/64, four context steps for the means"
            + (f"; mixtures of {c.components} Gaussians" if c.components > 1 else "")
            + ("; region-adaptive transform in both trunks" if c.region else "")
            + (f"; three exact networks of width {c.context} refine the scales" if c.context else "")
        )

    def describe_loss(self) -> str:
        r = self.recipe
        return (
            f"lambda * {r.metric} + bits per pixel, lambda {r.lambda_low:g} to {r.lambda_high:g} over quality 1 to 100"
        )


@torch.inference_mode()
def validate(
    model: HyperpriorCodec,
    priors: HyperPriors,
    images: list[np.ndarray],
    qualities: tuple[int, ...] = (10, 40, 70, 95),
) -> dict[str, float]:
    """Mean PSNR over 8-bit reconstructions and estimated bits per pixel, at some qualities."""
    results = {}
    for value in qualities:
        psnr, bpp = [], []
        for image in images:
            image = image[: image.shape[0] // 64 * 64, : image.shape[1] // 64 * 64]
            x = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
            quality = torch.tensor([float(value)])
            out = model(x, quality, hard=True)
            y = out["x_hat"].clamp(0, 1).mul(255).round()
            psnr.append(10 * math.log10(255**2 / (y - x * 255).square().mean().item()))
            bits = out["bits"].sum() + priors.bits(out["z"], quality).sum()
            bpp.append(bits.item() / (image.shape[0] * image.shape[1]))
        results |= {f"q{value}_bpp": float(np.mean(bpp)), f"q{value}_psnr": float(np.mean(psnr))}
    return results


def calibrate(model: HyperpriorCodec, recipe: Recipe, sampler: CropSampler, steps: int, lr: float = 5e-4) -> float:
    """Train the networks that decide intervals alone, on their integer grids, for the symbols that coding will see.

    Noise stands for rounding while everything trains; where steps are wide it widens the deviations that the network
    learns. Here latents are rounded and all else is fixed.

    Returns:
        Bits of the latent over those before, on the last tenth of the steps.
    """
    exact.set_quantised(model, True)
    before = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(exact_parameters(model), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    bits = [0.0, 0.0]
    for step in range(steps):
        x = sampler.make().to(model.std.device).float() / 255
        quality = spread_qualities(x)
        with torch.no_grad(), mixed(x.device):
            out = model(x, quality, hard=True)
        cost = model.latent_bits(out["residual"], out["z"], quality).sum((1, 2, 3))
        (say_of(recipe, quality) * cost).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step >= 0.9 * steps:
            with torch.no_grad():
                first = before.latent_bits(out["residual"], out["z"], quality).sum()
            bits = [bits[0] + first.item(), bits[1] + cost.sum().item()]
    return bits[1] / max(bits[0], 1e-9)


@torch.inference_mode()
def hyper_tables(model: HyperpriorCodec, priors: HyperPriors, pictures: list[Tensor]) -> TableBank:
    """Tables of the hyper-latent, N a group of qualities: counts over pictures, smoothed by the trained prior."""
    reach = priors.of_group(0).reach
    histograms = []
    for group, quality in enumerate(torch.linspace(1, 100, ANCHORS).round().int().tolist()):
        p = torch.softmax(priors.of_group(group).logits.double(), 1).numpy()
        counts = 20 * p
        for x in pictures[group % 2 :: 2]:  # half of them each: they are many
            z = model.hyper_latent(x[None], quality)[0].clamp(-reach, reach).long().flatten(1) + reach
            for channel, row in enumerate(z):
                counts[channel] += np.bincount(row.numpy(), minlength=counts.shape[1])
        histograms += list(counts)
    return TableBank.from_histograms(histograms, lo=-reach, precision=12)
