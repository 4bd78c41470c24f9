"""Train a WaLLoC codec of sound: principal components of the packet bands first, then rate-distortion optimisation."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..codecs.audio_base import AudioCodec, Setting
from ..codecs.walloc.audio import WallocAudio, WallocAudioConfig, from_bytes
from ..codecs.walloc.weights import round_weights, to_tensors
from ..entropy.context.model import ContextModel
from ..evaluation.metrics.sound import log_mel_distance
from ..kernels.wavelet import wavelet_packet1d
from . import trainer
from .audio_data import EXTENSIONS, MixtureSampler, list_sounds, load_stereo
from .packets import PacketTrainer, principal
from .precision import mixed
from .sources import Folders, list_sources
from .spectral import FrameRate, MelLoss

_RATE = 44100  # for kb/s
_SECONDS = 12  # of a recording that the entropy model is fitted to
_PLANE = 9  # latent rows that the entropy model sees as one plane, where they divide into such


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """All that a run depends on; stored in every checkpoint.

    Attributes:
        lmbda: weight of a kb/s beside the logarithm of the squared error.
        mel: weight of a dB of log-mel distance.
        gain: factor on the principal components at the start; sets the first quantisation step.
        bits: of the decoder network's convolutions in the exported file, 2 to 8; fewer pack smaller.
        noise_until: fraction of the run with additive noise; afterwards latents are rounded, gradients passed through.
    """

    name: str = "walloc-audio-5x"
    summary: str = "stereo sound at 4.7x fewer numbers (108 int8 channels at 1/256): train on latents"
    model: WallocAudioConfig = field(default_factory=WallocAudioConfig)
    steps: int = 1000
    batch: int = 4
    crop: int = 40960
    lmbda: float = 0.008
    mel: float = 0.1
    gain: float = 40.0
    bits: int = 8
    noise_until: float = 0.6


RECIPES: dict[str, Recipe] = {
    "walloc-audio-5x": Recipe(),
    "walloc-audio-20x": Recipe(
        name="walloc-audio-20x",
        summary="stereo sound at 19x fewer numbers (27 int8 channels at 1/256): the smallest latents",
        model=WallocAudioConfig(latent_channels=27),
        steps=900,
        lmbda=0.01,
        gain=25.0,
    ),
}


@torch.no_grad()
def fit_linear(model: WallocAudio, mixtures: Tensor, gain: float) -> None:
    """Set encoder and linear decoder to the principal components of the packet bands of ``mixtures`` (N, 2, T)."""
    principal(model, wavelet_packet1d(mixtures, model.config.levels, model.config.wavelet), gain, 1e-4)


class Trainer(PacketTrainer):
    """Trains a codec of sound."""

    recipe: Recipe
    columns = ("snr", "mel", "kbps")
    loader = "latentzip.codecs.walloc.audio:load_bundled"
    rate_lr = 8.0

    def build(self) -> nn.ModuleDict:
        r = self.recipe
        self.model, self.rate = WallocAudio(r.model, r.name), FrameRate(r.model.latent_channels)
        self.mel = MelLoss()
        return nn.ModuleDict({"model": self.model, "rate": self.rate})

    def make_sampler(self, data: Folders) -> MixtureSampler:
        r = self.recipe
        return MixtureSampler(data, r.batch, r.crop, r.seed, self.step, r.drawn)

    def initialise(self, crops: Tensor) -> None:
        fit_linear(self.model, crops, self.recipe.gain)

    def loss(self, crops: Tensor) -> tuple[Tensor, dict[str, Any]]:
        r = self.recipe
        x = crops.to(self.device, non_blocking=True)
        shape = (len(x), r.model.latent_channels, x.shape[-1] >> r.model.levels)
        noise = None
        if self.phase():
            noise = torch.rand(shape, device=self.device) - 0.5
        with mixed(self.device):
            x_hat, z = self.model(x, noise)
        x_hat = x_hat.float()
        power = x.square().mean((1, 2))
        error = (x_hat - x).square().mean((1, 2))
        distance = self.mel(x_hat, x)
        bits = self.rate(z.float() + (torch.rand_like(z) - 0.5 if noise is None else noise))
        kbps = bits.sum() / x.shape[0] / (x.shape[-1] / _RATE) / 1000
        loss = torch.log10(error + 1e-7).mean() + r.mel * distance + r.lmbda * kbps
        snr = 10 * torch.log10((power + 1e-9) / (error + 1e-9)).mean()
        return loss, {"snr": snr.detach(), "mel": distance.detach(), "kbps": kbps.detach()}

    def load_validation(self, val: str) -> list[tuple[Tensor, int]]:
        return [(torch.from_numpy(x), rate) for x, rate in map(load_stereo, list_sounds(val))]

    def validate(self, images: list[Any]) -> dict[str, float]:
        return figures(self.averaged()["model"], images)  # type: ignore[arg-type]

    def release(
        self, pictures: list[Tensor], log: trainer.Log, **options: Any
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """As the base says, of sounds (2, T) at a rate of the codec."""
        model: WallocAudio = copy.deepcopy(self.averaged()["model"]).cpu().eval()  # type: ignore[assignment]
        round_weights(model, self.recipe.bits)
        rows = model.latent_channels
        plane = _PLANE if rows % _PLANE == 0 else 1
        latents = []
        for x in pictures:
            z = model.latent(x, _RATE).numpy().reshape(rows // plane, plane, -1)
            latents += np.array_split(z, -(-z.shape[2] // model.chunk), axis=2)
        log(f"{len(latents)} latents; fitting the entropy model")
        # all groups in four passes; small networks, since encoding is to be fast
        sizes = {"middle": rows // plane, "value_taps": 8, "magnitude_taps": 12, "hidden": 12, "steps": 300}
        model.context = ContextModel.fit(latents, chunk=model.chunk, **({"deep": 0, **sizes} | options))
        return to_tensors(model)

    def export(
        self,
        out: Path,
        *,
        data: Folders,
        val: str | None,
        test: str | None,
        version: str,
        about_data: str = "Say here what the model was trained on: sources, licences, what is rare or missing.",
        sounds: int = 120,
        log: trainer.Log = print,
        **options: Any,
    ) -> Path:
        """Write a release into a folder; arguments as `training.export.export`, of sounds."""
        from .export import write_release

        paths = list_sources(data, EXTENSIONS)
        picked = [paths[i] for i in np.linspace(0, len(paths) - 1, min(sounds, len(paths))).astype(int)]
        loaded = (load_stereo(io.BytesIO(source.read())) for source in picked)
        signals = [torch.from_numpy(x[:, : _SECONDS * rate]) for x, rate in loaded]
        tensors, metadata = self.release(signals, log, **options)

        def measured(codec: WallocAudio) -> dict[str, float]:
            results = {}
            for label, folder in (("val", val), ("test", test)):
                if folder:
                    found = measure(codec, self.load_validation(folder))
                    results |= {f"{label}_{key}": value for key, value in found.items()}
                    log(f"{label}: {found}")
            return results

        fitted, crop = f"{len(picked)} recordings", f"{self.recipe.crop} samples"
        return write_release(self, out, tensors, metadata, measured, version, fitted, crop, about_data)

    def from_bytes(self, data: bytes) -> WallocAudio:
        return from_bytes(data)

    def describe(self, codec: WallocAudio) -> str:
        c = codec.config
        return (
            f"{c.levels}-level {c.wavelet} wavelet packets of two channels, linear encoder to {c.latent_channels} rows "
            f"of int8 at 1/{1 << c.levels} ({(2 << c.levels) / c.latent_channels:.3g}x fewer numbers), {c.depth} "
            f"residual blocks of width {c.width}"
        )

    def describe_loss(self) -> str:
        r = self.recipe
        return f"log10 of the squared error + {r.mel:g} * log-mel distance (dB) + {r.lmbda:g} * kb/s"


def distances(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Signal-to-noise ratio in dB and log-mel distance in dB of signals (C, T)."""
    snr = 10 * math.log10((x.square().sum().item() + 1e-9) / ((x - y).square().sum().item() + 1e-9))
    if x.shape[1] < 2048:
        return snr, float("nan")
    return snr, MelLoss()(x[None], y[None]).item()


