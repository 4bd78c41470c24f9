"""Latents while they are fitted: soft rounding with noise (Agustsson and Theis, 2020), and their Adam step."""

from __future__ import annotations

import math

from .constants import GAIN
from .jit import compiled
from .maths import f4, floor, tanh

_GAIN = f4(GAIN)


@compiled
def soften(latent, noise, sigma, temperature, out, slope):  # type: ignore[no-untyped-def]
    """out = s(s(GAIN latent) + sigma noise), s being soft rounding; slope = d out / d latent."""
    inverse = f4(1) / temperature
    k = f4(0.5) / tanh(f4(0.5) * inverse)
    for p in range(len(latent)):
        x = latent[p] * _GAIN
        f = floor(x)
        t = tanh((x - f - f4(0.5)) * inverse)
        d = k * (f4(1) - t * t) * inverse
        u = f + f4(0.5) + k * t + sigma * noise[p]
        f = floor(u)
        t = tanh((u - f - f4(0.5)) * inverse)
        out[p] = f + f4(0.5) + k * t
        slope[p] = _GAIN * d * k * (f4(1) - t * t) * inverse


@compiled
def adam(latent, grad, slope, m, v, rate, beta1, beta2, c1, c2):  # type: ignore[no-untyped-def]
    """One step of Adam along grad * slope; c1, c2: 1 / (1 - beta**step)."""
    for p in range(len(latent)):
        g = grad[p] * slope[p]
        a = m[p] + (f4(1) - beta1) * (g - m[p])
        b = v[p] + (f4(1) - beta2) * (g * g - v[p])
        m[p] = a
        v[p] = b
        latent[p] -= rate * (a * c1) / (math.sqrt(b * c2) + f4(1e-8))
