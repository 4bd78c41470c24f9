"""One training run, whatever the codec: optimiser, schedule, averaged weights, checkpoints, exact resume."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..codecs.base import BaseCodec
from ..entropy import schema
from ..entropy.errors import FormatError, InputError
from .data import CropSampler, DeviceCropSampler, load_all

Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What every recipe has.

    Attributes:
        name, summary: of the codec to train.
        model: its configuration, a dataclass.
        steps, batch, crop: length of the run, crops a step, crop side in pixels.
        lr, warmup: peak learning rate and the steps to it; then one cosine to zero.
        ema: decay of the averaged weights, which are what is validated and released.
    """

    name: str
    summary: str
    model: Any
    steps: int = 6000
    batch: int = 8
    crop: int = 256
    lr: float = 5e-4
    warmup: int = 100
    ema: float = 0.998
    seed: int = 1


class Trainer(ABC):
    """Base of the trainers: sub-classes build the modules, say the loss and measure.

    Args:
        recipe: what to train.
        data: folder of training images.
        run: folder of the checkpoint; an existing one is resumed.
        device: where to train.
        compiled: compile the networks (`torch.compile`).
        init: a checkpoint of another run whose averaged weights a new run starts from, where name and shape agree.
    """

    columns: ClassVar[tuple[str, ...]] = ()  # names of what `loss` reports beside the loss
    loader: ClassVar[str]  # "package.module:function" that reads a release

    def __init__(
        self,
        recipe: Any,
        data: str,
        run: Path,
        device: str = "cpu",
        compiled: bool = False,
        init: Path | None = None,
    ) -> None:
        self.recipe, self.run, self.device = recipe, run, torch.device(device)
        torch.manual_seed(recipe.seed)
        on_gpu = self.device.type == "cuda"
        if on_gpu:  # networks run in bfloat16; what stays in float32 need not be slower than TF32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        self.modules = self.build().to(self.device)
        self.average = torch.optim.swa_utils.AveragedModel(self.modules, multi_avg_fn=_moving_average(recipe.ema))
        self.optimizer = torch.optim.AdamW(self.parameter_groups(), weight_decay=0.0, betas=(0.9, 0.99), fused=on_gpu)
        self.base_lrs = [g["lr"] for g in self.optimizer.param_groups]
        self.step, self.seconds, self.origin = 0, 0.0, ""
        self.run.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.run / "checkpoint.pt"
        if self.checkpoint.exists():
            self.load()
        self.sampler = self.make_sampler(data)
        if self.step == 0:
            crops = torch.cat([self.sampler.make() for _ in range(max(1, 240 // recipe.batch))]).to(self.device)
            self.sampler.step = 0
            self.initialise(crops)
            if init:
                self.start_from(init, crops)
            self.average.module.load_state_dict(self.modules.state_dict())
        if compiled:
            self.compile()

    # --- what a codec's trainer says -----------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> nn.ModuleDict:
        """The modules to train; ``"model"`` is the codec."""

    def make_sampler(self, data: str) -> CropSampler:
        """The batches of the run, from where it stands."""
        r = self.recipe
        if self.device.type == "cuda":
            return DeviceCropSampler(data, r.batch, r.crop, r.seed, self.step, self.device)
        return CropSampler(data, r.batch, r.crop, r.seed, self.step)

    def load_validation(self, val: str) -> list[Any]:
        """What `validate` takes, from the folder of validation signals."""
        return load_all(val)

    def export(self, out: Path, **about: Any) -> Path:
        """Write a release into a folder; arguments and result as `training.export.export`."""
        from .export import export

        return export(self, out, **about)

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its ``lr``."""

    @abstractmethod
    def initialise(self, crops: Tensor) -> None:
        """Set the linear parts from crops (N, 3, H, W) uint8, before the first step."""

    @abstractmethod
    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of crops (B, 3, H, W) uint8, and the `columns` to report."""

    @abstractmethod
    def validate(self, images: list[Any]) -> dict[str, float]:
        """Figures of the averaged weights on pictures (H, W, 3) uint8."""

    @abstractmethod
    def compile(self) -> None:
        """Compile the networks that are worth it."""

    @abstractmethod
    def release(self, pictures: list[Tensor], log: Log, **options: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Round the averaged weights, fit the entropy model to pictures (3, H, W) in [0, 1]: tensors and metadata of a
        weights file."""

    @abstractmethod
    def from_bytes(self, data: bytes) -> BaseCodec:
        """The codec of a weights file."""

    @abstractmethod
    def describe(self, codec: Any) -> str:
        """The architecture, in a line of the model card."""

    @abstractmethod
    def describe_loss(self) -> str:
        """The loss, in a line of the model card."""

    # --- the loop ------------------------------------------------------------------------------------------------

    def lr_factor(self) -> float:
        t = self.step / self.recipe.steps
        return min(1.0, (self.step + 1) / self.recipe.warmup) * 0.5 * (1 + math.cos(math.pi * min(t, 1.0)))

    def train(
        self,
        val: str | None,
        log: Log = print,
        every: int = 250,
        until: float = math.inf,
        until_step: int | None = None,
    ) -> None:
        """Run to the recipe's end, or for ``until`` seconds, or up to a step; validates and saves every ``every``."""
        last_step = self.recipe.steps if until_step is None else until_step
        images = self.load_validation(val) if val else []
        start, last = time.time(), time.time()
        sums: dict[str, float] = dict.fromkeys(("loss", *self.columns), 0.0)
        for crops in self.sampler:
            if self.step >= last_step or time.time() - start > until:
                break
            for group, base in zip(self.optimizer.param_groups, self.base_lrs):
                group["lr"] = base * self.lr_factor()
            loss, report = self.loss(crops)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
            if torch.isfinite(norm):  # a batch that overflows must not end the run
                self.optimizer.step()
                self.average.update_parameters(self.modules)
            self.step += 1
            for key, value in {"loss": loss.item(), **report}.items():
                sums[key] += value
            if self.step % 50 == 0:
                now = time.time()
                self.seconds += now - last
                means = " ".join(f"{key} {value / 50:.4f}" for key, value in sums.items())
                log(f"{self.step:6d}/{self.recipe.steps} {means} {(now - last) / 50:.2f} s/step")
                last, sums = now, dict.fromkeys(sums, 0.0)
            if self.step % every == 0 or self.step == self.recipe.steps:
                self.save()
                if images:
                    with self.device:  # what it makes of pictures lies where the networks do
                        result = self.validate(images)
                    log("       validation " + ", ".join(f"{key} {value:.4f}" for key, value in result.items()))
                last = time.time()

    def seconds_a_step(self, count: int = 20) -> float:
        """How long a step takes, from a few that change nothing; the first ones, which compile, do not count."""
        at, start = self.sampler.step, time.time()
        with torch.random.fork_rng():
            for i in range(3 + count):
                if i == 3:
                    self._wait()
                    start = time.time()
                loss, _ = self.loss(self.sampler.make())
                loss.backward()
                nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
                self.optimizer.zero_grad(set_to_none=True)
        self._wait()
        self.sampler.step = at
        return (time.time() - start) / count

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def averaged(self) -> nn.ModuleDict:
        """The modules with averaged weights."""
        return self.average.module  # type: ignore[return-value]

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        state = {
            "recipe": json.dumps(asdict(self.recipe)),
            "modules": self.modules.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "step": self.step,
            "seconds": self.seconds,
            "origin": self.origin,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def load(self) -> None:
        state = read_checkpoint(self.checkpoint, self.device)
        try:
            self.modules.load_state_dict(state["modules"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"].cpu())
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            what = str(error).strip().split("\n")[0]
            raise InputError(
                f"{self.checkpoint} does not fit the recipe {self.recipe.name}: {what[:200]}; choose another folder "
                "for the run (--run), or delete the checkpoint to begin anew"
            ) from error
        if self.device.type == "cuda" and state.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        self.step, self.seconds, self.origin = state["step"], state["seconds"], state.get("origin", "")

    def steps_at_start(self) -> int | None:
        """The recipe's steps that the checkpoint in the folder was made with; None for a new run."""
        if not self.checkpoint.exists():
            return None
        state = read_checkpoint(self.checkpoint, "cpu")
        return json.loads(state["recipe"])["steps"]

    def start_from(self, checkpoint: Path, crops: Tensor) -> None:
        """Take over the averaged weights of another run, where name and shape agree; ``crops`` as `initialise`."""
        state = read_checkpoint(checkpoint, self.device)
        own = self.modules.state_dict()
        given = {key.removeprefix("module."): value for key, value in state["average"].items()}
        taken = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
        self.modules.load_state_dict(own | taken)
        self.origin = f"from {json.loads(state['recipe'])['name']} after {state['step']} steps"


def read_checkpoint(path: Path, device: torch.device | str) -> dict[str, Any]:
    """What a trainer saved; no pickled code is run.

    Raises:
        FormatError: not a checkpoint of training, or a damaged one.
        OSError: it cannot be read.
    """
    path.open("rb").close()
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the library has several for damage
        what = str(error).strip().split("\n")[0]
        raise FormatError(f"{path}: not a checkpoint, or a damaged one: {what[:200]}") from None
    return schema.record({
        "recipe": schema.text(most=1 << 20), "average": schema.record({}), "step": schema.integer(0, 1 << 40)
    })(state, f"{path}: ")  # fmt: skip


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average that forgets faster at first: it lags by a tenth of the steps so far at most."""

    @torch.no_grad()
    def update(average: Any, current: Any, count: Any) -> None:
        n = int(count)
        for a, c in zip(average, current):
            a.lerp_(c, 1 - min(decay, (1 + n) / (10 + n)))

    return update
