"""A codec as another distribution would bring it: no network, weights made on the spot, one screen of code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from latentzip.codecs.walloc.codec import Walloc, WallocConfig
from latentzip.entropy.models import Laplace
from latentzip.kernels.wavelet import wavelet_packet2d


class Toy(Walloc):
    """The lowest bands of the wavelet packet, coded with one Laplacian a channel."""

    def program(
        self, coder: Any, latent: np.ndarray | None, shape: tuple[int, ...], quality: float | None = None
    ) -> np.ndarray:
        scale = np.full(shape, 40, np.int32)
        return coder.code(latent, Laplace(scale)).reshape(shape)

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return {"scale": np.array([40], np.int32)}


def make(name: str) -> Toy:
    """Factory of the entry point."""
    codec = Toy(WallocConfig(latent_channels=24, depth=0, variable_rate=name == "toy-variable"), name)
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    waves = torch.stack([torch.sin(x / (3 + 5 * i) + y / (4 + 3 * j)) for i in range(3) for j in range(3)])
    picture = waves.reshape(3, 3, 128, 128) * 0.2
    bands = wavelet_packet2d(picture, 3, "bior4.4")
    flat = bands.permute(0, 2, 3, 1).reshape(-1, bands.shape[1]).double()
    # deterministic and orthonormal: the packet bands with the most energy, no eigenvectors
    order = torch.argsort(flat.square().mean(0), descending=True, stable=True)[:24]
    basis = torch.zeros(24, bands.shape[1])
    basis[torch.arange(24), order] = 1
    with torch.no_grad():
        codec.encoder.weight.copy_(basis[:, :, None, None])
        codec.encoder.bias.zero_()  # type: ignore[union-attr]
        codec.log_gain.fill_(1.5 if codec.variable_rate else 3.0)
        codec.decoder.linear.weight.copy_(basis.T[:, :, None, None])
        codec.decoder.linear.bias.zero_()  # type: ignore[union-attr]
        codec.decoder.latent_std.fill_(1.0)
        codec.decoder.error_std.fill_(1.0)
    return codec.eval()
