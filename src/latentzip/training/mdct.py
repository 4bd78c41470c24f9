"""Fit the codec `audio`: tables, centroids and noise from recordings. Counting, no gradient descent on signals."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ..codecs.audio import codec as audio
from ..codecs.audio import coding as audio_coding
from ..codecs.audio.analysis import analyse
from ..codecs.audio.codec import Audio, AudioConfig
from ..codecs.audio.coding import CLASSES, NOT_CODED, Rule, Tables
from ..codecs.audio.layout import KINDS, TREES, Layout, Rows, layout
from ..codecs.audio_base import groups_of
from ..entropy.rows.fit import MagnitudeExample, ValueExample, fit_magnitudes, fit_values
from ..entropy.tables import TableBank
from . import export, trainer
from .audio_data import list_sounds
from .report import Log

# Measured on speech (PESQ, log-mel) and music (SNR, log-mel) that is not the tests'. High bands with coarser steps gain
# all four at equal rate. Less noise than is missing gains PESQ and loses log-mel distance, most at low rates.
_CURVE = (-17, -12, -8, -3, 0, 4, 10)
# Of speech PESQ suffers most from noise around 4 kHz, less from noise below 2 kHz, and does not hear any above 8 kHz.
_FILL = (
    ((0.85,) * 6,) * 9,
    (
        (0.60, 0.60, 0.60, 0.60, 0.60, 0.80),
        (0.63, 0.63, 0.63, 0.62, 0.62, 0.82),
        (0.66, 0.66, 0.66, 0.64, 0.64, 0.85),
        (0.74, 0.77, 0.81, 0.62, 0.68, 0.90),
        (0.80, 0.80, 0.86, 0.70, 0.75, 0.90),
        (0.84, 0.84, 0.88, 0.75, 0.78, 0.90),
        (0.88, 0.88, 0.90, 0.80, 0.82, 0.90),
        (0.89, 0.89, 0.90, 0.82, 0.84, 0.90),
        (0.90, 0.90, 0.90, 0.85, 0.85, 0.90),
    ),
)
_STEREO = 0.2  # of the recordings of one voice are placed in a room, for there are few others
_QUIET = 0.5  # less noise than was lost beside what was kept: measured on log-mel distance, SNR and PESQ


@dataclass(frozen=True)
class Recipe(trainer.Recipe):
    """How the tables are fitted.

    Attributes:
        steps: how many excerpts; crop: their length in frames.
        lowest, highest: qualities are drawn from this range, evenly but of speech.
    """

    by_clock: ClassVar[bool] = False

    name: str = "audio"
    summary: str = "music and speech at any sampling rate, quality 1..100: from 6 kb/s speech to transparent music"
    model: AudioConfig = field(default_factory=lambda: AudioConfig(7, _CURVE, len(_FILL[0]), KINDS))
    steps: int = 1200
    crop: int = 64
    lowest: int = 3
    highest: int = 90


RECIPES: dict[str, Recipe] = {"audio": Recipe()}


@dataclass
class _Excerpt:
    """What an excerpt is coded as."""

    lay: Layout
    quality: int
    latent: np.ndarray
    values: np.ndarray  # coefficients in the order of rows
    speech: bool


class Trainer:
    """Collects what an encoder makes of excerpts and fits a codec to it; takes what `trainer.Trainer` takes."""

    loader: ClassVar[str] = "latentzip.codecs.audio:load_bundled"
    from_bytes = staticmethod(audio.from_bytes)

    def __init__(self, recipe: Recipe, data: str, run: Path, **_: Any) -> None:
        self.recipe, self.data, self.run = recipe, data, run
        self.step, self.seconds, self.origin, self.device = 0, 0.0, "", torch.device("cpu")
        self.codec = Audio(recipe.model, recipe.name)

    def train(self, val: str | None = None, log: Log = print, until: float = float("inf")) -> None:
        """Fit everything; `val` is not used, and a time limit ends the collection early."""
        start = time.monotonic()
        excerpts = []
        for excerpt in self._excerpts():
            excerpts.append(excerpt)
            if time.monotonic() - start > until / 2:
                break
        log(f"{len(excerpts)} excerpts in {time.monotonic() - start:.0f} s")
        rule, speech = self.recipe.model.rule, [e for e in excerpts if e.speech]
        if not 0 < len(speech) < len(excerpts):
            log("one kind of sound only: folders called speech* hold speech, others anything else")
        tables, spoken = fit_tables(excerpts, rule), fit_tables(speech or excerpts, rule)
        self.codec.tables = replace(tables, speech=replace(spoken, angles=tables.angles))
        self.codec.centroid, deviation = cells(excerpts, self.recipe.model.rule)
        self.codec.noise, self.codec.fill = _QUIET * deviation, torch.tensor(_FILL)
        self.codec.eval()
        self.step, self.seconds = len(excerpts), time.monotonic() - start
        log(f"fitted in {self.seconds:.0f} s")

    def _excerpts(self) -> Iterator[_Excerpt]:
        rng = np.random.default_rng(self.recipe.seed)
        kinds: dict[Path, list[Path]] = {}
        for path in list_sounds(self.data):
            kinds.setdefault(path.parent, []).append(path)
        if not kinds:
            raise FileNotFoundError(f"no sound files in {self.data}")
        folders = list(kinds.values())
        for i in range(self.recipe.steps):
            files = folders[i % len(folders)]
            x, rate = _load(files[int(rng.integers(len(files)))])
            speech = files[0].parent.name.startswith("speech")
            if speech and len(x) == 1 and rng.random() < _STEREO:
                x = in_a_room(x[0], rate, rng)
            lay = layout(self.codec.coding_rate(rate), x.shape[0])
            need = self.recipe.crop * lay.frame
            at = int(rng.integers(max(1, x.shape[1] - need + 1)))
            x = np.pad(x[:, at : at + need], ((0, 0), (0, -x[:, at : at + need].shape[1] % lay.frame)))
            peak = float(np.abs(x).max())
            if peak == 0:
                continue
            # high qualities have most of the symbols, low ones are what speech is mostly coded at
            place = rng.random() ** (3 if speech else 1)
            quality = self.recipe.lowest + int(place * (self.recipe.highest + 1 - self.recipe.lowest))
            values: list[np.ndarray] = []
            latent = analyse(torch.from_numpy(x / np.float32(peak)), lay, quality, self.recipe.model.rule, values)
            yield _Excerpt(lay, quality, latent, values[0], speech)

    def save(self) -> None:
        """Nothing to keep: fitting takes minutes."""

    def describe(self, codec: Audio) -> str:
        return "MDCT with blocks of five sizes, stereo rotation, band levels, neighbour contexts; no network"

    def describe_loss(self) -> str:
        return "code length"

    def export(
        self, out: Path, *, data: str, val: str | None, test: str | None, version: str, about_data: str = "", **_: Any
    ) -> Path:
        """Write weights, card and index entry into ``out``; measured on the sounds of ``test``."""
        tensors, metadata = audio.to_tensors(self.codec)
        metadata |= {"trained_by": "scripts/train.py", "recipe": json.dumps(asdict(self.recipe))}
        blob = save(tensors, metadata)
        return export.write_files(
            out, version, blob, audio.from_bytes, self.loader, self.recipe.summary,
            lambda codec: measure(codec, test) if test else {},
            lambda codec, rows: self._card(codec, len(blob), rows, about_data),
        )  # fmt: skip

    def _card(self, codec: Audio, size: int, rows: str, data: str) -> str:
        return f"""# {codec.name}

