"""WaLLoC for sound: wavelet packets, a linear encoder, companded int8 latents and a light convolutional decoder.

After "Learned Compression for Compressed Learning" (Jacobellis & Yadwadkar, arXiv 2412.09405), in one dimension: a
J-level bior4.4 packet followed by one 1x1 product, so that encoding costs little more than the transform. As in
`walloc`, steps are trained for every latent channel under a rate term, the decoder has neither norms nor attention
(chunks agree with the whole), and edges are symmetric. The level of a signal is a number in the stream.

Two channels are coded together; a single one is coded as two that are alike, and restored as their mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ...entropy import schema
from ...entropy.errors import InputError
from ...kernels.compand import compand, expand, expand_table
from ...kernels.wavelet import inverse_wavelet_packet1d, wavelet_packet1d
from .. import storage
from ..audio_base import AudioCodec, AudioEncoder, Setting, peak
from .nets import Decoder, expanded
from .options import SOUND
from .weights import read

if TYPE_CHECKING:
    from ...entropy.context.model import ContextModel
    from ...pretrained import Entry

PACKET_HALO = 10  # frames: half of the longest filter at J = 8 (2296 taps), and the symmetric ends of every level

_MARGIN = 1.1  # levels are rounded to steps of 2 ** (1 / 4)
_CLEAR = 0.9  # of the largest magnitude that latents restore: samples whose latents lie below it do not raise the level


@dataclass(frozen=True)
class WallocAudioConfig:
    """Hyper-parameters, stored beside the weights.

    Attributes:
        levels: J; a frame is 2**J samples.
        latent_channels: L; the dimension reduction is ``2 * 2**J / L``.
        bits: latents are integers of magnitude below ``2**(bits - 1)``.
        width, depth: decoder network; depth 0 is the linear codec.
    """

    levels: int = 8
    latent_channels: int = 108
    bits: int = 8
    width: int = 256
    depth: int = 4
    wavelet: str = "bior4.4"


_BOUNDS = {
    "levels": schema.integer(1, 12), "latent_channels": storage.CHANNELS, "bits": schema.integer(2, 15),
    "width": storage.CHANNELS, "depth": storage.DEPTH, "wavelet": schema.text(most=32),
}  # fmt: skip


def coding_rate(rate: int) -> int:
    """44.1 and 48 kHz as they are; others at the one of the two that is nearer to a simple multiple of them."""
    if rate in (44100, 48000):
        return rate
    return 44100 if 44100 % rate == 0 or rate % 44100 == 0 else 48000


class WallocAudio(AudioCodec):
    """See the module's text. `forward` is the differentiable pass that training uses."""

    family = "walloc_audio"
    declared = SOUND
    needs_level = True

    def __init__(self, config: WallocAudioConfig, name: str = "walloc-audio") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.latent_channels = config.latent_channels
        self.latent_limit = (1 << (config.bits - 1)) - 1
        bands = 2 << config.levels
        self.encoder = nn.Conv1d(bands, config.latent_channels, 1)
        self.log_gain = nn.Parameter(torch.zeros(config.latent_channels, 1))
        self.decoder = Decoder(config.latent_channels, bands, config.width, config.depth, dims=1)
        self.analysis_halo = PACKET_HALO
        self.synthesis_halo = self.decoder.halo + PACKET_HALO
        self.register_buffer("expansion", expand_table(config.bits), persistent=False)
        self.expansion: Tensor
        self.context: ContextModel | None = None

    def hop(self, rate: int) -> int:
        return 1 << self.config.levels

    def coding_rate(self, rate: int) -> int:
        return coding_rate(rate)

    def level_of(self, x: Tensor) -> float:
        """The peak, or more where a tone gathers so much in one coefficient that latents would run out of range."""
        return self._level_of(x, 0)

    @torch.inference_mode()
    def _level_of(self, x: Tensor, begin: int) -> float:
        """The same, of what stands behind the first ``begin`` frames but for the peak."""
        level, first = peak(x), max(0, begin - PACKET_HALO)
        if x.shape[1]:
            for pair in x[:, first << self.config.levels :].to(self.device).split(2):
                y = self.coefficients(pair[None].expand(-1, 2, -1))[..., begin - first :]
                level = max(level, _MARGIN * float(y.abs().amax() / self.expansion[-1]))
        return level

    def analysed(
        self, x: Tensor, rate: int, quality: float | None = None
    ) -> tuple[AudioEncoder, Iterable[list[np.ndarray]]]:
        encoder = AudioEncoder(self, x.shape[0], rate, quality, peak(x))
        if encoder.rate != rate:
            return super().analysed(x, rate, quality)
        # the peak mostly is the level, and small latents show that it is: this saves the transform of `level_of`
        clear = int(compand(_CLEAR * self.expansion[-1], self.config.bits))
        latents: list[list[np.ndarray]] = []
        for groups in encoder.analyse_whole(x):
            if any(int(np.abs(part).max(initial=0)) >= clear for part in groups):
                break
            latents.append(groups)
        else:
            return encoder, latents
        encoder = AudioEncoder(self, x.shape[0], rate, quality, self._level_of(x, len(latents) * self.chunk))
        return encoder, encoder.analyse_whole(x)

    # --- samples <-> coefficients --------------------------------------------------------------------------------

    def coefficients(self, x: Tensor) -> Tensor:
        """(B, 2, T) of level 1 -> scaled linear latents before companding, (B, L, n) float."""
        bands = wavelet_packet1d(x, self.config.levels, self.config.wavelet)
        with torch.autocast(x.device.type, enabled=False):
            return self.encoder(bands) * self.log_gain.exp()

    def reconstruct(self, y: Tensor, size: int | None = None) -> Tensor:
        """Expanded latents (B, L, n) in units of the encoder's output -> (B, 2, T)."""
        return inverse_wavelet_packet1d(self.decoder(y), self.config.levels, self.config.wavelet, size=size)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Training pass: (x_hat, z). ``noise`` (B, L, n) replaces rounding (None: straight-through rounding)."""
        z = compand(self.coefficients(x), self.config.bits)
        z_hat = z + noise if noise is not None else z + (z.round() - z).detach()
        y = expand(z_hat, self.config.bits) * torch.exp(-self.log_gain)
        return self.reconstruct(y, x.shape[-1]), z

    # --- the three functions -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def analysis(self, x: Tensor, setting: Setting) -> Tensor:
        x = x / setting.level
        y = self.coefficients(x.expand(-1, 2, -1) if setting.channels == 1 else x)
        return compand(y, self.config.bits).round().to(torch.int16)

    def dequantize(self, latent: Tensor) -> Tensor:
        """Latent (B, L, n) of integers -> float32 in the units of the encoder's output, for signals of level 1."""
        y = expanded(latent, self.expansion)
        return y * torch.exp(-self.log_gain)

    def latent_deviation(self) -> Tensor:
        """(L, 1) what dequantised latents are divided by to be alike in scale: the inverse of the gains."""
        return torch.exp(-self.log_gain.detach())

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, setting: Setting, first: int = 0) -> Tensor:
        x = self.reconstruct(self.dequantize(latent)) * setting.level
        return x.mean(1, keepdim=True) if setting.channels == 1 else x

    def program(self, coder: Any, latent: np.ndarray | None, shape: tuple[int, int], setting: Setting) -> np.ndarray:
        if self.context is None:
            raise InputError(f"{self.name} has no entropy model yet: export it with scripts/train.py")
        rows, frames = shape
        groups = self.context.channels  # neighbouring rows of a group are one plane: few and long steps
        plane = None if latent is None else latent.reshape(groups, rows // groups, frames)
        return self.context.program(coder, plane, (groups, rows // groups, frames)).reshape(shape)

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return self.context.to_arrays() if self.context else {}


# --- storage -----------------------------------------------------------------------------------------------------


def from_bytes(data: bytes) -> WallocAudio:
    """Read what `weights.to_tensors` describes.

    Raises:
        FormatError: not a weights file of this family.
    """
    kind, file = "WaLLoC for sound", "a WaLLoC weights file for sound"
    codec = read(data, kind, file, _BOUNDS, lambda c, name: WallocAudio(WallocAudioConfig(**c), name))
    return codec.eval()


def load_bundled(entry: Entry) -> WallocAudio:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
