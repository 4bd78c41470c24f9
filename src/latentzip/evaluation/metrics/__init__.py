"""Metrics by kind of signal, their registry, and comparison of curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entropy.lazy import exports

if TYPE_CHECKING:
    from .pictures import ms_ssim, ms_ssim_db, psnr
    from .registry import Metric, metrics_for, register

__all__ = ["Metric", "metrics_for", "ms_ssim", "ms_ssim_db", "psnr", "register"]

_HOMES = {
    "pictures": (
        "ms_ssim",
        "ms_ssim_db",
        "psnr",
    ),
    "registry": (
        "Metric",
        "metrics_for",
        "register",
    ),
}
__getattr__, __dir__ = exports(__name__, _HOMES)
