"""`audio`: one transform codec for music and speech at any sampling rate, quality 1 to 100.

An MDCT with blocks of five sizes that the encoder chooses, stereo bands turned to their principal direction, levels of
bands as side information, steps that follow the levels, and symbols coded under frozen tables that their neighbours in
time, frequency and the other channel choose (`entropy.rows`). What was quantised to zero is filled with noise at the
power that the levels say is missing. Tables, centroids and noise are fitted to recordings. From release 4 on decoded
speech of low quality passes a small network (`postfilter`); symbols know of none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...entropy import schema
from ...entropy.errors import FormatError, InputError
from ...kernels.compiled import wanted
from ...kernels.mdct import unlapped
from .. import storage
from ..audio_base import AudioCodec, Setting
from . import coding
from .analysis import HALO, analyse, turn
from .layout import KINDS, SHORTEST_MS, TREES, Layout, Rows, division, frame_size, layout
from .options import OPTIONS
from .postfilter import REACH_S, PostFilter

if TYPE_CHECKING:
    from ...pretrained import Entry

_LOWEST_RATE, _HIGHEST_RATE = 8000, 192_000
_BOUNDS = {
    "shape": schema.integer(0, 16),
    "curve": schema.array(schema.integer(-64, 64), len(coding.CURVE_HERTZ)),
    "fills": schema.integer(1, 101),
    "kinds": schema.integer(1, KINDS),
    "filter": schema.integer(0, 64),
}
_FILTERED = (40, 56)  # qualities up to which speech is filtered in full, and from which on it is not
_SIZES = 3  # magnitudes whose centroids are told apart: 1, 2 and more


@dataclass(frozen=True)
class AudioConfig:
    """Hyper-parameters, stored beside the tables.

    Attributes:
        shape, curve: see `coding.Rule`.
        fills: at how many qualities, evenly spaced from 0 to 100, `Audio.fill` is given; linear in between.
        kinds: 2 where speech has tables and a fill of its own.
        filter: channels of the network that decoded speech passes, see `PostFilter`; 0 for none.
    """

    shape: int = 7
    curve: tuple[int, ...] = ()
    fills: int = 1
    kinds: int = 1
    filter: int = 0

    @property
    def rule(self) -> coding.Rule:
        """How steps follow from levels."""
        return coding.Rule(self.shape, self.curve)


class Audio(AudioCodec):
    """See the module's text.

    Attributes:
        tables: the integers that symbols are coded with.
        centroid: (CLASSES, 3) how far below its magnitude a symbol of 1, 2 and more is restored, in steps.
        noise: (CLASSES,) the most that is filled in for a zero of a band that is not all zero, in steps.
        fill: (fills,) the part of the missing amplitude that is filled in, by quality; where it is one number, the part
            of `noise`, too. With two kinds of sound (KINDS, fills, points of `coding.FILL_HERTZ`).
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
        shape = (KINDS, config.fills, len(coding.FILL_HERTZ)) if config.kinds > 1 else (config.fills,)
        self.register_buffer("fill", torch.full(shape, 0.85))
        self.centroid: Tensor
        self.noise: Tensor
        self.fill: Tensor
        if config.filter:
            self.filter = PostFilter(config.filter)
            self.synthesis_halo += math.ceil(REACH_S * 1000 / SHORTEST_MS)

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
        latents = [analyse(signal, lay, self._quality(setting), self.config.rule) for signal in x]
        return torch.stack([torch.from_numpy(latent.T) for latent in latents]).mT

    def settled(self, latent: np.ndarray, setting: Setting) -> np.ndarray:
        if self.tables is not None:
            latent[0] += len(TREES) * (coding.likeness(latent, self._layout(setting), self.tables) > 0)
        return latent

    def program(self, coder: Any, latent: np.ndarray | None, shape: tuple[int, int], setting: Setting) -> np.ndarray:
        if self.tables is None:
            raise InputError(f"{self.name} has no tables yet: fit them with scripts/train.py")
        return coding.program(coder, latent, shape[1], self._layout(setting), self.tables, self._quality(setting))

    @torch.inference_mode()
    def synthesis(self, latent: Tensor, setting: Setting, first: int = 0) -> Tensor:
        lay, parts = self._layout(setting), []
        for columns in latent:
            whole = columns.cpu().numpy().astype(np.int32)
            strength = self._strength(whole, self._quality(setting))
            if strength.any():
                x = self._filtered(whole, setting, strength, first)
            else:
                x = unlapped(*self.spectrum(whole, lay, self._quality(setting), first)).to(self.device)
            parts.append(x * setting.level)
        return torch.stack(parts)

    def _strength(self, latent: np.ndarray, quality: int) -> np.ndarray:
        """How far the filter changes each frame: speech up to some quality."""
        if not self.config.filter:
            return np.zeros(1)
        full, none = _FILTERED
        return division(latent[0])[0] * min(max((none - quality) / (none - full), 0.0), 1.0)

    def _filtered(self, latent: np.ndarray, setting: Setting, strength: np.ndarray, first: int) -> Tensor:
        """Samples (C, frames * frame size) behind the filter, at level 1."""
        coded, noise = self.signals(latent, setting, first)
        quality = torch.full((len(coded),), float(self._quality(setting)), device=self.device)
        with torch.autocast(self.device.type, enabled=False):
            return self.filter.filtered(
                coded.to(self.device), noise.to(self.device), setting.rate, quality,
                torch.from_numpy(strength), first * self.hop(setting.rate),
            )  # fmt: skip

    def signals(self, latent: np.ndarray, setting: Setting, first: int = 0) -> tuple[Tensor, Tensor]:
        """What was coded, and the noise beside it: samples (C, frames * frame size) each, at level 1."""
        lay = self._layout(setting)
        y, rows, columns = self._coefficients(latent, lay, self._quality(setting), first)
        symbols = columns[:, lay.first_symbol :].reshape(rows.frames, lay.channels, lay.frame)
        kept = symbols.transpose(1, 0, 2).reshape(y.shape) != 0
        parts = (np.where(kept, y, np.float32(0)), np.where(kept, np.float32(0), y))
        coded, noise = (unlapped(self._turned_back(part, rows, columns, lay), rows.sizes) for part in parts)
        return coded, noise

    def spectrum(self, latent: np.ndarray, lay: Layout, quality: int, first: int) -> tuple[Tensor, list[int]]:
        """Latent (rows, frames) from frame ``first`` on -> coefficients (C, frames * frame size), sizes of blocks."""
        y, rows, columns = self._coefficients(latent, lay, quality, first)
        return self._turned_back(y, rows, columns, lay), rows.sizes

    @staticmethod
    def _turned_back(y: np.ndarray, rows: Rows, columns: np.ndarray, lay: Layout) -> Tensor:
        if lay.angles:
            turn(y, columns[:, 1 : lay.first_level].astype(np.int64), rows, lay, back=True)
        return torch.from_numpy(y)

    def _coefficients(
        self, latent: np.ndarray, lay: Layout, quality: int, first: int
    ) -> tuple[np.ndarray, Rows, np.ndarray]:  # fmt: skip
        """Coefficients of the two directions of stereo bands, the rows that they lie in, columns of the latent."""
        columns = np.ascontiguousarray(latent.T, np.int32)
        kinds, trees = division(columns[:, 0])
        rows, rule = Rows(lay, trees), self.config.rule
        levels = rows.levels_of(columns)
        units = coding.step_units(levels, quality, rule, coding.row_offsets(lay, rows, rule))
        part = self._shares(quality, lay, rows, kinds)
        y = self._restore(columns, levels, units, rows, lay, part, first * lay.channels * lay.frame)
        return y, rows, columns

    def _shares(self, quality: int, lay: Layout, rows: Rows, kinds: np.ndarray) -> np.ndarray | float:
        """The part of the missing amplitude that is filled in, of all bands or of each one (levels,)."""
        fills = self.fill.cpu().numpy()
        if self.config.kinds == 1:
            return (
                float(np.interp(quality, np.linspace(0, 100, fills.size), fills)) if fills.size > 1 else float(fills[0])
            )
        place = quality / 100 * (fills.shape[1] - 1)
        low = min(int(place), max(fills.shape[1] - 2, 0))
        curves = fills[:, low] + (place - low) * (fills[:, min(low + 1, fills.shape[1] - 1)] - fills[:, low])
        used = [k for k in range(KINDS) if (kinds == k).any()]
        parts = [
            rows.by_depth(np.concatenate([np.interp(m, coding.FILL_HERTZ, curves[k]) for m in coding.middles(lay)]))
            for k in used
        ]
        if len(used) == 1:
            return parts[0]
        return np.where(np.repeat(kinds[rows.at[:, 0]], rows.level_rows[:, 1]) == used[0], *parts)

    def _restore(
        self, columns: np.ndarray, levels: np.ndarray, units: np.ndarray, rows: Rows, lay: Layout,
        part: np.ndarray | float, origin: int,
    ) -> np.ndarray:  # fmt: skip
        """Coefficients (C, frames * frame size) of symbols: centroids of their cells, and noise for zeros.

        Args:
            part: of the missing amplitude that is filled in. origin: place of the first coefficient.
        """
        step = coding.steps(units)
        known = np.minimum(coding.classes(levels, units), coding.CLASSES - 1)
        below = torch.nn.functional.pad(self.centroid, (1, 0)).cpu().numpy()
        power = np.exp2((levels - coding.FULL).astype(np.float64)) * (levels > 0)
        most = self.noise.cpu().numpy()[known] * step
        beside = part if self.fill.numel() == 1 else 1.0
        if wanted():
            from ...kernels import band_loops as body

            y = np.empty((lay.channels, rows.frames * lay.frame), np.float32)
            part = np.broadcast_to(np.float64(part), levels.shape)
            places = lay.frame, lay.first_symbol, rows.at, rows.level_rows, rows.count
            body.restore(columns, *places, known, step, below, power, most, float(beside), part, origin, y)
            return y
        symbols = rows.symbols_of(columns)
        size = np.abs(symbols)
        restored = (size - below[known[rows.level], np.minimum(size, _SIZES)]) * step[rows.level]
        there = np.add.reduceat(np.square(restored, dtype=np.float64), rows.first)
        zeros = np.add.reduceat((size == 0).astype(np.int64), rows.first)
        missing = np.sqrt(np.maximum(power * rows.count - there, 0) / np.maximum(zeros, 1))
        noise = np.where(zeros < rows.count, beside, part) * np.minimum(
            missing, np.where(zeros < rows.count, most, np.inf)
        )
        fill = np.where(signs(origin + rows.coefficient), 1, -1) * noise.astype(np.float32)[rows.level]
        flat = np.empty(symbols.size, np.float32)
        flat[rows.coefficient] = np.where(size == 0, fill, np.copysign(restored, symbols))
        y = flat.reshape(rows.frames, lay.channels, lay.frame).transpose(1, 0, 2)
        return np.ascontiguousarray(y.reshape(lay.channels, -1))

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
    checked = storage.checked("audio", _BOUNDS, weights.config)
    config = AudioConfig(
        checked.get("shape", 7), tuple(checked.get("curve", ())), checked.get("fills", 1), checked.get("kinds", 1),
        checked.get("filter", 0),
    )  # fmt: skip
    try:
        codec = storage.build(lambda: Audio(config, weights.name), weights.state, "the codec audio")
        codec.tables = coding.Tables.from_arrays(weights.coding)
    except InputError as error:
        raise FormatError(f"not a weights file of the codec audio: {error}") from error
    return codec.eval()


def load_bundled(entry: Entry) -> Audio:
    """Loader of the registry: weights of `latentzip.pretrained` -> codec."""
    return from_bytes(entry.read())
