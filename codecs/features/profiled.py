"""Rows under a fitted profile as bytes that decode alone: what caches and stores of embeddings are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import blocks
from . import profile as profiles
from . import rows as rows_
from .profile import Profile


def encode(profile: Profile, step: float, x: Tensor) -> bytes:
    """Rows (N, D) float32, finite, quantised with a step (a float32 number)."""
    prior = _prior(profile, step)
    y = profile.transform.forward(x).contiguous().numpy()
    return blocks.encode_rows(rows_.quantise(y, step, prior=prior)[0], prior)


def quantised(profile: Profile, step: float, x: Tensor) -> tuple[rows_.Rows, Tensor]:
    """What of rows (N, D) is coded, see `coded`, and what it decodes to (N, D) float32."""
    y = profile.transform.forward(x).contiguous().numpy()
    rows, recon = rows_.quantise(y, step, prior=_prior(profile, step))
    return rows, profile.transform.inverse(torch.from_numpy(recon), profile.channels)


def coded(profile: Profile, step: float, rows: rows_.Rows) -> bytes:
    """Bytes of what `quantised` gave: together they are `encode`."""
    return blocks.encode_rows(rows, _prior(profile, step))


def decode(profile: Profile, step: float, data: bytes, count: int, components: int | None = None) -> Tensor:
    """Inverse of `encode` for so many rows; of the first components only, where asked for.

    Raises:
        FormatError: the bytes are corrupt.
    """
    depth = None if components is None else min(components, len(profile.basis))
    rows = blocks.decode_rows(data, count, len(profile.basis), depth, _prior(profile, step))
    return profile.transform.inverse(torch.from_numpy(rows_.reconstruct(rows, step)), profile.channels)


def shorten(profile: Profile, step: float, data: bytes, count: int, components: int) -> bytes:
    """What `encode` made, with the first components only; decodes to what `decode` gives for as many."""
    k, prior = len(profile.basis), _prior(profile, step)
    depth = min(components, k)
    rows = blocks.decode_rows(data, count, k, depth, prior)
    for numbers in (rows.family, rows.alpha):
        numbers[depth:] = 0
    rows.level[:, depth:] = 0
    return blocks.encode_rows(rows, prior)


def _prior(profile: Profile, step: float) -> Any:
    return profile.levels(max(-32768, min(32767, profiles.step_offset(step))))
