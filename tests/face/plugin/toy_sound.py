"""A codec of sound as another distribution would bring it: rounded samples, 64 a frame, in one screen of code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentzip.codecs.audio_base import AudioCodec, Setting
from latentzip.entropy.models import Laplace

HOP, STEPS = 64, 1024


class ToySound(AudioCodec):
    """Takes 8 to 48 kHz as they are; samples beyond 1.5 times full scale are cut."""

    latent_limit, chunk = 2 * STEPS, 128

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def coding_rate(self, rate: int) -> int:
        return min(max(rate, 8000), 48000)

    def hop(self, rate: int) -> int:
        return HOP

    def rows(self, setting: Setting) -> int:
        return HOP * setting.channels

    def analysis(self, x: Tensor, setting: Setting) -> Tensor:
        frames = -(-x.shape[2] // HOP)
        x = torch.nn.functional.pad(x, (0, frames * HOP - x.shape[2])).clamp(-1.5, 1.5)
        x = x.reshape(x.shape[0], setting.channels, frames, HOP).transpose(2, 3)
        return (x.reshape(x.shape[0], -1, frames) * STEPS).round().to(torch.int16)

    def program(self, coder: Any, latent: np.ndarray | None, shape: tuple[int, int], setting: Setting) -> np.ndarray:
        return np.asarray(coder.code(latent, Laplace(np.full(shape, 50, np.int32)))).reshape(shape)

    def synthesis(self, latent: Tensor, setting: Setting, first: int = 0) -> Tensor:
        b, _, frames = latent.shape
        x = latent.float().reshape(b, setting.channels, HOP, frames).transpose(2, 3)
        return x.reshape(b, setting.channels, frames * HOP) / STEPS

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return {"scale": np.array([50], np.int32)}


def make(name: str) -> ToySound:
    """Factory of the entry point."""
    return ToySound(name).eval()
