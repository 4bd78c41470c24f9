"""Train a supervised bottleneck on labelled folders: a teacher, then the two stages of the Entropic Student.

After Matsubara et al. (WACV 2022): first the bottleneck learns to give the features that the teacher's first layers
give, as its later layers see them, under a rate term; then encoder and entropy model are fixed, and decoder and tail
are tuned on the task with the latents that coding will give. All three parts are one run.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from ..codecs.bottleneck.codec import BottleneckConfig, EntropicBottleneck, from_bytes, tail
from ..entropy.errors import InputError
from ..files import atomic_writer
from . import trainer
from .data import CropSampler, list_images, load_rgb
from .distortion import mean_squared, taps
from .hyperprior import spread_qualities
from .precision import mixed
from .sources import Folders, folders

TEACHER, DISTIL, TUNE = 0, 1, 2


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        crop: side of the pictures that the networks see.
        teacher_until, distil_until: fractions of the run at which its first and its second part end.
        lambda_low, lambda_high: weight of the feature distortion against bits per pixel at quality 1 and 100.
        qat_from: fraction of the second part after which the scale network trains on its integer grids.
        tail_lr: learning rate of decoder and tail in the third part, over that of the others.
        distilled: share of the teacher's answers, against the labels, in the third part.
    """

    by_clock: ClassVar[bool] = False  # its parts go by steps

    name: str = "bottleneck"
    summary: str = "features at a split point of a small classifier, quality 1..100"
    model: BottleneckConfig = field(default_factory=lambda: BottleneckConfig(outputs=48))
    steps: int = 2600
    batch: int = 16
    crop: int = 128
    lr: float = 1.5e-3
    warmup: int = 50
    ema: float = 0.99
    teacher_until: float = 0.54
    distil_until: float = 0.88
    lambda_low: float = 0.05
    lambda_high: float = 2.0
    qat_from: float = 0.6
    tail_lr: float = 0.2
    distilled: float = 0.5


RECIPES: dict[str, Recipe] = {"bottleneck": Recipe()}


# --- labelled pictures -------------------------------------------------------------------------------------------


def classes_of(folder: str | Path) -> list[str]:
    """Names of the sub-folders, sorted: the classes.

    Raises:
        InputError: fewer than two.
    """
    names = sorted(p.name for p in Path(folder).iterdir() if p.is_dir())
    if len(names) < 2:
        raise InputError(f"{folder} has {len(names)} sub-folders; labelled pictures lie in one a class, two at least")
    return names


def label_of(path: Path, folder: str | Path, classes: list[str]) -> int:
    """Number of the class of a picture below a folder."""
    return classes.index(path.relative_to(folder).parts[0])


def shrink(image: np.ndarray, side: int) -> Image.Image:
    """A picture (H, W, 3) uint8 with its shorter side at most ``side``."""
    h, w = image.shape[:2]
    scale = min(1.0, side / min(h, w))
    return Image.fromarray(image).resize((round(w * scale), round(h * scale)), Image.Resampling.LANCZOS)