@torch.inference_mode()
def figures(model: WallocAudio, sounds: list[tuple[Tensor, int]]) -> dict[str, float]:
    """Mean SNR and log-mel distance over sounds (signal, rate), without coding."""
    pairs = []
    for x, rate in sounds:
        setting = Setting(rate, 2, None, max(model.level_of(x), 1e-6))
        y = model.synthesis(model.analysis(x[None], setting), setting)[0, :, : x.shape[1]]
        pairs.append(distances(x, y))
    snr, mel = np.nanmean(np.array(pairs), 0)
    return {"snr": float(snr), "mel": float(mel)}


def measure(codec: AudioCodec, sounds: list[tuple[Tensor, int]], quality: int | None = None) -> dict[str, float]:
    """Real streams of sounds (signal, rate): means of kb/s (container included), SNR and log-mel distance in dB, as
    `latentzip.evaluation` has them."""
    rows = []
    for x, rate in sounds:
        stream = codec.encode(x[None], rate, quality)[0]
        y = codec.decode([stream])[0]
        mel = log_mel_distance(x.T.numpy(), y.T.numpy(), rate)
        rows.append((8 * len(stream) / (x.shape[1] / rate) / 1000, distances(x, y)[0], mel))
    kbps, snr, mel = np.nanmean(np.array(rows), 0)
    return {"kbps": round(float(kbps), 2), "snr_db": round(float(snr), 2), "mel_db": round(float(mel), 3)}
