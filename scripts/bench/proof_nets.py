"""Small classifiers of a fixed budget of multiply-adds: first layers for any input, one body, one way to train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Input:
    """What a classifier is given: arrays of both splits, and the first layers that come into question.

    Attributes:
        train, test: (N, variants, H, W, C), uint8, int8 or float16; H is 1 for sound.
        stems: candidates, see `stem`.
        window: (h, w) that is cut out at random to train, from the middle to test.
        grid: positions that windows begin at are multiples of it.
        flips: whether arrays are mirrored along W on the fly; with two variants the second one is the mirrored twin.
        rotate: channels are decorrelated as well as scaled.
    """

    train: Tensor
    test: Tensor
    stems: tuple[str, ...]
    window: tuple[int, int]
    grid: int = 1
    flips: bool = False
    rotate: bool = False

    @property
    def values(self) -> int:
        """Numbers of a whole sample."""
        return self.train[0, 0].numel()


class Scale(nn.Module):
    """Channels of zero mean and unit deviation over the training split; with `rotate` decorrelated too (ZCA)."""

    def __init__(self, x: Tensor, rotate: bool = False) -> None:
        super().__init__()
        rows = x[:: max(1, len(x) // 400), 0].reshape(-1, x.shape[-1]).double()
        mean, deviation = rows.mean(0), rows.std(0).clamp_min(1e-3)
        matrix = torch.diag(1 / deviation)
        if rotate:
            values, vectors = torch.linalg.eigh(torch.cov(((rows - mean) / deviation).T))
            matrix = vectors @ torch.diag((values + 0.01).rsqrt()) @ vectors.T @ matrix
        self.rotate = rotate
        self.mean: Tensor
        self.scale: Tensor
        self.matrix: Tensor
        self.register_buffer("mean", mean.float()[:, None, None])
        self.register_buffer("scale", (1 / deviation).float()[:, None, None])
        self.register_buffer("matrix", matrix.float()[:, :, None, None])

    def forward(self, x: Any) -> Any:
        y = x.float() - self.mean
        return F.conv2d(y, self.matrix) if self.rotate else y * self.scale


class LogEnergy(nn.Module):
    """Logarithm of the mean square over five neighbouring frames, for what oscillates."""

    def forward(self, x: Any) -> Any:
        return (F.avg_pool2d(x.square(), (1, 5), 1, (0, 2), count_include_pad=False) + 1e-3).log()


class Block(nn.Module):
    """Two convolutions with a shortcut; the first halves the resolution."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding, stride = (kernel[0] // 2, kernel[1] // 2), (min(2, kernel[0]), 2)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel, 1, padding, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Any) -> Any:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


def stem(text: str, inputs: int, width: int, flat: bool) -> list[nn.Module]:
    """First layers from a text such as "4/4:8 3/2": kernel/stride[:channels], `width` channels where none are said;
    ":log" instead of channels takes the logarithm of energies in the place of rectifying. ``flat``: along W only."""
    layers: list[nn.Module] = []
    for word in text.split():
        size, _, rest = word.partition(":")
        kernel, stride = map(int, size.split("/"))
        outputs = int(rest) if rest.isdigit() else width
        padding = (kernel - stride + 1) // 2
        shape = [(1, kernel), (1, stride), (0, padding)] if flat else [kernel, stride, padding]
        layers += [nn.Conv2d(inputs, outputs, *shape, bias=False), nn.BatchNorm2d(outputs)]  # type: ignore[arg-type]
        layers += [LogEnergy(), nn.BatchNorm2d(outputs)] if rest == "log" else [nn.ReLU()]
        inputs = outputs
    return layers


def network(text: str, inputs: int, classes: int, width: int, flat: bool) -> nn.Sequential:
    """Stem, two blocks, the mean over positions, one product."""
    kernel = (1, 5) if flat else (3, 3)
    middle, last = 3 * width // 2, 3 * width
    return nn.Sequential(
        *stem(text, inputs, width, flat), Block(width, middle, kernel), Block(middle, last, kernel),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(last, classes),
    )  # fmt: skip


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Of products for one sample of (C, H, W)."""
    total = 0

    def count(module: nn.Module, _: Any, y: Tensor) -> None:
        nonlocal total
        weight: Any = module.weight
        total += y[0].numel() * weight[0].numel()

    parts = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(count) for m in parts]
    model.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total


def widest(text: str, source: Input, classes: int, budget: int) -> tuple[int, int]:
    """(width, multiply-adds) of the widest network within the budget."""
    shape = (source.train.shape[-1], *source.window)
    found = (0, 0)
    for width in range(4, 98, 2):
        cost = multiply_adds(network(text, shape[0], classes, width, shape[1] == 1), shape)
        if cost > budget:
            break
        found = width, cost
    if not found[0]:
        raise SystemExit(f"no network with the first layers {text!r} keeps within {budget} multiply-adds: more --mmac")
    return found


def batches(source: Input, labels: Tensor, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Random windows, mirrored half of the time where the input can be; without end, epoch after epoch."""
    x, (h, w), grid = source.train, source.window, source.grid
    rooms = ((x.shape[2] - h) // grid + 1, (x.shape[3] - w) // grid + 1)
    size = min(size, len(x))
    while True:
        order = rng.permutation(len(x))
        for at in range(0, len(x) - size + 1, size):
            chosen = order[at : at + size]
            batch = torch.empty(size, h, w, x.shape[-1], dtype=x.dtype)
            draws = rng.integers((*rooms, 2), size=(size, 3))
            for row, (i, (top, left, flip)) in enumerate(zip(chosen.tolist(), draws.tolist())):
                top, left = top * grid, left * grid
                part = x[i, flip if x.shape[1] == 2 else 0, top : top + h, left : left + w]
                batch[row] = part.flip(1) if flip and source.flips else part
            yield batch.permute(0, 3, 1, 2), labels[torch.from_numpy(chosen)]


def train(
    source: Input, labels: tuple[Tensor, Tensor], text: str, rate: float, seed: int, *, steps: int, batch: int,
    budget: int,
) -> dict[str, Any]:  # fmt: skip
    """Train once: right answers on the test split, CPU seconds a sample of training and of prediction."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    classes = int(labels[0].max()) + 1
    width, cost = widest(text, source, classes, budget)
    torch.manual_seed(seed)
    flat = source.window[0] == 1
    body = network(text, source.train.shape[-1], classes, width, flat)
    model: Any = nn.Sequential(Scale(source.train, source.rotate), body).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    start, seen, loss = time.process_time(), 0, torch.zeros(())
    model.train()
    for (x, label), _ in zip(batches(source, labels[0], batch, rng), range(steps)):
        loss = F.cross_entropy(model(x), label, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen += len(label)
    spent = time.process_time() - start
    start, (h, w) = time.process_time(), source.window
    grid, (height, width_) = source.grid, source.test.shape[2:4]
    top, left = (height - h) // 2 // grid * grid, (width_ - w) // 2 // grid * grid
    model.eval()
    with torch.inference_mode():
        views = source.test[:, 0, top : top + h, left : left + w].permute(0, 3, 1, 2)
        answers = torch.cat([model(views[at : at + 64]).argmax(1) for at in range(0, len(views), 64)])
    test = time.process_time() - start
    right = (answers == labels[1]).numpy()
    return {
        "width": width, "mmac": round(cost / 1e6, 3), "accuracy": float(right.mean()),
        "right": np.packbits(right).tobytes().hex(), "train_ms": round(1e3 * spent / seen, 4),
        "test_ms": round(1e3 * test / len(views), 4), "final_loss": round(float(loss.detach()), 4),
    }  # fmt: skip