| | |
|---|---|
| architecture | {self.describe(codec)} |
| size | {size / 1e6:.2f} MB of tables |
| fingerprint | `{codec.fingerprint.hex()}` |
| fitting | {self.step} excerpts of up to {self.recipe.crop} frames, qualities {self.recipe.lowest} to \
{self.recipe.highest}, {self.seconds:.0f} s on a CPU, seed {self.recipe.seed} |

## Measured on files (container included, means over files)

| | |
|---|---|
{rows}

## Data

{data}
"""


def _load(path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    x, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    return np.ascontiguousarray(x.T[: groups_of(x.shape[1])[0]]), rate


def in_a_room(x: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """One voice (T,) -> (2, T): nearer to one side, with a reflection of its own in each channel."""
    gains = rng.uniform(0.5, 1, 2)
    out = np.stack([g * x for g in gains])
    for channel in out:
        late = int(rng.integers(rate // 500, rate // 50))
        channel[late:] += rng.uniform(0.05, 0.3) * x[: x.size - late]
    return out.astype(np.float32)


def fit_tables(excerpts: list[_Excerpt], rule: Rule) -> Tables:
    """All tables from what encoders chose."""
    trees, angles, levels, coefficients = np.zeros(len(TREES)), [], [], []
    for e in excerpts:
        columns = np.ascontiguousarray(e.latent.T)
        trees += np.bincount(columns[:, 0], minlength=len(TREES))
        rows, known, units, values = _unpack(e, rule)
        if e.lay.angles:
            model = audio_coding.angle_rows(len(columns), e.lay.angles)
            angles.append(ValueExample(*model, np.ascontiguousarray(columns[:, 1 : e.lay.first_level]).reshape(-1)))
        levels.append(ValueExample(rows.level_rows, e.lay.places, values))
        symbols = rows.symbols_of(columns)
        step = units[rows.level].astype(np.int16)
        coefficients.append(MagnitudeExample(rows.coefficient_rows, step, known[rows.level], symbols))
    bank = TableBank.from_histograms([trees + 0.05], 0, 14, trim=False)
    return Tables(bank, fit_values(angles), fit_values(levels), fit_magnitudes(coefficients, CLASSES), rule)


def _unpack(e: _Excerpt, rule: Rule) -> tuple[Rows, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, classes, units of steps, levels."""
    rows = Rows(e.lay, e.latent[0])
    levels = rows.levels_of(np.ascontiguousarray(e.latent.T))
    units = audio_coding.step_units(levels, e.quality, rule, audio_coding.row_offsets(e.lay, rows, rule))
    return rows, audio_coding.classes(levels, units), units, levels


