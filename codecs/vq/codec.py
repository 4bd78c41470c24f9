"""Pictures as discrete tokens: residual codebooks on the features of a codec that ships.

After McQuic (Zhu et al., "Unified Multivariate Gaussian Mixture for Efficient Neural Image Compression", CVPR 2022):
features at 1/16, turned to principal components of the pixels' error, then residual codebooks, those of the coarse
levels for blocks of 2 x 2 positions. Release 1 has no coarse levels.
Analysis and synthesis are those of the `hyperprior` family. Tokens of a level depend on no later level, so that the
first levels of a stream are the stream of a lower rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy import schema
from ...entropy.container import Header
from ...entropy.dense import tensor_of
from ...entropy.errors import InputError
from .. import storage
from ..base import Codec, Shape
from ..contract import Compressed
from ..hyperprior.nets import Analysis, Synthesis, kept_as_bytes
from . import tokens as tokens_
from .blocks import CELLS, books_of, from_blocks, grids, to_blocks
from .residual import check_tokens, tokens_of, usage, vectors_of
from .tokens import TokenCodec

if TYPE_CHECKING:
    from ...pretrained import Entry


@dataclass(frozen=True)
class VqConfig:
    """Hyper-parameters, stored beside the weights.

    Attributes:
        width, analysis_depth, synthesis_depth, latent: of the trunk, as in `hyperprior`.
        trunk_quality: at which the trunk runs.
        levels: K; each refines what the ones before leave.
        coarse: how many come first that are at 1/32, with four codebooks each; the others have one.
        entries: N, codewords of a codebook.
        components: principal components of the features that are quantised.
    """

    width: int = 128
    analysis_depth: int = 3
    synthesis_depth: int = 5
    latent: int = 192
    trunk_quality: int = 30
    levels: int = 16
    entries: int = 256
    components: int = 96
    coarse: int = 0


_BOUNDS = {
    "width": storage.CHANNELS, "analysis_depth": storage.DEPTH, "synthesis_depth": storage.DEPTH,
    "latent": storage.CHANNELS, "trunk_quality": schema.integer(1, 100), "levels": schema.integer(1, 64),
    "entries": schema.integer(2, 4096), "components": storage.CHANNELS,
    "coarse": schema.integer(0, 16),
}  # fmt: skip


class VqCodec(TokenCodec, Codec):
    """See the module's text. A latent is the tokens: (K, h, w), 0 for levels that a stream does not have."""

    family = "vq"
    modality = "image"
    stride = 16
    chunk = 64
    tile = 128
    reads_parts = True
    latent_transforms = frozenset({"crop"})
    ordered_channels = True

    def __init__(self, config: VqConfig, name: str = "vq") -> None:
        super().__init__()
        c = self.config = config
        self.name = name
        self.analysis_transform = Analysis(c.width, c.analysis_depth, c.latent)
        self.synthesis_transform = Synthesis(c.width, c.synthesis_depth, c.latent)
        self.register_buffer("std", torch.ones(c.latent, 1, 1))
        self.std: Tensor
        if c.coarse > c.levels:
            raise InputError(f"{c.coarse} coarse levels of {c.levels}: there are not so many")
        self.coarse = c.coarse
        self.add_codebooks(c.latent, c.components, c.levels, c.entries, books_of(c.levels, c.coarse))
        if c.coarse:
            self.latent_multiple = 2
            # rows are the principal components of a block
            self.register_buffer("block_basis", torch.zeros(c.components, CELLS * c.components))
            self.block_basis: Tensor
        # 3x3 at 1/8 reach half a position each, the 2x2 cells between the grids one more
        self.analysis_halo = math.ceil(c.analysis_depth / 2) + 1
        self.synthesis_halo = math.ceil(c.synthesis_depth / 2) + 1
        self.analysis_halo += self.analysis_halo % self.latent_multiple
        self.synthesis_halo += self.synthesis_halo % self.latent_multiple

    # --- tokens --------------------------------------------------------------------------------------------------

    def tokens(self, x: Any, levels: int | None = None) -> Tensor:
        """A picture (3, H, W) as integers (K, h, w) int64 from 0 to N - 1, the coarsest level first.

        h and w are the sides over 16, rounded up, with coarse levels to even numbers. A coarse level has the tokens of
        four codebooks in the cells of each block of 2 x 2.

        Args:
            x: floats in [0, 1], uint8 or uint16.
            levels: how many codebooks; all by default.

        Raises:
            InputError: as `compress`.
        """
        count = self.depth if levels is None else levels
        return self.latent(x, self.quality_of(count))[:count].long()

    @torch.inference_mode()
    def from_tokens(self, tokens: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Tokens (K, h, w) of one picture, any number of levels -> (3, H, W) float32 in [0, 1].

        Args:
            size: (H, W) of the picture; by default all that the tokens cover, 16 h x 16 w.

        Raises:
            InputError: not integers from 0 to N - 1, another shape, or a size that they do not cover.
        """
        tokens = self.checked_tokens(tokens, "levels, h, w")
        size = self.size_of(tokens, size)

        def pixels(t: Any) -> Tensor:
            part = tokens[None, :, t.hy0 : t.hy1, t.hx0 : t.hx1].to(self.device)
            inner = min(16 * t.hy1, size[0]) - 16 * t.hy0, min(16 * t.hx1, size[1]) - 16 * t.hx0
            with self.arithmetic():
                return self.synthesis(part, inner)[0]

        return self.painted(self.synthesis_grid(size), (0, 0, *size), pixels)

    # --- the three functions -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def analysis(self, x: Tensor, quality: float | None = None) -> Tensor:
        levels, features = self.levels(quality), self.trunk_features(x)
        out = features.new_zeros(len(features), self.depth, *self._grid(x), dtype=torch.int16)
        for i, item in enumerate(features):
            out[i, :levels] = self.planes(item, levels, (out.shape[2], out.shape[3]))
        return out

    def planes(self, rows: Tensor, levels: int, size: tuple[int, int]) -> Tensor:
        """Features (h * w, M) of a grid -> tokens (levels, h, w) int64."""
        if not self.coarse:
            return self.named(rows, levels).reshape(levels, *size)
        rest = (rows - self.mean) @ self.to_components
        out = torch.zeros(levels, *size, dtype=torch.int64, device=rows.device)
        first = books_of(min(levels, self.coarse), self.coarse)
        blocks = to_blocks(rest, *size) @ self.block_basis.T
        found = list(tokens_of(blocks, self.codewords[:first], self.prices[:first]))
        rest = rest - from_blocks(vectors_of(torch.stack(found), self.codewords) @ self.block_basis, *size)
        if levels > self.coarse:
            last = books_of(levels, self.coarse)
            found += tokens_of(rest, self.codewords[first:last], self.prices[first:last])
        for grid, tokens in zip(grids(out, self.coarse), found):
            grid.copy_(tokens.reshape(grid.shape))
        return out

    @property
    def codebooks(self) -> Tensor:
        """(K, N, M) float32: codewords in the units of the features, of the levels at 1/16; entry 0 of each is zero."""
        return self.codewords[CELLS * self.coarse :] @ self.from_components

    @property
    def coarse_codebooks(self) -> Tensor:
        """(4 * coarse, N, M, 2, 2) float32: the same of the coarse levels, whose codewords stand for blocks."""
        if not self.coarse:
            return self.codewords.new_zeros(0, self.entries, len(self.mean), 2, 2)
        blocks = (self.codewords[: CELLS * self.coarse] @ self.block_basis).unflatten(2, (2, 2, -1))
        return (blocks @ self.from_components).movedim(4, 2)

    def usage(self, tokens: Any) -> list[tuple[int, float]]:
        """Of each codebook of tokens (K, h, w), four of a coarse level: how many codewords occur, and bits a token at
        their frequencies. Without coarse levels tokens (K, ...) may have any shape."""
        if not self.coarse:
            return super().usage(tokens)
        tokens = self.checked_tokens(tokens, "levels, h, w")
        self._check_even(tokens)
        return [usage(grid[None], self.entries)[0] for grid in grids(tokens, self.coarse)]

    def _check_even(self, tokens: Tensor) -> None:
        if self.coarse and (tokens.shape[-1] % 2 or tokens.shape[-2] % 2):
            raise InputError(
                f"tokens of {self.name} have even sides, as its coarse levels stand for 2 x 2 positions, not "
                f"{tuple(tokens.shape[-2:])}"
            )

    def components(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> what is quantised, (B, h * w, components) float32."""
        return (self.trunk_features(x) - self.mean) @ self.to_components

    def trunk_features(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> features (B, h * w, M) float32."""
        pad = [-n % (self.stride * self.latent_multiple) for n in x.shape[-2:]]
        x = F.pad(x - 0.5, (0, pad[1], 0, pad[0]), mode="replicate")
        return self.analysis_transform(x, self._trunk_quality(x), self.std).float().flatten(2).transpose(1, 2)

    def _grid(self, x: Tensor) -> tuple[int, int]:
        return self.latent_size((x.shape[-2], x.shape[-1]))

    def dequantize(self, latent: Tensor, quality: float | None = None) -> Tensor:
        raise InputError(
            f"latents of {self.name} are tokens, numbers of codewords: codec.values(tokens) gives what they stand for, "
            "an embedding of a network takes them as they are"
        )

    def compress_tokens(self, tokens: Any, size: tuple[int, int] | None = None) -> tuple[Compressed, tuple[int, ...]]:
        """Tokens (K, h, w) of one picture, any number of levels, as parameters and chunks, and the picture's shape.

        Args:
            size: (H, W) of the picture; by default all that the tokens cover.

        Raises:
            InputError: as `from_tokens`.
        """
        tokens = self.checked_tokens(tokens, "levels, h, w")
        size = self.size_of(tokens, size)
        latent = torch.zeros(self.depth, *tokens.shape[1:], dtype=torch.int16)
        latent[: len(tokens)] = tokens
        return self.packed(iter([(0, latent)]), size, self.quality_of(len(tokens))), (3, *size)

    def size_of(self, tokens: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        """(H, W) of the picture of tokens; InputError where ``size`` has others."""
        h, w = tokens.shape[1:]
        self._check_even(tokens)
        try:
            height, width = (16 * h, 16 * w) if size is None else map(index, size)
        except (TypeError, ValueError):
            raise InputError(f"size is {size!r}; (H, W) of the picture, two whole numbers, is needed") from None
        size = height, width
        if min(size) < 1 or self.latent_size(size) != (h, w):
            raise InputError(f"a picture of {size[0]} x {size[1]} has {self.latent_size(size)} tokens, not {(h, w)}")
        return size

    def values(self, latent: Tensor) -> Tensor:
        """Tokens (B, K, h, w) or (K, h, w) -> features (B, M, h, w) or (M, h, w) float32, of as many levels as there
        are."""
        tokens = tensor_of(latent, "iuf", "tokens").to(self.codewords.device)
        if tokens.ndim not in (3, 4):
            raise InputError(f"tokens are (levels, h, w) or a batch of them, not {tuple(tokens.shape)}")
        if tokens.is_floating_point() and not torch.equal(tokens, tokens.floor()):
            raise InputError("tokens hold numbers that are not whole: nothing may be added to them or mixed")
        batch = tokens if tokens.ndim == 4 else tokens[None]
        batch = batch.long()
        check_tokens(batch.transpose(0, 1), self.depth, self.entries)
        self._check_even(batch)
        b, k, h, w = batch.shape
        if self.coarse:
            rows = torch.cat([self._block_rows(item) for item in batch])
        else:
            rows = self.features(batch.transpose(0, 1).reshape(k, b * h * w))
        features = rows.reshape(b, h, w, -1).permute(0, 3, 1, 2)
        return features if tokens.ndim == 4 else features[0]

    def _block_rows(self, planes: Tensor) -> Tensor:
        """Tokens (levels, h, w) -> features (h * w, M)."""
        found = [grid.reshape(-1) for grid in grids(planes, self.coarse)]
        first = books_of(min(len(planes), self.coarse), self.coarse)
        blocks = vectors_of(torch.stack(found[:first]), self.codewords) @ self.block_basis
        rows = from_blocks(blocks, planes.shape[1], planes.shape[2])
        if found[first:]:
            rows = rows + vectors_of(torch.stack(found[first:]), self.codewords[first:])
        return rows @ self.from_components + self.mean

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, size: tuple[int, int], quality: float | None = None) -> Tensor:
        y = self.values(latent)
        x = self.synthesis_transform(y, self._trunk_quality(y), self.std) + 0.5
        return x[..., : size[0], : size[1]]

    def _trunk_quality(self, like: Tensor) -> Tensor:
        return torch.full((1,), float(self.config.trunk_quality), device=like.device)

    def program(self, coder: Any, latent: np.ndarray | None, shape: Shape, quality: float | None = None) -> np.ndarray:
        depth, h, w = shape
        return self.code_tokens(coder, latent, min(depth, self.levels(quality)), h, w)[:depth]

    # --- the face -------------------------------------------------------------------------------------------------

    def compress(
        self, x: Any, quality: float | None = None, *args: Any, levels: int | None = None, **options: Any
    ) -> Compressed:
        """As in the base; a number of ``levels`` counts instead of the quality."""
        if levels is not None:
            quality = self.quality_of(levels)
        return super().compress(x, quality, *args, **options)

    def restore(
        self,
        header: Header,
        chunks: Sequence[bytes],
        *,
        to: Literal["signal", "latent", "tokens"] = "signal",
        **part: Any,
    ) -> Tensor:
        """As in the base; "tokens" are those of the stream's levels, (levels, h, w) int64."""
        if to != "tokens":
            return super().restore(header, chunks, to=to, **part)
        latent = super().restore(header, chunks, to="latent", **part)  # with `channels` only the first levels
        size = header.shape[-2], header.shape[-1]
        return latent[: self.levels(self.read_params(header.params, len(chunks), size)[0])].long()


# --- storage -----------------------------------------------------------------------------------------------------

_AS_BYTES = tokens_.bytes_of(kept_as_bytes)


def round_weights(codec: VqCodec) -> None:
    """Set the weights to what storage will keep of them, so that what is measured is what ships."""
    tokens_.round_weights(codec, _AS_BYTES, torch.float16)


def to_tensors(codec: VqCodec) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `round_weights` comes first, `storage.share` may follow."""
    return tokens_.to_tensors(codec, _AS_BYTES, torch.float16)


def from_bytes(data: bytes) -> VqCodec:
    """Read what `to_tensors` describes.

    Raises:
        FormatError: not a vq weights file of format 1.
    """
    shared = ("analysis_transform.", "synthesis_transform.", "std")  # with the release that the trunk is of
    codec = tokens_.read(data, "vq", _BOUNDS, shared, lambda config, name: VqCodec(VqConfig(**config), name))
    return codec.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def load_bundled(entry: Entry) -> VqCodec:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
