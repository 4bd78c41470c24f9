"""One training run, whatever the codec: optimiser, schedule, averaged weights, checkpoints, exact resume."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import pretrained
from ..codecs.base import BaseCodec
from ..entropy import schema
from ..entropy.errors import FormatError, InputError
from .checkpoints import read_small, write_small
from .data import CropSampler, load_all
from .device_data import DeviceCropSampler
from .graph import GraphedStep
from .report import Log, Parts
from .soap import SOAP
from .sources import Folders

RELEASE = "release"
_SAVE_SECONDS = 300
_STOCK = 2048  # synthetic pictures on a GPU, which would wait for fresh ones


@dataclass(frozen=True)
class Recipe:
    """What every recipe has.

    Attributes:
        name, summary: of the codec to train.
        model: its configuration, a dataclass.
        steps, batch, crop: length of the run, crops a step, crop side in pixels.
        lr, warmup: peak learning rate and the steps to it; then one cosine to zero.
        ema: decay of the averaged weights, which are what is validated and released.
        optimizer: ``"adamw"`` or ``"soap"``.
        drawn: share of the crops that are synthetic: text, flat graphics, screens; of sounds tones, bells, clicks.
        recoloured: share of the other crops whose levels and colours are changed.
        by_clock: whether a run's schedule may follow the time instead of its steps.
    """

    by_clock: ClassVar[bool] = True

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
    optimizer: str = "adamw"
    drawn: float = 0.08
    recoloured: float = 0.25


class Trainer(ABC):
    """Base of the trainers: sub-classes build the modules, say the loss and measure.

    Args:
        recipe: what to train.
        data: folder, or folders and zip files, of training images.
        run: folder of the checkpoint; an existing one is resumed.
        device: where to train.
        compiled: compile the networks (`torch.compile`).
        init: a checkpoint of another run whose averaged weights a new run starts from, where name and shape agree, or
            `RELEASE` for the shipped weights of the recipe's codec.
    """

    columns: ClassVar[tuple[str, ...]] = ()  # names of what `loss` reports beside the loss
    graphable = False  # whether `loss` never waits for the device, so that a step can be a CUDA graph
    loader: ClassVar[str]  # "package.module:function" that reads a release

    def __init__(
        self,
        recipe: Any,
        data: Folders,
        run: Path,
        device: str = "cpu",
        compiled: bool = False,
        init: Path | str | None = None,
    ) -> None:
        self.recipe, self.run, self.device = recipe, run, torch.device(device)
        torch.manual_seed(recipe.seed)
        on_gpu = self.device.type == "cuda"
        if on_gpu:  # networks run in bfloat16; what stays in float32 need not be slower than TF32
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        self.modules = self.build().to(self.device)
        self.average = torch.optim.swa_utils.AveragedModel(self.modules)
        self.optimizer = self.make_optimizer()
        self.base_lrs = [float(g["lr"]) for g in self.optimizer.param_groups]
        self.step, self.seconds, self.origin, self.warm_from = 0, 0.0, "", 0
        self.trained_on = torch.cuda.get_device_name(self.device) if on_gpu else "CPU"  # the last one, of several
        self.parts, self._stopping = Parts(), False
        self.share: float | None = None  # of the time that is over, where a run goes by the clock
        self.graphed = GraphedStep(self._body, self._forget_gradients) if on_gpu and self.graphable else None
        self.run.mkdir(parents=True, exist_ok=True)
        self.checkpoint, self.small = self.run / "checkpoint.pt", self.run / "checkpoint.npz"
        if self.checkpoint.exists():
            self.load()
        elif self.small.exists():
            self.load_small()
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

    def make_sampler(self, data: Folders) -> CropSampler:
        """The batches of the run, from where it stands."""
        r = self.recipe
        shares = {"drawn": r.drawn, "recoloured": r.recoloured}
        if self.device.type == "cuda":
            return DeviceCropSampler(
                data, r.batch, r.crop, r.seed, self.step, device=self.device, stock=_STOCK, **shares
            )
        return CropSampler(data, r.batch, r.crop, r.seed, self.step, **shares)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """What the recipe names, over `parameter_groups`.

        Raises:
            InputError: an optimiser that does not exist.
        """
        betas = (0.9, 0.99)
        if self.recipe.optimizer == "soap":
            return SOAP(self.parameter_groups(), betas=betas)
        if self.recipe.optimizer != "adamw":
            raise InputError(f"optimizer {self.recipe.optimizer!r} is unknown: adamw or soap")
        groups = self.parameter_groups()
        if self.device.type != "cuda":
            return torch.optim.AdamW(groups, weight_decay=0.0, betas=betas)
        for group in groups:  # a number would be frozen into a graph
            group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
        return torch.optim.AdamW(groups, weight_decay=0.0, betas=betas, fused=True, capturable=True)

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
    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Loss of crops (B, 3, H, W) uint8, and the `columns` to report: numbers, or tensors without gradients."""

    def phase(self) -> Hashable:
        """What `loss` depends on beside crops and weights: another value, another computation."""
        return None

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

    def describe_entropy(self, fitted: str) -> str:
        """The entropy model, in a line of the model card, from what it was fitted to."""
        return f"fitted on the latents of {fitted}"

    # --- the loop ------------------------------------------------------------------------------------------------

    def progress(self) -> float:
        """Where the run stands, 0 to 1: of its steps, or of its time if it goes by the clock."""
        return min(self.step / max(1, self.recipe.steps) if self.share is None else self.share, 1.0)

    def lr_factor(self) -> float:
        warm = min(1.0, (self.step - self.warm_from + 1) / max(1, self.recipe.warmup))
        return warm * 0.5 * (1 + math.cos(math.pi * self.progress()))

    def train(
        self,
        val: str | None,
        log: Log = print,
        every: int = 250,
        until: float = math.inf,
        until_step: int | None = None,
        by_clock: bool = False,
    ) -> None:
        """Run to the recipe's end, or for ``until`` seconds, or up to a step, or until `stop` is called.

        Validates and saves every ``every`` steps; saves every few minutes beside. ``by_clock`` is for one sitting: the
        schedule follows the time that ``until`` gives and not the steps, whatever a step takes, with four validations.
        """
        last_step: float = self.recipe.steps if until_step is None else until_step
        last_step = math.inf if by_clock else last_step
        images = self.load_validation(val) if val else []
        start = last = saved = time.time()
        sums: dict[str, Any] = dict.fromkeys(("loss", *self.columns), 0.0)
        self.parts.begin()
        batches = iter(self.sampler)
        done = self._stopping
        while self.step < last_step and not done:
            with self.parts.part("data"):
                crops = next(batches)
            quarter = int(4 * self.progress())
            if by_clock:
                self.share = (time.time() - start) / until
            for key, value in self._one_step(crops).items():
                sums[key] = sums[key] + value
            if self.step % 50 == 0:
                now = time.time()
                self.seconds += now - last
                means = " ".join(f"{key} {float(value) / 50:.4f}" for key, value in sums.items())
                of = f"{self.recipe.steps}" if self.share is None else f"{100 * self.share:.1f}%"
                log(f"{self.step:6d}/{of} {means} {(now - last) / 50:.2g} s/step")
                last, sums = now, dict.fromkeys(sums, 0.0)
            done = self._stopping or time.time() - start >= until  # one step at least
            validates = self.step % every == 0 or self.step == self.recipe.steps
            if by_clock:
                validates = done or int(4 * self.progress()) > quarter
            if validates or time.time() - saved > _SAVE_SECONDS:
                with self.parts.part("saving"):
                    self.save()
                saved = time.time()
            if validates and images:
                with self.parts.part("validation"), self.device:  # what it makes of pictures lies where the networks do
                    result = self.validate(images)
                log("       validation " + ", ".join(f"{key} {value:.4f}" for key, value in result.items()))
            if validates:
                last = time.time()
        if by_clock:  # a run of as many steps is over
            self.recipe, self.share = replace(self.recipe, steps=self.step), None

    def _one_step(self, crops: Tensor) -> dict[str, Any]:
        """Loss, gradients, update; returns what `loss` reports, and the loss."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs):
            rate = base * self.lr_factor()
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self.graphed is not None:
            with self.parts.part("step"):
                report = self.graphed(crops.to(self.device, non_blocking=True), self.phase())
        else:
            self._forget_gradients()
            report = self._body(crops)
        with self.parts.part("average"):
            self._update_average()
        self.step += 1
        self.parts.crops += len(crops)
        return report

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average that forgets faster at first: it lags by a tenth of the steps so far at most.
        Its count lies on the host, so that nothing waits for a device."""
        n = int(self.average.n_averaged)
        weight = 1 - min(self.recipe.ema, (1 + n) / (10 + n)) if n else 1.0
        torch._foreach_lerp_([*self.averaged().parameters()], [*self.modules.parameters()], weight)  # type: ignore
        self.average.n_averaged += 1

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _body(self, crops: Tensor) -> dict[str, Any]:
        """All of a step but the average. A batch that overflows must not end the run: it changes nothing."""
        with self.parts.part("forward"):
            loss, report = self.loss(crops)
        with self.parts.part("backward"):
            loss.backward()
        with self.parts.part("optimiser"):
            norm = nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
            if self.device.type == "cuda":  # decided there, so that nothing waits for the answer
                self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
                self.optimizer.step()
            elif bool(torch.isfinite(norm)):
                self.optimizer.step()
        return {"loss": loss.detach(), **report}

    def stop(self) -> None:
        """End `train` after the step that runs: for signal handlers."""
        self._stopping = True

    def seconds_a_step(self, count: int = 20) -> float:
        """How long a step takes, from a few that change nothing; the first ones, which compile, do not count."""
        at, start = self.sampler.step, time.time()
        with torch.random.fork_rng():
            for i in range(3 + count):
                if i == 3:
                    self.wait()
                    start = time.time()
                loss, _ = self.loss(self.sampler.make())
                loss.backward()
                nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
                self.optimizer.zero_grad(set_to_none=True)
        self.wait()
        self.sampler.step = at
        return (time.time() - start) / count

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def averaged(self) -> nn.ModuleDict:
        """The modules with averaged weights."""
        return self.average.module  # type: ignore[return-value]

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint that resumes exactly, and the small one that goes on elsewhere."""
        about = {
            "recipe": asdict(self.recipe), "step": self.step, "seconds": self.seconds, "origin": self.origin,
            "trained_on": self.trained_on,
        }  # fmt: skip
        state = {
            **about,
            "recipe": json.dumps(about["recipe"]),
            "modules": self.modules.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "warm_from": self.warm_from,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)
        write_small(self.small, self.averaged().state_dict(), self.modules.state_dict(), about)

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
        self.warm_from = state.get("warm_from", 0)
        self._trained_before(state)

    def load_small(self) -> None:
        """Go on from a small checkpoint: the optimiser begins anew, so the rate warms up again."""
        average, weights, about = read_small(self.small)
        self.modules.load_state_dict(weights)
        self.averaged().load_state_dict(average)
        self.average.n_averaged.fill_(about["step"])
        self.step, self.seconds, self.origin = about["step"], about["seconds"], about["origin"]
        self.warm_from = self.step
        self._trained_before(about)

    def _trained_before(self, about: dict[str, Any]) -> None:
        """Where nothing is left to train, the run belongs to the machine before."""
        if self.step >= self.recipe.steps:
            self.trained_on = about.get("trained_on", self.trained_on)

    def steps_at_start(self) -> int | None:
        """The recipe's steps that the checkpoint in the folder was made with; None for a new run."""
        if self.checkpoint.exists():
            return json.loads(read_checkpoint(self.checkpoint, "cpu")["recipe"])["steps"]
        return read_small(self.small)[2]["recipe"]["steps"] if self.small.exists() else None

    def start_from(self, source: Path | str, crops: Tensor) -> None:
        """Take over the averaged weights of another run, or the shipped ones; ``crops`` as `initialise`."""
        if source == RELEASE:
            entry = self.released_entry()
            codec: Any = self.from_bytes(entry.read())
            given, config = self.released(codec), asdict(codec.config)
            words = f"release {entry.version} of {entry.name}"
        elif Path(source).suffix == ".npz":
            given, _, about = read_small(Path(source))
            config, words = about["recipe"]["model"], f"{about['recipe']['name']} after {about['step']} steps"
        else:
            state = read_checkpoint(Path(source), self.device)
            given = {k.removeprefix("module."): v for k, v in state["average"].items() if k != "n_averaged"}
            recipe = json.loads(state["recipe"])
            config, words = recipe["model"], f"{recipe['name']} after {state['step']} steps"
        self.origin = f"{self.take(given, config, crops)} {words}"

    def released_entry(self) -> pretrained.Entry:
        """The shipped weights that a run may start from."""
        return pretrained.find(self.recipe.name)

    def released(self, codec: Any) -> dict[str, Tensor]:
        """State of the modules as far as a released codec gives it."""
        return {f"model.{key}": value for key, value in codec.state_dict().items()}

    def take(self, given: dict[str, Tensor], config: dict[str, Any], crops: Tensor) -> str:
        """Take over the state of a model of some configuration where name and shape agree; says how, in a word."""
        own = self.modules.state_dict()
        taken = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
        self.modules.load_state_dict(own | taken)
        return "from"


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
