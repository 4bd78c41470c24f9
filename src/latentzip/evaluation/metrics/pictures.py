"""Distortion between two 8-bit pictures, as the literature computes it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .arrays import pictures

Image = npt.NDArray[np.uint8]


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio in dB over all samples of (H, W, C) uint8 pictures; inf when equal."""
    a, b = pictures(a, b)
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(a: Image, b: Image) -> float:
    """Multi-scale SSIM (Wang et al. 2003) in [0, 1], by pytorch-msssim; NaN below 161 pixels a side, where its five
    scales do not fit."""
    import torch
    from pytorch_msssim import ms_ssim as compute

    a, b = pictures(a, b)
    if min(a.shape[:2]) < 161:
        return math.nan
    x, y = (torch.from_numpy(np.array(i)).permute(2, 0, 1)[None].float() for i in (a, b))
    return float(compute(x, y, data_range=255.0))


def ms_ssim_db(value: float) -> float:
    """-10 log10(1 - MS-SSIM), the scale on which curves are drawn."""
    return -10 * math.log10(max(1 - value, 1e-10))


def ssimulacra2(a: Image, b: Image) -> float:
    """SSIMULACRA 2 by the package ``ssimulacra2``: 100 is the original, 90 visually lossless, 70 high, 50 medium,
    30 low quality; NaN below 8 pixels a side."""
    import io

    from PIL import Image as Pillow
    from ssimulacra2 import compute_ssimulacra2  # pyright: ignore[reportMissingImports]

    a, b = pictures(a, b)
    if min(a.shape[:2]) < 8:
        return math.nan
    files = []
    for pixels in (a, b):  # the package takes files
        files.append(io.BytesIO())
        Pillow.fromarray(pixels).save(files[-1], "BMP")
    return float(compute_ssimulacra2(*files))
