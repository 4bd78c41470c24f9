"""Wavelet packets along one axis as block products: J levels are one filter bank with hop 2**J."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pywt

from .block_operator import BlockOperator

Mode = Literal["periodization", "symmetric"]


def _filter_bank(wavelet: str) -> Any:
    """Taps (dec_lo, dec_hi, rec_lo, rec_hi), all of one even length."""
    return pywt.Wavelet(wavelet).filter_bank  # type: ignore[attr-defined]


def _level_matrices(n: int, wavelet: str, mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Exact one-level analysis and synthesis matrices (n, n) in float64; rows [A; D]. ``n`` is even."""
    bank = _filter_bank(wavelet)
    dec, rec = np.array(bank[:2]), np.array(bank[2:])
    half = dec.shape[1] // 2

    def index(i: int) -> int:
        if mode == "periodization":
            return i % n
        period = max(2 * n - 2, 1)
        i %= period
        return i if i < n else period - i

    analysis = np.zeros((n, n))
    for band in range(2):
        for k in range(n // 2):
            for j, tap in enumerate(dec[band]):
                analysis[band * (n // 2) + k, index(2 * k + half - j)] += tap
    if mode == "symmetric":
        return analysis, np.linalg.inv(analysis)
    synthesis = np.zeros((n, n))
    for band in range(2):
        for k in range(n // 2):
            for j, tap in enumerate(rec[band]):
                synthesis[(2 * k + j - half + 1) % n, band * (n // 2) + k] += tap
    return analysis, synthesis


def _check_symmetric(wavelet: str) -> None:
    for taps in np.array(_filter_bank(wavelet)[:2]):
        support = np.flatnonzero(np.abs(taps) > 1e-12)
        taps = taps[support[0] : support[-1] + 1]
        if len(taps) % 2 == 0 or not np.allclose(taps, taps[::-1]):
            raise ValueError(f"mode 'symmetric' needs odd-length symmetric filters such as bior4.4, not {wavelet!r}")


@lru_cache(maxsize=64)
def _packet_matrix(n_blocks: int, levels: int, wavelet: str, mode: Mode, inverse: bool) -> np.ndarray:
    """Dense J-level packet on ``n_blocks * 2**levels`` samples; coefficient order [block, band]."""
    n = n_blocks << levels
    total = np.eye(n)
    for level in range(levels):
        size = n >> level
        a, s = _level_matrices(size, wavelet, mode)
        # the signal so far lies as 2**level bands of `size` samples
        step = np.kron(np.eye(1 << level), s if inverse else a)
        total = total @ step if inverse else step @ total
    order = np.arange(n).reshape(1 << levels, n_blocks).T.ravel()  # [band, block] -> [block, band]
    return total[:, order] if inverse else total[order]


@lru_cache(maxsize=64)
def packet_operator(levels: int, wavelet: str, mode: Mode, inverse: bool) -> BlockOperator:
    """One stage along one axis, up to `_STAGE` levels."""
    if mode == "symmetric":
        _check_symmetric(wavelet)
    step = 1 << levels
    return BlockOperator(lambda n: _packet_matrix(n, levels, wavelet, mode, inverse), step, step)
