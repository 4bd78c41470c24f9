"""The classifier that `perception` trains when it is given none: small, from nothing, on pixels at full size."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from examples.train_on_latents import MARGIN, STRIDE, PictureFolder, classifier, median_side
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentzip.entropy.errors import InputError

EPOCHS, BATCH, RATE = 16, 32, 3e-3
FEATURES = "6"  # 192 numbers before the last layer


def train(data: Path, epochs: int = EPOCHS, seed: int = 0) -> nn.Module:
    """A classifier of the pictures in ``data``/train, a folder a class; prints its loss once an epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    side = median_side(data / "train") // STRIDE * STRIDE
    pictures = PictureFolder(data / "train", side, MARGIN * STRIDE)
    model = classifier("full", len(pictures.classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = epochs * (len(pictures.files) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.15)
    start = time.perf_counter()
    for epoch in range(epochs):
        losses = []
        for x, label in pictures.batches(BATCH, rng):
            loss = F.cross_entropy(model(x), label, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.3f}, {time.perf_counter() - start:.0f} s", flush=True
        )
    return model.eval()


def window(x: Tensor) -> Tensor:
    """The middle square of pictures (B, 3, H, W) in [0, 1], at the size of training, in 0..255; differentiable."""
    height, width = x.shape[-2:]
    edge = min(height, width)
    size = edge // STRIDE * STRIDE - MARGIN * STRIDE
    top, left = ((n - edge) // 2 + MARGIN * STRIDE // 2 for n in (height, width))
    return 255 * x[..., top : top + size, left : left + size]


def prepare(image: Image.Image) -> Tensor:
    """The same of one picture -> (3, S, S) uint8."""
    x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    return (window(x[None] / 255)[0]).round().to(torch.uint8)


def save(model: nn.Module, path: Path) -> None:
    """Weights for `load`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)


def load(path: Path) -> nn.Module:
    """A TorchScript module of the user's (any file but .safetensors), or weights that `save` wrote."""
    if path.suffix != ".safetensors":
        try:
            return torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise InputError(f"{path} is no TorchScript module: {str(error).splitlines()[0]}") from error
    try:
        state = load_file(path)
        model = classifier("full", state["8.weight"].shape[0])
        model.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} does not hold the weights of an earlier run: {error}") from error
    return model.eval()
