"""Training one step's network in floating point, and rounding it to integers.

Works on plain arrays: inputs a (F, n), as the taps read them, and the symbols (n,) to be predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import net

# scale class k stands for the logistic scale exp(CLASS_LOW + k CLASS_STEP)
CLASS_LOW, CLASS_STEP, CLASSES = -4.2, 0.2, 41
LEARNING_RATE = 2.5e-2


def pursue(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], count: int) -> list[int]:
    """Orthogonal matching pursuit: the rows of x (F, n) that together best explain y (n,)."""
    x = x - x.mean(1, keepdims=True)
    x /= x.std(1, keepdims=True) + 1e-3
    y = y - y.mean()
    gram, b = (x @ x.T).astype(np.float64) / y.size, (x @ y).astype(np.float64) / y.size
    chosen: list[int] = []
    rest = b.copy()
    for _ in range(min(count, x.shape[0])):
        score = np.abs(rest)
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        w = np.linalg.solve(gram[np.ix_(chosen, chosen)] + 1e-3 * np.eye(len(chosen)), b[chosen])
        rest = b - gram[:, chosen] @ w
    return chosen


def ridge(x: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Weights (F + 1,) of the least squares fit of y to the rows of x and a constant."""
    x1 = np.concatenate([x, np.ones((1, x.shape[1]), np.float32)])
    gram = (x1 @ x1.T).astype(np.float64)
    gram[np.diag_indices_from(gram)] += 1e-3 * x1.shape[1]
    return np.linalg.solve(gram, (x1 @ y.astype(np.float32)).astype(np.float64))


def train(
    a: npt.NDArray[np.float32], symbols: npt.NDArray[np.int32], hidden: int, opt: Any, rng: Any
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Minimise the code length under a discretised mixture of two logistics about one mean.

    Returns the float parameters in terms of the raw inputs (w1, b1, wl, w2, b) and the bits a symbol.
    """
    import torch
    from torch.nn import functional

    n = symbols.size
    centre, spread = a.mean(1), a.std(1) + 0.5
    x = torch.from_numpy(np.ascontiguousarray(((a - centre[:, None]) / spread[:, None]).T))
    y = torch.from_numpy(symbols.astype(np.float32))
    start = ridge(a, symbols)
    miss = symbols - start[:-1] @ a - start[-1]
    width = float(miss.std()) + 0.1  # the network says the mean in units of this, so one learning rate suits all
    with torch.no_grad():
        gen = torch.Generator().manual_seed(int(rng.integers(2**31)))
        f = a.shape[0]
        bound = 1 / max(1, f) ** 0.5
        w1 = (torch.rand(f, hidden, generator=gen) * 2 - 1) * bound
        b1 = (torch.rand(hidden, generator=gen) * 2 - 1) * bound
        wl = torch.zeros(f, 2)
        wl[:, 0] = torch.from_numpy((start[:-1] * spread / width).astype(np.float32))
        w2 = torch.zeros(hidden, 2)
        first = [(start[-1] + start[:-1] @ centre) / width, np.log(0.4 * width)]
        b = torch.tensor(first, dtype=torch.float32)
        tail = torch.tensor([-3.0, 1.2])
    params = [w1, b1, wl, w2, b, tail]
    for p in params:
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(params, lr=LEARNING_RATE, fused=True)

    def bits(rows: Any) -> Any:
        xr = x[rows]
        out = xr @ wl + b
        if hidden:
            out = out + torch.relu(xr @ w1 + b1) @ w2
        d = -(y[rows] - width * out[:, 0]).abs()
        scale = out[:, 1].clamp(-4.5, 4.5)
        slope = torch.exp(-torch.stack([scale, scale + functional.softplus(tail[1])]))
        p = torch.sigmoid((d + 0.5) * slope) - torch.sigmoid((d - 0.5) * slope)
        share = torch.sigmoid(tail[0])
        p = (1 - share) * p[0] + share * p[1]
        return -torch.log2(p.clamp_min(1e-7)).mean()

    # coarse grids have few symbols and little weight in the whole
    steps = max(50, int(opt.steps * min(1.0, max(0.4, n / opt.samples))))
    for i in range(steps):
        lr = LEARNING_RATE * min(1.0, (steps - i) / steps * 1.5, (i + 1) / 30)
        for group in optimiser.param_groups:
            group["lr"] = lr
        rows = torch.from_numpy(rng.integers(0, n, min(opt.batch, n)))
        loss = bits(rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        cost = float(bits(torch.arange(min(n, 20000))))
        w1, b1, wl, w2, b = (p.double().numpy() for p in params[:5])
    unit = np.array([width, 1.0])
    w1, wl, w2, b = w1.T / spread, wl.T * unit[:, None] / spread, w2.T * unit[:, None], b * unit
    return {"w1": w1, "b1": b1 - w1 @ centre, "wl": wl, "w2": w2, "b": b - wl @ centre}, cost


def rounded_net(
    p: dict[str, npt.NDArray[np.float64]], a: npt.NDArray[np.float32], taps: npt.NDArray[np.int16]
) -> net.StepNet:
    """Float parameters -> integers within the bounds of exact arithmetic."""
    w1, b1 = p["w1"], p["b1"]
    factor = net.INPUT_MAX / np.maximum(np.abs(w1).max(1, initial=0), 1e-6)
    factor = np.minimum(factor, (1 << 21) / np.maximum(np.abs(b1), 1e-6))
    w1q = np.rint(w1 * factor[:, None])
    b1q = np.rint(b1 * factor)
    shift = np.zeros(len(b1), np.int64)
    if len(b1):
        pre = w1q.astype(np.float32) @ a[:, :: max(1, a.shape[1] // 20000)] + b1q[:, None].astype(np.float32)
        top = np.quantile(pre, 0.9995, axis=1)
        shift = np.ceil(np.log2(np.maximum(top, 1) / net.HIDDEN_MAX)).clip(0, 20).astype(np.int64)
    unit = np.array([1 << net.MEAN_BITS, (1 << net.CLASS_BITS) / CLASS_STEP])[:, None]
    w2 = p["w2"] * (2.0**shift / factor) * unit
    wl = p["wl"] * unit
    b = p["b"] * unit[:, 0]
    b[1] -= CLASS_LOW * unit[1, 0]
    # the floor after the hidden shift loses half a step on average
    b = b + 0.5 * (w2 * (shift > 0)).sum(1)
    room = net.EXACT - (1 << net.MEAN_BITS) - 64 * (net.INPUT_MAX + net.HIDDEN_MAX)
    sums = np.abs(wl).sum(1) * net.INPUT_MAX + np.abs(w2).sum(1) * net.HIDDEN_MAX + np.abs(b)
    fit_in = np.minimum(1.0, room / np.maximum(sums, 1))[:, None]
    limit = np.iinfo(np.int16).max
    return net.StepNet(
        taps=taps,
        w1=w1q.astype(np.int8),
        b1=b1q.astype(np.int32),
        s1=shift.astype(np.int8),
        wl=np.rint(wl * fit_in).clip(-limit, limit).astype(np.int16),
        w2=np.rint(w2 * fit_in).clip(-limit, limit).astype(np.int16),
        b=np.rint(b).astype(np.int32),
    )
