"""The metrics by modality, and how to add one.

    from latentzip.evaluation import Metric, register
    register(Metric("edges", "image", lambda signal, decoded: agreement(signal.data, decoded), label="Edge agreement"))

A metric is a function of the original `Signal` and of the decoded array; what it returns is averaged over the inputs.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ...entropy.errors import InputError
from ..signals import RATE_OF, Signal
from . import pictures as metrics
from . import sound as metrics_audio
from . import tensors as metrics_tensor


@dataclass(frozen=True)
class Metric:
    """One measure of what decoding changed.

    Attributes:
        name: of its column; unique within the modality.
        modality: "image", "audio" or "tensor".
        compute: (original, decoded array) -> a number; NaN where it is not defined.
        label, unit: as they are shown.
        higher_is_better: which way quality goes.
        on_curve: from the mean to the scale that curves are drawn and compared on, None for the mean itself.
        curve_label: of that scale.
        package: import name of what it needs; without it the metric is left out.
        about: the convention, in a sentence.
    """

    name: str
    modality: str
    compute: Callable[[Signal, np.ndarray], float]
    label: str = ""
    unit: str = ""
    higher_is_better: bool = True
    on_curve: Callable[[float], float] | None = None
    curve_label: str = ""
    package: str = ""
    about: str = ""

    @property
    def installed(self) -> bool:
        """Whether the package it needs is there."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def curve_value(self, mean: float) -> float:
        """A mean on the scale of curves; NaN where there is none (a lossless PSNR is infinite)."""
        value = self.on_curve(mean) if self.on_curve else mean
        return value if math.isfinite(value) else math.nan


_METRICS: dict[tuple[str, str], Metric] = {}


def register(metric: Metric) -> Metric:
    """Make a metric known to `evaluate` under its name; returns it.

    Raises:
        InputError: an unknown modality, or a name that is taken.
    """
    if metric.modality not in RATE_OF:
        raise InputError(f"metric {metric.name!r} has modality {metric.modality!r}; one of {', '.join(RATE_OF)}")
    key = (metric.modality, metric.name)
    if key in _METRICS and _METRICS[key] != metric:
        raise InputError(f"the name {metric.name!r} of a metric for {metric.modality} signals is taken")
    _METRICS[key] = metric
    return metric


def metrics_for(modality: str, names: Iterable[str] | None = None) -> list[Metric]:
    """Metrics of a modality: the installed ones, or those named (names of other modalities are passed over).

    Raises:
        InputError: a name that no modality has, or a metric whose package is missing.
    """
    own = [m for m in _METRICS.values() if m.modality == modality]
    if names is None:
        return [m for m in own if m.installed]
    chosen = list(names)
    known = {name for _, name in _METRICS}
    for name in chosen:
        if name not in known:
            raise InputError(f"unknown metric {name!r}; known: {', '.join(sorted(known))}")
    wanted = [m for m in own if m.name in chosen]
    for metric in wanted:
        if not metric.installed:
            raise InputError(f"metric {metric.name} needs a package: pip install {metric.package}")
    return wanted


def _sound(function: Callable[..., float]) -> Callable[[Signal, np.ndarray], float]:
    return lambda s, y: function(s.data, y, s.rate)


def _plain(function: Callable[..., float]) -> Callable[[Signal, np.ndarray], float]:
    return lambda s, y: function(s.data, y)


for _metric in (
    Metric(
        "psnr", "image", _plain(metrics.psnr), "PSNR", "dB",
        about="over all samples of 8-bit RGB, averaged over pictures in dB",
    ),
    Metric(
        "ms_ssim", "image", _plain(metrics.ms_ssim), "MS-SSIM", on_curve=metrics.ms_ssim_db, curve_label="MS-SSIM, dB",
        package="pytorch_msssim",
        about="RGB, five scales, sides from 161 pixels; curves show -10 log10(1 - mean)",
    ),
    Metric(
        "ssimulacra2", "image", _plain(metrics.ssimulacra2), "SSIMULACRA 2", package="ssimulacra2",
        about="100 is the original, 90 visually lossless, 70 high, 50 medium, 30 low quality",
    ),
    Metric("snr", "audio", _plain(metrics_audio.snr), "SNR", "dB", about="over all samples and channels"),
    Metric("si_sdr", "audio", _plain(metrics_audio.si_sdr), "SI-SDR", "dB", about="scale-invariant, all channels"),
    Metric(
        "log_mel", "audio", _sound(metrics_audio.log_mel_distance), "log-mel distance", "dB", higher_is_better=False,
        about="mean absolute difference of 80-band log-mel spectrograms, 32 ms windows, floor at -80 dB",
    ),
    Metric(
        "pesq", "audio", _sound(metrics_audio.pesq), "PESQ", package="pesq", about="wide band, mono at 16 kHz: speech"
    ),
    Metric(
        "pesq_narrow", "audio", _sound(metrics_audio.pesq_narrow), "PESQ narrow", package="pesq",
        about="narrow band, mono at 8 kHz: speech",
    ),
    Metric(
        "visqol", "audio", _sound(metrics_audio.visqol), "ViSQOL", package="visqol",
        about="audio mode, mono at 48 kHz; visqol-python",
    ),
    Metric("stoi", "audio", _sound(metrics_audio.stoi), "STOI", package="pystoi", about="mono at 10 kHz: speech"),
    Metric("sqnr", "tensor", _plain(metrics_tensor.sqnr), "SQNR", "dB", about="variance over mean squared error"),
    Metric("mse", "tensor", _plain(metrics_tensor.mse), "MSE", higher_is_better=False),
    Metric(
        "cosine", "tensor", _plain(metrics_tensor.cosine), "cosine similarity",
        on_curve=lambda v: -10 * math.log10(max(1 - v, 1e-10)), curve_label="cosine, dB",
        about="of rows along the last axis; curves show -10 log10(1 - mean)",
    ),
):  # fmt: skip
    register(_metric)
