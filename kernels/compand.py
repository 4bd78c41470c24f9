"""Gaussian companding of WaLLoC (arXiv 2412.09405): an unbounded coefficient onto a bounded uniform grid and back.

With ``m = 2**(bits - 1) - 1``, ``s = m / 1.85`` and ``M = m + 0.499``::

    compand(y) = M * erf(y / (s * sqrt(2)))            in (-M, M), so that round() gives -m ... m
    expand(z)  = s * Phi^-1(clamp(z / (2 M) + 1/2, 1e-4, 0.9999))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def constants(bits: int) -> tuple[float, float]:
    """s and M of the module's text."""
    m = (1 << (bits - 1)) - 1
    return m / 1.85, m + 0.499


def compand(y: Tensor, bits: int = 8) -> Tensor:
    """Coefficients of any shape, float -> same shape in (-M, M), M = 2**(bits - 1) - 0.501."""
    s, limit = constants(bits)
    return limit * torch.erf(y * (1 / (s * math.sqrt(2))))


def expand(z: Tensor, bits: int = 8) -> Tensor:
    """Inverse of `compand` on real values in (-M, M); differentiable, used in training."""
    s, limit = constants(bits)
    p = (z * (1 / (2 * limit)) + 0.5).clamp(1e-4, 0.9999)
    return s * torch.special.ndtri(p.float()).to(z.dtype)


def expand_table(bits: int = 8) -> Tensor:
    """`expand` of every integer latent: (2**bits - 1,) float32, entry ``i`` for the latent ``i - m``."""
    m = (1 << (bits - 1)) - 1
    return expand(torch.arange(-m, m + 1, dtype=torch.float64), bits).float()
