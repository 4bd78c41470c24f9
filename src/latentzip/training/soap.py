"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv 2409.11321).

A matrix of weights keeps the second moments of its gradient's rows and columns; Adam runs in the basis of their
eigenvectors, which a step of power iteration and a QR decomposition refresh every few steps. Where gradients of
features are correlated, as in the 1x1 products of the trunks, it needs far fewer steps for some more arithmetic each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SOAP(torch.optim.Optimizer):
    """Weights of two or more axes, taken as matrices (O, the rest), get SOAP; all others are left to plain Adam.

    Args:
        params: parameters or groups, as other optimisers take them.
        lr: step.
        betas: decay of the first and of the second moments.
        smallest, largest: sides of a matrix that are rotated; a matrix with a side below ``smallest`` is left to Adam,
            a side above ``largest`` keeps its axes, since its products would cost more than they bring.
        every: steps between refreshed bases.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        smallest: int = 16,
        largest: int = 512,
        every: int = 10,
    ) -> None:
        rest = {"betas": betas, "eps": eps, "smallest": smallest, "largest": largest, "every": every}
        super().__init__(params, {"lr": lr, **rest})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; a parameter's first one only makes its bases."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    grad = p.grad.flatten(1) if p.ndim > 1 else p.grad
                    self._update(p, grad, self.state[p], group)
        return loss

    @staticmethod
    def _update(p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"] = torch.tensor(0)
            state["first"], state["second"] = torch.zeros_like(grad), torch.zeros_like(grad)
            rotated = p.ndim > 1 and min(grad.shape) >= group["smallest"]
            for side in ("rows", "columns"):
                n = grad.shape[0 if side == "rows" else -1]
                if rotated and n <= group["largest"]:
                    state[f"moment_{side}"], state[f"basis_{side}"] = grad.new_zeros(n, n), torch.eye(n).to(grad)
        state["step"] += 1
        count, (decay1, decay2) = int(state["step"]), group["betas"]
        if "moment_rows" in state:
            state["moment_rows"].addmm_(grad, grad.t(), beta=decay2, alpha=1 - decay2)
        if "moment_columns" in state:
            state["moment_columns"].addmm_(grad.t(), grad, beta=decay2, alpha=1 - decay2)
        state["first"].lerp_(grad, 1 - decay1)
        if count == 1:
            _refresh(state, first=True)
        turned = _turn(grad, state)
        state["second"].mul_(decay2).addcmul_(turned, turned, value=1 - decay2)
        if count == 1 and _is_rotated(state):
            return  # the basis was made of this very gradient: in it, nothing but noise would be divided by
        scale = (state["second"] / (1 - decay2**count)).sqrt_().add_(group["eps"])
        change = _turn(_turn(state["first"], state) / scale, state, back=True)
        p.add_(change.view(p.shape), alpha=-group["lr"] / (1 - decay1**count))
        if count % group["every"] == 0:
            _refresh(state)


def _is_rotated(state: dict[str, Any]) -> bool:
    return "basis_rows" in state or "basis_columns" in state


def _turn(matrix: Tensor, state: dict[str, Any], back: bool = False) -> Tensor:
    """Into the basis of eigenvectors, or back."""
    if "basis_rows" in state:
        basis = state["basis_rows"]
        matrix = (basis if back else basis.t()) @ matrix
    if "basis_columns" in state:
        basis = state["basis_columns"]
        matrix = matrix @ (basis.t() if back else basis)
    return matrix


def _refresh(state: dict[str, Any], first: bool = False) -> None:
    """Bring the bases nearer to the eigenvectors, the largest first."""
    for axis, side in enumerate(("rows", "columns")):
        if f"basis_{side}" not in state:
            continue
        moment, basis = state[f"moment_{side}"], state[f"basis_{side}"]
        if first:
            basis.copy_(torch.linalg.eigh(moment.double()).eigenvectors.flip(1))
            continue
        product = moment @ basis
        order = (basis * product).sum(0).argsort(descending=True)
        state["second"].copy_(state["second"].index_select(axis, order))
        basis.copy_(torch.linalg.qr(product[:, order]).Q)
