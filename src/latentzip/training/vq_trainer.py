"""Train the codec `vq` by gradients: codewords and synthesis together, on the error of pixels; the analysis stays.
All levels are at 1/16: coarse ones are fitted only (`training.vq`).

Tokens are drawn by what each codeword costs, as in McQuic (Zhu et al., CVPR 2022), at a temperature that falls, and are
the cheapest codeword in the end. Every crop of a batch keeps another number of levels, so that all of them give a
picture. Dead codewords move to what is left over on their level.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import pretrained
from ..codecs import storage
from ..codecs.hyperprior import HyperpriorCodec
from ..codecs.layers import Block
from ..codecs.registry import load_codec
from ..codecs.vq.codec import VqCodec, VqConfig, from_bytes, round_weights, to_tensors
from ..codecs.vq.residual import DEFAULT, nearest
from ..entropy.errors import InputError
from . import trainer
from .precision import mixed
from .vq import SUMMARY, TRUNK, fit_codebooks, fit_components, started
from .vq_prior import fit_prior

_DEAD = 0.02  # of the mean share of a codeword
_MEMORY = 0.01  # weight of a batch in what is counted
_SIDE = 640  # of the middles of pictures whose tokens the prior is fitted to


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        trunk: the shipped codec whose analysis is used, and whose synthesis training starts from.
        lr: of the synthesis. lr_words: of codewords, over the root mean square of their level.
        temperature: of drawing tokens at first, in the price of a nat; it falls to a twentieth.
        drawing: share of the run in which tokens are drawn.
        price: of a bit, in the distortion that a level leaves a dimension.
        keeping: weight of the codewords' own error beside that of pixels.
        prior_steps: of the prior, a level.
    """

    name: str = "vq"
    summary: str = SUMMARY
    model: VqConfig = field(default_factory=lambda: VqConfig(latent=288))
    steps: int = 4000
    batch: int = 8
    crop: int = 128
    lr: float = 2e-4
    warmup: int = 50
    trunk: str = TRUNK
    lr_words: float = 3e-3
    temperature: float = 0.3
    drawing: float = 0.5
    price: float = DEFAULT.price
    keeping: float = 0.02
    prior_steps: int = 300


RECIPES: dict[str, Recipe] = {"vq": Recipe()}


class Books(nn.Module):
    """Codewords while they are trained.

    Attributes:
        values: (K, N, C), over `unit` (K, 1, 1). Entry 0 of a level stays zero.
        shares: (K, N) how often each is named. left: (K,) squared error of a row after each level.
        errors: (K,) of pixels that is usual after each level; 0 before the first batch.
    """

    def __init__(self, levels: int, entries: int, components: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(levels, entries, components))
        self.register_buffer("unit", torch.ones(levels, 1, 1))
        self.register_buffer("shares", torch.full((levels, entries), 1 / entries))
        self.register_buffer("left", torch.ones(levels))
        self.register_buffer("errors", torch.zeros(levels))
        self.unit: Tensor
        self.shares: Tensor
        self.left: Tensor
        self.errors: Tensor

    def words(self, level: int) -> Tensor:
        """(N, C)."""
        return F.pad(self.values[level, 1:] * self.unit[level], (0, 0, 1, 0))

    def nat(self, level: int, price: float) -> Tensor:
        """What a nat costs in squared error, where a bit costs ``price`` as in `codecs.vq.residual.Schedule`."""
        return price * 2 * self.left[level] / DEFAULT.dimensions

    def prices(self, level: int, price: float) -> Tensor:
        """(N,)."""
        return -self.nat(level, price) * self.shares[level].clamp_min(1e-6).log()

    @torch.no_grad()
    def take(self, codewords: Tensor) -> None:
        self.unit.copy_(codewords.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-9))
        self.values.copy_(codewords / self.unit)

    @torch.no_grad()
    def count(self, level: int, found: Tensor, rest: Tensor, weight: float = _MEMORY) -> None:
        """What rows named, and what they have left over."""
        shares = torch.bincount(found, minlength=self.shares.shape[1]) / len(found)
        self.shares[level].lerp_(shares, weight)
        self.left[level].lerp_(rest.square().sum(1).mean(), weight)

    @torch.no_grad()
    def revive(self, level: int, rest: Tensor) -> None:
        """Move codewords that hardly occur to rows (n, C) of what is to be named."""
        entries = self.shares.shape[1]
        dead = torch.nonzero(self.shares[level, 1:] < _DEAD / entries).flatten() + 1
        dead = dead[: len(rest)]
        self.values[level, dead] = rest[torch.randperm(len(rest), device=rest.device)[: len(dead)]] / self.unit[level]
        self.shares[level, dead] = 1 / entries

    @property
    def bits(self) -> Tensor:
        """(K,) of a token at the shares."""
        share = self.shares.clamp_min(1e-12)
        return -(share * share.log2()).sum(1)


