"""The published WaLLoC architecture, for its checkpoints and as the peer that ours is measured against.

Periodic wavelet packets, one 1x1 encoder layer, companding without trainable steps, and the decoder of a latent
diffusion autoencoder: residual blocks with group norm and one global self-attention, whose cost grows with the square
of the picture. `import_checkpoint` maps the state dicts of the original project onto it.
"""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.errors import InputError
from ...kernels.compand import compand, expand, expand_table
from ...kernels.wavelet import inverse_wavelet_packet2d, wavelet_packet2d
from ..base import Codec, Shape

if TYPE_CHECKING:
    from ...entropy.context.model import ContextModel


@dataclass(frozen=True)
class OriginalConfig:
    """Hyper-parameters under the original's names: ``J`` levels, ``Nd`` decoder width."""

    channels: int = 3
    J: int = 3
    Nd: int = 768
    latent_dim: int = 12
    latent_bits: int = 8


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(32, width, eps=1e-6) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class _Attention(nn.Module):
    """Single-head self-attention over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(32, width, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out[0](mixed).transpose(1, 2).reshape(x.shape)


class OriginalDecoder(nn.Module):
    """(B, latent_dim, h, w) -> (B, bands, h, w)."""

    def __init__(self, latent_dim: int, bands: int, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent_dim, width, 3, padding=1)
        self.mid_block = nn.Module()
        self.mid_block.resnets = nn.ModuleList([_ResBlock(width), _ResBlock(width)])
        self.mid_block.attentions = nn.ModuleList([_Attention(width)])
        up = nn.Module()
        up.resnets = nn.ModuleList([_ResBlock(width) for _ in range(3)])
        self.up_blocks = nn.ModuleList([up])
        self.conv_norm_out = nn.GroupNorm(32, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, bands, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        mid: Any = self.mid_block
        up: Any = self.up_blocks[0]
        x = self.conv_in(x)
        for block in (mid.resnets[0], mid.attentions[0], mid.resnets[1], *up.resnets):
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class OriginalWalloc(Codec):
    """Same latents and reconstructions as the original project's ``Codec2D`` with a light encoder, in eval mode.

    Pictures whose sides are no multiple of 2**J are continued with their last sample (the original leaves padding to
    its caller). Below 40 pixels a side at J = 3 (80 at J = 4) the original's wavelet package is not exact; ours is.
    Tiles do not agree with the whole here (global attention, group norm), so a picture is one tile.
    """

    modality = "image"
    fast_coding = True

    def __init__(self, config: OriginalConfig, name: str = "walloc-original") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.signal_channels = config.channels
        self.stride = 1 << config.J
        self.latent_channels = config.latent_dim
        self.tile = 1 << 20
        bands = config.channels * 4**config.J
        self.encoder = nn.Conv2d(bands, config.latent_dim, 1)
        self.decoder = OriginalDecoder(config.latent_dim, bands, config.Nd)
        self.register_buffer("expansion", expand_table(config.latent_bits), persistent=False)
        self.expansion: Tensor
        self.context: ContextModel | None = None

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> companded, unrounded latents (B, L, h, w): the input of downstream models."""
        bands = wavelet_packet2d(x - 0.5, self.config.J, "bior4.4", "periodization")
        return compand(self.encoder(bands), self.config.latent_bits)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Training pass with additive noise: (x_hat, companded latents)."""
        z = self.features(x)
        y = expand(z + torch.rand_like(z) - 0.5, self.config.latent_bits)
        return self._signal(y, (x.shape[-2], x.shape[-1])), z

    def _signal(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        return inverse_wavelet_packet2d(self.decoder(y), self.config.J, "bior4.4", "periodization", size) + 0.5

    @torch.inference_mode()
    def analysis(self, x: Tensor, quality: float | None = None) -> Tensor:
        return self.features(x).round().to(torch.int16)

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, size: tuple[int, int], quality: float | None = None) -> Tensor:
        m = (1 << (self.config.latent_bits - 1)) - 1
        return self._signal(F.embedding(latent.long() + m, self.expansion[:, None])[..., 0], size)

    def calibrate(self, latents: list[np.ndarray]) -> None:
        """Fit the entropy model on latents (L, h, w) of typical pictures, so that files can be written."""
        from ...entropy.context.model import ContextModel

        self.context = ContextModel.fit(latents)

    def program(self, coder: Any, latent: np.ndarray | None, shape: Shape, quality: float | None = None) -> np.ndarray:
        if self.context is None:
            raise InputError(f"{self.name} has no entropy model: call calibrate(latents) first")
        return self.context.program(coder, latent, shape)  # type: ignore[arg-type]

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return self.context.to_arrays() if self.context else {}


class _TensorUnpickler(pickle.Unpickler):
    """Lets tensors and plain containers through; every other class becomes an inert namespace."""

    _allowed: ClassVar = {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch", "FloatStorage"),
        ("torch", "HalfStorage"),
        ("torch", "BFloat16Storage"),
        ("torch", "LongStorage"),
        ("torch.storage", "UntypedStorage"),
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return super().find_class(module, name)
        return SimpleNamespace


def _read_checkpoint(path: Path) -> dict[str, Any]:
    # older checkpoints hold a pickled configuration object, which weights_only refuses
    shim = SimpleNamespace(
        Unpickler=_TensorUnpickler, load=lambda f, **k: _TensorUnpickler(f, **k).load(), __name__="tensor_pickle"
    )
    data = io.BytesIO(path.read_bytes())
    return torch.load(data, map_location="cpu", pickle_module=shim, weights_only=False)


def import_checkpoint(path: str | Path, config: str | Path | dict[str, Any] | None = None) -> OriginalWalloc:
    """Load a checkpoint of the original project (RGB_16x, RGB_4x, ...).

    Args:
        path: its ``.pth`` file: a state dict, or a dict with ``model_state_dict``.
        config: its JSON file or the dict in it. Without one the sizes are read off the weights (8-bit latents).

    Raises:
        InputError: not a light-encoder RGB/grey checkpoint of that project.
    """
    state = _read_checkpoint(Path(path))
    state = state.get("model_state_dict", state)
    weights = {}
    for key, value in state.items():
        if key.startswith(("wt.", "iwt.")):
            continue
        weights[key.replace("encoder.0.", "encoder.", 1).replace("decoder.1.", "decoder.", 1)] = value
    try:
        latent_dim, bands = weights["encoder.weight"].shape[:2]
        width = weights["decoder.conv_in.weight"].shape[0]
    except KeyError as error:
        raise InputError(
            f"{path} holds no weights called {error}; only light-encoder image models can be imported"
        ) from error
    given: Any = config if isinstance(config, dict) else json.loads(Path(config).read_text()) if config else {}
    channels = int(given.get("channels", 3))
    levels = int(given.get("J", round(np.log(bands / channels) / np.log(4))))
    result = OriginalWalloc(OriginalConfig(channels, levels, width, latent_dim, int(given.get("latent_bits", 8))))
    try:
        result.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the published architecture: {error}") from error
    return result.eval()
