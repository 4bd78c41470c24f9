"""The codec contract for pictures: analysis, program, synthesis; batching, tiling and chunks are written once, here.

A codec maps a signal to integer latents (`analysis`), says how those integers are coded (`program`, the same lines
for encoder, decoder and rate meter), and maps latents back (`synthesis`). It never opens a file and never sees the
container: `compress` returns its parameters and chunks, `decompress` takes them back. `audio_base` holds the contract
for sound.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..entropy.blocks import decode as decode_blocks
from ..entropy.blocks import encode as encode_blocks
from ..entropy.container import Header
from ..entropy.dense import dense
from ..entropy.errors import FormatError, InputError
from ..kernels.parallel import parallel
from .contract import CHANNELS, CODING, FAST, INTEGERS, LATENT, PARTS, QUALITY, REGION, Compressed, Option
from .memory import give_back
from .precision import Precision
from .samples import Samples, canvas, header_dtype, stepped
from .search.levels import check_effort
from .search.measures import Function, Objective
from .search.piece import Field
from .search.retuning import retuned
from .search.run import Progress, frozen, search
from .surroundings import plainly
from .tiling import Tile, tile_grid

Shape = tuple[int, int, int]
Region = tuple[int, int, int, int]
PARAMS_VERSION = 1
_FASTPARAMS_VERSION = 2  # the same three bytes; chunks are coded by `entropy.blocks` instead of the codec's program
CODINGS = CODING.choices
_GROUP = 16  # chunks that are decoded together
CHUNK_UNIT = 16  # chunk sides are stored in this unit


def check_latent(latent: Tensor, limit: int) -> None:
    """Raises InputError for integers beyond +-limit; where they lie on a GPU nothing is waited for."""
    if latent.device.type != "cpu" or not latent.numel() or torch.compiler.is_compiling():
        return
    ordered = latent.dtype in (torch.int8, torch.int16, torch.int64)  # torch has no order of some others
    low, high = (int(v) for v in (latent if ordered else latent.long()).aminmax())
    if low < -limit or high > limit:
        raise InputError(f"the latent holds {low} to {high}; latents lie within +-{limit}")


class BaseCodec(nn.Module):
    """What codecs of pictures (`Codec`) and of sound (`audio_base.AudioCodec`) have in common.

    Attributes:
        modality: ``"image"``, ``"audio"`` or ``"tensor"``.
        latent_channels: channels of the latent.
        latent_limit: largest magnitude of a latent; at most 127 makes them int8.
        variable_rate: whether `quality` is understood.
        ordered_channels: whether the first channels of a latent can be decoded alone, and make sense alone.
        declared: every option of the family; `options` are those that apply to this codec.
        reasons: why one of the others does not, where there is more to say than that.
        fast_coding: whether `compress` takes ``coding="fast"``; the latent must be all that `synthesis` needs.
        precision: "bf16" lets the synthesis networks run in bfloat16: symbols are the same, pixels differ by rounding
            (1 of 255, rarely 2), and processors that multiply bfloat16 decode up to twice as fast.
    """

    modality: Literal["image", "audio", "tensor"] = "image"
    latent_channels: int = 0
    latent_limit: int = 127
    variable_rate: bool = False
    ordered_channels: bool = False
    fast_coding: bool = False
    default_quality: int | None = None
    precision: Precision = "fp32"

    declared: ClassVar[tuple[Option, ...]] = (QUALITY, CODING)
    reasons: Mapping[str, str] = {}
    name: str = ""
    family: ClassVar[str] = ""  # what weights files name it, see `registry.FAMILIES`
    _fingerprint: tuple[Any, bytes] | None = None  # of which state of the weights, and what it is

    @abstractmethod
    def coding_arrays(self) -> dict[str, np.ndarray]:
        """Every integer that decides a symbol's interval; part of the fingerprint."""

    # --- what the face asks (`contract`) -------------------------------------------------------------------------

    @property
    def options(self) -> tuple[Option, ...]:
        """What `compress` understands."""
        return tuple(o for o in self.declared if not o.needs or getattr(self, o.needs))

    @property
    def capabilities(self) -> frozenset[str]:
        """What this codec can do, in the words of `contract`."""
        extra = {CHANNELS: self.ordered_channels, FAST: self.fast_coding}
        return frozenset({LATENT, *(name for name, has in extra.items() if has)})

    @property
    def decodes_batches(self) -> bool:
        """Whether `decode` takes the streams of a batch to its device as they are, and codes and transforms there."""
        return False

    # --- identity ------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> bytes:
        """First 8 bytes of a SHA-256 over all weights and coding tables that decoding depends on.

        Computed anew when weights have changed: streams of a tuned codec do not claim to be of the stock one. Networks
        of pixels that were converted to 16 bits are no change: symbols stay what they are.
        """
        tensors = list(chain(self.parameters(), self.buffers()))
        if self._fingerprint is not None and any(t.dtype in (torch.bfloat16, torch.float16) for t in tensors):
            return self._fingerprint[1]
        state = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if self._fingerprint is None or self._fingerprint[0] != state:
            self._fingerprint = state, self._compute_fingerprint()
        return self._fingerprint[1]

    def _compute_fingerprint(self) -> bytes:
        h = hashlib.sha256(self.name.encode())
        weights = {key: value.detach().cpu().numpy() for key, value in self.state_dict().items()}
        for arrays in (weights, self.coding_arrays()):
            for key, array in sorted(arrays.items()):
                array = np.ascontiguousarray(array)  # a scalar counts as (1,): streams carry this hash
                h.update(f"{key}:{array.dtype.str}:{array.shape}".encode())
                h.update(array.tobytes())
        return h.digest()[:8]

    @property
    def latent_dtype(self) -> torch.dtype:
        return torch.int8 if self.latent_limit <= 127 else torch.int16

    @property
    def device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

    def arithmetic(self) -> AbstractContextManager[None]:
        """In which a codec's networks run; networks that decide intervals and transforms that must not lose digits
        leave it."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    # --- arguments -----------------------------------------------------------------------------------------------

    def check_quality(self, quality: float | None) -> int:
        """The stored quality, 0 for codecs of one fixed rate."""
        if not self.variable_rate:
            if quality is not None:
                raise InputError(f"{self.name} has one fixed rate: leave quality out, or choose a variable-rate codec")
            return 0
        value = self.default_quality if quality is None else quality
        if value is None or not 1 <= value <= 100 or value != int(value):
            raise InputError(f"quality is {value!r}; {self.name} takes an integer from 1 (smallest) to 100 (best)")
        return int(value)

    def _check_depth(self, channels: int | None) -> int:
        """How many channels of the latent to decode."""
        depth = self.latent_channels if channels is None else channels
        if not 1 <= depth <= self.latent_channels or (depth < self.latent_channels and not self.ordered_channels):
            raise InputError(
                f"channels is {channels}; {self.name} "
                + (f"has 1 to {self.latent_channels}" if self.ordered_channels else "decodes all of them or none")
            )
        return depth

    def check_coding(self, coding: str) -> bool:
        """Whether the fast coding is asked for.

        Raises:
            InputError: no such coding, or this codec does not have it.
        """
        if coding not in CODINGS:
            raise InputError(f"coding is {coding!r}; one of {', '.join(CODINGS)}")
        if coding == "fast" and not self.fast_coding:
            raise InputError(f"{self.name} has no fast coding; leave coding out")
        return coding == "fast"


class PictureCodec(BaseCodec):
    """Batches of pictures to streams and back, for all codecs of pictures.

    Attributes:
        signal_channels: channels of the signal that is coded (3 for RGB).
    """

    signal_channels: int = 3

    @abstractmethod
    def compress(self, x: Tensor, quality: float | None = None) -> Compressed:
        """Code one signal (C, H, W) float32 in [0, 1]; sub-classes have more options."""

    @abstractmethod
    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Tensor:
        """What `compress` was given, or its latent; see `contract.AnyCodec`."""

    @plainly
    def encode(self, x: Tensor, quality: float | None = None) -> list[bytes]:
        """Signals (B, C, H, W), floats in [0, 1], uint8 or uint16 -> one `.ltz` stream each.

        Raises:
            InputError: as `compress`.
        """
        x = dense(x, "the batch")
        if not isinstance(x, Tensor) or x.ndim != 4:
            what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"encode takes a batch (B, {self.signal_channels}, H, W), a tensor, not {what}")
        from ..entropy.container import Header, write

        streams = []
        for signal in x:
            c = self.compress(signal, quality)
            header = Header(
                codec=self.name, fingerprint=self.fingerprint, modality=self.modality, kind="tensor",
                shape=tuple(signal.shape), dtype=header_dtype(signal), params=c.params,
            )  # fmt: skip
            streams.append(write(header, c.chunks))
        return streams

    @plainly
    def decode(self, streams: Sequence[bytes], to: Literal["signal", "latent"] = "signal") -> list[Tensor]:
        """Inverse of `encode`: one (C, H, W) tensor (or latent (L, h, w)) a stream."""
        from ..entropy.container import read

        out = []
        for stream in streams:
            box = read(stream)
            if box.header.codec != self.name or box.header.fingerprint != self.fingerprint:
                raise FormatError(
                    f"the stream was made by {box.header.codec} ({box.header.fingerprint.hex()}), "
                    f"not by this {self.name} ({self.fingerprint.hex()}); use latentzip.decode, which picks the weights"
                )
            out.append(self.restore(box.header, box.chunks, to=to))
        return out


class Codec(PictureCodec):
    """Base of all codecs of pictures.

    Sub-classes set the class attributes and implement the three functions; `compress` and `decompress` follow.

    Attributes:
        stride: signal samples a latent position covers, along each spatial axis.
        latent_multiple: both sides of a latent are rounded up to a multiple of this; chunk, tile and halos are too.
        chunk: side of a chunk in latent positions (a multiple of 16); a chunk is coded on its own.
        tile: side of a tile of the transforms in latent positions; bounds memory.
        analysis_halo, synthesis_halo: latent positions around a tile that its result depends on.
        latent_transforms: what may be done to dequantised latents because it amounts to the same on the signal:
            ``"crop"`` (on the latent grid; a border as wide as `analysis_halo` remembers what lay outside) and
            ``"mixup"`` (the analysis is linear).
        reads_parts: whether `latent` takes `Samples`, of which only parts become floats at a time.
        searches: whether `search_field` presents a picture to a search, and so `compress` takes an effort.
    """

    stride: int = 8
    latent_multiple: int = 1
    chunk: int = 128
    tile: int = 192
    analysis_halo: int = 0
    synthesis_halo: int = 0
    latent_transforms: ClassVar[frozenset[str]] = frozenset()
    reads_parts: ClassVar[bool] = False
    searches: bool = False

    # --- the three functions -------------------------------------------------------------------------------------

    @abstractmethod
    def analysis(self, x: Tensor, quality: float | None = None) -> Tensor:
        """Signal (B, C, H, W) float32 in [0, 1] -> latent (B, L, ceil(H/stride), ceil(W/stride)) int16."""

    @abstractmethod
    def program(self, coder: Any, latent: np.ndarray | None, shape: Shape, quality: float | None = None) -> np.ndarray:
        """Code one chunk's latent (L, h, w) int32 with ``coder.code``; returns what was coded (what was read)."""

    @abstractmethod
    def synthesis(self, latent: Tensor, size: tuple[int, int], quality: float | None = None) -> Tensor:
        """Latent (B, L, h, w) int -> signal (B, C, H, W) float32, not clamped; ``size`` is (H, W)."""

    # --- latents as the input of other networks ------------------------------------------------------------------

    def dequantize(self, latent: Tensor, quality: float | None = None) -> Tensor:
        """Latent (B, L, h, w) of integers -> float32 in the units that `synthesis` works in, position by position."""
        return latent.float()

    def latent_deviation(self) -> Tensor:
        """(L, 1, 1) typical standard deviations of dequantised latents; ones where the codec does not know them."""
        return torch.ones(self.latent_channels, 1, 1)

    # --- signal <-> parameters and chunks ------------------------------------------------------------------------

    def _check_signal(self, x: Any) -> Samples:
        x = dense(x, "the signal")
        if not isinstance(x, (Tensor, np.ndarray, Samples)):
            raise InputError(
                f"{self.name} takes a tensor (C, H, W), not {type(x).__name__}; latentzip.encode takes files"
            )
        if x.ndim != 3 or x.shape[0] != self.signal_channels or 0 in x.shape:
            raise InputError(
                f"{self.name} takes signals of shape ({self.signal_channels}, H, W) with H, W >= 1, "
                f"not {tuple(x.shape)}"
            )
        return x if isinstance(x, Samples) else Samples.of(x)

    def _latent_region(self, region: Region, size: tuple[int, int]) -> Region:
        """Latent positions (top, left, bottom, right) that a region of the signal touches."""
        top, left, bottom, right = region
        if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
            raise InputError(f"region {region} does not lie inside the signal of {size[0]} x {size[1]} samples")
        unit = self.stride * self.latent_multiple
        return top // unit * self.latent_multiple, left // unit * self.latent_multiple, *self.latent_size(region[2:])

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the latent of a picture (H, W)."""
        unit = self.stride * self.latent_multiple
        return -(-size[0] // unit) * self.latent_multiple, -(-size[1] // unit) * self.latent_multiple

    def chunk_grid(self, h: int, w: int, side: int) -> list[Tile]:
        """The chunks of a latent, at most ``side`` positions a side."""
        return tile_grid(h, w, side, multiple=self.latent_multiple)

    @plainly
    def latent(self, x: Any, quality: float | None = None) -> Tensor:
        """Integer latent of one signal (C, H, W), tensor or `Samples`, tile by tile: (L, h, w) int16 on the CPU."""
        quality, x = self.check_quality(quality) or None, self._check_signal(x)
        out = torch.empty(self.latent_channels, *self.latent_size((x.shape[-2], x.shape[-1])), dtype=torch.int16)
        self.by_tiles(x, lambda part: self.analysis(part, quality), out)
        return out

    def latent_bands(self, x: Any, quality: float | None = None) -> Iterator[tuple[int, Tensor]]:
        """What `latent` gives, in bands of whole chunks: first row and (L, rows, w) of each; here all at once."""
        yield 0, self.latent(x, quality)

    def by_tiles(self, x: Tensor | Samples, function: Callable[[Tensor], Tensor], out: Tensor) -> None:
        """Fill ``out`` (K, h, w) with ``function`` of tiles (1, C, H, W) of a signal and the halo of the analysis."""
        for t, z in self.tiles_of(x, function, (out.shape[1], out.shape[2])):
            out[:, t.y0 : t.y1, t.x0 : t.x1] = z

    def tiles_of(
        self, x: Tensor | Samples, function: Callable[[Tensor], Tensor], size: tuple[int, int], tile: int | None = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        """The same, a tile after the other in rows: where it lies on a grid of ``size``, and what belongs there."""
        height, width = x.shape[-2:]
        s = self.stride
        for t in tile_grid(*size, tile or self.tile, self.analysis_halo, self.latent_multiple):
            part = x[:, t.hy0 * s : min(t.hy1 * s, height), t.hx0 * s : min(t.hx1 * s, width)]
            z = function(part[None].to(self.device))[0]
            yield t, z[:, t.y0 - t.hy0 : t.y1 - t.hy0, t.x0 - t.hx0 : t.x1 - t.hx0]

    def search_field(self, x: Tensor, quality: int) -> Field:
        """The picture (C, H, W) at a quality as a search sees it; for codecs with `searches`."""
        raise InputError(f"{self.name} has no effort: its encoder does not search")

    def searched(
        self,
        x: Tensor | Samples,
        quality: int,
        effort: int,
        objective: str | Function = "mse",
        weight: Any = None,
        thrift: float = 1.0,
        progress: Progress | None = None,
    ) -> Tensor:
        """Integer latent of one signal like `latent`, found by a search; arguments as in `compress`."""
        if self.searches:
            check_effort(effort, self.name)
        if not effort:
            if objective != "mse" or weight is not None:
                raise InputError("objective and weight are what a search works towards: give an effort from 1 to 9")
            return self.latent(x, quality or None)
        x = x.all() if isinstance(x, Samples) else x
        aim = Objective(x.to(self.device), objective, weight)
        with torch.no_grad(), frozen(self):
            thrift /= retuned(self.name, effort, quality)
            return search(self.search_field(x, quality), aim, effort, thrift, progress)

    @plainly
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
        """Code one signal.

        Args:
            x: (C, H, W), any size from 1 x 1: floats in [0, 1], uint8, uint16, or `Samples`.
            quality: 1..100 for codecs of variable rate.
            coding: "default" is the codec's own entropy model; "fast" codes the same latent with
                `entropy.blocks`: more bytes, decoded many times faster.
            effort: 0 is one pass, 1..9 search ever longer for integers that serve better, with the same decoder; for
                codecs with `searches`.
            objective, weight: what a search works towards, see `search.measures.Objective`.
            thrift: above 1 a search gives up quality for bytes, below 1 the other way round.
            progress: called with steps of the search done and steps in all.

        Raises:
            InputError: wrong number of channels or dtype, floats beyond [0, 1], NaN or Inf, quality refused; an effort
                that the codec does not have, an objective or map that does not serve.
        """
        samples = self._check_signal(x)
        x = samples if self.reads_parts else samples.all()
        q, fast = self.check_quality(quality), self.check_coding(coding)
        if effort or objective != "mse" or weight is not None:
            bands = iter([(0, self.searched(x, q, effort, objective, weight, thrift, progress))])
        else:
            bands = self.latent_bands(x, q or None)
        return self.packed(bands, (x.shape[-2], x.shape[-1]), q, fast)

    def packed(
        self, bands: Iterable[tuple[int, Tensor]], size: tuple[int, int], quality: int, fast: bool = False
    ) -> Compressed:
        """The parameters and chunks of a latent in bands, see `latent_bands`, of a picture (H, W)."""
        tiles = self.chunk_grid(*self.latent_size(size), self.chunk)
        chunks: list[bytes] = []
        for top, band in bands:
            latent = band.numpy()

            def encode(t: Tile, latent: np.ndarray = latent, top: int = top) -> bytes:
                block = latent[:, t.y0 - top : t.y1 - top, t.x0 : t.x1].astype(np.int32, order="C")
                return encode_blocks(block) if fast else self._encode_chunk(block, quality or None)

            chunks += parallel(encode, [t for t in tiles if top <= t.y0 < top + latent.shape[1]])
            if latent.shape[1] < tiles[-1].y1:
                give_back()
        version = _FASTPARAMS_VERSION if fast else PARAMS_VERSION
        return Compressed(bytes([version, quality, self.chunk // CHUNK_UNIT]), chunks)

    def _encode_chunk(self, block: np.ndarray, quality: float | None) -> bytes:
        from ..entropy.coder import Encoder

        encoder = Encoder()
        self.program(encoder, block, block.shape, quality)
        return encoder.finish()

    def _decode_chunk(self, data: bytes, shape: Shape, quality: float | None, fast: bool = False) -> np.ndarray:
        """A chunk's latent; with fewer than all channels in ``shape``, decoding stops after those."""
        if fast:
            out = np.empty(shape, np.int16)
            decode_blocks(data, out, self.latent_limit, shape[0] == self.latent_channels)
            return out
        from ..entropy.coder import Decoder

        decoder = Decoder(data)
        block = self.program(decoder, None, shape, quality)
        if shape[0] == self.latent_channels:
            decoder.finish()
        return block

    def _is_fast(self, params: bytes) -> bool:
        return self.fast_coding and params[:1] == bytes([_FASTPARAMS_VERSION])

    def single_chunk(self, params: bytes, count: int, size: tuple[int, int]) -> Shape | None:
        """Shape of the latent where a stream of ``count`` chunks is one that `decode_single` takes, as most records of
        a data set are; None where `decompress` has to look at it.

        Raises:
            FormatError: not parameters of this codec.
        """
        if not self.fast_coding or count != 1:
            return None
        self.read_params(params, count, size)
        return self.latent_channels, *self.latent_size(size)

    def decode_single(self, params: bytes, chunk: bytes, out: np.ndarray) -> None:
        """Decode the only chunk of a stream into ``out`` (L, h, w), of the shape that `single_chunk` says.

        Raises:
            FormatError: the chunk is corrupt.
        """
        if self._is_fast(params):
            decode_blocks(chunk, out, self.latent_limit)
            return
        c, h, w = out.shape
        block = self._decode_chunk(chunk, (c, h, w), params[1] or None)
        self._check_limit(block, 0)
        out[...] = block

    def decode_singles(self, params: bytes, chunks: Sequence[bytes], out: np.ndarray) -> None:
        """`decode_single` of several chunks of one shape: ``out`` is (n, L, h, w), in C order.

        Raises:
            FormatError: a chunk is corrupt.
        """
        done = np.zeros(len(chunks), np.bool_) if self._is_fast(params) else self._decode_alike(chunks, out)
        for i in np.flatnonzero(~done).tolist():
            self.decode_single(params, chunks[i], out[i])

    def _decode_alike(self, chunks: Sequence[bytes], out: np.ndarray) -> np.ndarray:
        """Decode what is quicker together of chunks of all channels and of one shape, into ``out`` (n, L, h, w) in C
        order; (n,) whether that was done."""
        return np.zeros(len(chunks), np.bool_)

    def _check_limit(self, block: np.ndarray, number: int) -> None:
        if max(int(block.max()), -int(block.min())) > self.latent_limit:
            raise FormatError(f"{self.name}: chunk {number} holds latents beyond +-{self.latent_limit}")

    def read_params(self, params: bytes, count: int, size: tuple[int, int]) -> tuple[float | None, list[Tile]]:
        """Quality and chunks that a stream's parameters say; FormatError where they cannot be."""
        if len(params) != 3 or not (params[0] == PARAMS_VERSION or self._is_fast(params)):
            raise FormatError(f"{self.name}: unknown codec parameters; the file may need a newer latentzip")
        quality, unit = params[1], params[2]
        if (quality > 0) != self.variable_rate or quality > 100 or unit == 0:
            raise FormatError(f"{self.name}: codec parameters out of range")
        tiles = self.chunk_grid(*self.latent_size(size), unit * CHUNK_UNIT)
        if len(tiles) != count:
            raise FormatError(f"{self.name}: {count} chunks where the size asks for {len(tiles)}")
        return quality or None, tiles

    @plainly
    def decompress(
        self,
        params: bytes,
        chunks: Sequence[bytes],
        size: tuple[int, int],
        *,
        to: Literal["signal", "latent"] = "signal",
        region: tuple[int, int, int, int] | None = None,
        channels: int | None = None,
        dtype: str | None = None,
    ) -> Tensor:
        """Inverse of `compress`.

        Args:
            params, chunks: as `compress` returned them. ``chunks`` may be lazy: only those needed are indexed.
            size: (H, W) of the signal.
            to: ``"latent"`` stops after entropy decoding.
            region: (top, left, bottom, right) in signal samples; only what it touches is decoded. The result equals
                the same part of the whole decode to the last bit.
            channels: decode only this many of the latent's channels, the most important ones; the rest counts as
                zero. For codecs with `ordered_channels`.
            dtype: "uint8" or "uint16" rounds a signal to these, a tile at a time: a quarter or half of the memory.

        Returns:
            Signal (C, H, W) float32, clamped to [0, 1], on the codec's device; or latent (L, h, w) int16 on the CPU
            (int8 where the codec's latents are bytes). With a region, the part of it; with ``channels``, a latent
            has only those.

        Raises:
            FormatError: the parameters or chunks are not what this codec writes.
            InputError: the region lies outside the signal, or the codec has no such prefix of channels.
        """
        depth = self._check_depth(channels)
        quality, chunk_tiles = self.read_params(params, len(chunks), size)
        region = (0, 0, *size) if region is None else region
        box = self._latent_region(region, size)
        tiles = self.tiles_under(box, size)
        if to == "signal":  # with what the tiles need around themselves
            box = (
                min(t.hy0 for t in tiles),
                min(t.hx0 for t in tiles),
                max(t.hy1 for t in tiles),
                max(t.hx1 for t in tiles),
            )
        latent = self._latent_of(chunks, chunk_tiles, box, depth, quality, self._is_fast(params))
        if to == "latent":
            return latent[:depth]
        s = self.stride

        def pixels(t: Tile) -> Tensor:
            part = latent[:, t.hy0 - box[0] : t.hy1 - box[0], t.hx0 - box[1] : t.hx1 - box[1]]
            inner = min(t.hy1 * s, size[0]) - t.hy0 * s, min(t.hx1 * s, size[1]) - t.hx0 * s
            with self.arithmetic():
                return self.synthesis(part[None].to(self.device), inner, quality)[0]

        return self.painted(tiles, region, pixels, dtype)

    def synthesis_grid(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of the synthesis, of a signal (H, W)."""
        return tile_grid(*self.latent_size(size), self.tile, self.synthesis_halo, self.latent_multiple)

    def tiles_under(self, box: Region, size: tuple[int, int]) -> list[Tile]:
        """Tiles of the synthesis that touch latent positions (top, left, bottom, right)."""
        top, left, bottom, right = box
        return [t for t in self.synthesis_grid(size) if t.y0 < bottom and t.y1 > top and t.x0 < right and t.x1 > left]

    def painted(
        self, tiles: Sequence[Tile], region: Region, pixels: Callable[[Tile], Tensor], dtype: str | None = None
    ) -> Tensor:
        """A region (top, left, bottom, right) of a signal, clamped, from the pixels of tiles with their halos; rounded
        to a dtype of integers where one is given."""
        top, left, bottom, right = region
        out = canvas((self.signal_channels, bottom - top, right - left), dtype, self.device)
        s = self.stride
        for t in tiles:
            y0, y1 = max(t.y0 * s, top), min(t.y1 * s, bottom)
            x0, x1 = max(t.x0 * s, left), min(t.x1 * s, right)
            if y0 < y1 and x0 < x1:
                oy, ox = t.hy0 * s, t.hx0 * s
                part = pixels(t)[:, y0 - oy : y1 - oy, x0 - ox : x1 - ox].clamp(0, 1)
                out[:, y0 - top : y1 - top, x0 - left : x1 - left] = part if dtype is None else stepped(part, dtype)
                del part
            if len(tiles) > 1:
                give_back()
        return out

    def _latent_of(
        self, chunks: Sequence[bytes], tiles: Sequence[Tile], box: Region, depth: int, quality: float | None, fast: bool
    ) -> Tensor:
        """Latent positions (top, left, bottom, right) of the chunks that hold them; channels beyond ``depth`` zero."""
        top, left, bottom, right = box
        latent = torch.zeros(self.latent_channels, bottom - top, right - left, dtype=self.latent_dtype)

        def keep(t: Tile, block: np.ndarray) -> None:
            y0, y1, x0, x1 = max(t.y0, top), min(t.y1, bottom), max(t.x0, left), min(t.x1, right)
            part = torch.from_numpy(block[:, y0 - t.y0 : y1 - t.y0, x0 - t.x0 : x1 - t.x0])
            latent[:depth, y0 - top : y1 - top, x0 - left : x1 - left] = part

        def decode(items: list[tuple[int, Tile]]) -> None:
            done = [False] * len(items)
            shape = depth, *_sides(items[0][1])
            if len(items) > 1 and depth == self.latent_channels and not fast:
                blocks = np.empty((len(items), *shape), latent.numpy().dtype)
                done = self._decode_alike([chunks[i] for i, _ in items], blocks).tolist()
                for (_, t), block, there in zip(items, blocks, done):
                    if there:
                        keep(t, block)
            for (i, t), there in zip(items, done):
                if not there:
                    block = self._decode_chunk(chunks[i], shape, quality, fast)
                    self._check_limit(block, i)
                    keep(t, block)

        touched = [(i, t) for i, t in enumerate(tiles) if t.y0 < bottom and t.y1 > top and t.x0 < right and t.x1 > left]
        for _ in parallel(decode, _together(touched)):
            pass
        return latent

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities | {REGION, INTEGERS} | ({PARTS} if self.reads_parts else set())

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent"] = "signal", **part: Any
    ) -> Tensor:
        """`decompress` of a stream's header and payloads; see `contract.AnyCodec`."""
        if header.shape[0] != self.signal_channels:
            raise FormatError(
                f"{header.shape[0]} channels in a stream of {self.name}, which codes {self.signal_channels}"
            )
        return self.decompress(header.params, chunks, (header.shape[-2], header.shape[-1]), to=to, **part)


def _sides(t: Tile) -> tuple[int, int]:
    return t.y1 - t.y0, t.x1 - t.x0


def _together(items: list[tuple[int, Tile]]) -> list[list[tuple[int, Tile]]]:
    """Chunks of one shape in groups that are decoded together, at least one a thread."""
    alike: dict[tuple[int, int], list[tuple[int, Tile]]] = {}
    for item in items:
        alike.setdefault(_sides(item[1]), []).append(item)
    groups = []
    for some in alike.values():
        size = min(_GROUP, -(-len(some) // torch.get_num_threads()))
        groups += [some[at : at + size] for at in range(0, len(some), size)]
    return groups