def cells(excerpts: list[_Excerpt], rule: Rule) -> tuple[Tensor, Tensor]:
    """Where values lie in their cells: (CLASSES, 3) how far below 1, 2 and more; (CLASSES,) deviation of zeros."""
    count, total = np.zeros((CLASSES, 4)), np.zeros((CLASSES, 4))
    for e in excerpts:
        rows, known, units, _ = _unpack(e, rule)
        size = np.abs(e.values) / audio_coding.steps(units)[rows.level]
        symbols = np.abs(rows.symbols_of(np.ascontiguousarray(e.latent.T)))
        at = known[rows.level]
        coded = (at != NOT_CODED) & (symbols < 100)
        at, size, symbols = at[coded].astype(np.int64), size[coded], symbols[coded]
        cell = at * 4 + np.minimum(symbols, 3)
        gone = np.where(symbols == 0, size * size, symbols - size)
        count += np.bincount(cell, minlength=count.size).reshape(count.shape)
        total += np.bincount(cell, gone, count.size).reshape(count.shape)
    mean = total / np.maximum(count, 1)
    few = count < 200
    mean[few] = np.broadcast_to(total.sum(0) / np.maximum(count.sum(0), 1), mean.shape)[few]
    return torch.from_numpy(mean[:, 1:]).float(), torch.from_numpy(np.sqrt(mean[:, 0])).float()


def measure(codec: Audio, folder: str, qualities: tuple[int, ...] = (20, 35, 50, 75)) -> dict[str, float]:
    """Mean kb/s (container included) and mean SNR in dB over the sounds of a folder."""
    results = {}
    for quality in qualities:
        kbps, snr = [], []
        for path in list_sounds(folder):
            x, rate = _load(path)
            x = x[:, : 10 * rate]
            stream = codec.encode(torch.from_numpy(x)[None], rate, quality)[0]
            y = codec.decode([stream])[0].numpy()
            kbps.append(len(stream) * 8 / (x.shape[1] / rate) / 1000)
            snr.append(10 * math.log10(np.square(x).sum() / max(float(np.square(x - y).sum()), 1e-12)))
        results |= {
            f"q{quality}_kbps": round(float(np.mean(kbps)), 2),
            f"q{quality}_snr_db": round(float(np.mean(snr)), 2),
        }
    return results
