"""Lambda of codecs that do not say theirs: what a uniform quantiser of this step would be the best for."""

from __future__ import annotations

import math

import torch

from .piece import Piece, State

_SEED = 1


def natural_trade(piece: Piece, state: State) -> float:
    """Bits that an 8-bit squared error, summed over pixels, is worth at the operating point of a codec.

    At high rate a step d costs w d^2 / 12 in distortion and -log2 d in bits, so that the best step has
    lambda w d^2 = 6 / ln 2 (Sullivan & Wiegand 1998). w is measured: squared entries of the decoder's Jacobian, by
    one random probe, the median of the channels.
    """
    values = state.values.detach().requires_grad_(True)
    with torch.enable_grad():
        pixels = piece.decode(values)
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(_SEED)).to(pixels)
        (slope,) = torch.autograd.grad((pixels * noise).sum(), values)
    weight = (piece.inner(slope) * piece.step).square().mean((0, 2, 3)).median() * 255**2 / pixels.shape[1]
    return 6 / math.log(2) / max(float(weight), 1e-12)
