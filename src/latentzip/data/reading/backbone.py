"""From stored latents to what a backbone for pictures takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...entropy.errors import InputError
from .dequantize import Dequantize


class LatentInput(nn.Module):
    """Integer latents (B, L, h, w) -> float32 (B, channels, scale * h, scale * w); see `image_classifier_input`.

    Attributes:
        channels: of what comes out.
        size: (height, width) of what comes out, None where latents have several shapes.
    """

    def __init__(
        self, dequantize: Dequantize, latents: int, size: tuple[int, int] | None, channels: int | None, scale: int,
        kernel: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dequantize = dequantize
        self.channels = channels or latents
        self.size = None if size is None else (scale * size[0], scale * size[1])
        self.expand: nn.Module = nn.Identity()
        if channels is not None or scale > 1:
            expand = nn.Conv2d(latents, self.channels * scale**2, kernel, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(expand.weight, nonlinearity="linear")  # unit deviation goes in and comes out
            self.expand = nn.Sequential(expand, nn.PixelShuffle(scale)) if scale > 1 else expand

    def forward(self, latent: Tensor) -> Tensor:
        return self.expand(self.dequantize(latent))


def image_classifier_input(
    codec: Any, channels: int | None = None, *, scale: int = 1, kernel: int = 1, quality: float | None = None
) -> LatentInput:
    """The first module of a model that trains on latents of pictures: it dequantises them to unit deviation on the
    device, and turns their channels and size into those that the rest of the model takes by one trainable product.

    Latents are small already, so early strides of a backbone have to go: a ViT takes patches of 1 x 1, a ResNet this
    module instead of its first convolution and no pooling after it. Or ``scale`` trades channels for positions, and the
    backbone stays as it is.

    Args:
        codec: a `LatentDataset`, the name of a codec or a loaded one.
        channels: that the backbone takes; None leaves those of the latent, without a product.
        scale: positions a side that become of one.
        kernel: side of the product in latent positions; odd.
        quality: of the streams, for codecs of variable rate; a `LatentDataset` knows it.

    Raises:
        InputError: not a codec of pictures, or numbers that make no sense.

    Example:
        >>> model = torchvision.models.resnet18(num_classes=10)                  # doctest: +SKIP
        >>> model.conv1 = lz.data.image_classifier_input(data, 64, kernel=3)     # doctest: +SKIP
        >>> model.maxpool = nn.Identity()                                        # doctest: +SKIP
    """
    if scale < 1 or kernel < 1 or kernel % 2 == 0 or (channels is not None and channels < 1):
        raise InputError(f"channels {channels}, scale {scale}, kernel {kernel}: positive numbers, the last one odd")
    dequantize = Dequantize(codec, quality=quality)
    if dequantize.axes != 2:
        raise InputError(
            "a codec of pictures is needed; latents of sound go through Dequantize to a model of sequences"
        )
    shape = getattr(codec, "latent_shape", None)
    size = None if shape is None else (shape[1], shape[2])
    return LatentInput(dequantize, dequantize.channels, size, channels, scale, kernel)