class Trainer(trainer.Trainer):
    """Trains the codewords and the synthesis; components and analysis are given."""

    recipe: Recipe
    columns = ("psnr", "bits", "used")
    loader = "latentzip.codecs.vq.codec:load_bundled"

    def build(self) -> nn.ModuleDict:
        r, c = self.recipe, self.recipe.model
        self.model = VqCodec(c, r.name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.books = Books(c.levels, c.entries, c.components)
        for parameter in self.model.analysis_transform.parameters():
            parameter.requires_grad_(False)
        return nn.ModuleDict({"model": self.model, "books": self.books})

    def parameter_groups(self) -> list[dict[str, Any]]:
        r, net = self.recipe, self.model.synthesis_transform
        linear = {id(p) for p in net.linear.parameters()}
        return [
            {"params": [p for p in net.parameters() if id(p) not in linear], "lr": r.lr},
            {"params": [*net.linear.parameters()], "lr": r.lr / 5},
            {"params": [self.books.values], "lr": r.lr_words},
        ]

    def initialise(self, crops: Tensor) -> None:
        trunk = load_codec(self.recipe.trunk)
        if not isinstance(trunk, HyperpriorCodec):
            raise InputError(f"{self.recipe.trunk} is no hyperprior codec")
        codec = started(trunk, self.recipe.model, self.recipe.name)
        if codec.coarse:
            raise InputError("coarse levels are not trained by gradients: coarse=0, or python -m latentzip.training.vq")
        if codec.config != self.recipe.model:
            raise InputError(f"{self.recipe.trunk} has other sizes than the recipe's model: {codec.config}")
        rows = self._rows(codec, crops.cpu())
        fit_components(codec, rows)
        fit_codebooks(codec, rows, DEFAULT, self.recipe.seed, lambda _: None, lambda _: None)
        self._start(codec, rows)
        entry = pretrained.find(self.recipe.trunk)
        self.origin = f"on release {entry.version} of {entry.name}"

    def released_entry(self) -> pretrained.Entry:
        """Release 1: the later ones have coarse levels, and what is trained here lies on one grid."""
        return pretrained.release("vq", "1")

    def take(self, given: dict[str, Tensor], config: dict[str, Any], crops: Tensor) -> str:
        said = super().take(given, config, crops)
        if "books.values" not in given:  # a release
            codec = VqCodec(self.recipe.model)
            own = {k.removeprefix("model."): v for k, v in given.items()}
            try:
                codec.load_state_dict(own)
            except RuntimeError as error:
                raise InputError(f"the release has other sizes than the recipe's model: {config}") from error
            self._start(codec, self._rows(codec, crops.cpu()))
        return said

    @torch.no_grad()
    def _rows(self, codec: VqCodec, crops: Tensor) -> Tensor:
        return torch.cat([codec.trunk_features(part.float() / 255).flatten(0, 1) for part in crops.split(8)])

    @torch.no_grad()
    def _start(self, codec: VqCodec, rows: Tensor) -> None:
        """Begin at a fitted codec; shares and errors are those of features (n, M)."""
        self.model.load_state_dict(codec.state_dict())
        self.books.take(codec.codewords.to(self.device))
        rest = (rows - codec.mean) @ codec.to_components
        for level in range(codec.depth):
            found = nearest(rest, codec.codewords[level], codec.prices[level])
            rest = rest - codec.codewords[level][found]
            self.books.count(level, found.to(self.device), rest.to(self.device), 1.0)

    def compile(self) -> None:
        for layer in self.model.synthesis_transform.modules():
            if isinstance(layer, Block):
                layer.compile()

    def phase(self) -> Hashable:
        return self.progress() < self.recipe.drawing

    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, Any]]:
        x = crops.to(self.device, non_blocking=True).float() / 255
        b, k = len(x), self.recipe.model.levels
        with torch.no_grad():
            rows = (self.model.trunk_features(x) - self.model.mean) @ self.model.to_components
        kept = ((torch.arange(b) + torch.rand(b)) * k / b).long().clamp_max(k - 1).to(self.device)
        value, own = self._quantised(rows.flatten(0, 1), kept.repeat_interleave(rows.shape[1]))
        y = (value @ self.model.from_components + self.model.mean).unflatten(0, rows.shape[:2])
        y = y.transpose(1, 2).unflatten(2, (x.shape[2] // 16, x.shape[3] // 16))
        quality = torch.full((1,), float(self.recipe.model.trunk_quality), device=self.device)
        with mixed(self.device):
            x_hat = self.model.synthesis_transform(y, quality, self.model.std)
        error = (x_hat.float() + 0.5 - x).square().mean((1, 2, 3)) * 255**2
        loss = (error / self._usual(kept, error.detach())).mean() + self.recipe.keeping * own
        used = (self.books.shares > _DEAD / self.recipe.model.entries).float().sum(1).mean()
        psnr = (10 * torch.log10(255**2 / error.detach())).mean()
        return loss, {"psnr": psnr, "bits": self.books.bits.mean(), "used": used}

    def _quantised(self, rest: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, C) -> the sums of codewords of their first levels (n, C), and the codewords' own error over what a
        level usually leaves; ``kept`` (n,) is the last level of each."""
        r, drawn = self.recipe, bool(self.phase())
        cold = min(1.0, self.progress() / max(r.drawing, 1e-9))
        heat = r.temperature * 20**-cold
        value, own = torch.zeros_like(rest), rest.new_zeros(())
        for level in range(r.model.levels):
            if drawn:
                self.books.revive(level, rest)
            words = self.books.words(level)
            cost = torch.addmm(words.square().sum(1) + self.books.prices(level, r.price), rest, words.T, alpha=-2.0)
            if drawn:
                # no gradient through the chances: they would pull codewords apart where a row lies between two
                logits = -cost.detach() / (heat * self.books.nat(level, r.price))
                noise = -torch.empty_like(logits).exponential_().log()
                found = (logits + noise).argmax(1)
            else:
                found = cost.argmin(1)
            named = words[found]
            own = own + (rest - named).square().sum(1).mean() / self.books.left[level].clamp_min(1e-12)
            value = value + named * (level <= kept)[:, None]
            rest = rest - named.detach()
            self.books.count(level, found, rest)
        return value, own / r.model.levels

    def _usual(self, kept: Tensor, error: Tensor) -> Tensor:
        """The error of pixels that is usual with so many levels: all of them have the same say."""
        errors = self.books.errors
        if not errors.any():
            errors.copy_(error.mean())
        for level, e in zip(kept.tolist(), error):
            errors[level].lerp_(e, 2 * _MEMORY)
        return errors[kept]

    @torch.no_grad()
    def _codec(self, both: nn.ModuleDict) -> VqCodec:
        """What is trained, as a codec; prices are those of the shares."""
        codec = copy.deepcopy(cast(VqCodec, both["model"])).cpu().eval()
        books = copy.deepcopy(cast(Books, both["books"])).cpu()
        codec.codewords.copy_(torch.stack([books.words(i) for i in range(codec.depth)]))
        books.shares.copy_(self.books.shares.cpu())
        books.left.copy_(self.books.left.cpu())
        codec.prices.copy_(torch.stack([books.prices(i, self.recipe.price) for i in range(codec.depth)]))
        return codec

    @torch.inference_mode()
    def validate(self, images: list[np.ndarray]) -> dict[str, float]:
        """Mean PSNR and bits a pixel at the tokens' frequencies, at some numbers of levels."""
        codec, results = self._codec(self.averaged()), {}
        signals = [torch.tensor(x).permute(2, 0, 1)[None].float() / 255 for x in images]
        tokens = [codec.analysis(x, 100)[0] for x in signals]
        bits = [b for _, b in codec.usage(torch.cat([t.flatten(1) for t in tokens], 1))]
        for levels in sorted({1, *(max(1, codec.depth * i // 4) for i in range(1, 5))}):
            psnr = []
            for x, t in zip(signals, tokens):
                y = codec.synthesis(t[None, :levels], (x.shape[2], x.shape[3])).clamp(0, 1).mul(255).round()
                psnr.append(10 * math.log10(255**2 / (y - x * 255).square().mean().clamp_min(1e-9).item()))
            results[f"{levels}_bpp"] = sum(bits[:levels]) / codec.stride**2
            results[f"{levels}_psnr"] = float(np.mean(psnr))
        return results

    def release(
        self, pictures: list[Tensor], log: trainer.Log, **options: Any
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        codec = self._codec(self.averaged())
        round_weights(codec)
        grids = []
        for x in pictures:
            if min(x.shape[1:]) >= codec.stride:
                h, w = (min(n, _SIDE) // codec.stride * codec.stride for n in x.shape[1:])
                top, left = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
                grids.append(codec.tokens(x[:, top : top + h, left : left + w]).numpy().astype(np.int16))
        if not grids:
            raise InputError("no pictures of 16 pixels a side to fit the entropy model to")
        flat = torch.from_numpy(np.concatenate([g.reshape(codec.depth, -1) for g in grids], 1))
        for level, (used, bits) in enumerate(codec.usage(flat)):
            log(f"level {level + 1}: {used} codewords used, {bits:.2f} bits a token at their frequencies")
        codec.prior = fit_prior(grids, codec.entries, self.recipe.prior_steps, self.recipe.seed, log)
        tensors, metadata = to_tensors(codec)
        storage.share(tensors, metadata, pretrained.find(self.recipe.trunk))
        return tensors, metadata

    def from_bytes(self, data: bytes) -> VqCodec:
        return from_bytes(data)

    def describe(self, codec: VqCodec) -> str:
        c = codec.config
        return (
            f"analysis of `{self.recipe.trunk}`, whose weights are shared, a synthesis of its shape; {c.levels} "
            f"codebooks of {c.entries} at 1/16, {c.components} components"
        )

    def describe_loss(self) -> str:
        r = self.recipe
        return (
            "squared error of pixels over the usual one at as many levels, codewords' own error; tokens drawn at a "
            f"temperature that falls from {r.temperature:g} in {100 * r.drawing:g} % of the run, a bit at {r.price:g}"
        )
