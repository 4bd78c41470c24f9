"""CompressAI's picture models as codecs: their transforms and densities, our container, coder and determinism.

    codec = lz.load_codec("compressai:mbt2018-mean", weights="mbt2018-mean-3.pth.tar")

Factorised prior and scale hyperprior (Balle et al., arXiv 1802.01436), mean-scale and joint autoregressive hyperprior
(Minnen et al., arXiv 1809.02736), and the residual networks of Cheng et al. (arXiv 2001.01568). Layers are
compressai's own. What selects a table is computed in float64 and rounded by `entropy.snap`; z and the factorised y
are coded with tables that `entropy.bottleneck` builds. So a stream decodes to the same symbols on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...entropy.bottleneck import bottleneck_bank
from ...entropy.coder import Decoder, Encoder
from ...entropy.contract import Coder
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.models import Factorized, Gaussian
from ...entropy.snap import snap
from ..base import Codec, Compressed, Region, Shape
from ..contract import CODING, QUALITY
from ..samples import Samples
from ..search.measures import Function
from ..search.options import SEARCH
from ..search.run import Progress
from ..tiling import Tile, tile_grid
from .layout import HYPER_HALO, Z_CELL, fold, scale_number, unfold
from .search import CompressAIField
from .weights import Weights, build_model

SCHEME = "compressai"
_MEAN_GRID = 1 << 16  # means that feed back into a context are fixed-point numbers
# float64 noise is below 1e-11 of a table's step and below 1e-11 of a mean: margins keep well above
_SCALE_MARGIN, _MEAN_MARGIN = 2.0**-26, 2.0**-18
_HALOS = {"cheng2020-anchor": (4, 7), "cheng2020-attn": (8, 11)}  # of g_a and g_s, in positions of y; 2 for the others
_CONTEXT = [(dy, dx) for dy in (-2, -1, 0) for dx in range(-2, 3) if (dy, dx) < (0, 0)]  # causal part of 5 x 5

SEARCHED = "mbt2018-mean, bmshj2018-hyperprior and the factorised priors"
_STREAMS = 2  # of the coder: a dozen bytes; more would not be noticed beside the transforms

Array = np.ndarray
Choose = Callable[[Any, Array], Array]  # (where in y, means there) -> symbols


class _Replay:
    """Lets known symbols through: the reading of a program that only wants what follows from them."""

    def code(self, symbols: Any, model: Any) -> Any:
        return symbols


class CompressAICodec(Codec):
    """A model of compressai as a codec of one fixed rate; see the module's text.

    The latent holds the symbols of y (round(y - mean)) in its first channels and, for hyperpriors, those of z behind
    them, each 4 x 4 block of positions holding 16 channels of z. A picture is coded as one chunk, as the models see it
    whole; the transforms work by tiles that agree with the whole. Sides are continued to multiples of 64 (16 for
    factorised priors) with their last sample.
    """

    declared = (QUALITY, CODING, *SEARCH)
    stride = 16
    latent_limit = 32767

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.name = f"{SCHEME}:{name}"
        # channels last saves a third of the time on CPUs
        self.g_a, self.g_s = (net.to(memory_format=torch.channels_last) for net in (model.g_a, model.g_s))
        self.analysis_halo, self.synthesis_halo = _HALOS.get(name, (2, 2))
        density = model.entropy_bottleneck
        parts = [[p.double().numpy() for p in group] for group in (density.matrices, density.biases, density.factors)]
        self.register_buffer("medians", density.quantiles[:, 0, 1].double())
        self.medians: Tensor
        self.bank = bottleneck_bank(*parts, self.medians.numpy())
        self.y_channels = self.latent_channels = self.bank.num_tables
        self.has_hyper, self.has_context = hasattr(model, "h_s"), hasattr(model, "context_prediction")
        self.searches = not self.has_context
        if self.has_hyper:
            self.h_a, self.h_s = model.h_a, model.h_s.double()
            self.scales_only = name == "bmshj2018-hyperprior"
            self.y_channels = model.M
            self.latent_channels = model.M + -(-self.bank.num_tables // Z_CELL**2)
            self.latent_multiple = Z_CELL
        if self.has_context:
            reason = f"{self.name} has no effort: its context decodes one position after the other; {SEARCHED} have one"
            self.reasons = {option.name: reason for option in SEARCH}
            masked = model.context_prediction
            taps = torch.stack([masked.weight[:, :, 2 + dy, 2 + dx] for dy, dx in _CONTEXT], 1)
            self.register_buffer("context_weight", taps.flatten(1).double())
            self.register_buffer("context_bias", masked.bias.double())
            self.context_weight: Tensor
            self.context_bias: Tensor
            self.entropy_parameters = model.entropy_parameters.double()

    # --- transforms ----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def real_latents(self, x: Tensor) -> tuple[Array, Array | None]:
        """Signal (C, H, W) -> y (M, h, w) and, for hyperpriors, z less its medians (N, h / 4, w / 4), both float64."""
        h, w = self.latent_size((x.shape[1], x.shape[2]))
        padding = (0, w * self.stride - x.shape[2], 0, h * self.stride - x.shape[1])
        x = F.pad(x[None], padding, mode="replicate")[0].to(self.device, _dtype(self.g_a))
        y = _by_tiles(self.g_a, x, tile_grid(h, w, self.tile, self.analysis_halo), self.stride, 1)
        z = None
        if self.has_hyper:
            z = self.h_a((y.abs() if self.scales_only else y)[None].to(_dtype(self.h_a)))[0].double()
            z = (z - self.medians[:, None, None]).cpu().numpy()
        return y.double().cpu().numpy(), z

    def _symbols(self, residuals: Array) -> Array:
        return np.rint(residuals).clip(-self.latent_limit, self.latent_limit).astype(np.int32)

    @torch.inference_mode()
    def synthesis_grid(self, size: tuple[int, int]) -> list[Tile]:
        """As in the base; cut anywhere, as nothing is shared between positions of y."""
        return tile_grid(*self.latent_size(size), self.tile, self.synthesis_halo)

    def _signal(self, y_hat: Array, tile: Tile, size: tuple[int, int]) -> Tensor:
        """One tile of the signal, its halo included, cut to the signal's size."""
        part = torch.from_numpy(y_hat[None, :, tile.hy0 : tile.hy1, tile.hx0 : tile.hx1])
        signal = self.g_s(part.to(self.device, _dtype(self.g_s)))[0]
        return signal[:, : size[0] - tile.hy0 * self.stride, : size[1] - tile.hx0 * self.stride]

    def _rounding(self, y: Array, z: Array | None) -> tuple[Array | None, Choose]:
        """Symbols of z, and what chooses those of y, from what `real_latents` gives."""
        return None if z is None else self._symbols(z), lambda at, means: self._symbols(y[at] - means)

    def rounded(self, y: Array, z: Array | None) -> Array:
        """Latent (L, h, w) int32 of one pass."""
        return self._code(_Replay(), y.shape[1:], *self._rounding(y, z))[0]

    # --- the program ---------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _code(self, coder: Coder, size: tuple[int, int], z: Array | None, choose: Choose | None) -> tuple[Array, Array]:
        """Code z, then y: the one program behind all readings.

        Args:
            size: (h, w) of y.
            z: symbols of z; None when decoding, and without a hyperprior.
            choose: the symbols of y at a place, given the means there; None when decoding.

        Returns:
            latent (L, h, w) int32 and dequantised y (M, h, w) float64.
        """
        if self.medians.dtype != torch.float64:
            raise InputError(f"{self.name}: its entropy model works in float64; convert g_a and g_s alone")
        medians = self.medians.cpu().numpy()[:, None, None]
        if not self.has_hyper:
            y_model = Factorized(self.bank, (self.y_channels, *size))
            y = self._checked(coder.code(choose and choose(..., medians), y_model))
            return y, y + medians
        z_model = Factorized(self.bank, (self.bank.num_tables, size[0] // Z_CELL, size[1] // Z_CELL))
        z = self._checked(coder.code(z, z_model))
        z_hat = torch.from_numpy(z + medians).to(self.device)
        latent = np.empty((self.latent_channels, *size), np.int32)
        latent[self.y_channels :] = fold(z)
        code = self._code_serially if self.has_context else self._code_at_once
        return latent, code(coder, z_hat, latent[: self.y_channels], choose)

    def _code_at_once(self, coder: Coder, z_hat: Tensor, y: Array, choose: Choose | None) -> Array:
        """Fill y, whose parameters come from the hyper-latent alone; returns dequantised y."""
        y_hat = np.empty(y.shape)
        s = Z_CELL
        for t in tile_grid(z_hat.shape[1], z_hat.shape[2], self.tile // s, HYPER_HALO):
            parameters = _by_tiles(self.h_s, z_hat, [t], 1, s).cpu().numpy()
            scales, means = (parameters, 0.0) if self.scales_only else np.split(parameters, 2)
            (index,) = snap(coder, choose is None, (scale_number(scales), _SCALE_MARGIN))
            at = (slice(None), slice(t.y0 * s, t.y1 * s), slice(t.x0 * s, t.x1 * s))
            y[at] = self._checked(coder.code(choose and choose(at, means), _gaussian(index)))
            y_hat[at] = y[at] + means
        return y_hat

    def _code_serially(self, coder: Coder, z_hat: Tensor, y: Array, choose: Choose | None) -> Array:
        """Fill y in an order in which the context of every position is known; returns dequantised y.

        The context of (r, c) reaches back to (r - 1, c + 2), so all positions of equal c + 3 r are coded together:
        w + 3 (h - 1) steps instead of w h. Means are snapped to a grid, so that what feeds back is exact.
        """
        channels, h, w = y.shape
        tiles = tile_grid(h // Z_CELL, w // Z_CELL, self.tile // Z_CELL, HYPER_HALO)
        hyper = _by_tiles(self.h_s, z_hat, tiles, 1, Z_CELL).permute(1, 2, 0).contiguous()
        past = hyper.new_zeros(h + 2, w + 4, channels)  # dequantised y, with a border of what lies outside
        dy, dx = torch.tensor(_CONTEXT, device=hyper.device).T
        for step in range(w + 3 * (h - 1)):
            rows = torch.arange(max(0, -((w - 1 - step) // 3)), min(h - 1, step // 3) + 1, device=hyper.device)
            cols = step - 3 * rows
            seen = past[rows[:, None] + 2 + dy, cols[:, None] + 2 + dx].flatten(1)
            context = torch.addmm(self.context_bias, seen, self.context_weight.T)
            joint = torch.cat([hyper[rows, cols], context], 1)
            parameters = self.entropy_parameters(joint.T[None, :, None])[0, :, 0].cpu().numpy()
            scales, means = np.split(parameters, 2)
            means = means.clip(-self.latent_limit, self.latent_limit) * _MEAN_GRID
            index, grid = snap(coder, choose is None, (scale_number(scales), _SCALE_MARGIN), (means, _MEAN_MARGIN))
            means = grid / _MEAN_GRID
            at = (slice(None), rows.cpu().numpy(), cols.cpu().numpy())
            y[at] = self._checked(coder.code(choose and choose(at, means), _gaussian(index)))
            past[rows + 2, cols + 2] = torch.from_numpy(y[at] + means).T.to(hyper.device)
        return past[2:, 2:-2].permute(2, 0, 1).cpu().numpy()

    def _checked(self, symbols: Array) -> Array:
        if np.abs(symbols).max(initial=0) > self.latent_limit:
            raise FormatError(f"{self.name}: the stream holds latents beyond +-{self.latent_limit}")
        return symbols

    def program(self, coder: Any, latent: Array | None, shape: Shape, quality: float | None = None) -> Array:
        return self._code(coder, shape[1:], *self._given(latent))[0]

    def _given(self, latent: Array | None) -> tuple[Array | None, Choose | None]:
        """Symbols of z, and what chooses those of y, from a latent (L, h, w); both None when decoding."""
        if latent is None:
            return None, None
        y, z = np.split(latent, [self.y_channels])
        return unfold(z, self.bank.num_tables) if self.has_hyper else None, lambda at, means: y[at]

    def coding_arrays(self) -> dict[str, Array]:
        return self.bank.to_arrays()

    # --- signal <-> chunk ----------------------------------------------------------------------------------------

    def latent(self, x: Tensor, quality: float | None = None) -> Tensor:
        self.check_quality(quality)
        return torch.from_numpy(self.rounded(*self.real_latents(x)).astype(np.int16))

    def analysis(self, x: Tensor, quality: float | None = None) -> Tensor:
        return torch.stack([self.latent(signal, quality) for signal in x]).to(x.device)

    def synthesis(self, latent: Tensor, size: tuple[int, int], quality: float | None = None) -> Tensor:
        h, w = latent.shape[-2:]
        whole, signals = Tile(0, h, 0, w, 0, h, 0, w), []
        for one in latent.cpu().numpy().astype(np.int32):
            y_hat = self._code(_Replay(), (h, w), *self._given(one))[1]
            signals.append(self._signal(y_hat, whole, size))
        return torch.stack(signals)

    def search_field(self, x: Tensor, quality: int) -> CompressAIField:
        if not self.searches:
            raise InputError(self.reasons["effort"])
        return CompressAIField(self, x)

    def compress(
        self,
        x: Tensor | Samples,
        quality: float | None = None,
        coding: str = "default",
        *,
        effort: int = 0,
        objective: str | Function = "mse",
        weight: Any = None,
        thrift: float = 1.0,
        progress: Progress | None = None,
    ) -> Compressed:
        """As in the base; an effort is for models without a context."""
        x = self._check_signal(x).all()
        self.check_quality(quality)
        self.check_coding(coding)
        if effort or objective != "mse" or weight is not None:
            latent = self.searched(x, 0, effort, objective, weight, thrift, progress)
            size, given = latent.shape[1:], self._given(latent.numpy().astype(np.int32))
        else:
            y, z = self.real_latents(x)
            size, given = y.shape[1:], self._rounding(y, z)
        encoder = Encoder(_STREAMS)
        self._code(encoder, size, *given)
        return Compressed(b"", [encoder.finish()])

    def decompress(
        self,
        params: bytes,
        chunks: Sequence[bytes],
        size: tuple[int, int],
        *,
        to: Literal["signal", "latent"] = "signal",
        region: Region | None = None,
        channels: int | None = None,
        dtype: str | None = None,
    ) -> Tensor:
        self._check_depth(channels)
        region = (0, 0, *size) if region is None else region
        y0, x0, y1, x1 = box = self._latent_region(region, size)
        if params or len(chunks) != 1:
            raise FormatError(f"{self.name}: unknown codec parameters; the file may need a newer latentzip")
        h, w = self.latent_size(size)
        decoder = Decoder(chunks[0])
        latent, y_hat = self._code(decoder, (h, w), None, None)
        decoder.finish()
        if to == "latent":
            return torch.from_numpy(latent[:, y0:y1, x0:x1].astype(np.int16))
        return self.painted(self.tiles_under(box, size), region, lambda t: self._signal(y_hat, t, size), dtype)


def _dtype(net: nn.Module) -> torch.dtype:
    return next(net.parameters()).dtype


def _by_tiles(net: nn.Module, x: Tensor, tiles: Sequence[Tile], cell_in: int, cell_out: int) -> Tensor:
    """``net`` of the tiles' bounding box, tile by tile; a grid position is a square of ``cell_in`` samples of x
    (C, H, W) and of ``cell_out`` of the result."""
    first, last = tiles[0], tiles[-1]
    out = None
    for t in tiles:
        part = net(x[None, :, t.hy0 * cell_in : t.hy1 * cell_in, t.hx0 * cell_in : t.hx1 * cell_in])[0]
        y, x_ = (t.y0 - t.hy0) * cell_out, (t.x0 - t.hx0) * cell_out
        part = part[:, y : y + (t.y1 - t.y0) * cell_out, x_ : x_ + (t.x1 - t.x0) * cell_out]
        if len(tiles) == 1:
            return part
        if out is None:
            out = part.new_empty(len(part), (last.y1 - first.y0) * cell_out, (last.x1 - first.x0) * cell_out)
        y, x_ = (t.y0 - first.y0) * cell_out, (t.x0 - first.x0) * cell_out
        out[:, y : y + part.shape[1], x_ : x_ + part.shape[2]] = part
    assert out is not None
    return out


def _gaussian(number: Array) -> Gaussian:
    return Gaussian(number.astype(np.uint8), profile="max")  # 16 bits, as CompressAI's own tables


# --- loading -----------------------------------------------------------------------------------------------------


def load(name: str, weights: Weights | None, quality: int | None, fingerprint: bytes | None) -> CompressAICodec:
    """Loader of the scheme ``compressai:``; see `latentzip.load_codec`."""
    model = name.removeprefix(f"{SCHEME}:")
    if weights is None:
        if fingerprint is not None:
            raise UnsupportedError(
                f"the stream needs {name} with weights {fingerprint.hex()}, which are not in this package: load them "
                f"with load_codec({name!r}, weights=PATH) and hand the codec to decode(..., codec=codec)"
            )
        raise InputError(
            f"{name} needs weights: load_codec({name!r}, weights=...) takes a checkpoint (.pth, .pth.tar, .safetensors)"
            f", a state dict or a module, such as compressai.zoo.models[{model!r}](quality=3, pretrained=True)"
        )
    codec = CompressAICodec(build_model(model, weights, quality), model)
    made = codec.fingerprint  # computed now: later the transforms may be converted
    if fingerprint not in (None, made):
        raise UnsupportedError(
            f"{name} with fingerprint {fingerprint.hex()} is needed; these weights make {made.hex()}"
        )
    return codec
