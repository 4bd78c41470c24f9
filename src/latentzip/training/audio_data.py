"""Random mixtures from a folder of sound files, prepared by a background thread."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..kernels.resample import resample
from . import synthetic_sounds
from .data import CropSampler
from .sources import Folders, by_kind, list_sources

EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".rf64", ".au", ".caf"}
_LOW = 32000  # recordings below this rate are brought to _RATE, others are taken as they are
_RATE = 44100
_PITCHES = ((10, 9), (11, 10), (1, 1), (1, 1), (10, 11), (9, 10))  # resampled by these ratios: 0.9 to 1.1


def list_sounds(folder: Folders) -> list[Path]:
    """Sound files below a folder or several, sorted, so that a seed means the same everywhere."""
    return [source.root / source.name for source in list_sources(folder, EXTENSIONS)]


def load_stereo(path: str | Path | io.BytesIO) -> tuple[np.ndarray, int]:
    """(2, T) float32 and the rate: 44.1 kHz for recordings below 32 kHz, the file's own for others."""
    import soundfile

    file = path if isinstance(path, io.BytesIO) else str(path)
    x, rate = soundfile.read(file, dtype="float32", always_2d=True)
    x = x.T[:2] if x.shape[1] > 1 else np.repeat(x.T, 2, 0)
    if rate < _LOW:
        x, rate = resample(torch.from_numpy(np.ascontiguousarray(x)), rate, _RATE).numpy(), _RATE
    return np.ascontiguousarray(x), rate


class MixtureSampler(CropSampler):
    """Endless batches (B, 2, size) float32 of peaks up to 1: one to four clips of different folders, each at random
    pitch, gain, pan and polarity; half of the mixtures are quieter, as passages of a longer recording are.

    Args:
        data: folders or zip files of sounds, by kind; decoded once and kept in memory.
        batch, size: mixtures a batch and their length in samples.
        seed, start: as `CropSampler`.
        drawn: share of the clips that are synthetic.
    """

    def __init__(self, data: Folders, batch: int, size: int, seed: int, start: int = 0, drawn: float = 0.0) -> None:
        clips: list[np.ndarray] = []
        kinds: list[str] = []
        for source in list_sources(data, EXTENSIONS):
            x = load_stereo(io.BytesIO(source.read()))[0]
            if x.shape[1] >= size // 8 and np.abs(x).max() > 0:
                clips.append((x / np.abs(x).max() * 32767).astype(np.int16))
                kinds.append(source.kind)
        if not clips:
            raise FileNotFoundError(f"no sound file of at least {size // 8} samples in {data}")
        self.clips = [[clips[i] for i in numbers] for numbers in by_kind(kinds)]
        self.batch, self.size, self.seed, self.step, self.drawn = batch, size, seed, start, drawn

    def clip(self, rng: np.random.Generator, kind: list[np.ndarray]) -> np.ndarray:
        weights = np.sqrt([x.shape[1] for x in kind])  # long recordings hold more, but not all
        x = kind[rng.choice(len(kind), p=weights / weights.sum())]
        source, target = _PITCHES[rng.integers(len(_PITCHES))]
        need = self.size * source // target + 1
        start = int(rng.integers(max(1, x.shape[1] - need + 1)))
        part = x[:, start : start + need].astype(np.float32) / 32767
        part = resample(torch.from_numpy(part), source, target).numpy()[:, : self.size]
        at = int(rng.integers(self.size - part.shape[1] + 1))
        return np.pad(part, ((0, 0), (at, self.size - at - part.shape[1])))

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        count = min(int(rng.choice([1, 1, 2, 2, 3, 4])), len(self.clips))
        out = np.zeros((2, self.size), np.float32)
        for k in rng.choice(len(self.clips), count, replace=False):
            drawn = rng.random() < self.drawn
            part = synthetic_sounds.sound(rng, self.size) if drawn else self.clip(rng, self.clips[k])
            angle = rng.uniform(0.15, 0.85) * np.pi / 2
            pan = np.array([np.cos(angle), np.sin(angle)], np.float32)[:, None]
            out += part * pan * np.float32(10 ** (-rng.uniform(0, 12) / 20) * rng.choice([-1, 1]))
        if rng.random() < 0.5:
            out = out[::-1]
        if rng.random() < 0.3:
            out = np.repeat(out.mean(0, keepdims=True), 2, 0)  # single channels are coded as two
        quieter = rng.uniform(0, 20) if rng.random() < 0.5 else 0
        return out * np.float32(10 ** (-quieter / 20) / max(np.abs(out).max(), 1e-6))

    def make(self) -> Tensor:
        rng = np.random.default_rng([self.seed, self.step])
        self.step += 1
        return torch.from_numpy(np.stack([self.crop(rng) for _ in range(self.batch)]))