def centred(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a picture (H, W, 3) uint8, as (size, size, 3)."""
    side = min(image.shape[:2])
    y, x = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = Image.fromarray(image[y : y + side, x : x + side])
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


class LabelledSampler(CropSampler):
    """Endless batches (B, 3, size, size) uint8 from a folder with one sub-folder a class, strongly augmented: crops of
    a third to all of a picture, flips, brightness, contrast and colour.

    Arguments as `CropSampler`; pictures are kept at one and a half times the size.
    """

    def __init__(self, folder: str | Path, batch: int, size: int, seed: int, start: int = 0) -> None:
        classes, paths = classes_of(folder), list_images(folder)
        paths = [p for p in paths if p.parent != Path(folder)]
        self.images = [np.asarray(shrink(load_rgb(p), size * 3 // 2)) for p in paths]
        self.targets = np.array([label_of(p, folder, classes) for p in paths])
        if not self.images:
            raise FileNotFoundError(f"no image in the sub-folders of {folder}")
        self.batch, self.size, self.seed, self.step = batch, size, seed, start

    def _picks(self, step: int) -> tuple[np.random.Generator, np.ndarray]:
        rng = np.random.default_rng([self.seed, step])
        return rng, rng.integers(len(self.images), size=self.batch)

    def labels(self, step: int) -> Tensor:
        """(B,) int64 class numbers of batch number ``step``."""
        return torch.from_numpy(self.targets[self._picks(step)[1]])

    def make(self) -> Tensor:
        rng, picks = self._picks(self.step)
        self.step += 1
        crops = np.stack([self.augmented(self.images[i], rng) for i in picks])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()

    def augmented(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        h, w = image.shape[:2]
        area, aspect = h * w * rng.uniform(0.35, 1.0), math.exp(rng.uniform(-0.28, 0.28))
        ch, cw = min(h, round(math.sqrt(area / aspect))), min(w, round(math.sqrt(area * aspect)))
        y, x = rng.integers(h - ch + 1), rng.integers(w - cw + 1)
        part = Image.fromarray(image[y : y + ch, x : x + cw])
        crop = np.asarray(part.resize((self.size, self.size), Image.Resampling.BILINEAR), np.float32)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        mean = crop.mean()
        crop = mean + (crop - mean) * rng.uniform(0.7, 1.4)  # contrast
        crop = crop * rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3).astype(np.float32)  # brightness, colour
        return np.clip(crop, 0, 255).astype(np.uint8)


# --- the teacher -------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two 3x3 convolutions with group normalisation, the first of stride 2, beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class SmallCNN(nn.Module):
    """A classifier of pictures (B, 3, H, W) in [0, 1], sides multiples of 32; 0.9 M parameters."""

    SPLIT = ("stem", "layer1")  # what the bottleneck stands in for: 48 channels at 1/4
    TAPS = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self, classes: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False)
        self.stem = nn.Sequential(stem, nn.GroupNorm(8, 32), nn.ReLU())
        self.layer1, self.layer2 = Residual(32, 48), Residual(48, 96)
        self.layer3, self.layer4 = Residual(96, 160), Residual(160, 224)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(224, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.stem(x))
        return self.head(self.layer4(self.layer3(self.layer2(x))))


# --- the run -----------------------------------------------------------------------------------------------------


class Trainer(trainer.Trainer):
    """Trains teacher, bottleneck and tail, one after the other."""

    recipe: Recipe
    columns = ("accuracy", "distortion", "bpp")
    loader = "latentzip.codecs.bottleneck:from_bytes"
    sampler: LabelledSampler

    def __init__(self, recipe: Recipe, data: Folders, run: Path, **options: Any) -> None:
        if not isinstance(data, str | Path):
            raise InputError("a bottleneck is trained from one folder with a sub-folder a class: name one after --data")
        self.classes = classes_of(data)
        self.val_labels: list[int] = []
        super().__init__(recipe, data, run, **options)

    def make_sampler(self, data: Folders) -> CropSampler:
        r = self.recipe
        return LabelledSampler(folders(data)[0], r.batch, r.crop, r.seed, self.step)

    def build(self) -> nn.ModuleDict:
        self.teacher = SmallCNN(len(self.classes))
        self.model = EntropicBottleneck(self.recipe.model, self.recipe.name)
        self.tail = tail(self.teacher, SmallCNN.SPLIT)
        return nn.ModuleDict({"teacher": self.teacher, "model": self.model, "tail": self.tail})

    def parameter_groups(self) -> list[dict[str, Any]]:
        lr = self.recipe.lr
        assert self.model.priors is not None
        priors = {id(p) for p in self.model.priors.parameters()}
        return [
            {"params": [*self.teacher.parameters()], "lr": lr},
            {"params": [p for p in self.model.parameters() if id(p) not in priors], "lr": lr},
            {"params": [*self.model.priors.parameters()], "lr": 10 * lr},
            {"params": [*self.tail.parameters()], "lr": lr * self.recipe.tail_lr},
        ]

    def initialise(self, crops: Tensor) -> None:
        """Nothing: all parts start at random."""

    def compile(self) -> None:
        raise InputError("the bottleneck trainer does not compile: its parts change during the run")

    # --- parts -----------------------------------------------------------------------------------------------------

    def borders(self) -> tuple[int, int, int]:
        """Steps at which the three parts begin to be over."""
        r = self.recipe
        return round(r.teacher_until * r.steps), round(r.distil_until * r.steps), r.steps

    def part(self) -> int:
        a, b, _ = self.borders()
        return TEACHER if self.step < a else DISTIL if self.step < b else TUNE

    def lr_factor(self) -> float:
        """One cosine a part."""
        borders = (0, *self.borders())
        part = self.part()
        done, length = self.step - borders[part], max(1, borders[part + 1] - borders[part])
        factor = (
            min(1.0, (done + 1) / max(1, self.recipe.warmup)) * 0.5 * (1 + math.cos(math.pi * min(1.0, done / length)))
        )
        return factor * (self.recipe.tail_lr if part == TUNE else 1.0)

    def _begin(self, part: int) -> None:
        """Take over what the part before has learned, as averages."""
        averaged = self.averaged()
        if part == DISTIL:
            self.teacher.load_state_dict(averaged["teacher"].state_dict())
            known = self.teacher.state_dict()
            for module in (self.tail, averaged["tail"]):
                module.load_state_dict({key: known[key] for key in module.state_dict()})
        elif part == TUNE:
            self.model.load_state_dict(averaged["model"].state_dict())

    def _set_parts(self, part: int) -> None:
        """Only what a part trains has gradients and dropout."""
        self.teacher.requires_grad_(part == TEACHER).train(part == TEACHER)
        self.model.requires_grad_(part == DISTIL)
        self.model.decoder.requires_grad_(part != TEACHER)
        self.tail.requires_grad_(part == TUNE).train(part == TUNE)

    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, float]]:
        r, part = self.recipe, self.part()
        if part != TEACHER and self.step == self.borders()[part - 1]:
            self._begin(part)
        self._set_parts(part)
        x = crops.to(self.device, non_blocking=True).float() / 255
        labels = self.sampler.labels(self.step).to(self.device)
        with mixed(self.device):
            if part == TEACHER:
                logits = self.teacher(x).float()
                return F.cross_entropy(logits, labels, label_smoothing=0.1), self._report(logits, labels)
            quality = spread_qualities(x)
            if part == DISTIL:
                return self._distil(x, quality, labels)
            with torch.no_grad():
                wanted = self.teacher(x).float()
            out = self.model(x, quality, hard=True)
            logits = self.tail(out["features"]).float()
        own = F.cross_entropy(logits, labels)
        answers = F.kl_div(F.log_softmax(logits, 1), F.log_softmax(wanted, 1), log_target=True, reduction="batchmean")
        bpp = (out["bits"].mean() / (r.crop * r.crop)).item()
        return (1 - r.distilled) * own + r.distilled * answers, self._report(logits, labels, bpp=bpp)

    def _distil(self, x: Tensor, quality: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        r, borders = self.recipe, self.borders()
        self.model.quantised(self.step - borders[0] >= r.qat_from * (borders[1] - borders[0]))
        with torch.no_grad():
            wanted = taps(self.teacher, SmallCNN.TAPS, x)
        out = self.model(x, quality)
        given = [out["features"], *taps(self.tail, (*SmallCNN.TAPS[1:], "head"), out["features"])]
        distance = torch.stack([mean_squared(a, b) for a, b in zip(wanted, given)]).sum(0)
        bpp = out["bits"] / (r.crop * r.crop)
        low, high = math.log(r.lambda_low), math.log(r.lambda_high)
        weight = torch.exp(low + (high - low) * (quality - 1) / 99)
        loss = (weight * distance + bpp) / weight.sqrt()  # the ends of the range have an equal say
        return loss.mean(), self._report(given[-1], labels, distance.mean().item(), bpp.mean().item())

    @staticmethod
    def _report(logits: Tensor, labels: Tensor, distance: float = 0.0, bpp: float = 0.0) -> dict[str, float]:
        right = (logits.argmax(1) == labels).float().mean().item()
        return {"accuracy": right, "distortion": distance, "bpp": bpp}

    # --- validation and release ------------------------------------------------------------------------------------

    def train(self, val: str | None, *args: Any, **options: Any) -> None:
        """As the base says; the validation folder is labelled too."""
        if val:
            self.val_labels = [label_of(p, val, self.classes) for p in list_images(val)]
        super().train(val, *args, **options)

    @torch.inference_mode()
    def validate(self, images: list[np.ndarray]) -> dict[str, float]:
        both, labels = self.averaged(), torch.tensor(self.val_labels)
        pictures = [torch.tensor(centred(im, self.recipe.crop)) for im in images]
        x = torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
        teacher, model, rest = (copy.deepcopy(both[k]).cpu().eval() for k in ("teacher", "model", "tail"))
        right = [(teacher(part).argmax(1) == y).float() for part, y in zip(x.split(32), labels.split(32))]
        results = {"teacher": torch.cat(right).mean().item()}
        for quality in (10, 40, 80) if self.part() != TEACHER else ():
            right, bits = [], []
            for part, y in zip(x.split(32), labels.split(32)):
                out = model(part, quality, hard=True)
                right.append((rest(out["features"]).argmax(1) == y).float())
                bits.append(out["bits"])
            results[f"q{quality}_accuracy"] = torch.cat(right).mean().item()
            results[f"q{quality}_bytes"] = torch.cat(bits).mean().item() / 8
        return results

    def networks(self) -> tuple[nn.Module, EntropicBottleneck, nn.Module]:
        """Teacher, bottleneck that codes, and tail, of averaged weights, on the CPU in eval mode."""
        both = copy.deepcopy(self.averaged()).cpu().eval().requires_grad_(False)
        return both["teacher"], cast(EntropicBottleneck, both["model"]).freeze(), both["tail"]

    def release(
        self, pictures: list[Tensor], log: trainer.Log, **options: Any
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        return self.networks()[1].to_tensors()

    def export(self, out: Path, *, version: str, log: trainer.Log = print, **about: Any) -> Path:
        """Write NAME-vVERSION.safetensors, and the tail and the teacher beside it; returns the first."""
        teacher, model, rest = self.networks()
        file = out / f"{self.recipe.name}-v{version}.safetensors"
        out.mkdir(parents=True, exist_ok=True)
        model.save(file)
        meta = {"classes": json.dumps(self.classes), "recipe": json.dumps(asdict(self.recipe))}
        for kind, module in (("tail", rest), ("teacher", teacher)):
            beside = file.with_name(f"{file.stem}.{kind}.safetensors")
            with atomic_writer(beside, force=True) as stream:
                stream.write(save(module.state_dict(), meta))
        log(f"{file.name}: fingerprint {model.fingerprint.hex()}")
        return file

    def from_bytes(self, data: bytes) -> EntropicBottleneck:
        return from_bytes(data)

    def describe(self, codec: EntropicBottleneck) -> str:
        c = codec.config
        return (
            f"{c.prior} bottleneck of {c.latent} channels at 1/{c.down}, features of {c.outputs} channels at "
            f"1/{c.down // c.up}"
        )

    def describe_loss(self) -> str:
        r = self.recipe
        return f"lambda * feature distortion + bits per pixel, lambda {r.lambda_low:g} to {r.lambda_high:g}"
