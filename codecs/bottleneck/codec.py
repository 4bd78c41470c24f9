"""`EntropicBottleneck`: a module that stands in for the first layers of a network and sends what passes as bytes.

After the Entropic Student (Matsubara et al., "Supervised Compression for Resource-Constrained Edge Computing Systems",
WACV 2022; "SC2 Benchmark", TMLR 2023): a light encoder on the device, an entropy-coded latent, a decoder that gives the
features which the rest of a network, the tail, expects. Here one set of weights has qualities 1..100, streams have a
defined format, and what decides a symbol's interval is integers, so that every machine decodes the same symbols.

The encoder and the entropy model name the streams; the decoder does not take part in that. Several decoders, each tuned
with the tail of a task, read the same streams.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ...entropy import container, exact, opening, schema
from ...entropy.banks import NUM_SCALES, scales
from ...entropy.container import Header, Limits
from ...entropy.dense import tensor_of
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.models import Factorized, Gaussian, float_bits
from ...entropy.tables import TableBank
from ...kernels.parallel import parallel
from .. import outputs, storage
from ..base import BaseCodec, Shape
from ..contract import BATCH, Compressed
from ..hyperprior.codec import HYPER_LIMIT, LOG_STEP
from ..hyperprior.nets import scale_net
from ..hyperprior.priors import HyperPriors
from ..layers import ANCHORS, ByQuality, hyper_group
from ..surroundings import plainly
from ..tiling import Tile, tile_grid
from .nets import Decoder, Encoder, HyperEncoder, HyperMeans
from .options import OPTIONS

_VERSION = 1
_CHUNK_UNIT = 16
_EIGHTHS = 8  # the exact network answers in eighths of a scale number
_HYPER_STRIDE = 4
_FIRST_GAIN, _LAST_GAIN = -0.7, 1.6  # logarithms: where gains start at quality 1 and 100


@dataclass(frozen=True)
class BottleneckConfig:
    """Hyper-parameters, stored beside the weights.

    Attributes:
        inputs: channels of what comes in: 3 for pictures, more for features.
        outputs: channels of the features that come out.
        down: input positions that a latent position covers along an axis; a power of two.
        up: output positions that a latent position covers; a power of two, at most ``down``.
        latent: channels of the latent.
        prior: ``"factorized"``: a distribution a channel; ``"hyperprior"``: means and scales from a hyper-latent.
        hyper: channels of the hyper-latent; a multiple of 16.
        encoder_width, decoder_width: features of the two networks.
    """

    inputs: int = 3
    outputs: int = 64
    down: int = 8
    up: int = 2
    latent: int = 24
    prior: Literal["factorized", "hyperprior"] = "hyperprior"
    hyper: int = 16
    encoder_width: int = 64
    decoder_width: int = 64


_BOUNDS = {
    **dict.fromkeys(("inputs", "outputs", "latent", "hyper", "encoder_width", "decoder_width"), storage.CHANNELS),
    "down": schema.integer(1, 256), "up": schema.integer(1, 256), "prior": schema.one_of("factorized", "hyperprior"),
}  # fmt: skip


class EntropicBottleneck(BaseCodec):
    """See the module's text. `forward` is the training pass; `freeze` makes it code.

    Args:
        config: sizes.
        name: what streams call it, ASCII.
        encoder, decoder: modules of one's own in place of those that the config describes: (B, inputs, H, W) ->
            (B, latent, H/down, W/down) for sides that are multiples of ``down``, and (B, latent, h, w) ->
            (B, outputs, h * up, w * up).

    Raises:
        InputError: sizes that do not fit each other.

    Example:
        >>> import torch
        >>> bottleneck = EntropicBottleneck(BottleneckConfig(outputs=8, latent=4)).eval()
        >>> x = torch.rand(1, 3, 40, 64)
        >>> bottleneck(x)["features"].shape          # in place of the first layers; train on the task and on ["bits"]
        torch.Size([1, 8, 10, 16])
        >>> streams = bottleneck.freeze().encode(x, quality=30)
        >>> bottleneck.decode(streams)[0].shape
        torch.Size([8, 10, 16])
    """

    family = "bottleneck"
    declared = OPTIONS
    modality = "tensor"
    variable_rate = True
    default_quality = 50
    latent_limit = 8191
    chunk = 64  # side of what is coded on its own, in latent positions

    def __init__(
        self,
        config: BottleneckConfig | None = None,
        name: str = "bottleneck",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        c = self.config = config or BottleneckConfig()
        if any(n < 1 or n & (n - 1) for n in (c.down, c.up)) or c.up > c.down:
            raise InputError(f"down and up must be powers of two with up <= down, not {c.down} and {c.up}")
        if c.prior not in ("factorized", "hyperprior"):
            raise InputError(f"prior is {c.prior!r}; 'factorized' or 'hyperprior'")
        if c.hyper % 16 or min(c.inputs, c.outputs, c.latent, c.hyper) < 1:
            raise InputError(f"hyper must be a multiple of 16 and all channels at least 1: {c}")
        self.name = name
        self.encoder = encoder or Encoder(c.inputs, c.encoder_width, c.latent, c.down)
        self.decoder = decoder or Decoder(c.latent, c.decoder_width, c.outputs, c.up)
        self.log_gain = ByQuality(c.latent)
        with torch.no_grad():
            self.log_gain.values.copy_(torch.linspace(_FIRST_GAIN, _LAST_GAIN, ANCHORS)[:, None])
        self.hyper_encoder = self.means = self.scale_net = None
        self._hyper = 0
        if c.prior == "hyperprior":
            self._hyper = c.hyper // _HYPER_STRIDE**2
            self.hyper_encoder = HyperEncoder(c.latent, c.encoder_width, c.hyper)
            self.means = HyperMeans(c.latent, c.decoder_width, c.hyper)
            self.scale_net = scale_net(c.hyper, c.decoder_width, c.latent)
            # latents have a deviation near one at first; a number below zero would have no gradient
            first = (_LAST_GAIN - math.log(float(scales()[0]))) / LOG_STEP
            nn.init.constant_(cast(exact.QatConv2d, self.scale_net[2]).bias, first)
        self.latent_channels = self._hyper + c.latent
        self.priors: HyperPriors | None = HyperPriors(c.hyper if self._hyper else c.latent)
        self.bank: TableBank | None = None
        self.gain_offsets: np.ndarray | None = None

    def __repr__(self) -> str:
        state = self.fingerprint.hex() if self.frozen else "in training"
        return f"EntropicBottleneck({self.name}, {state}, {self.config})"

    @property
    def frozen(self) -> bool:
        """Whether it codes."""
        return self.bank is not None

    # --- training ------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, quality: Tensor | float | None = None, hard: bool = False) -> dict[str, Tensor]:
        """What the tail takes, and what sending it costs.

        Args:
            x: (B, inputs, H, W) float.
            quality: 1..100, one for all or (B,).
            hard: latents are rounded as in coding and pass no gradient: for tuning the decoder and the tail, and for
                validation. Always so once frozen.

        Returns:
            ``features`` (B, outputs, ceil(H * up / down), ceil(W * up / down)); ``bits`` (B,), an estimate while it
            trains (additive noise stands for rounding unless ``hard``), left out once frozen.
        """
        q = self._qualities(x, quality)
        if self.frozen or hard:
            with torch.no_grad():
                values, bits = self._pass(x, q, True)
        else:
            values, bits = self._pass(x, q, False)
        out = {"features": self._decoded(values, self.output_size(x.shape[-2:]))}
        return out if bits is None else out | {"bits": bits}

    def _pass(self, x: Tensor, quality: Tensor, hard: bool) -> tuple[Tensor, Tensor | None]:
        """Latent as the decoder gets it, and its bits (B,)."""
        y = self.encoder(self._padded(x)).float()
        gain = torch.exp(self.log_gain(quality))
        z, mean = None, torch.zeros((), device=y.device)
        if self.hyper_encoder is not None and self.means is not None:
            z = self.hyper_encoder(y, quality)
            z_hat = exact.straight_through(z.round().clamp(-HYPER_LIMIT, HYPER_LIMIT), z)
            mean = self.means(z_hat)
            z = z_hat if hard else z + torch.rand_like(z) - 0.5
        r = (y - mean) * gain
        rounded = exact.straight_through(r.round().clamp(-self.latent_limit, self.latent_limit), r)
        values = mean + rounded / gain
        if self.priors is None:
            return values, None
        coded = rounded if hard else r + torch.rand_like(r) - 0.5
        if z is None or self.scale_net is None:
            return values, self.priors.bits(coded, quality)
        plane = torch.round(quality * 1.27).view(-1, 1, 1, 1).expand(-1, 1, *z.shape[2:])
        z_coded = z.detach().round().clamp(-HYPER_LIMIT, HYPER_LIMIT) if hard else z_hat
        number = self.scale_net(torch.cat((z_coded, plane), 1))
        number = number + (self.log_gain(quality) - self.log_gain(torch.full_like(quality, 100.0))) / LOG_STEP
        bits = float_bits(coded, exact.scale_of(number)).sum((1, 2, 3))
        return values, bits + self.priors.bits(z, quality)

    def quantised(self, on: bool) -> None:
        """Whether the network that decides intervals trains on its integer grids: on for the last part of a run."""
        for layer in self.modules():
            if isinstance(layer, exact.QatConv2d):
                layer.quantised = on

    # --- shapes --------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> int:
        """Sides of a latent are multiples of this."""
        return _HYPER_STRIDE if self._hyper else 1

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the features of an input (H, W)."""
        c = self.config
        return -(-size[0] * c.up // c.down), -(-size[1] * c.up // c.down)

    def latent_size(self, output: Sequence[int]) -> tuple[int, int]:
        """Of features (h, w): rounding up in two steps is rounding up in one."""
        unit = self._unit * self.config.up
        return -(-output[0] // unit) * self._unit, -(-output[1] // unit) * self._unit

    def _padded(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.config.inputs or 0 in x.shape:
            raise InputError(f"{self.name} takes batches (B, {self.config.inputs}, H, W), not {tuple(x.shape)}")
        pad = [-n % (self.config.down * self._unit) for n in x.shape[-2:]]
        return F.pad(x, (0, pad[1], 0, pad[0]), mode="replicate") if any(pad) else x

    def _decoded(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return self.decoder(values)[..., : size[0], : size[1]]

    def _qualities(self, x: Tensor, quality: Tensor | float | None) -> Tensor:
        if isinstance(quality, Tensor):
            return quality.to(x.device, torch.float32).reshape(-1).expand(len(x))
        return torch.full((len(x),), float(self.check_quality(quality)), device=x.device)

    # --- coding --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def latent(self, x: Tensor, quality: float | None = None) -> Tensor:
        """Integers of inputs (B, inputs, H, W): (B, L, h, w) int16 on the CPU, the hyper-latent's channels first."""
        q = self._qualities(x, quality)
        y = self.encoder(self._padded(x.to(self.device))).float()
        gain = torch.exp(self.log_gain(q))
        if self.hyper_encoder is None or self.means is None:
            return (y * gain).round().clamp(-self.latent_limit, self.latent_limit).to(torch.int16).cpu()
        z = self.hyper_encoder(y, q).round().clamp(-HYPER_LIMIT, HYPER_LIMIT)
        s = ((y - self.means(z)) * gain).round().clamp(-self.latent_limit, self.latent_limit)
        return torch.cat((F.pixel_shuffle(z, _HYPER_STRIDE), s), 1).to(torch.int16).cpu()

    @torch.no_grad()
    def values(self, latent: Tensor, quality: float | None = None) -> Tensor:
        """Integers (B, L, h, w) -> the real-valued latent (B, latent, h, w) float32 that the decoder takes."""
        latent = latent.to(self.device).float()
        gain = torch.exp(self.log_gain(self._qualities(latent, quality)))
        if self.means is None:
            return latent / gain
        z = F.pixel_unshuffle(latent[:, : self._hyper], _HYPER_STRIDE)
        return self.means(z) + latent[:, self._hyper :] / gain

    @torch.no_grad()
    def program(self, coder: Any, latent: np.ndarray | None, shape: Shape, quality: float | None = None) -> np.ndarray:
        """Code one chunk's integers (L, h, w) with ``coder.code``; returns what was coded (what was read)."""
        q = self.check_quality(quality)
        if self.bank is None or self.gain_offsets is None:
            raise InputError(f"{self.name} is in training: freeze() makes it code")
        n, (_, h, w) = self._hyper, shape
        if self.scale_net is None:
            model = Factorized(self.bank, shape, first=hyper_group(q) * shape[0])
            return np.asarray(coder.code(latent, model))
        z = None
        if latent is not None:
            z = F.pixel_unshuffle(torch.from_numpy(latent[:n]), _HYPER_STRIDE).numpy()
        grid = (self.config.hyper, h // _HYPER_STRIDE, w // _HYPER_STRIDE)
        model = Factorized(self.bank, grid, first=hyper_group(q) * self.config.hyper)
        z = torch.from_numpy(np.ascontiguousarray(coder.code(z, model)))
        index = self._scale_index(z[None].to(self.device), q)[0].cpu().numpy()
        s = coder.code(None if latent is None else np.ascontiguousarray(latent[n:]), Gaussian(index.astype(np.uint8)))
        return np.concatenate((F.pixel_shuffle(z, _HYPER_STRIDE).numpy(), s)).astype(np.int32)

    def _scale_index(self, z: Tensor, quality: int) -> Tensor:
        """Scale numbers 0..63 of one chunk, (B, latent, h, w): integer arithmetic throughout."""
        assert self.scale_net is not None
        assert self.gain_offsets is not None
        plane = torch.full_like(z[:, :1], (127 * quality + 50) // 100)
        offset = torch.from_numpy(self.gain_offsets[quality - 1].astype(np.int32)).to(z.device)[:, None, None]
        code = self.scale_net(torch.cat((z, plane), 1)) + offset
        return ((code + _EIGHTHS // 2) >> 3).clamp(0, NUM_SCALES - 1)

    def _chunks(self, output: Sequence[int], side: int) -> list[Tile]:
        return tile_grid(*self.latent_size(output), side, multiple=self._unit)

    def _compress(self, latent: np.ndarray, output: tuple[int, int], quality: int) -> Compressed:
        from ...entropy.coder import Encoder as RangeEncoder

        def code(t: Tile) -> bytes:
            encoder = RangeEncoder()
            part = np.ascontiguousarray(latent[:, t.y0 : t.y1, t.x0 : t.x1])
            self.program(encoder, part, part.shape, quality)
            return encoder.finish()

        params = bytes([_VERSION, quality, self.chunk // _CHUNK_UNIT])
        chunks = list(parallel(code, self._chunks(output, self.chunk)))
        return Compressed(params, chunks, (self.config.outputs, *output), "float32")

    @plainly
    def compress_batch(self, x: Tensor, quality: float | None = None) -> list[Compressed]:
        """Code inputs (B, inputs, H, W) float, of any size, in one pass.

        Raises:
            InputError: another shape, NaN or infinite values, quality out of range, or still in training.
        """
        q = self.check_quality(quality)
        if not self.frozen:
            raise InputError(f"{self.name} is in training: freeze() makes it code")
        x = tensor_of(x, "f", "the input")
        if x.ndim != 4:
            raise InputError(f"{self.name} takes batches (B, {self.config.inputs}, H, W), not {tuple(x.shape)}")
        x = x.to(next(self.parameters()).dtype)
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"the input contains NaN or infinite values; {self.name} cannot code them")
        size = self.output_size(x.shape[-2:])
        return [self._compress(item, size, q) for item in self.latent(x, q).numpy().astype(np.int32)]

    def compress(self, x: Tensor, quality: float | None = None) -> Compressed:
        """Code one input (inputs, H, W); see `contract.AnyCodec`. Decoding gives features of another shape."""
        return self.compress_batch(tensor_of(x, "f", "the input")[None], quality)[0]

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Tensor:
        """`decompress`; there are no parts."""
        if part:
            raise InputError(f"{self.name} decodes whole features: leave {' and '.join(part)} out")
        return self.decompress(header, chunks, to=to)

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities | {BATCH}

    def encode(self, x: Tensor, quality: float | None = None) -> list[bytes]:
        """Inputs (B, inputs, H, W) float, of any size -> one `.ltz` stream each; errors as `compress_batch`."""
        streams = []
        for packed in self.compress_batch(x, quality):
            assert packed.shape is not None
            header = Header(self.name, self.fingerprint, self.modality, "tensor", packed.shape, "float32")
            streams.append(container.write(replace(header, params=packed.params), packed.chunks))
        return streams

    @plainly
    def decode(
        self,
        streams: Sequence[bytes],
        to: Literal["signal", "latent"] = "signal",
        *,
        limits: Limits = container.DEFAULT_LIMITS,
    ) -> list[Tensor]:
        """Features (outputs, h, w) float32 on the module's device, one a stream; or latents (L, h, w) int16.

        Raises:
            FormatError: not a stream of this codec, or damaged.
            UnsupportedError: the stream needs another bottleneck.
        """
        boxes = (container.read(stream, limits) for stream in streams)
        return [self.decompress(box.header, box.chunks, to=to) for box in boxes]

    @plainly
    def decompress(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal"
    ) -> Tensor:
        """One stream's header and payloads to what `decode` gives for it."""
        if (header.codec, header.fingerprint) != (self.name, self.fingerprint):
            raise UnsupportedError(
                f"the stream needs the bottleneck {header.codec} ({header.fingerprint.hex()}), not "
                f"{self.name} ({self.fingerprint.hex()}): pass codec=lz.load_codec(PATH) of its weights"
            )
        if len(header.shape) != 3 or header.shape[0] != self.config.outputs or 0 in header.shape:
            raise FormatError(f"{self.name}: features of shape {header.shape} in a stream of this codec; it is corrupt")
        params = header.params
        if len(params) != 3 or params[0] != _VERSION or not 1 <= params[1] <= 100 or not params[2]:
            raise FormatError(f"{self.name}: unknown codec parameters; the file may need a newer latentzip")
        output, quality = header.shape[1:], params[1]
        tiles = self._chunks(output, params[2] * _CHUNK_UNIT)
        if len(tiles) != len(chunks):
            raise FormatError(f"{self.name}: {len(chunks)} chunks where the shape asks for {len(tiles)}")
        latent = torch.empty(self.latent_channels, *self.latent_size(output), dtype=torch.int16)

        def read(item: tuple[Tile, bytes]) -> None:
            from ...entropy.coder import Decoder as RangeDecoder

            t, chunk = item
            decoder = RangeDecoder(chunk)
            part = self.program(decoder, None, (self.latent_channels, t.y1 - t.y0, t.x1 - t.x0), quality)
            decoder.finish()
            if np.abs(part).max(initial=0) > self.latent_limit:
                raise FormatError(f"{self.name}: a chunk holds latents beyond +-{self.latent_limit}")
            latent[:, t.y0 : t.y1, t.x0 : t.x1] = torch.from_numpy(part)

        for _ in parallel(read, [(t, chunks[i]) for i, t in enumerate(tiles)]):
            pass
        if to == "latent":
            return latent
        with torch.no_grad(), self.arithmetic():
            return self._decoded(self.values(latent[None], quality), (output[0], output[1]))[0].float()

    # --- release -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @plainly
    def freeze(self) -> EntropicBottleneck:
        """Turn a trained module into one that codes: tables, integer gains, exact scale network; returns itself.

        Encoder and entropy model are fixed from here on; the decoder may still be tuned.
        """
        if self.frozen:
            return self
        assert self.priors is not None
        histograms = [row for p in self.priors for row in torch.softmax(p.logits.double().cpu(), 1).numpy()]
        reach = self.priors.of_group(0).reach
        gains = self.log_gain(torch.arange(1.0, 101.0, device=self.device))[:, :, 0, 0]
        offsets = torch.round(_EIGHTHS * (gains - gains[-1:]) / LOG_STEP).to(torch.int16).cpu().numpy()
        if self.scale_net is not None:
            self.scale_net = exact.export(self.scale_net)
        self._freeze(TableBank.from_histograms(histograms, lo=-reach, precision=12), offsets)
        return self

    def _freeze(self, bank: TableBank, offsets: np.ndarray) -> None:
        self.bank, self.gain_offsets, self.priors = bank, offsets, None
        for name, parameter in self.named_parameters():
            if not name.startswith("decoder."):
                parameter.requires_grad_(False)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for key, array in self.coding_arrays().items():  # without its tables a state would be of another codec
            destination[f"{prefix}{storage.CODING}{key}"] = torch.from_numpy(np.array(array))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        start = f"{prefix}{storage.CODING}"
        if self.frozen:
            found = {k: state_dict.pop(k) for k in [k for k in state_dict if k.startswith(start)]}
            arrays = {key.removeprefix(start): value.cpu().numpy() for key, value in found.items()}
            missing, errors = args[2], args[4]
            missing += [f"{start}{key}" for key in self.coding_arrays() if key not in arrays]
            if found and not missing:
                self._take_tables(arrays, errors)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _take_tables(self, arrays: dict[str, np.ndarray], errors: list[str]) -> None:
        try:
            bank = TableBank.from_arrays({k[6:]: v for k, v in arrays.items() if k.startswith("prior.")})
        except InputError as error:
            errors.append(f"the tables of the state are damaged: {error}")
            return
        own, offsets = self.bank, arrays["gain_offsets"]
        if own is None or bank.num_tables != own.num_tables or offsets.shape != (100, self.config.latent):
            errors.append("the tables of the state are those of another configuration")
            return
        self.bank, self.gain_offsets, self._fingerprint = bank, offsets.astype(np.int16), None

    def coding_arrays(self) -> dict[str, np.ndarray]:
        if self.bank is None or self.gain_offsets is None:
            return {}
        return {f"prior.{k}": v for k, v in self.bank.to_arrays().items()} | {"gain_offsets": self.gain_offsets}

    def _compute_fingerprint(self) -> bytes:
        """Of all but the decoder: streams stay valid when that is tuned."""
        h = hashlib.sha256(f"{self.name} {self.config.down} {self.config.up} {self.config.prior}".encode())
        apart = ("decoder.", storage.CODING)
        state = {k: v.detach().cpu().numpy() for k, v in self.state_dict().items() if not k.startswith(apart)}
        for key, array in sorted((state | self.coding_arrays()).items()):
            array = np.ascontiguousarray(array)
            h.update(f"{key}:{array.dtype.str}:{array.shape}".encode())
            h.update(array.tobytes())
        return h.digest()[:8]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata of a weights file.

        Raises:
            InputError: still in training.
        """
        if not self.frozen:
            raise InputError(f"{self.name} is in training: freeze() comes before saving")
        return storage.to_tensors(self, lambda *_: False), storage.metadata(self, asdict(self.config))

    def to_bytes(self) -> bytes:
        """The weights file: safetensors; errors as `to_tensors`."""
        return save_tensors(*self.to_tensors())

    def save(self, path: str | Path) -> None:
        """Write the weights file; it appears whole or not at all."""
        outputs.write_file(path, self.to_bytes())

    @classmethod
    def load(
        cls, path: str | Path, encoder: nn.Module | None = None, decoder: nn.Module | None = None
    ) -> EntropicBottleneck:
        """Read what `save` wrote; networks of one's own are handed in again, their weights come from the file.

        Raises:
            FormatError: not the weights of a bottleneck, or of one with other networks.
            OSError: the file cannot be read.
        """
        return from_bytes(opening.read_file(path, opening.MAX_WEIGHTS), encoder, decoder)


def from_bytes(data: bytes, encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> EntropicBottleneck:
    """Inverse of `EntropicBottleneck.to_bytes`; arguments and errors as `EntropicBottleneck.load`."""
    weights = storage.read(data)
    config = BottleneckConfig(**storage.checked("a bottleneck", _BOUNDS, weights.config))
    tables = {key[6:]: array for key, array in weights.coding.items() if key.startswith("prior.")}
    try:
        bank = TableBank.from_arrays(tables)
        coded = config.hyper if config.prior == "hyperprior" else config.latent
        if bank.num_tables != ANCHORS * coded:
            raise FormatError(f"{bank.num_tables} tables, not {ANCHORS * coded}")

        def make() -> EntropicBottleneck:
            codec = EntropicBottleneck(config, weights.name, encoder, decoder)
            codec.priors = None
            if codec.scale_net is not None:
                codec.scale_net = exact.export(codec.scale_net)
            return codec

        codec = storage.build(make, weights.state, "a bottleneck")
        codec._freeze(bank, storage.coding_array(weights, "gain_offsets", np.int16, (100, config.latent)))
        exact.check_export(codec)
    except (InputError, FormatError) as error:
        raise FormatError(
            f"not the weights of a bottleneck, or of one with networks of its own (hand them to load): {error}"
        ) from error
    return codec.eval()


def tail(model: nn.Module, replaced: Sequence[str]) -> nn.Module:
    """A copy of a network that takes features where it took its input: the named layers do nothing.

    Args:
        model: calls the named layers first, one after another.
        replaced: their names, as `named_modules` has them, e.g. ``["conv1", "bn1", "relu", "maxpool", "layer1"]``.

    Raises:
        InputError: no such layer.
    """
    out = copy.deepcopy(model)
    known = dict(out.named_modules())
    for name in replaced:
        if name not in known or not name:
            raise InputError(f"no layer {name!r}; the model has {', '.join(n for n, _ in out.named_children())}")
        parent, _, child = name.rpartition(".")
        setattr(out.get_submodule(parent), child, nn.Identity())
    return out
