"""Learned image codecs with a mean-scale hyperprior: one set of weights for qualities 1..100, decodable anywhere.

After Minnen et al. (arXiv 1809.02736) with the layout of JPEG AI: scales come from integers alone, through exact
networks, so that no float decides an interval: from the hyper-latent, in one call for all symbols of a chunk, or in
four, each refined by the symbols before it (`context`). Means are added after decoding. Quality scales the latent
channel by channel (gain units, Cui et al., arXiv 2003.02012); in the domain of scale numbers that is the addition of an
integer.

A latent holds integers only: first the hyper-latent (N channels at 1/64, stored as N/16 channels at 1/16), then the
rounded difference of the latent from its mean. `HyperpriorCodec.values` turns it into the real-valued latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...entropy import exact, schema
from ...entropy.banks import NUM_SCALES, scales
from ...entropy.contract import Model
from ...entropy.errors import FormatError, InputError
from ...entropy.models import Factorized, Gaussian, Mixture, float_bits, mixture_bits
from ...entropy.tables import TableBank
from ...kernels import cuda
from .. import storage
from ..base import Codec, Shape
from ..layers import ANCHORS, hyper_group
from ..memory import give_back
from ..samples import Samples
from .bands import LARGE, in_bands
from .context import EIGHTHS, TOP, CodingStep, Elements, ScaleContext, to_number
from .nets import (
    Analysis,
    ByQuality,
    HyperAnalysis,
    Means,
    Synthesis,
    kept_as_bytes,
    mixture_net,
    scale_net,
    standardise,
)
from .options import DEFAULT_QUALITY, OPTIONS
from .search import HyperpriorField

if TYPE_CHECKING:
    from ...pretrained import Entry
    from .batch import HyperpriorBatch

HYPER_LIMIT = 127
LOG_STEP = math.log(float(scales()[-1] / scales()[0])) / (NUM_SCALES - 1)
_MIXTURE_ONE = 128  # added to a component's code to make its weight
_MIXTURE_FRACTION = 32  # codes of means are in 1/32 deviations


@dataclass(frozen=True)
class HyperpriorConfig:
    """Hyper-parameters, stored beside the weights.

    Attributes:
        width: channels of the trunk at 1/8.
        analysis_depth, synthesis_depth: blocks of the trunk on either side.
        latent: M, channels at 1/16; a multiple of 4.
        hyper: N, channels at 1/64; a multiple of 16.
        features: width of the hyper-decoder and the context network.
        scale_width: width of the exact network.
        skip: scale numbers up to this one are not coded; such elements are their mean (0 skips next to nothing).
        components: of the distribution of a latent: 1 is a Gaussian, more a mixture of Gaussians around its mean.
        region: whether both trunks have the region-adaptive transform (`region`).
        context: width of the exact networks that refine scales by decoded symbols; 0: scales are those that the
            hyper-latent says.
    """

    width: int = 128
    analysis_depth: int = 3
    synthesis_depth: int = 5
    latent: int = 192
    hyper: int = 64
    features: int = 160
    scale_width: int = 128
    skip: int = 2
    components: int = 1
    region: bool = False
    context: int = 0


_BOUNDS = {
    "width": storage.CHANNELS, "analysis_depth": storage.DEPTH, "synthesis_depth": storage.DEPTH,
    "latent": storage.CHANNELS, "hyper": storage.CHANNELS, "features": storage.CHANNELS,
    "scale_width": storage.CHANNELS, "skip": schema.integer(0, 63), "components": schema.integer(1, 16),
    "region": schema.boolean, "context": schema.integer(0, 1 << 12),
}  # fmt: skip


class HyperpriorCodec(Codec):
    """See the module's text. `forward` is the training pass."""

    family = "hyperprior"
    declared = OPTIONS
    modality = "image"
    stride = 16
    latent_multiple = 4
    latent_limit = 8191
    chunk = 64
    tile = 128
    variable_rate = True
    reads_parts = True
    default_quality = DEFAULT_QUALITY
    searches = True
    _gpu: HyperpriorBatch | None = None

    def __init__(self, config: HyperpriorConfig, name: str = "hyperprior") -> None:
        super().__init__()
        c = self.config = config
        if c.latent % 4 or c.hyper % 16:
            raise InputError(f"latent must be a multiple of 4 and hyper of 16, not {c.latent} and {c.hyper}")
        if c.context and c.components > 1:
            raise InputError("scales are refined by decoded symbols for one Gaussian a latent, not for mixtures")
        self.name = name
        self.latent_channels = c.hyper // 16 + c.latent
        self.analysis_transform = Analysis(c.width, c.analysis_depth, c.latent, c.region)
        self.hyper_analysis = HyperAnalysis(c.latent, c.features, c.hyper)
        self.means = Means(c.latent, c.features, c.hyper)
        self.scale_net = scale_net(c.hyper, c.scale_width, c.latent)
        self.mixture_net = mixture_net(c.hyper, 3 * c.components * c.latent) if c.components > 1 else None
        self.scale_context = ScaleContext(c.latent, c.context) if c.context else None
        self.synthesis_transform = Synthesis(c.width, c.synthesis_depth, c.latent, c.region)
        self.log_gain = ByQuality(c.latent)
        self.register_buffer("std", torch.ones(c.latent, 1, 1))
        self.std: Tensor
        self.hyper_bank: TableBank | None = None
        self.gain_offsets: np.ndarray | None = None
        # 3x3 at 1/8 reach half a position each, a cell of the region grid 4; halos are rounded up to the latents' unit
        region = 4.5 if c.region else 0
        self.analysis_halo = _to_unit(c.analysis_depth / 2 + 1 + region)
        # 3x3 at 1/32 and 1/16 of the hyper-decoder, three context steps, then the trunk at 1/8
        self.synthesis_halo = _to_unit(2 + 1 + 3 + c.synthesis_depth / 2 + 1 + region)

    # --- pieces that coding and training share -------------------------------------------------------------------

    def gain(self, quality: Tensor) -> Tensor:
        """Factor on the latent, (B, M, 1, 1); its inverse is the quantisation step."""
        return torch.exp(self.log_gain(quality))

    def refine(self, z: Tensor, quality: Tensor, fix: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Decoded latent (B, M, h, w): ``fix(mean, mask)`` gives each step's values from their means."""
        features = self.means.features(z, quality)
        b, _, h, w = features.shape
        known = features.new_zeros(b, self.config.latent, h, w, dtype=torch.float32)
        for step in range(4):
            mean = self.means.predict(step, features, standardise(known, self.std)) * self.std
            mask = self.means.step_mask(step, h, w)
            known = known + mask * fix(mean, mask)
        return known

    def forward(
        self, x: Tensor, quality: Tensor, hard: bool = False, regions: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Training pass, with straight-through rounding before the decoder and additive noise under the rate.

        Args:
            x: (B, 3, H, W) float in [0, 1], sides multiples of 64.
            quality: (B,) in 1..100.
            hard: round under the rate too, as coding does: for validation.
            regions: (B, H/8, W/8) int64, numbers of regions for the region-adaptive transform; a grid by default.

        Returns:
            ``x_hat``; ``z``, before rounding unless ``hard``; ``residual`` (B, M, h, w), noisy or rounded, in steps;
            ``bits``, what it costs.
        """
        y = self.analysis_transform(x - 0.5, quality, self.std, regions)
        z = self.hyper_analysis(standardise(y, self.std), quality)
        z_hat = exact.straight_through(z.round().clamp(-HYPER_LIMIT, HYPER_LIMIT), z)
        gain = self.gain(quality)
        residual = torch.zeros_like(y)

        def fix(mean: Tensor, mask: Tensor) -> Tensor:
            nonlocal residual
            r = (y - mean) * gain
            residual = residual + mask * r
            return mean + exact.straight_through(r.round(), r) / gain

        y_hat = self.refine(z_hat, quality, fix)
        x_hat = self.synthesis_transform(y_hat, quality, self.std, regions) + 0.5
        residual = residual.round() if hard else residual + torch.rand_like(residual) - 0.5
        bits = self.latent_bits(residual, z_hat, quality)
        return {"x_hat": x_hat, "z": z_hat if hard else z, "residual": residual, "bits": bits}

    def latent_bits(self, residual: Tensor, z: Tensor, quality: Tensor) -> Tensor:
        """-log2 p of a residual in steps (B, M, h, w) given the hyper-latent, differentiable: the float twin of what
        `latent_model` codes with."""
        top = torch.full_like(quality, 100.0)
        offset = (self.log_gain(quality) - self.log_gain(top)) / LOG_STEP
        given = torch.cat((z, self._quality_plane(z, quality)), 1)
        number = self.scale_net(given) + offset
        if self.mixture_net is None:
            return float_bits(residual, exact.scale_of(number))
        weights, means, spread = self._mixture_parts(self.mixture_net(given))
        weights = weights + _MIXTURE_ONE / _MIXTURE_FRACTION
        number = number[..., None]
        means = means * exact.scale_of(number.clamp(0, NUM_SCALES - 1))
        spread = exact.scale_of(number + spread * (_MIXTURE_FRACTION / EIGHTHS))
        return mixture_bits(residual, weights / weights.sum(-1, keepdim=True), means, spread)

    def _mixture_parts(self, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output of the mixture network (B, 3 K M, h, w) -> weights, means, scales, each (B, M, h, w, K)."""
        b, _, h, w = code.shape
        parts = code.view(b, 3, self.config.components, self.config.latent, h, w).permute(1, 0, 3, 4, 5, 2)
        return parts[0], parts[1], parts[2]

    @staticmethod
    def _quality_plane(z: Tensor, quality: Tensor) -> Tensor:
        """The float twin of `_given`'s plane, (B, 1, h/4, w/4)."""
        return torch.round(quality * 1.27).to(z.dtype).view(-1, 1, 1, 1).expand(-1, 1, *z.shape[2:])

    # --- the three functions -------------------------------------------------------------------------------------

    def latent(self, x: Tensor | Samples, quality: float | None = None) -> Tensor:
        """Integers of one picture (3, H, W): (L, h, w) int16. The trunk runs tile by tile, what follows on the whole,
        and on large pictures in bands."""
        return torch.cat([band for _, band in self.latent_bands(x, quality)], 1)

    def latent_bands(self, x: Tensor | Samples, quality: float | None = None) -> Iterator[tuple[int, Tensor]]:
        q = self.check_quality(quality)
        if math.prod(self.latent_size((x.shape[-2], x.shape[-1]))) > LARGE:
            yield from in_bands(self, x, q)
        else:
            with torch.inference_mode():
                whole = self.quantise(self.real_latent(x, q)[None], q)[0].cpu()
            yield 0, whole

    def real_latent(self, x: Tensor | Samples, quality: int) -> Tensor:
        """What the analysis says of one picture (3, H, W), before means and rounding: (M, h, w) float."""
        y = torch.empty(self.config.latent, *self.latent_size((x.shape[-2], x.shape[-1])), device=self.device)
        with self.arithmetic():
            self.by_tiles(x, lambda part: self.transform(part, quality), y)
        return y

    @torch.inference_mode()
    def analysis(self, x: Tensor, quality: float | None = None) -> Tensor:
        q = self.check_quality(quality)
        return self.quantise(self.transform(x, q), q)

    def transform(self, x: Tensor, quality: int) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> real latent (B, M, h, w)."""
        pad = [-n % (self.stride * self.latent_multiple) for n in x.shape[-2:]]
        x = F.pad(x - 0.5, (0, pad[1], 0, pad[0]), mode="replicate")
        return self.analysis_transform(x, self._quality(x, quality), self.std)

    def quantise(self, y: Tensor, quality: int) -> Tensor:
        """Real latent (B, M, h, w) -> integers (B, L, h, w) int16."""
        q = self._quality(y, quality)
        z = self.round_hyper(y, q)
        coded = torch.empty_like(y, dtype=torch.bool)
        for t in self.chunk_grid(y.shape[2], y.shape[3], self.chunk):
            block = z[..., t.y0 // 4 : t.y1 // 4, t.x0 // 4 : t.x1 // 4]
            coded[..., t.y0 : t.y1, t.x0 : t.x1] = self.scale_index(block, quality) > self.config.skip
        return torch.cat((F.pixel_shuffle(z, 4), self.symbols(y, z, coded, q)), 1).to(torch.int16)

    def symbols(self, y: Tensor, z: Tensor, coded: Tensor, quality: Tensor) -> Tensor:
        """Real latent (B, M, h, w) and its hyper-latent -> rounded differences from the means, 0 unless ``coded``."""
        gain = self.gain(quality)
        symbols = torch.zeros_like(y)

        def fix(mean: Tensor, mask: Tensor) -> Tensor:
            s = (y - mean).mul_(gain).round_().clamp_(-self.latent_limit, self.latent_limit).mul_(coded)
            symbols.addcmul_(mask, s)
            return mean + s.div_(gain)

        self.refine(z, quality, fix)
        return symbols

    def round_hyper(self, y: Tensor, quality: Tensor) -> Tensor:
        """Real latent (B, M, h, w) -> hyper-latent (B, N, h/4, w/4), integers as floats."""
        return self.hyper_analysis(standardise(y, self.std), quality).round().clamp(-HYPER_LIMIT, HYPER_LIMIT)

    def hyper_latent(self, x: Tensor, quality: int) -> Tensor:
        """Integers (B, N, H/64, W/64) of pictures (B, 3, H, W), as float: what the tables are fitted to."""
        return self.round_hyper(self.transform(x, quality), self._quality(x, quality))

    def scale_index(self, z: Tensor, quality: int) -> Tensor:
        """Scale numbers (B, M, h, w) int32 in 0..63 of one chunk's hyper-latent (B, N, h/4, w/4): exact integers."""
        return to_number(self.scale_code(z, quality))

    def scale_code(self, z: Tensor, quality: int, relaxed: bool = False) -> Tensor:
        """Scale numbers in eighths, before clamping: exact integers, or ``relaxed`` ones with gradients."""
        if self.gain_offsets is None:
            raise InputError(f"{self.name} has no entropy model yet: export it with scripts/train.py")
        given = self._given(z, quality)
        code = exact.relaxed(self.scale_net, given) if relaxed else self.scale_net(given)
        return code + _gain_offset(self.gain_offsets[quality - 1].tobytes(), z.device)

    def scale_slope(self, z: Tensor, quality: int) -> Tensor:
        """1 everywhere, (B, M, h, w), with the gradient of the logarithm of the deviations by a chunk's hyper-latent
        (B, N, h/4, w/4), which need not be rounded."""
        code = self.scale_code(z, quality, relaxed=True).clamp(0, TOP)
        return torch.exp(LOG_STEP / EIGHTHS * (code - code.detach()))

    @staticmethod
    def _given(z: Tensor, quality: int) -> Tensor:
        """What the exact networks see: the hyper-latent, and the quality in 1/127 in integer arithmetic."""
        return torch.cat((z, torch.full_like(z[:, :1], (127 * quality + 50) // 100)), 1)

    def hyper_costs(self, quality: int) -> Tensor:
        """(N, 2 * 127 + 1) bits of each value -127..127 of the hyper-latent's channels."""
        if self.hyper_bank is None:
            raise InputError(f"{self.name} has no entropy model yet: export it with scripts/train.py")
        tables = hyper_group(quality) * self.config.hyper + np.arange(self.config.hyper)
        costs = self.hyper_bank.costs(np.arange(-HYPER_LIMIT, HYPER_LIMIT + 1), tables[:, None])
        return torch.from_numpy(costs.astype(np.float32)).to(self.device)

    def mixture_numbers(self, z: Tensor, quality: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of one chunk's hyper-latent: scale numbers (1, M, h, w); weights that are not normalised, means in
        deviations and scale numbers of the components, each (1, M, h, w, K)."""
        code = self.scale_code(z, quality)
        assert self.mixture_net is not None
        weights, means, spread = self._mixture_parts(self.mixture_net(self._given(z, quality)))
        spread = to_number(code[..., None] + spread)
        return to_number(code), (weights + _MIXTURE_ONE).float(), means / _MIXTURE_FRACTION, spread

    def search_field(self, x: Tensor, quality: int) -> HyperpriorField:
        return HyperpriorField(self, x, quality)

    def coding_steps(self, z: Tensor, quality: int) -> Generator[CodingStep, Tensor, None]:
        """The calls in which the symbols of a chunk's hyper-latent (B, N, h/4, w/4) are coded, in integer arithmetic.

        Is sent the symbols of each step, int32, anything where nothing is coded.
        """
        code, skip = self.scale_code(z, quality), self.config.skip
        if self.scale_context is None:
            number = to_number(code)
            yield CodingStep(number, number > skip)
            return
        code = code.clamp(0, TOP)
        given = self.scale_context.given(code, quality)
        known = self.scale_context.known(given)
        for i, phases in enumerate(Means.ORDER):
            elements = Elements(phases)
            here = elements.take(code)
            number = refined = to_number(here)
            coded = number > skip
            if i:
                here = here + elements.take(self.scale_context.correction(i, given))
                refined = to_number(here).clamp_(min=skip + 1)
            symbols = yield CodingStep(refined, coded, elements)
            if i < 3:
                elements.put(known, self.scale_context.score(number, symbols) * coded)

    def mixture_model(self, z: Tensor, quality: int) -> tuple[np.ndarray, Model]:
        """What a chunk's hyper-latent (1, N, h/4, w/4) says of its latent: which elements are coded, (M, h, w) bool,
        and under which mixtures, as one flat list. Integer arithmetic throughout."""
        assert self.mixture_net is not None
        code = self.scale_code(z, quality)
        index = to_number(code)[0].cpu().numpy()
        coded = index > self.config.skip
        parts = self._mixture_parts(self.mixture_net(self._given(z, quality)))
        at = torch.from_numpy(coded)
        weights, means, spread = (part[0].cpu()[at].numpy() for part in parts)
        weights = weights + _MIXTURE_ONE
        weights = 256 * weights // weights.sum(1, keepdims=True)
        weights[:, 0] += 256 - weights.sum(1)
        sixteenths = np.rint(16 * scales()).astype(np.int32)[index[coded]][:, None]
        means = (means * sixteenths + _MIXTURE_FRACTION // 2) // _MIXTURE_FRACTION
        spread = to_number(code[0].cpu()[at][:, None] + torch.from_numpy(spread)).numpy()
        return coded, Mixture(weights, means, spread)

    @torch.inference_mode()
    def program(self, coder: Any, latent: np.ndarray | None, shape: Shape, quality: float | None = None) -> np.ndarray:
        q = self.check_quality(quality)
        if self.hyper_bank is None:
            raise InputError(f"{self.name} has no entropy model yet: export it with scripts/train.py")
        n, (_, h, w) = self.config.hyper // 16, shape
        z = None
        if latent is not None:
            z = F.pixel_unshuffle(torch.from_numpy(latent[:n]).float(), 4).to(torch.int32).numpy()
        group = hyper_group(q)
        model = Factorized(self.hyper_bank, (self.config.hyper, h // 4, w // 4), first=group * self.config.hyper)
        z = torch.from_numpy(np.ascontiguousarray(coder.code(z, model))).float()
        out = np.zeros((self.latent_channels, h, w), np.int32)
        out[:n] = F.pixel_shuffle(z, 4).to(torch.int32).numpy()
        z = z[None].to(self.device)
        if self.mixture_net is not None:
            coded, model = self.mixture_model(z, q)
            out[n:][coded] = coder.code(None if latent is None else latent[n:][coded], model)
            return out
        symbols, found = None if latent is None else torch.from_numpy(latent[None, n:]), torch.from_numpy(out[None, n:])
        steps, part = self.coding_steps(z, q), None
        with suppress(StopIteration):
            while True:
                step = steps.send(part)
                coded, index = step.coded[0].cpu().numpy(), step.number[0].cpu().numpy()
                given = None if symbols is None else step.elements.take(symbols)[0].numpy()[coded]
                values = np.zeros(coded.shape, np.int32)
                values[coded] = coder.code(given, Gaussian(index[coded].astype(np.uint8)))
                part = torch.from_numpy(values)[None]
                step.elements.put(found, part)
                part = part.to(self.device)
        return out

    def dequantize(self, latent: Tensor, quality: float | None = None) -> Tensor:
        raise InputError(
            f"latents of {self.name} are differences from means that a network predicts: "
            "codec.values(latent, quality) gives the real-valued latent"
        )

    @torch.inference_mode()
    def values(self, latent: Tensor, quality: float | None = None) -> Tensor:
        """Integers (B, L, h, w) -> the decoded latent (B, M, h, w) float32, what the synthesis transform takes."""
        q = self._quality(latent, self.check_quality(quality))
        n = self.config.hyper // 16
        latent = latent.to(self.device).float()
        gain = self.gain(q)
        return self.refine(F.pixel_unshuffle(latent[:, :n], 4), q, lambda mean, mask: mean + latent[:, n:] / gain)

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, size: tuple[int, int], quality: float | None = None) -> Tensor:
        q = self._quality(latent, self.check_quality(quality))
        y = self.values(latent, quality)
        if y.device.type == "cpu" and y.shape[2] * y.shape[3] > LARGE // 4:
            give_back()  # what the means left, before features take as much
        x = self.synthesis_transform(y, q, self.std).add_(0.5)
        return x[..., : size[0], : size[1]]

    def _quality(self, like: Tensor, quality: int) -> Tensor:
        return torch.full((1,), float(quality), device=like.device)

    def coding_arrays(self) -> dict[str, np.ndarray]:
        if self.hyper_bank is None or self.gain_offsets is None:
            return {}
        arrays = {f"hyper.{key}": array for key, array in self.hyper_bank.to_arrays().items()}
        return arrays | {"gain_offsets": self.gain_offsets, "skip": np.array(self.config.skip)}

    @property
    def decodes_batches(self) -> bool:
        return self._batch() is not None

    def encode(self, x: Tensor, quality: float | None = None) -> list[bytes]:
        """As in the base; a batch on a GPU is coded there as a whole (`batch`)."""
        batch = self._batch()
        return super().encode(x, quality) if batch is None else batch.encode(x, quality)

    def decode(self, streams: Sequence[bytes], to: Literal["signal", "latent"] = "signal") -> list[Tensor]:
        """As in the base; a batch on a GPU is decoded there as a whole."""
        batch = self._batch() if to == "signal" else None
        return super().decode(streams, to) if batch is None else batch.decode(streams)

    def _batch(self) -> HyperpriorBatch | None:
        """What codes batches on this codec's GPU; None where there is none, or no coder for it."""
        if self.device.type != "cuda" or self.mixture_net is not None or not cuda.HAS_TRITON:
            return None
        from .batch import HyperpriorBatch

        if self._gpu is None or self._gpu.device != self.device:
            self._gpu = HyperpriorBatch(self)
        return self._gpu

    # --- release -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def to_exact(self) -> None:
        """Turn the networks that choose tables into integers."""
        self.scale_net = exact.export(self.scale_net)
        if self.mixture_net is not None:
            self.mixture_net = exact.export(self.mixture_net)
        if self.scale_context is not None:
            self.scale_context.to_exact()

    def freeze(self, bank: TableBank) -> None:
        """Turn a trained codec into one that codes: exact scale network, integer gains, tables of the hyper-latent.

        Args:
            bank: ``ANCHORS * N`` tables, for each group of qualities (`hyper_group`) one a channel.
        """
        self.to_exact()
        qualities = torch.arange(1.0, 101.0)
        gains = self.log_gain(qualities)[:, :, 0, 0]
        self.gain_offsets = torch.round(EIGHTHS * (gains - gains[-1:]) / LOG_STEP).to(torch.int16).cpu().numpy()
        self.hyper_bank = bank


@lru_cache(maxsize=256)
def _gain_offset(row: bytes, device: torch.device) -> Tensor:
    """A row of int16 gains on a device, (M, 1, 1) int32; kept, since a CUDA graph cannot copy from the host."""
    with torch.inference_mode(False):
        return torch.tensor(np.frombuffer(row, np.int16).astype(np.int32), device=device)[:, None, None]


def _to_unit(positions: float) -> int:
    return 4 * math.ceil(positions / 4) + 4  # and one position of the hyper-latent, which is shared by all of a unit


# --- storage -----------------------------------------------------------------------------------------------------


def round_weights(codec: HyperpriorCodec) -> None:
    """Set the weights to what storage will keep of them, so that what is measured is what ships."""
    storage.round_state(codec, kept_as_bytes, torch.float16)


def to_tensors(codec: HyperpriorCodec) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. `round_weights` and `HyperpriorCodec.freeze` come first."""
    if codec.hyper_bank is None:
        raise InputError(f"{codec.name} has no entropy model to store")
    return storage.to_tensors(codec, kept_as_bytes, torch.float16), storage.metadata(codec, asdict(codec.config))


def from_bytes(data: bytes) -> HyperpriorCodec:
    """Read what `to_tensors` describes.

    Raises:
        FormatError: not a hyperprior weights file of format 1.
    """
    weights = storage.read(data)
    config = HyperpriorConfig(**storage.checked("hyperprior", _BOUNDS, weights.config))
    try:
        hyper = {key[6:]: array for key, array in weights.coding.items() if key.startswith("hyper.")}
        bank = TableBank.from_arrays(hyper)
        if bank.num_tables != ANCHORS * config.hyper:
            raise FormatError(f"a hyperprior weights file with {bank.num_tables} tables, not {ANCHORS * config.hyper}")

        def make() -> HyperpriorCodec:
            codec = HyperpriorCodec(config, weights.name)
            codec.to_exact()
            return codec

        codec = storage.build(make, weights.state, "a hyperprior codec")
        codec.hyper_bank = bank
        codec.gain_offsets = storage.coding_array(weights, "gain_offsets", np.int16, (100, config.latent))
        exact.check_export(codec)
    except InputError as error:
        raise FormatError(f"not a hyperprior weights file: {error}") from error
    return codec.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def load_bundled(entry: Entry) -> HyperpriorCodec:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
