"""SOAP (Vyas et al., 2024) for small matrices: Adam in the eigenbases of the gradients' row and column covariances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .nets import Floats, Nets

_EPS = np.float32(1e-8)  # much less, and directions without gradient walk at random
_CLIP = 0.1


@dataclass
class _State:
    m: Floats
    v: Floats
    left: Floats | None = None
    right: Floats | None = None
    basis_left: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    basis_right: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))


class Soap:
    """Optimiser of `Nets`.

    Args:
        nets: what is changed in place.
        betas: decay of mean and variance; the second one also of the covariances.
        eager: so many first steps renew the bases each time; afterwards every ``every``-th does.
    """

    def __init__(self, nets: Nets, betas: tuple[float, float] = (0.95, 0.95), eager: int = 50, every: int = 5) -> None:
        self.nets, self.betas, self.eager, self.every = nets, betas, eager, every
        self.restart()

    def restart(self) -> None:
        """Forget all moments."""
        self.step_number = 0
        self._states: dict[str, _State] = {}

    def step(self, grads: Nets, rate: float) -> None:
        """One step along gradients, whose norm over all weights is clipped to 0.1 first."""
        norm = float(np.linalg.norm(grads.flat))
        if not np.isfinite(norm):
            return
        scale = np.float32(min(1.0, _CLIP / max(norm, 1e-30)))
        self.step_number += 1
        t, (b1, b2) = self.step_number, self.betas
        c1, c2 = np.float32(1 / (1 - b1**t)), np.float32(1 / (1 - b2**t))
        for name, weight in self.nets.items():
            g = (grads[name] * scale).reshape(weight.shape[0], -1) if weight.ndim > 1 else grads[name] * scale
            state = self._states.get(name)
            if state is None:
                state = self._states[name] = self._begin(g)
            state.m += np.float32(1 - b1) * (g - state.m)
            update = self._direction(state, g, c1, c2)
            weight -= np.float32(rate) * update.reshape(weight.shape)

    @staticmethod
    def _begin(g: Floats) -> _State:
        state = _State(np.zeros_like(g), np.zeros_like(g))
        if g.ndim > 1:
            state.left, state.right = g @ g.T, g.T @ g
            tiny = np.float32(1e-30)
            state.basis_left = np.linalg.eigh(state.left + tiny * np.eye(len(state.left), dtype=np.float32))[1]
            state.basis_right = np.linalg.eigh(state.right + tiny * np.eye(len(state.right), dtype=np.float32))[1]
        return state

    def _direction(self, s: _State, g: Floats, c1: Any, c2: Any) -> Floats:
        rest = np.float32(1 - self.betas[1])
        if s.left is None or s.right is None:
            s.v += rest * (g * g - s.v)
            return (s.m * c1) / (np.sqrt(s.v * c2) + _EPS)
        turned, mean = s.basis_left.T @ g @ s.basis_right, s.basis_left.T @ s.m @ s.basis_right
        s.v += rest * (turned * turned - s.v)
        u = s.basis_left @ ((mean * c1) / (np.sqrt(s.v * c2) + _EPS)) @ s.basis_right.T
        s.left += rest * (g @ g.T - s.left)
        s.right += rest * (g.T @ g - s.right)
        if 1 < self.step_number <= self.eager or self.step_number % self.every == 0:  # one step of orthogonal iteration
            s.basis_left = np.linalg.qr(s.left @ s.basis_left)[0]
            s.basis_right = np.linalg.qr(s.right @ s.basis_right)[0]
        return u
