"""One set of labelled sounds in every form that `proof` compares: latents, waveforms of fewer samples, log-mel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import latentzip as lz
from latentzip.codecs.audio_base import Setting
from latentzip.evaluation.metrics.sound import mel_filters
from latentzip.kernels.compand import expand
from latentzip.signals.sound import SUFFIXES, files

from .proof_inputs import listed
from .proof_nets import Input

FRAME = 256
CODECS = {"latents": "walloc-audio-20x", "latents, 108": "walloc-audio-5x"}
STEMS = ("1/1", "5/1", "1/1:log")


class Sounds:
    """Waveforms of a folder with train/ and test/, a folder a class: mono, one rate, one length."""

    def __init__(self, data: Path, limit: int | None = None) -> None:
        found = [listed(data / split, SUFFIXES, limit) for split in ("train", "test")]
        self.files = [f[0] for f in found]
        self.labels = tuple(torch.from_numpy(f[1]) for f in found)
        self.classes = found[0][2]
        read = [[self.sound(p) for p in part] for part in self.files]
        self.rate = read[0][0][1]
        length = int(np.median([x.shape[1] for x, _ in read[0]])) // FRAME * FRAME
        self.frames = length // FRAME
        self.waves = [torch.stack([fitted(x.mean(0, keepdim=True), length) for x, _ in part]) for part in read]
        self.window = max(self.frames * 7 // 8 // 4 * 4, 1)

    def sound(self, path: Path) -> tuple[Tensor, int]:
        with files.open_sound(path) as sound:
            return torch.cat(list(files.blocks(sound)), 1), sound.samplerate

    def latents(self, name: str) -> tuple[list[Tensor], list[Tensor]]:
        """(dequantised, the same before rounding), (N, 1, 1, frames, rows)."""
        codec: Any = lz.load_codec(name)
        rounded, exact = [], []
        with torch.inference_mode():
            for part in self.waves:
                integers, reals = [], []
                for x in part:
                    level = codec.level_of(x)
                    setting = Setting(channels=1, rate=self.rate, level=level)
                    integers.append(codec.analysis(x[None], setting)[0])
                    reals.append(codec.coefficients(x[None].expand(-1, 2, -1) / level)[0])
                rounded.append(laid(expand(torch.stack(integers).float(), 8)))
                exact.append(laid(torch.stack(reals)))
        return [r.clone().half() for r in rounded], [e.clone().half() for e in exact]

    def mel(self, bands: int) -> list[Tensor]:
        """Logarithm of the power in mel bands, a column every 256 samples, relative to the loudest, floor at -80 dB."""
        size = 2048 if bands > 40 else 1024
        filters = torch.from_numpy(mel_filters(self.rate, size, bands))
        window = torch.hann_window(size)
        out = []
        for part in self.waves:
            spectrum = torch.stft(part[:, 0], size, FRAME, window=window, return_complex=True, pad_mode="constant")
            power = filters @ spectrum.abs().square()[..., : self.frames]
            decibels = 10 * (power / power.amax((1, 2), keepdim=True).clamp_min(1e-12)).clamp_min(1e-8).log10()
            out.append(laid(decibels).half())
        return out

    def shrunk(self, values: int) -> list[Tensor]:
        """The waveform with so many samples for every frame, band-limited: (N, 1, 1, frames * values, 1)."""
        count, out = self.frames * values, []
        for part in self.waves:
            y = torch.fft.irfft(torch.fft.rfft(part)[..., : count // 2 + 1], count)
            out.append(laid(y / y.abs().amax(2, keepdim=True).clamp_min(1e-6)).half())
        return out


def fitted(x: Tensor, length: int) -> Tensor:
    """Cut, or silence after the end."""
    return torch.nn.functional.pad(x[:, :length], (0, max(0, length - x.shape[1])))


def laid(x: Tensor) -> Tensor:
    """(N, C, T) -> (N, 1, 1, T, C)."""
    return x.transpose(1, 2)[:, None, None].contiguous()


def inputs(sounds: Sounds, wanted: Any) -> Iterator[tuple[str, Input]]:
    """Every input that is wanted, by name."""

    def made(parts: list[Tensor], stems: tuple[str, ...], grid: int = 1, rotate: bool = False) -> Input:
        return Input(parts[0], parts[1], stems, (1, sounds.window * grid), grid, rotate=rotate)

    for rows, suffix in ((27, ""), (108, ", 108")):
        if f"shrunk{suffix}" in wanted:
            stems = (f"{2 * rows}/{rows}", f"{2 * rows}/{rows}:log", "9/3:16 18/9" if rows == 27 else "24/12:8 18/9")
            yield f"shrunk{suffix}", made(sounds.shrunk(rows), stems, rows)
        if f"log-mel{suffix}" in wanted:
            yield f"log-mel{suffix}", made(sounds.mel(rows), STEMS[:2])
        names = {f"latents{suffix}", f"latents{suffix}, decorrelated", f"latents{suffix}, not rounded"} & set(wanted)
        if names:
            rounded, exact = sounds.latents(CODECS[f"latents{suffix}"])
            for name in sorted(names):
                parts = exact if name.endswith("rounded") else rounded
                yield name, made(parts, STEMS, rotate=name.endswith("decorrelated"))
    if "full" in wanted:
        parts = [laid(w / w.abs().amax(2, keepdim=True).clamp_min(1e-6)).half() for w in sounds.waves]
        yield "full", made(parts, ("512/256", "512/256:log", "32/16:4 32/16"), FRAME)
