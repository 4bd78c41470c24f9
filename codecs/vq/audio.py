"""Sound as discrete tokens: residual codebooks on the latents of a WaLLoC codec, some frames at a time.

The features of a token are `frames` neighbouring frames of the linear encoder of `walloc-audio-20x`, the two channels
in one; the decoder is that codec's. Neighbours in time, before and after, are what the prior knows of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy import schema
from ...entropy.container import Header
from ...entropy.errors import InputError
from ...kernels.wavelet import inverse_wavelet_packet1d, wavelet_packet1d
from .. import storage
from ..audio_base import AudioCodec, AudioDecoder, AudioEncoder, Setting
from ..contract import Compressed
from ..walloc.audio import PACKET_HALO, coding_rate
from ..walloc.nets import Decoder
from ..walloc.weights import bytes_of as trunk_bytes
from . import tokens as tokens_
from .tokens import TokenCodec

if TYPE_CHECKING:
    from ...pretrained import Entry


@dataclass(frozen=True)
class VqAudioConfig:
    """Hyper-parameters, stored beside the weights.

    Attributes:
        packet, latent, width, net: of the trunk: levels of its packet, channels of its latent, width and depth of its
            decoder.
        frames: of the trunk that a token stands for: 4 give 43 tokens a second and level at 44.1 kHz.
        levels: K, codebooks; each refines what the ones before leave.
        entries: N, codewords of a codebook.
        components: principal components of the features that are quantised.
    """

    packet: int = 8
    latent: int = 27
    width: int = 256
    net: int = 4
    wavelet: str = "bior4.4"
    frames: int = 4
    levels: int = 16
    entries: int = 256
    components: int = 96


_BOUNDS = {
    "packet": schema.integer(1, 12), "latent": storage.CHANNELS, "width": storage.CHANNELS, "net": storage.DEPTH,
    "wavelet": schema.text(most=32), "frames": schema.integer(1, 64), "levels": schema.integer(1, 64),
    "entries": schema.integer(2, 4096), "components": storage.CHANNELS,
}  # fmt: skip


class VqAudio(TokenCodec, AudioCodec):
    """See the module's text. A latent is the tokens: (K, frames), 0 for levels that a stream does not have."""

    family = "vq_audio"
    modality = "audio"
    needs_level = True
    chunk = 192

    def __init__(self, config: VqAudioConfig, name: str = "vq-audio") -> None:
        super().__init__()
        c = self.config = config
        self.name = name
        bands = 2 << c.packet
        self.encoder = nn.Conv1d(bands, c.latent, 1)
        self.decoder = Decoder(c.latent, bands, c.width, c.net, dims=1)
        self.add_codebooks(c.frames * c.latent, c.components, c.levels, c.entries)
        self.analysis_halo = -(-PACKET_HALO // c.frames)
        self.synthesis_halo = -(-(self.decoder.halo + PACKET_HALO) // c.frames)

    def hop(self, rate: int) -> int:
        return self.config.frames << self.config.packet

    def coding_rate(self, rate: int) -> int:
        """As `walloc.audio`: 44.1 and 48 kHz as they are, others at the nearer of the two."""
        return coding_rate(rate)

    # --- tokens --------------------------------------------------------------------------------------------------

    def tokens(self, x: Any, rate: int, levels: int | None = None) -> Tensor:
        """A sound (C, T) of one or two channels as integers (K, frames) int64 from 0 to N - 1, the coarsest first.

        Args:
            x: floats, full scale 1. More channels: K rows for each pair.
            rate: sampling rate in Hz.
            levels: how many codebooks; all by default.

        Raises:
            InputError: as `compress`.
        """
        count = self.depth if levels is None else levels
        return self.first_levels(self.latent(x, rate, self.quality_of(count)), count).long()

    def from_tokens(
        self, tokens: Any, rate: int = 44100, channels: int = 2, samples: int | None = None, level: float = 1.0
    ) -> Tensor:
        """Tokens (K, frames) of one sound, any number of levels -> samples (channels, T) float32.

        Args:
            rate: sampling rate in Hz. channels: 1 or 2.
            samples: T; by default all that the tokens cover.
            level: of the loudest sample; tokens do not say it.

        Raises:
            InputError: not integers from 0 to N - 1, another shape, or a length that they do not cover.
        """
        packed, shape = self.compress_tokens(tokens, rate, channels, samples, level)
        return self.decompress(packed.params, packed.chunks, shape, rate)

    def values(self, tokens: Any) -> Tensor:
        """Tokens (K, frames), any number of levels -> features (M, frames) float32, what they stand for.

        Raises:
            InputError: as `from_tokens`.
        """
        tokens = self.checked_tokens(tokens, "levels, frames").to(self.codewords.device)
        return self.features(tokens).T

    def compress_tokens(
        self, tokens: Any, rate: int = 44100, channels: int = 2, samples: int | None = None, level: float = 1.0
    ) -> tuple[Compressed, tuple[int, int]]:
        """The same as parameters and chunks, and the sound's shape (channels, T)."""
        tokens = self.checked_tokens(tokens, "levels, frames")
        if channels not in (1, 2):
            raise InputError(f"channels is {channels!r}; tokens (levels, frames) are of 1 or 2")
        if not isinstance(level, Real) or not 0 <= level < math.inf:
            raise InputError(f"level is {level!r}; the magnitude of the loudest sample is needed, 1 is full scale")
        if samples is not None and not isinstance(samples, (int, np.integer)):
            raise InputError(f"samples is {samples!r}; a whole number is needed, or None for all that the tokens cover")
        encoder = AudioEncoder(self, channels, rate, self.quality_of(len(tokens)), level)
        frames, coded = tokens.shape[1], encoder.rate
        length = int(samples or frames * self.hop(coded) * int(rate) // coded)
        if self.frames_of(length, int(rate)) != frames:
            raise InputError(
                f"{length} samples at {rate} Hz have {self.frames_of(length, int(rate))} tokens a level, not {frames}"
            )
        latent = np.zeros((self.depth, frames), np.int32)
        latent[: len(tokens)] = tokens.cpu().numpy()
        chunks = encoder.code([np.ascontiguousarray(part)] for part in self._chunks(latent))
        return Compressed(encoder.params, chunks), (channels, length)

    def _chunks(self, latent: np.ndarray) -> list[np.ndarray]:
        return [latent[:, i : i + self.chunk] for i in range(0, latent.shape[1], self.chunk)]

    # --- the three functions -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def analysis(self, x: Tensor, setting: Setting) -> Tensor:
        rows = self.trunk_features(x / setting.level)
        levels = self.levels(setting.quality)
        out = rows.new_zeros(len(rows), self.depth, rows.shape[1], dtype=torch.int16)
        for i, item in enumerate(rows):
            out[i, :levels] = self.named(item, levels)
        return out

    def trunk_features(self, x: Tensor) -> Tensor:
        """Samples (B, 1 or 2, T) of level 1 -> features (B, frames, M) float32."""
        c = self.config
        x = F.pad(x.expand(-1, 2, -1), (0, -x.shape[-1] % self.hop(0)), mode="replicate")
        y = self.encoder(wavelet_packet1d(x, c.packet, c.wavelet))
        return y.unflatten(2, (-1, c.frames)).permute(0, 2, 1, 3).flatten(2)

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, setting: Setting, first: int = 0) -> Tensor:
        c = self.config
        b, k, n = latent.shape
        rows = self.features(latent.long().transpose(0, 1).reshape(k, b * n))
        y = rows.reshape(b, n, c.latent, c.frames).permute(0, 2, 1, 3).reshape(b, c.latent, n * c.frames)
        x = inverse_wavelet_packet1d(self.decoder(y), c.packet, c.wavelet) * setting.level
        return x.mean(1, keepdim=True) if setting.channels == 1 else x

    def program(self, coder: Any, latent: np.ndarray | None, shape: tuple[int, int], setting: Setting) -> np.ndarray:
        plane = None if latent is None else latent[:, None]
        return self.code_tokens(coder, plane, self.levels(setting.quality), 1, shape[1])[:, 0]

    # --- the face -------------------------------------------------------------------------------------------------

    def compress(self, x: Any, rate: int, quality: float | None = None, *, levels: int | None = None) -> Compressed:
        """As in the base; a number of ``levels`` counts instead of the quality."""
        return super().compress(x, rate, quality if levels is None else self.quality_of(levels))

    def open_encoder(
        self, channels: int, rate: int, *, level: float = 1.0, levels: int | None = None, **options: Any
    ) -> AudioEncoder:
        """As in the base; a number of ``levels`` counts instead of the quality."""
        if levels is not None:
            options["quality"] = self.quality_of(levels)
        return super().open_encoder(channels, rate, level=level, **options)

    def restore(
        self,
        header: Header,
        chunks: Sequence[bytes],
        *,
        to: Literal["signal", "latent", "tokens"] = "signal",
        **part: Any,
    ) -> Tensor:
        """As in the base; "tokens" are those of the stream's levels, (levels, frames) int64, of more than two channels
        as many for each pair."""
        if to != "tokens":
            return super().restore(header, chunks, to=to, **part)
        decoder: AudioDecoder = self.open_decoder(header, len(chunks), to="latent", **part)
        return self.first_levels(decoder.all(chunks), self.levels(decoder.settings[0].quality)).long()


# --- storage -----------------------------------------------------------------------------------------------------


def round_weights(codec: VqAudio) -> None:
    """Set the weights to what storage will keep of them, so that what is measured is what ships."""
    tokens_.round_weights(codec, tokens_.bytes_of(trunk_bytes(codec)), torch.float32)


def to_tensors(codec: VqAudio) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `round_weights` comes first, `storage.share` may follow."""
    return tokens_.to_tensors(codec, tokens_.bytes_of(trunk_bytes(codec)), torch.float32)


def from_bytes(data: bytes) -> VqAudio:
    """Read what `to_tensors` describes.

    Raises:
        FormatError: not a weights file of this family.
    """
    shared = ("encoder.", "decoder.")  # with the release that the trunk is of
    make = lambda config, name: VqAudio(VqAudioConfig(**config), name)  # noqa: E731
    return tokens_.read(data, "vq for sound", _BOUNDS, shared, make).eval()


def load_bundled(entry: Entry) -> VqAudio:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
