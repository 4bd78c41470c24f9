"""`audio`: one transform codec for music and speech at any sampling rate, quality 1 to 100.

An MDCT with blocks of five sizes that the encoder chooses, stereo bands turned to their principal direction, levels of
bands as side information, steps that follow the levels, and symbols coded under frozen tables that their neighbours in
time, frequency and the other channel choose (`entropy.rows`). What was quantised to zero is filled with noise at the
power that the levels say is missing. Tables, centroids and noise are fitted to recordings; there is no network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...entropy import schema
from ...entropy.errors import FormatError, InputError
from ...kernels.mdct import unlapped
from .. import storage
from ..audio_base import AudioCodec, Setting
from . import coding
from .analysis import HALO, analyse, turn
from .layout import Layout, Rows, frame_size, layout
from .options import OPTIONS

if TYPE_CHECKING:
    from ...pretrained import Entry

_LOWEST_RATE, _HIGHEST_RATE = 8000, 192_000
_SIZES = 3  # magnitudes whose centroids are told apart: 1, 2 and more


@dataclass(frozen=True)
class AudioConfig:
    """Hyper-parameters, stored beside the tables.

    Attributes:
        shape: how much of a band's level its step follows, in sixteenths.
    """

    shape: int = 7


class Audio(AudioCodec):
    """See the module's text.

    Attributes:
        tables: the integers that symbols are coded with.
        centroid: (CLASSES, 3) how far below its magnitude a symbol of 1, 2 and more is restored, in steps.
        noise: (CLASSES,) the most that is filled in for a zero of a band that is not all zero, in steps.
        fill: (1,) the part of the missing amplitude that is filled in.
    """

    family = "audio"
    declared = OPTIONS
    variable_rate = True
    default_quality = 50
    latent_limit = 32767
    chunk = 64
    analysis_halo = HALO
    synthesis_halo = 1
    needs_level = True

    def __init__(self, config: AudioConfig, name: str = "audio") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.tables: coding.Tables | None = None
        self.register_buffer("centroid", torch.zeros(coding.CLASSES, _SIZES))
        self.register_buffer("noise", torch.full((coding.CLASSES,), 0.12))
        self.register_buffer("fill", torch.full((1,), 0.85))
        self.centroid: Tensor
        self.noise: Tensor
        self.fill: Tensor

    def hop(self, rate: int) -> int:
        return frame_size(rate)

    def rows(self, setting: Setting) -> int:
        return self._layout(setting).latent_channels

    def coding_rate(self, rate: int) -> int:
        return min(max(rate, _LOWEST_RATE), _HIGHEST_RATE)

    def _layout(self, setting: Setting) -> Layout:
        return layout(setting.rate, setting.channels)

    def _quality(self, setting: Setting) -> int:
        return setting.quality or self.default_quality

    # --- the three functions -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def analysis(self, x: Tensor, setting: Setting) -> Tensor:
        lay = self._layout(setting)
        x = torch.nn.functional.pad(x.float().cpu() / setting.level, (0, -x.shape[2] % lay.frame))
        latents = [analyse(signal, lay, self._quality(setting), self.config.shape) for signal in x]
        return torch.from_numpy(np.stack(latents))

    def program(self, coder: Any, latent: np.ndarray | None, shape: tuple[int, int], setting: Setting) -> np.ndarray:
        if self.tables is None:
            raise InputError(f"{self.name} has no tables yet: fit them with scripts/train.py")
        return coding.program(coder, latent, shape[1], self._layout(setting), self.tables, self._quality(setting))

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, setting: Setting, first: int = 0) -> Tensor:
        parts = [self._synthesise(column.cpu().numpy().astype(np.int32), setting, first) for column in latent]
        return torch.stack(parts).to(self.device)

    def _synthesise(self, latent: np.ndarray, setting: Setting, first: int) -> Tensor:
        lay = self._layout(setting)
        columns = np.ascontiguousarray(latent.T)
        a, b = 1 + lay.angles, 1 + lay.angles + lay.channels * lay.slots
        rows = Rows(lay, columns[:, 0].tolist())
        levels = columns[:, a:b].reshape(-1)[rows.slot]
        symbols = columns[:, b:].reshape(-1)[rows.coefficient]
        flat = self._restore(symbols, levels, rows, setting, first * lay.channels * lay.frame)
        y = np.empty_like(flat)
        y[rows.coefficient] = flat
        y = y.reshape(-1, lay.channels, lay.frame).transpose(1, 0, 2)
        if lay.angles:
            y = turn(y, columns[:, 1:a], rows.stereo, back=True)
        return unlapped(torch.from_numpy(np.ascontiguousarray(y.reshape(lay.channels, -1))), rows.sizes) * setting.level

    def _restore(
        self, symbols: np.ndarray, levels: np.ndarray, rows: Rows, setting: Setting, origin: int
    ) -> np.ndarray:
        """Coefficients of symbols: centroids of their cells, and noise for zeros."""
        units = coding.step_units(levels, self._quality(setting), self.config.shape)
        step, known = coding.steps(units), np.minimum(coding.classes(levels, units), coding.CLASSES - 1)
        size = np.abs(symbols)
        shift = torch.nn.functional.pad(self.centroid, (1, 0)).cpu().numpy()
        restored = size - shift[known[rows.level], np.minimum(size, _SIZES)]
        restored *= step[rows.level]
        there = np.add.reduceat(np.square(restored, dtype=np.float64), rows.first)
        zeros = np.add.reduceat((size == 0).astype(np.int64), rows.first)
        power = np.exp2((levels - coding.FULL).astype(np.float64)) * (levels > 0)
        missing = np.sqrt(np.maximum(power * rows.count - there, 0) / np.maximum(zeros, 1))
        most = np.where(zeros < rows.count, self.noise.cpu().numpy()[known] * step, np.inf)
        noise = self.fill.item() * np.minimum(missing, most)
        fill = (
            np.where(signs(origin + rows.coefficient), 1, -1).astype(np.float32) * noise.astype(np.float32)[rows.level]
        )
        return np.where(size == 0, fill, np.copysign(restored, symbols)).astype(np.float32)

    # --- identity ------------------------------------------------------------------------------------------------

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return self.tables.to_arrays() if self.tables else {}


def signs(place: np.ndarray) -> np.ndarray:
    """A pseudo-random bit for every place of a signal (a multiplicative hash)."""
    v = place.astype(np.uint64).astype(np.uint32)
    v = (v ^ (v >> np.uint32(16))) * np.uint32(0x45D9F3B)
    v = (v ^ (v >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return (v & np.uint32(0x10000)) > 0


# --- storage -----------------------------------------------------------------------------------------------------


def to_tensors(codec: Audio) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    if codec.tables is None:
        raise InputError(f"{codec.name} has no tables to store")
    return storage.to_tensors(codec, lambda *_: False), storage.metadata(codec, asdict(codec.config))


def from_bytes(data: bytes) -> Audio:
    """Read what `to_tensors` describes.

    Raises:
        FormatError: not a weights file of this codec.
    """
    weights = storage.read(data)
    config = AudioConfig(**storage.checked("audio", {"shape": schema.integer(0, 16)}, weights.config))
    try:
        codec = storage.build(lambda: Audio(config, weights.name), weights.state, "the codec audio")
        codec.tables = coding.Tables.from_arrays(weights.coding)
    except InputError as error:
        raise FormatError(f"not a weights file of the codec audio: {error}") from error
    return codec.eval()


def load_bundled(entry: Entry) -> Audio:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
