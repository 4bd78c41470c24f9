"""The first layer of a model that reads latents: integers to floats, on the model's device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...codecs.base import Codec
from ...codecs.registry import load_codec
from ...entropy.errors import InputError


class Dequantize(nn.Module):
    """Integer latents (B, L, h, w) -> float32, by a table for every channel.

    Send latents to the device as the bytes they are and dequantise there: a quarter of the traffic, and the CPU stays
    free. The module keeps the codec's expansion table and nothing else of it.

    Args:
        codec: a name of `list_codecs`, a loaded codec, or a `LatentDataset`.
        normalize: divide every channel by its typical standard deviation, as networks like their inputs; False gives
            the units that `codec.synthesis` works in.
        quality: of the streams, for codecs of variable rate; a `LatentDataset` knows it.

    Example:
        >>> model = nn.Sequential(Dequantize("walloc-rgb-16x"), nn.Conv2d(12, 64, 3))    # doctest: +SKIP
    """

    def __init__(self, codec: object, normalize: bool = True, quality: float | None = None) -> None:
        super().__init__()
        loaded = getattr(codec, "codec", codec)  # of a data set
        if isinstance(loaded, str):
            loaded = load_codec(loaded)
        if not isinstance(loaded, Codec):
            raise InputError(f"a codec, its name or a LatentDataset is needed, not {type(codec).__name__}")
        if quality is None:
            quality = getattr(codec, "quality", None)
        limit, channels = loaded.latent_limit, loaded.latent_channels
        values = torch.arange(-limit, limit + 1, device=loaded.device)[:, None, None, None]
        with torch.no_grad():
            table = loaded.dequantize(values.expand(-1, channels, 1, 1), quality)[:, :, 0, 0].float().cpu()
            if normalize:
                table = table / loaded.latent_deviation().cpu()[:, 0, 0]
        self.limit = limit
        self.register_buffer("table", table.T.contiguous().reshape(-1, 1))
        self.register_buffer("first", (torch.arange(channels) * len(values) + limit)[:, None, None], persistent=False)
        self.table: Tensor
        self.first: Tensor

    def forward(self, latent: Tensor) -> Tensor:
        if latent.ndim != 4 or latent.shape[1] > self.first.shape[0] or latent.is_floating_point():
            raise InputError(
                f"integer latents (B, {self.first.shape[0]}, h, w) are needed, not {latent.dtype} {tuple(latent.shape)}"
            )
        return F.embedding(latent.long() + self.first[: latent.shape[1]], self.table)[..., 0]
