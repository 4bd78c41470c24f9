"""The first layer of a model that reads latents: integers to floats, on the model's device."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...codecs.audio_base import AudioCodec
from ...codecs.base import Codec, check_latent
from ...codecs.registry import load_codec
from ...entropy.dense import tensor_of
from ...entropy.errors import InputError


class Dequantize(nn.Module):
    """Integer latents (B, L, h, w), of sound (B, rows, frames) -> float32, by a table for every channel.

    Send latents to the device as the bytes they are and dequantise there: a quarter of the traffic, and the CPU stays
    free. The module keeps the codec's expansion table and nothing else of it.

    Args:
        codec: a name of `list_codecs`, a loaded codec, or a `LatentDataset`.
        normalize: divide every channel by its typical standard deviation, as networks like their inputs; False gives
            the units that `codec.synthesis` works in.
        quality: of the streams, for codecs of variable rate; a `LatentDataset` knows it.

    Attributes:
        channels: of the latent of a signal; sound of more than two channels has as many again for each further pair.
        axes: 2 of pictures, 1 of sound.

    Raises:
        InputError: no codec, or one whose latents are no numbers of a scale: those of `audio` are steps of bands whose
            widths other rows say, and are read as signals.

    Example:
        >>> model = nn.Sequential(Dequantize("walloc-rgb-16x"), nn.Conv2d(12, 64, 3))    # doctest: +SKIP
    """

    def __init__(self, codec: object, normalize: bool = True, quality: float | None = None) -> None:
        super().__init__()
        loaded = getattr(codec, "codec", codec)  # of a data set
        if isinstance(loaded, (str, os.PathLike)):
            loaded = load_codec(loaded)
        if isinstance(loaded, AudioCodec) and not hasattr(loaded, "dequantize"):
            raise InputError(f"latents of {loaded.name} are no numbers of a scale: read signals (to='signal')")
        if not isinstance(loaded, (Codec, AudioCodec)):
            raise InputError(f"a codec, its name or a LatentDataset is needed, not {type(codec).__name__}")
        if quality is None:
            quality = getattr(codec, "quality", None)
        self.axes = 2 if isinstance(loaded, Codec) else 1
        ones, said = (1,) * self.axes, (quality,) if isinstance(loaded, Codec) else ()
        limit, channels = loaded.latent_limit, loaded.latent_channels
        values = torch.arange(-limit, limit + 1, device=loaded.device).reshape(-1, 1, *ones)
        own: Any = loaded  # both have these two
        with torch.no_grad():
            table = own.dequantize(values.expand(-1, channels, *ones), *said).float().cpu().flatten(1)
            if normalize:
                table = table / own.latent_deviation().cpu().flatten()
        self.limit, self.channels = limit, channels
        self.register_buffer("table", table.T.contiguous().reshape(-1, 1))
        first = torch.arange(channels) * len(values) + limit
        self.register_buffer("first", first.reshape(-1, *ones), persistent=False)
        self.table: Tensor
        self.first: Tensor

    def forward(self, latent: Tensor) -> Tensor:
        latent = tensor_of(latent, "iuf", "a batch of latents")
        rows = latent.shape[1] if latent.ndim == 2 + self.axes else 0
        groups = rows // self.channels if self.axes == 1 and rows % self.channels == 0 else 1
        if not 0 < rows <= groups * self.channels or latent.is_floating_point():
            sides = "h, w" if self.axes == 2 else "frames"
            raise InputError(
                f"integer latents (B, {self.channels}, {sides}) are needed, not {latent.dtype} {tuple(latent.shape)}"
            )
        check_latent(latent, self.limit)
        first = self.first if groups == 1 else self.first.repeat(groups, *(1,) * self.axes)
        return F.embedding(latent.long() + first[:rows], self.table)[..., 0]
