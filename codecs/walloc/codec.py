"""WaLLoC: wavelet packets, a linear encoder, companded int8 latents and a light convolutional decoder.

After "Learned Compression for Compressed Learning" (Jacobellis & Yadwadkar, arXiv 2412.09405): analysis is a J-level
bior4.4 wavelet packet followed by one 1x1 product, so encoding costs little more than the transform. Three things
differ from the original: a trained step for every latent channel under a rate term, a decoder without global
attention or norms (cost linear in the pixels, tiles agree with the whole), and symmetric instead of periodic edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy import schema
from ...entropy.errors import InputError
from ...kernels import cuda
from ...kernels.compand import compand, expand, expand_table
from ...kernels.packet_product import packet_product, product_packet
from ...kernels.wavelet import inverse_wavelet_packet2d
from .. import storage
from ..base import Codec, Shape
from .nets import Decoder, expanded
from .options import OPTIONS
from .search import WallocField
from .weights import read

if TYPE_CHECKING:
    from ...entropy.context.model import ContextModel
    from ...pretrained import Entry

_PACKET_HALO = 5  # latent positions: half of the 57 and 61 taps at J = 3 (121 and more at J = 4) and the end blocks
NEUTRAL = 75  # quality at which a variable rate leaves the latents of a network as they are
_FINENESS = 25  # steps of quality in a unit of what the network is told


@dataclass(frozen=True)
class WallocConfig:
    """Hyper-parameters, stored beside the weights.

    Attributes:
        channels: signal channels, 3 for RGB.
        levels: J; a latent position covers 2**J x 2**J pixels.
        latent_channels: L; the dimension reduction is ``channels * 4**J / L``.
        bits: latents are integers of magnitude below ``2**(bits - 1)``.
        width, depth: decoder network; depth 0 is the zero-net linear codec.
        variable_rate: whether `quality` scales the steps; a decoder network is told by how much.
    """

    channels: int = 3
    levels: int = 3
    latent_channels: int = 12
    bits: int = 8
    width: int = 160
    depth: int = 5
    wavelet: str = "bior4.4"
    variable_rate: bool = False


_BOUNDS = {
    "channels": schema.integer(1, 64), "levels": schema.integer(1, 6), "latent_channels": storage.CHANNELS,
    "bits": schema.integer(2, 15), "width": storage.CHANNELS, "depth": storage.DEPTH,
    "wavelet": schema.text(most=32), "variable_rate": schema.boolean,
}  # fmt: skip


class Walloc(Codec):
    """See the module's text. `analysis` and `synthesis` are differentiable through `forward`."""

    family = "walloc"
    declared = OPTIONS
    modality = "image"
    fast_coding = True
    latent_transforms = frozenset({"crop", "mixup"})
    ordered_channels = True
    reads_parts = True
    searches = True

    def __init__(self, config: WallocConfig, name: str = "walloc") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.signal_channels = config.channels
        self.stride = 1 << config.levels
        self.latent_channels = config.latent_channels
        self.variable_rate = config.variable_rate
        self.default_quality = NEUTRAL if config.depth else 50
        self._neutral = NEUTRAL if config.variable_rate and config.depth else 0
        self.latent_limit = (1 << (config.bits - 1)) - 1
        bands = config.channels * 4**config.levels
        self.encoder = nn.Conv2d(bands, config.latent_channels, 1)
        self.log_gain = nn.Parameter(torch.zeros(config.latent_channels, 1, 1))
        self.decoder = Decoder(config.latent_channels, bands, config.width, config.depth, told=config.variable_rate)
        self.analysis_halo = _PACKET_HALO
        self.synthesis_halo = self.decoder.halo + _PACKET_HALO
        self.register_buffer("expansion", expand_table(config.bits), persistent=False)
        self.expansion: Tensor
        self.context: ContextModel | None = None

    # --- signal <-> coefficients ---------------------------------------------------------------------------------

    def coefficients(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> scaled linear latents before companding, (B, L, h, w) float."""
        c, bias = self.config, cast(Tensor, self.encoder.bias)
        y = packet_product(x, c.levels, c.wavelet, self.encoder.weight.flatten(1), bias, -0.5)
        return y * self.log_gain.exp()

    def reconstruct(
        self, y: Tensor, size: tuple[int, int] | None = None, quality: float | Tensor | None = None
    ) -> Tensor:
        """Expanded latents (B, L, h, w) in units of the encoder's output -> (B, C, H, W), not clamped.

        Args:
            quality: that the latents were quantised at, for all or (B,).
        """
        c, linear = self.config, self.decoder.linear
        if not c.depth:
            weight, bias = linear.weight.flatten(1), cast(Tensor, linear.bias)
            return product_packet(y.float(), c.levels, c.wavelet, weight, bias, size, 0.5)
        bands = self.decoder(y, 0.0 if quality is None else (quality - NEUTRAL) / _FINENESS)
        return inverse_wavelet_packet2d(bands, self.config.levels, self.config.wavelet, size=size) + 0.5

    def forward(
        self, x: Tensor, noise: Tensor | None = None, keep: Tensor | None = None, quality: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Training pass: (x_hat, z). ``noise`` (B, L, h, w) replaces rounding (None: straight-through rounding);
        ``keep`` (B, L, 1, 1) zeroes latent channels (nested dropout); ``quality`` (B,) is for variable rates: the
        encoder and its steps learn from those that are `NEUTRAL`, the decoder from all."""
        gain: float | Tensor = 1.0 if quality is None else self.rate_gain(quality).view(-1, 1, 1, 1)
        z = compand(self.coefficients(x) * gain, self.config.bits)
        z_hat = z + noise if noise is not None else z + (z.round() - z).detach()
        y = expand(z_hat, self.config.bits) * torch.exp(-self.log_gain) / gain
        if quality is not None:
            y = torch.where((quality == NEUTRAL).view(-1, 1, 1, 1), y, y.detach())
        if keep is not None:
            y = y * keep
        return self.reconstruct(y, (x.shape[-2], x.shape[-1]), quality), z

    # --- the three functions -------------------------------------------------------------------------------------

    @overload
    def rate_gain(self, quality: float | None) -> float: ...

    @overload
    def rate_gain(self, quality: Tensor) -> Tensor: ...

    def rate_gain(self, quality: float | Tensor | None) -> float | Tensor:
        """Factor on the latents, 20 times as large at quality 100, where the companded range of a byte is full, as at
        0: 1 at `NEUTRAL` with a decoder network and at 0 without one; 1 for a fixed rate."""
        if not isinstance(quality, Tensor):
            quality = float(self.check_quality(quality))
        return 20.0 ** ((quality - self._neutral) / 100)

    @torch.inference_mode()
    def analysis(self, x: Tensor, quality: float | None = None) -> Tensor:
        if cuda.usable(x):
            return self._analysis_on_gpu(x, self.rate_gain(quality))
        return self.real_latent(x, quality).round().to(torch.int16)

    def real_latent(self, x: Tensor, quality: float | None = None) -> Tensor:
        """What `analysis` rounds: (B, L, h, w) float."""
        return compand(self.coefficients(x) * self.rate_gain(quality), self.config.bits)

    def search_field(self, x: Tensor, quality: int) -> WallocField:
        return WallocField(self, x, quality)

    def _analysis_on_gpu(self, x: Tensor, rate_gain: float) -> Tensor:
        """Packet, encoder, companding and rounding in one kernel."""
        from ...kernels.cuda.packet_encode import packet_encode

        gain = (self.log_gain.exp() * rate_gain).flatten()
        weight = self.encoder.weight.flatten(1) * gain[:, None]
        pad = [-n % self.stride for n in x.shape[-2:]]
        x = F.pad(x, (0, pad[1], 0, pad[0]), mode="replicate") if any(pad) else x
        bias = cast(Tensor, self.encoder.bias) * gain
        c = self.config
        return packet_encode(x, weight, bias, c.levels, c.wavelet, "symmetric", c.bits, -0.5).to(torch.int16)

    def dequantize(self, latent: Tensor, quality: float | None = None) -> Tensor:
        y = expanded(latent, self.expansion)
        return y * (torch.exp(-self.log_gain) / self.rate_gain(quality))

    def latent_deviation(self) -> Tensor:
        return self.decoder.latent_std

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, size: tuple[int, int], quality: float | None = None) -> Tensor:
        if not self.config.depth and latent.is_cuda and cuda.usable(self.expansion):
            pixels = self._synthesis_on_gpu(latent, self.rate_gain(quality))
            if pixels is not None:
                return pixels[..., : size[0], : size[1]]
        return self.reconstruct(self.dequantize(latent, quality), size, self.check_quality(quality) or None)

    def _synthesis_on_gpu(self, latent: Tensor, rate_gain: float) -> Tensor | None:
        """Expansion, linear decoder and inverse packet in one kernel, where the packet's windows fit it."""
        from ...kernels.cuda.packet_decode import fits, packet_decode

        c = self.config
        if not fits(*latent.shape[2:], c.levels, c.wavelet, "symmetric", latent.device) or c.latent_channels > 64:
            return None
        values = self.expansion * (torch.exp(-self.log_gain) / rate_gain).flatten(1)
        linear = self.decoder.linear
        weight, bias = linear.weight.flatten(1), cast(Tensor, linear.bias)
        return packet_decode(latent, weight, bias, values, c.levels, c.wavelet, "symmetric", 0.5)

    def program(self, coder: Any, latent: np.ndarray | None, shape: Shape, quality: float | None = None) -> np.ndarray:
        if self.context is None:
            raise InputError(f"{self.name} has no entropy model yet: export it with scripts/train.py")
        return self.context.program(coder, latent, shape)

    def _decode_alike(self, chunks: Sequence[bytes], out: np.ndarray) -> np.ndarray:
        if self.context is None:
            return super()._decode_alike(chunks, out)
        return self.context.decode_alike(chunks, out, self.latent_limit)

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return self.context.to_arrays() if self.context else {}


# --- storage -----------------------------------------------------------------------------------------------------


def from_bytes(data: bytes) -> Walloc:
    """Read what `weights.to_tensors` describes.

    Raises:
        FormatError: not a WaLLoC weights file of format 1.
    """
    codec = read(
        data, "WaLLoC", "a WaLLoC weights file", _BOUNDS, lambda config, name: Walloc(WallocConfig(**config), name)
    )
    return codec.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def load_bundled(entry: Entry) -> Walloc:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
